// Real gRPC channels of a ChannelHub against real backends; the endpoints are set by hand.
#include "conclave/discovery/channel_hub.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conclave/discovery/channel.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/tests/discovery/calls.h"
#include "conclave/tests/discovery/greeter_backend.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using examples::Greeter;
using examples::GreetReply;
using examples::GreetRequest;
using testing::Answer;
using testing::Call;
using testing::GreeterBackend;
using testing::Load;
using testing::WaitFor;

class ChannelHubTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto hub = ChannelHub::Create(nullptr);
    ASSERT_TRUE(hub.ok()) << hub.status();
    hub_ = *std::move(hub);
  }
  std::unique_ptr<Greeter::Stub> Stub(std::string_view service, const DialOptions& options = {}) {
    auto opened =
        hub_->Open(service, ClusterOf(service), grpc::InsecureChannelCredentials(), options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return Greeter::NewStub(opened->channel);
  }
  void Set(std::string_view service, const std::vector<std::string>& addresses) {
    hub_->SetEndpoints(ClusterOf(service), xds::EndpointSet::FromAddresses(addresses, nullptr));
  }

  std::shared_ptr<ChannelHub> hub_;
};

TEST_F(ChannelHubTest, CallsSpreadEvenlyOverTheBackends) {
  std::vector<std::unique_ptr<GreeterBackend>> backends;
  std::vector<std::string> addresses;
  for (int i = 0; i < 4; ++i) {
    backends.push_back(std::make_unique<GreeterBackend>());
    addresses.push_back(backends.back()->address());
  }
  Set("greeter", addresses);
  auto stub = Stub("greeter");
  // Until all four are connected.
  std::map<std::string, int> warm;
  ASSERT_TRUE(WaitFor([&] {
    const Answer answer = Call(*stub);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    ++warm[answer.backend];
    return warm.size() == 4;
  }));
  std::map<std::string, int> counts;
  for (int i = 0; i < 4000; ++i) {
    const Answer answer = Call(*stub);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    ++counts[answer.backend];
  }
  for (const auto& [backend, count] : counts) {
    EXPECT_GE(count, 900) << backend;
    EXPECT_LE(count, 1100) << backend;
  }
}

TEST_F(ChannelHubTest, AnEmptyServiceFailsFastAndIsNamed) {
  Set("my-service", {});
  auto stub = Stub("my-service");
  const absl::Time begun = absl::Now();
  const Answer answer = Call(*stub);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(answer.status.error_message(), ::testing::HasSubstr("my-service"));
  EXPECT_LT(absl::Now() - begun, absl::Seconds(2));
}

TEST_F(ChannelHubTest, WaitForReadyWaitsForTheFirstEndpoint) {
  Set("s", {});
  auto stub = Stub("s");
  ASSERT_EQ(Call(*stub).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  Answer answer;
  std::thread caller([&] { answer = Call(*stub, /*wait_for_ready=*/true); });
  GreeterBackend backend;
  Set("s", {backend.address()});
  caller.join();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.backend, backend.address());
}

TEST_F(ChannelHubTest, UntilTheServiceIsKnownCallsWaitAndDoNotFail) {
  auto stub = Stub("s");
  Answer answer;
  std::thread caller([&] { answer = Call(*stub); });
  ASSERT_TRUE(WaitFor([&] { return hub_->stats().acks >= 2; })) << "listener and cluster are known";
  GreeterBackend backend;
  Set("s", {backend.address()});
  caller.join();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
}

TEST_F(ChannelHubTest, OddNamesAreServices) {
  GreeterBackend backend;
  for (const std::string name : {"team/greeter", "white space", "Größe", "a:b@c?d#e%f",
                                 "xdstp://x/y", "..", "-", "\"{}\\", "a\"b", "a%22b", "\xff\n"}) {
    Set(name, {backend.address()});
    auto stub = Stub(name);
    const Answer answer = Call(*stub);
    EXPECT_TRUE(answer.status.ok()) << name << ": " << answer.status.error_message();
  }
}

TEST(ClusterNameTest, DifferentServicesHaveDifferentNamesThatGrpcCanQuote) {
  EXPECT_EQ(ClusterOf("team/my-service"), "team/my-service");
  EXPECT_EQ(ClusterOf("a\"b"), "a%22b");
  EXPECT_EQ(ClusterOf("a%22b"), "a%2522b");
  EXPECT_EQ(ClusterOf("a\\\n\xff"), "a%5C%0A%FF");
}

TEST_F(ChannelHubTest, TwoChannelsOfOneServiceAndItsNamesakes) {
  GreeterBackend one;
  GreeterBackend two;
  Set("a", {one.address()});
  Set("a-1", {two.address()});
  auto first = Stub("a");
  auto second = Stub("a");
  auto other = Stub("a-1");
  EXPECT_EQ(Call(*first).backend, one.address());
  EXPECT_EQ(Call(*second).backend, one.address());
  EXPECT_EQ(Call(*other).backend, two.address());
}

TEST_F(ChannelHubTest, AKilledConnectionIsLeftAtOnceAndFoundAgainWhileNobodyCalls) {
  auto first = std::make_unique<GreeterBackend>();
  GreeterBackend second;
  const std::string address = first->address();
  Set("s", {address, second.address()});
  auto stub = Stub("s");
  ASSERT_TRUE(WaitFor([&] { return Call(*stub).backend == address; }));
  first->Stop();
  for (int i = 0; i < 100; ++i) {
    const Answer answer = Call(*stub);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  }
  first = std::make_unique<GreeterBackend>(address);
  ASSERT_TRUE(first->running());
  EXPECT_TRUE(WaitFor([&] { return Call(*stub).backend == address; }, absl::Seconds(5)));
}

TEST_F(ChannelHubTest, AddingRemovingAndReplacingAllBackendsUnderLoadFailsNoCall) {
  std::vector<std::unique_ptr<GreeterBackend>> backends;
  const auto addresses = [&backends] {
    std::vector<std::string> all;
    for (const auto& backend : backends) all.push_back(backend->address());
    return all;
  };
  const auto add = [&backends] { backends.push_back(std::make_unique<GreeterBackend>()); };
  for (int i = 0; i < 3; ++i) add();
  Set("s", addresses());
  auto opened = hub_->Open("s", "s", grpc::InsecureChannelCredentials(), {});
  ASSERT_TRUE(opened.ok());
  Load load(opened->channel);
  load.Progress(200, 2);
  for (int round = 0; round < 3; ++round) {
    // One joins and gets calls.
    add();
    Set("s", addresses());
    ASSERT_TRUE(WaitFor([&] { return backends.back()->calls() > 0; }));
    // One leaves: out of the set first, its last call a notice later, then it stops.
    std::unique_ptr<GreeterBackend> leaving = std::move(backends.front());
    backends.erase(backends.begin());
    Set("s", addresses());
    load.Progress(200, 2);
    leaving->Stop();
    load.Progress(100, 1);
    // All are replaced at once.
    std::vector<std::unique_ptr<GreeterBackend>> old = std::move(backends);
    backends.clear();
    for (int i = 0; i < 3; ++i) add();
    Set("s", addresses());
    ASSERT_TRUE(WaitFor([&] {
      return backends[0]->calls() > 0 && backends[1]->calls() > 0 && backends[2]->calls() > 0;
    }));
    load.Progress(200, 2);
    for (auto& backend : old) backend->Stop();
    load.Progress(100, 1);
  }
  load.Finish();
  EXPECT_THAT(load.failures(), ::testing::IsEmpty());
}

TEST_F(ChannelHubTest, BackendsThatStayAreNotReconnected) {
  GreeterBackend stays;
  GreeterBackend other;
  Set("s", {stays.address()});
  auto stub = Stub("s");
  const auto peer = [&] {
    grpc::ClientContext context;
    GreetRequest request;
    GreetReply reply;
    EXPECT_TRUE(stub->Greet(&context, request, &reply).ok());
    return reply.backend();
  };
  EXPECT_EQ(peer(), stays.address());
  // A stream that began before every change and ends after it.
  grpc::ClientContext context;
  examples::GreetManyRequest request;
  request.set_count(1'000'000);
  request.set_interval_ms(1);
  auto reader = stub->GreetMany(&context, request);
  GreetReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  for (int round = 0; round < 5; ++round) {
    Set("s", {stays.address(), other.address()});
    ASSERT_TRUE(WaitFor([&] { return peer() == other.address(); }));
    ASSERT_TRUE(reader->Read(&reply));
    Set("s", {stays.address()});
    const int before = other.calls();
    ASSERT_TRUE(WaitFor([&] {
      const int seen = other.calls();
      for (int i = 0; i < 4; ++i) peer();
      return other.calls() == seen;
    })) << before;
    ASSERT_TRUE(reader->Read(&reply)) << "the stream on the backend that stays lives on";
  }
  context.TryCancel();
  while (reader->Read(&reply)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ChannelHubTest, MoreThan1024CallsAtATimeAreNotDropped) {
  GreeterBackend backend;
  Set("s", {backend.address()});
  auto stub = Stub("s");
  ASSERT_TRUE(Call(*stub).status.ok());
  grpc::CompletionQueue queue;
  struct Pending {
    grpc::ClientContext context;
    GreetReply reply;
    grpc::Status status;
    std::unique_ptr<grpc::ClientAsyncResponseReader<GreetReply>> reader;
  };
  std::vector<std::unique_ptr<Pending>> calls;
  for (int i = 0; i < 2000; ++i) {
    auto call = std::make_unique<Pending>();
    call->reader = stub->AsyncGreet(&call->context, GreetRequest(), &queue);
    call->reader->Finish(&call->reply, &call->status, call.get());
    calls.push_back(std::move(call));
  }
  for (int i = 0; i < 2000; ++i) {
    void* tag;
    bool ok;
    ASSERT_TRUE(queue.Next(&tag, &ok));
    EXPECT_TRUE(static_cast<Pending*>(tag)->status.ok())
        << static_cast<Pending*>(tag)->status.error_message();
  }
}

TEST(PrivateDirectoryTest, IsForThisUserOnlyAndGoesWithItsObject) {
  auto directory = PrivateDirectory::Create();
  ASSERT_TRUE(directory.ok()) << directory.status();
  const std::string path = (*directory)->path();
  struct stat status {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  directory->reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(PrivateDirectoryTest, OfAKilledProcessIsRemovedByTheNextOneAndNoneThatIsInUse) {
  auto in_use = PrivateDirectory::Create();
  ASSERT_TRUE(in_use.ok()) << in_use.status();
  int report[2];
  ASSERT_EQ(pipe(report), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto left_behind = PrivateDirectory::Create();
    const std::string path = left_behind.ok() ? (*left_behind)->path() : "none";
    [[maybe_unused]] const ssize_t written = write(report[1], path.data(), path.size());
    _exit(0);  // as if killed: no destructor runs
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  char path[256] = {};
  ASSERT_GT(read(report[0], path, sizeof(path) - 1), 5);
  close(report[0]);
  close(report[1]);
  ASSERT_TRUE(std::filesystem::exists(path)) << path;
  auto next = PrivateDirectory::Create();
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_TRUE(std::filesystem::exists((*in_use)->path()));
}

TEST_F(ChannelHubTest, AChannelOutlivesTheHubWithTheEndpointsItKnew) {
  GreeterBackend backend;
  Set("s", {backend.address()});
  auto stub = Stub("s");
  ASSERT_TRUE(Call(*stub).status.ok());
  hub_.reset();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Call(*stub).status.ok());
}

}  // namespace
}  // namespace conclave
