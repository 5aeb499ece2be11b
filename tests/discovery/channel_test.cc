// Dial: from a name in the registry to calls on real backends, through every change of the set.
#include "conclave/discovery/channel.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/discovery/calls.h"
#include "conclave/tests/discovery/greeter_backend.h"
#include "conclave/tests/discovery/service_fixture.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using examples::Greeter;
using testing::Answer;
using testing::Call;
using testing::GreeterBackend;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Load;
using testing::ServerUnderTest;
using testing::TestCluster;
using testing::WaitFor;

class ChannelTest : public testing::ServiceFixture {
 protected:
  static void Put(const Client& client, const std::string& service, const std::string& address,
                  InstanceState state = InstanceState::kServing) {
    PutInstance(client, service, {.address = address, .state = state});
  }
  static void Delete(const Client& client, const std::string& service, const std::string& address) {
    DeleteInstance(client, service, address);
  }
  template <typename Source>
  static std::shared_ptr<grpc::Channel> MustDial(const Source& source, const std::string& service,
                                                 const DialOptions& options = {}) {
    auto channel = Dial(source, service, grpc::InsecureChannelCredentials(), options);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return channel.ok() ? *channel : nullptr;
  }
};

TEST_P(ChannelTest, CallsReachWhoeverEtcdctlRegistered) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  GreeterBackend backend;
  const auto put = testing::Etcdctl(
      *cluster,
      {"put", Name() + "/x", R"({"Addr":")" + backend.address() + R"(","Metadata":"..."})"});
  if (!put.ok()) GTEST_SKIP() << put.status();
  auto stub = Greeter::NewStub(MustDial(Connect(*cluster), "etcd:///" + Name()));
  const Answer answer = Call(*stub);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.backend, backend.address());
}

TEST_P(ChannelTest, AnEmptyServiceFailsFastAndWaitForReadyWaits) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  auto stub = Greeter::NewStub(MustDial(client, Name()));
  const absl::Time begun = absl::Now();
  Answer answer = Call(*stub);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(answer.status.error_message(), HasSubstr(Name()));
  EXPECT_LT(absl::Now() - begun, absl::Seconds(5));
  std::thread waiting([&] { answer = Call(*stub, /*wait_for_ready=*/true); });
  GreeterBackend backend;
  Put(client, Name(), backend.address());
  waiting.join();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
}

TEST_P(ChannelTest, ServicesWithOddNamesAndNamesakesAreToldApart) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Discovery discovery(client);
  std::map<std::string, std::unique_ptr<GreeterBackend>> backends;
  for (const std::string& name :
       {Name(), Name("b"), Name("/team/x"), Name(" with blanks"), Name("\"quoted\""), Name("ü")}) {
    auto& backend = backends[name] = std::make_unique<GreeterBackend>();
    Put(client, name, backend->address());
  }
  // "a/team/x" is also below the prefix "a/": that is what the protocol's naming says. Not so "ab".
  backends.erase(Name());
  for (const auto& [name, backend] : backends) {
    auto stub = Greeter::NewStub(MustDial(discovery, name));
    for (int i = 0; i < 10; ++i) {
      const Answer answer = Call(*stub);
      EXPECT_TRUE(answer.status.ok()) << name << ": " << answer.status.error_message();
      EXPECT_EQ(answer.backend, backend->address()) << name;
    }
  }
}

TEST_P(ChannelTest, AddressesThatCannotBeUsedCostNoOther) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  GreeterBackend backend;
  GreeterBackend draining;
  for (const std::string bad : {"10.0.0.1", "10.0.0.1:0", "no-such-host.invalid:80", "1.2.3:80",
                                "unix:/tmp/x", "[::1", "10.0.0.1:99999"}) {
    Put(client, Name(), bad);
  }
  Put(client, Name(), backend.address());
  Put(client, Name(), draining.address(), InstanceState::kDraining);
  ASSERT_TRUE(client.Put(Name("/twice"), EncodeNamingValue({.address = backend.address()})).ok());
  ASSERT_TRUE(client.Put(Name("/garbage"), "garbage").ok());
  auto stub = Greeter::NewStub(MustDial(client, Name()));
  for (int i = 0; i < 50; ++i) {
    const Answer answer = Call(*stub);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.backend, backend.address());
  }
}

TEST_P(ChannelTest, HostNamesAreResolved) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  GreeterBackend backend;
  Put(client, Name(), "localhost" + backend.address().substr(backend.address().rfind(':')));
  auto stub = Greeter::NewStub(MustDial(client, Name()));
  const Answer answer = Call(*stub, /*wait_for_ready=*/true);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
}

TEST_P(ChannelTest, AddingRemovingAndReplacingAllBackendsUnderLoadFailsNoCall) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  std::vector<std::unique_ptr<GreeterBackend>> backends;
  const auto add = [&] {
    backends.push_back(std::make_unique<GreeterBackend>());
    Put(client, Name(), backends.back()->address());
  };
  for (int i = 0; i < 3; ++i) add();
  Load load(MustDial(client, Name()));
  load.Progress(200, 2);
  // The notice between leaving the registry and the end: long enough when it sees no more new
  // calls.
  const auto leave = [&](std::unique_ptr<GreeterBackend> backend) {
    Delete(client, Name(), backend->address());
    ASSERT_TRUE(WaitFor([&] {
      const int calls = backend->calls();
      load.Progress(100, 1);
      return backend->calls() == calls;
    }));
    backend->Stop();
    load.Progress(50, 1);
  };
  for (int round = 0; round < 2; ++round) {
    add();
    ASSERT_TRUE(WaitFor([&] { return backends.back()->calls() > 0; })) << "one joins";
    std::unique_ptr<GreeterBackend> first = std::move(backends.front());
    backends.erase(backends.begin());
    leave(std::move(first));
    std::vector<std::unique_ptr<GreeterBackend>> old = std::move(backends);
    backends.clear();
    for (int i = 0; i < 3; ++i) add();
    for (const auto& backend : backends) {
      ASSERT_TRUE(WaitFor([&] { return backend->calls() > 0; })) << "all are replaced";
    }
    for (auto& backend : old) leave(std::move(backend));
  }
  load.Finish();
  EXPECT_THAT(load.failures(), IsEmpty());
}

TEST_P(ChannelTest, CallsGoOnWhileTheRegistryIsOutOfReach) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  GreeterBackend one;
  GreeterBackend two;
  Put(client, Name(), one.address());
  Load load(MustDial(client, Name()));
  load.Progress(100, 1);
  for (int member = 0; member < cluster->size(); ++member) cluster->Kill(member);
  load.Progress(500, 5);
  for (int member = 0; member < cluster->size(); ++member) {
    ASSERT_TRUE(cluster->Restart(member).ok());
  }
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  Put(client, Name(), two.address());
  EXPECT_TRUE(WaitFor([&] { return two.calls() > 0; }, absl::Seconds(20)))
      << "and the channel follows again";
  load.Finish();
  EXPECT_THAT(load.failures(), IsEmpty());
}

TEST_P(ChannelTest, AChannelKeepsAllThatItNeedsAlive) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  GreeterBackend one;
  GreeterBackend two;
  auto client = std::make_unique<Client>(Connect(*cluster));
  auto discovery = std::make_unique<Discovery>(*client);
  Put(*client, Name(), one.address());
  auto stub = Greeter::NewStub(MustDial(*discovery, Name()));
  discovery.reset();
  client.reset();
  EXPECT_EQ(Call(*stub).backend, one.address());
  Put(Connect(*cluster), Name(), two.address());
  EXPECT_TRUE(WaitFor([&] { return Call(*stub).backend == two.address(); }));
}

TEST_P(ChannelTest, ACallUnderWayOutlivesItsChannel) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  GreeterBackend backend;
  Client client = Connect(*cluster);
  Put(client, Name(), backend.address());
  auto channel = MustDial(client, Name());
  auto stub = Greeter::NewStub(channel);
  grpc::ClientContext context;
  examples::GreetManyRequest request;
  request.set_count(50);
  request.set_interval_ms(2);
  auto reader = stub->GreetMany(&context, request);
  examples::GreetReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  stub.reset();
  channel.reset();
  int replies = 1;
  while (reader->Read(&reply)) ++replies;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(replies, 50);
}

TEST_P(ChannelTest, AChangeReachesTheCallersWithinMilliseconds) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  auto before = std::make_unique<GreeterBackend>();
  Put(client, Name(), before->address());
  auto stub = Greeter::NewStub(MustDial(client, Name()));
  ASSERT_EQ(Call(*stub).backend, before->address());
  std::vector<absl::Duration> took;
  for (int round = 0; round < 21; ++round) {
    auto after = std::make_unique<GreeterBackend>();
    const absl::Time begun = absl::Now();
    Put(client, Name(), after->address());
    while (Call(*stub).backend != after->address()) {
    }
    took.push_back(absl::Now() - begun);
    Delete(client, Name(), before->address());
    ASSERT_TRUE(WaitFor([&] {
      const int calls = before->calls();
      for (int i = 0; i < 4; ++i) Call(*stub);
      return before->calls() == calls;
    }));
    before = std::move(after);
  }
  std::sort(took.begin(), took.end());
  std::cout << "from the put to the first call: median " << took[10] << ", worst " << took[20]
            << std::endl;
  EXPECT_LT(took[10], absl::Milliseconds(250));
}

TEST_P(ChannelTest, ChannelsComeAndGoByTheHundred) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  GreeterBackend backend;
  Client client = Connect(*cluster);
  Put(client, Name(), backend.address());
  Discovery discovery(client);
  for (int i = 0; i < 100; ++i) {
    auto stub = Greeter::NewStub(MustDial(discovery, Name()));
    ASSERT_EQ(Call(*stub).backend, backend.address()) << i;
  }
}

TEST_P(ChannelTest, RefusesWhatCannotBeDialed) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EXPECT_EQ(Dial(client, "", grpc::InsecureChannelCredentials()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Dial(client, "s", nullptr).status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Servers, ChannelTest, ::testing::ValuesIn(testing::AllServers()),
                         testing::ServerName);

}  // namespace
}  // namespace conclave
