// Dial's balancing: weights, zones, hash rings, outliers; with every change of the set under load
// in every style of calls.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/discovery/channel.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/discovery/echo_backend.h"
#include "conclave/tests/discovery/echo_load.h"
#include "conclave/tests/discovery/service_fixture.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using testing::Echo;
using testing::EchoBackend;
using testing::EchoLoad;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ServerUnderTest;
using testing::TestCluster;
using testing::WaitFor;

class DialOptionsTest : public testing::ServiceFixture {
 protected:
  static void Put(const Client& client, const Instance& instance) {
    PutInstance(client, Name(), instance);
  }
  static void Delete(const Client& client, const std::string& address) {
    DeleteInstance(client, Name(), address);
  }
  template <typename Source>
  static std::shared_ptr<grpc::Channel> MustDial(const Source& source, const DialOptions& options) {
    auto channel = Dial(source, Name(), grpc::InsecureChannelCredentials(), options);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return channel.ok() ? *channel : nullptr;
  }
  // The backend that a call reached, or the error.
  static std::string Call(Echo::Stub& stub, const std::string& header = "",
                          const std::string& value = "") {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
    if (!header.empty()) context.AddMetadata(header, value);
    testing::EchoReply reply;
    const grpc::Status status = stub.Unary(&context, {}, &reply);
    return status.ok() ? reply.backend() : "error: " + status.error_message();
  }
  static std::map<std::string, int> Count(Echo::Stub& stub, int calls) {
    std::map<std::string, int> counts;
    for (int i = 0; i < calls; ++i) ++counts[Call(stub)];
    return counts;
  }
  // Until calls reach exactly these.
  static bool Reaches(Echo::Stub& stub, const std::set<std::string>& backends) {
    return WaitFor(
        [&] {
          std::set<std::string> reached;
          for (int i = 0; i < 40; ++i) reached.insert(Call(stub));
          return reached == backends;
        },
        absl::Seconds(30));
  }
};

TEST_P(DialOptionsTest, CallsFollowTheWeights) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend heavy;
  EchoBackend heavy_too;
  EchoBackend light;
  EchoBackend unset;
  EchoBackend none;
  Put(client, {.address = heavy.address(), .weight = 300});
  Put(client, {.address = heavy_too.address(), .weight = 300});
  Put(client, {.address = light.address(), .weight = 50});
  Put(client, {.address = unset.address()});
  Put(client, {.address = none.address(), .weight = 0});
  auto stub = Echo::NewStub(MustDial(client, {.weighted = true}));
  ASSERT_TRUE(
      Reaches(*stub, {heavy.address(), heavy_too.address(), light.address(), unset.address()}));
  std::map<std::string, int> counts = Count(*stub, 3000);
  EXPECT_NEAR(counts[heavy.address()], 1200, 200);
  EXPECT_NEAR(counts[heavy_too.address()], 1200, 200);
  EXPECT_NEAR(counts[light.address()], 200, 100);
  EXPECT_NEAR(counts[unset.address()], 400, 130);
  EXPECT_EQ(none.calls(), 0);
}

TEST_P(DialOptionsTest, ChangesOfAllWeightsFailNoCall) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend one;
  EchoBackend two;
  Put(client, {.address = one.address(), .weight = 1});
  Put(client, {.address = two.address(), .weight = 1});
  auto channel = MustDial(client, {.weighted = true});
  EchoLoad load(channel);
  load.Progress(3);
  for (int64_t round = 0; round < 6; ++round) {
    Put(client, {.address = one.address(), .weight = 10 + round});
    Put(client, {.address = two.address(), .weight = round % 2 == 0 ? 0 : 500 - round});
    load.Progress(2);
  }
  load.Finish();
  EXPECT_THAT(load.failures(), IsEmpty());
  EXPECT_EQ(StatsOf(channel)->nacks, 0u);
}

TEST_P(DialOptionsTest, ThePreferredZoneIsLeftWhileItCannotBeReachedAndNoLonger) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  auto near = std::make_unique<EchoBackend>();
  EchoBackend far;
  EchoBackend nowhere;
  const std::string address = near->address();
  Put(client, {.address = address, .zone = "east"});
  Put(client, {.address = far.address(), .zone = "west"});
  Put(client, {.address = nowhere.address()});
  auto stub = Echo::NewStub(MustDial(client, {.prefer_zone = "east", .retries_max = 2}));
  EXPECT_TRUE(Reaches(*stub, {address}));
  EXPECT_EQ(far.calls(), 0);
  // It dies without a word: the registry still has it, gRPC finds out.
  near->Stop();
  EXPECT_TRUE(Reaches(*stub, {far.address(), nowhere.address()}));
  near = std::make_unique<EchoBackend>(address);
  ASSERT_TRUE(near->running());
  EXPECT_TRUE(Reaches(*stub, {address})) << "back home";
  // It leaves the registry: no priority is empty.
  Delete(client, address);
  EXPECT_TRUE(Reaches(*stub, {far.address(), nowhere.address()}));
  Put(client, {.address = address, .zone = "east"});
  EXPECT_TRUE(Reaches(*stub, {address}));
}

TEST_P(DialOptionsTest, MovingFromZoneToZoneFailsNoCall) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend east;
  EchoBackend west;
  Put(client, {.address = east.address(), .zone = "east"});
  Put(client, {.address = west.address(), .zone = "west"});
  EchoLoad load(MustDial(client, {.prefer_zone = "east"}));
  load.Progress(3);
  for (int round = 0; round < 3; ++round) {
    Delete(client, east.address());
    ASSERT_TRUE(WaitFor([&, before = west.calls()] { return west.calls() > before + 10; }));
    load.Progress(2);
    Put(client, {.address = east.address(), .zone = "east"});
    ASSERT_TRUE(WaitFor([&, before = east.calls()] { return east.calls() > before + 10; }));
    load.Progress(2);
  }
  load.Finish();
  EXPECT_THAT(load.failures(), IsEmpty());
}

TEST_P(DialOptionsTest, ARingHashKeepsAValueAtItsInstance) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  std::map<std::string, std::unique_ptr<EchoBackend>> backends;
  for (int i = 0; i < 4; ++i) {
    auto backend = std::make_unique<EchoBackend>();
    Put(client, {.address = backend->address()});
    backends[backend->address()] = std::move(backend);
  }
  const DialOptions options{.ring_hash = DialRingHash{.header = "x-user"}};
  const absl::Status status =
      Dial(client, Name(), grpc::InsecureChannelCredentials(), options).status();
  if (absl::IsUnimplemented(status)) {
    // A faulty gRPC: it is refused, and the message says what else there is.
    EXPECT_THAT(std::string(status.message()), HasSubstr(grpc::Version()));
    EXPECT_THAT(std::string(status.message()), HasSubstr("DialPicking"));
    return;
  }
  auto stub = Echo::NewStub(MustDial(client, options));
  const auto ask = [&](int user) { return Call(*stub, "x-user", "user-" + std::to_string(user)); };
  ASSERT_TRUE(WaitFor([&] {
    std::set<std::string> reached;
    for (int user = 0; user < 100; ++user) reached.insert(ask(user));
    return reached.size() == 4;
  }));
  std::map<int, std::string> home;
  std::map<std::string, int> users;
  for (int user = 0; user < 100; ++user) ++users[home[user] = ask(user)];
  EXPECT_EQ(users.size(), 4u);
  for (int user = 0; user < 100; ++user) EXPECT_EQ(ask(user), home[user]);
  // One leaves: its users move, and hardly anybody else.
  const std::string leaver = backends.begin()->first;
  Delete(client, leaver);
  ASSERT_TRUE(WaitFor([&] {
    for (int user = 0; user < 100; ++user) {
      if (home[user] == leaver && ask(user) == leaver) return false;
    }
    return true;
  }));
  int moved = 0;
  for (int user = 0; user < 100; ++user) moved += home[user] != leaver && ask(user) != home[user];
  EXPECT_LE(moved, 15);
  EXPECT_THAT(Call(*stub), Not(HasSubstr("error"))) << "without the header it goes anywhere";
}

TEST_P(DialOptionsTest, AnEmptiedSetMayFillAgain) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend one;
  EchoBackend two;
  auto channel = MustDial(client, {.prefer_zone = "east", .weighted = true});
  auto stub = Echo::NewStub(channel);
  for (int round = 0; round < 5; ++round) {
    Put(client, {.address = one.address(), .zone = "east", .weight = 5 + round});
    Put(client, {.address = two.address(), .weight = 7});
    EXPECT_TRUE(Reaches(*stub, {one.address()}));
    Delete(client, one.address());
    Delete(client, two.address());
    EXPECT_TRUE(WaitFor([&] { return Call(*stub).starts_with("error"); }));
  }
  EXPECT_EQ(StatsOf(channel)->nacks, 0u);
}

TEST_P(DialOptionsTest, ASickInstanceIsLeftAloneForAWhile) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  std::vector<std::unique_ptr<EchoBackend>> backends;
  std::set<std::string> healthy;
  for (int i = 0; i < 4; ++i) {
    backends.push_back(std::make_unique<EchoBackend>());
    Put(client, {.address = backends.back()->address()});
    if (i > 0) healthy.insert(backends.back()->address());
  }
  auto channel = MustDial(client, {.outlier = DialOutlier{.interval = absl::Milliseconds(200),
                                                          .base_ejection = absl::Seconds(2),
                                                          .max_ejection = absl::Seconds(2),
                                                          .failure_percent = 50,
                                                          .instances_min = 2,
                                                          .calls_min = 5}});
  auto stub = Echo::NewStub(channel);
  std::set<std::string> all = healthy;
  all.insert(backends[0]->address());
  ASSERT_TRUE(Reaches(*stub, all));
  backends[0]->Fail(true);
  EXPECT_TRUE(Reaches(*stub, healthy)) << "no call fails once it is ejected";
  backends[0]->Fail(false);
  EXPECT_TRUE(Reaches(*stub, all)) << "and it is given another chance";
  EXPECT_EQ(StatsOf(channel)->nacks, 0u);
}

TEST_P(DialOptionsTest, EveryGracefulChangeFailsNoCallInAnyStyle) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  std::vector<std::unique_ptr<EchoBackend>> backends;
  const auto add = [&] {
    backends.push_back(std::make_unique<EchoBackend>());
    Put(client, {.address = backends.back()->address()});
  };
  for (int i = 0; i < 3; ++i) add();
  EchoLoad load(MustDial(client, {}));
  load.Progress(3);
  // The notice between leaving the registry and the end: long enough when it sees no more new
  // calls.
  const auto leave = [&](std::unique_ptr<EchoBackend> backend, bool drain_first) {
    if (drain_first) {
      Put(client, {.address = backend->address(), .state = InstanceState::kDraining});
    } else {
      Delete(client, backend->address());
    }
    ASSERT_TRUE(WaitFor([&] {
      const int calls = backend->calls();
      load.Progress(2);
      return backend->calls() == calls;
    }));
    if (drain_first) Delete(client, backend->address());
    backend->Stop();
  };
  for (int round = 0; round < 2; ++round) {
    add();
    ASSERT_TRUE(WaitFor([&] { return backends.back()->calls() > 0; })) << "one joins";
    std::unique_ptr<EchoBackend> first = std::move(backends.front());
    backends.erase(backends.begin());
    leave(std::move(first), /*drain_first=*/round == 1);
    std::vector<std::unique_ptr<EchoBackend>> old = std::move(backends);
    backends.clear();
    for (int i = 0; i < 3; ++i) add();
    for (const auto& backend : backends) {
      ASSERT_TRUE(WaitFor([&] { return backend->calls() > 0; })) << "all are replaced";
    }
    for (auto& backend : old) leave(std::move(backend), /*drain_first=*/false);
  }
  load.Finish();
  EXPECT_THAT(load.failures(), IsEmpty());
}

TEST_P(DialOptionsTest, FiltersChooseWhoGetsCalls) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend stable;
  EchoBackend canary;
  Put(client, {.address = stable.address(), .version = "1.0"});
  Put(client, {.address = canary.address(), .version = "1.1", .tags = {"canary"}});
  Discovery discovery(client);
  auto all = Echo::NewStub(MustDial(discovery, {}));
  auto tagged = Echo::NewStub(MustDial(discovery, {.filter = {.tags = {"canary"}}}));
  auto untagged = Echo::NewStub(MustDial(discovery, {.filter = {.exclude_tags = {"canary"}}}));
  auto one = Echo::NewStub(MustDial(discovery, {.filter = {.max_instances = 1}}));
  EXPECT_TRUE(Reaches(*all, {stable.address(), canary.address()}));
  EXPECT_TRUE(Reaches(*tagged, {canary.address()}));
  EXPECT_TRUE(Reaches(*untagged, {stable.address()}));
  EXPECT_EQ(Count(*one, 50).size(), 1u);
}

TEST_P(DialOptionsTest, MoreEndpointsThanAChannelCanTakeAreLeftOutAndCounted) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  std::atomic<int> lines = 0;
  auto client = Client::Connect(
      {.endpoints = cluster->endpoints(), .log_sink = [&](LogLevel, std::string_view line) {
         lines += line.find("left out") != line.npos;
       }});
  ASSERT_TRUE(client.ok());
  EchoBackend backend;
  Put(*client, {.address = backend.address()});
  // 127.0.0.1 itself sorts before all of them, so it is among those that are kept.
  constexpr int kMore = 10'100;
  for (int begin = 0; begin < kMore;) {
    TxnRequest request;
    for (int i = 0; i < 100; ++i, ++begin) {
      const std::string address =
          "127." + std::to_string(1 + begin / 250) + ".1." + std::to_string(1 + begin % 250) + ":9";
      request.success.push_back(PutRequest{
          .key = InstanceKey(Name(), address),
          .value =
              EncodeNamingValue({.address = address, .tags = {begin < kMore - 1 ? "x" : "last"}})});
    }
    ASSERT_TRUE(client->Commit(request).ok());
  }
  Discovery discovery(*client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  ASSERT_TRUE(service
                  ->Wait([](const Snapshot& now) { return now.instances().size() == kMore + 1; },
                         {.timeout = absl::Seconds(60)})
                  .ok());
  lines = 0;
  auto channel = MustDial(discovery, {.args = [] {
                            grpc::ChannelArguments args;
                            return args;
                          }()});
  ASSERT_TRUE(WaitFor([&] { return StatsOf(channel)->endpoints == 10'000; }, absl::Seconds(30)));
  EXPECT_EQ(StatsOf(channel)->left_out, 101);
  EXPECT_LE(lines, 11) << "the log does not get a line for each";
  EXPECT_GE(lines, 2);
}

TEST_P(DialOptionsTest, StatsTellWhatIsKnown) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend backend;
  Put(client, {.address = backend.address()});
  Put(client, {.address = "no port"});
  auto channel = MustDial(client, {});
  ASSERT_EQ(Call(*Echo::NewStub(channel)), backend.address());
  // A member may list before it has both entries, and the callers may be ahead of the bookkeeping.
  absl::StatusOr<DialStats> stats;
  ASSERT_TRUE(WaitFor([&] {
    stats = StatsOf(channel);
    return stats.ok() && stats->left_out == 1 && stats->connected;
  })) << stats.status();
  EXPECT_EQ(stats->service, Name());
  EXPECT_EQ(stats->endpoints, 1);
  EXPECT_GE(stats->updates, 1u);
  EXPECT_GE(stats->responses, 3u);
  EXPECT_EQ(stats->nacks, 0u);
  EXPECT_TRUE(stats->last_error.empty());
  EXPECT_EQ(stats->state, GRPC_CHANNEL_READY);
  EXPECT_FALSE(stats->stale_since.has_value());
  ASSERT_TRUE(WaitFor([&] { return StatsOf(channel)->acks >= 3; }));
  EXPECT_EQ(StatsOf(grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials()))
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

TEST_P(DialOptionsTest, OptionsThatContradictOneAnotherAreRefused) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Discovery discovery(Connect(*cluster));
  const auto why = [&](const DialOptions& options) {
    const auto channel = Dial(discovery, "s", grpc::InsecureChannelCredentials(), options);
    EXPECT_EQ(channel.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(channel.status().message());
  };
  EXPECT_THAT(why({.filter = {.states = {InstanceState::kDown}}}), HasSubstr("states"));
  EXPECT_THAT(why({.filter = {.prefer_zone = "a"}, .prefer_zone = "b"}), HasSubstr("two ways"));
  EXPECT_THAT(why({.filter = {.zones = {"a"}}, .prefer_zone = "b"}), HasSubstr("not among"));
  EXPECT_THAT(why({.filter = {.tags = {"a"}, .exclude_tags = {"a"}}}), HasSubstr("tag"));
  EXPECT_THAT(why({.ring_hash = DialRingHash{}}), HasSubstr("header"));
  EXPECT_THAT(why({.ring_hash = DialRingHash{.header = "X-User"}}), HasSubstr("lower case"));
  EXPECT_THAT(why({.ring_hash = DialRingHash{.header = "x-bin"}}), HasSubstr("binary"));
  EXPECT_THAT(why({.ring_hash = DialRingHash{.header = "x", .ring_size_min = 1 << 24}}),
              HasSubstr("ring_size_min"));
  EXPECT_THAT(why({.outlier = DialOutlier{.failure_percent = 0}}), HasSubstr("nobody"));
  EXPECT_THAT(why({.outlier = DialOutlier{.failure_percent = 100}}), HasSubstr("below 100"));
  EXPECT_THAT(why({.outlier = DialOutlier{.max_ejected_percent = 101}}), HasSubstr("above 100"));
  EXPECT_THAT(why({.outlier = DialOutlier{.interval = absl::ZeroDuration()}}),
              HasSubstr("positive"));
  EXPECT_THAT(why({.outlier = DialOutlier{.calls_min = 0}}), HasSubstr("at least 1"));
  EXPECT_THAT(why({.retries_max = 5}), HasSubstr("retries_max"));
}

INSTANTIATE_TEST_SUITE_P(Servers, DialOptionsTest, ::testing::ValuesIn(testing::AllServers()),
                         testing::ServerName);

}  // namespace
}  // namespace conclave
