// What each policy and option of the picking channel does with real backends.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conclave/tests/discovery/picking/picking_fixture.h"

namespace conclave {
namespace {

using testing::BlockingUnary;
using testing::Echo;
using testing::EchoBackend;
using testing::Echoed;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::ServerUnderTest;
using testing::WaitFor;

class PickingPoliciesTest : public testing::PickingFixture {
 protected:
  // So many backends, registered with what `describe` says of each.
  template <typename Describe>
  void Start(const Client& client, int count, const Describe& describe) {
    for (int i = 0; i < count; ++i) {
      backends_.push_back(std::make_unique<EchoBackend>());
      Instance instance{.address = backends_.back()->address()};
      describe(i, &instance);
      Put(client, instance);
    }
  }
  void Start(const Client& client, int count) {
    Start(client, count, [](int, Instance*) {});
  }
  const std::string& address(int i) const { return backends_[i]->address(); }
  // Who answers so many calls.
  static std::map<std::string, int> Answers(const std::shared_ptr<grpc::ChannelInterface>& channel,
                                            int calls, const testing::EchoOptions& options = {}) {
    auto stub = Echo::NewStub(channel);
    std::map<std::string, int> answers;
    for (int i = 0; i < calls; ++i) {
      const Echoed echoed = BlockingUnary(*stub, options);
      EXPECT_TRUE(echoed.status.ok()) << echoed.status.error_message();
      ++answers[echoed.backend];
    }
    return answers;
  }

  std::vector<std::unique_ptr<EchoBackend>> backends_;
};

TEST_P(PickingPoliciesTest, WeightedRoundRobinFollowsWeightsAndTheirChanges) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 3, [](int i, Instance* instance) { instance->weight = std::array{5, 1, 0}[i]; });
  auto channel = MustDial(client, {.policy = picking::WeightedRoundRobin{}});
  WaitReady(*channel, 3);
  std::map<std::string, int> answers = Answers(channel, 60);
  EXPECT_EQ(answers[address(0)], 50);
  EXPECT_EQ(answers[address(1)], 10);
  EXPECT_EQ(answers[address(2)], 0);
  Put(client, {.address = address(2), .weight = 6});
  ASSERT_TRUE(WaitFor([&] { return StatsOf(*channel, address(2)).weight == 6; }));
  answers = Answers(channel, 120);
  EXPECT_EQ(answers[address(0)], 50);
  EXPECT_EQ(answers[address(1)], 10);
  EXPECT_EQ(answers[address(2)], 60);
}

TEST_P(PickingPoliciesTest, LeastRequestKeepsAwayFromABackendThatHangs) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 4);
  auto channel = MustDial(client, {.policy = picking::LeastRequest{.choices = 4}});
  WaitReady(*channel, 4);
  auto stub = Echo::NewStub(channel);
  // Streams that stay open make whoever has them busy: the first backend to get one gets all of
  // ours, since a picker of the test's own is not needed for that.
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReaderWriter<testing::EchoRequest, testing::EchoReply>>>
      streams;
  for (int i = 0; i < 8; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(stub->Chat(contexts.back().get()));
  }
  std::vector<int64_t> in_flight;
  for (const auto& backend : Stats(*channel).backends) in_flight.push_back(backend.in_flight);
  EXPECT_THAT(in_flight, ::testing::Each(::testing::AllOf(::testing::Ge(1), ::testing::Le(3))))
      << "levelled";
  // All but those of one backend end; the other three then get the calls.
  std::string busy;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(streams[i]->Write({}));
    testing::EchoReply reply;
    ASSERT_TRUE(streams[i]->Read(&reply));
    if (busy.empty()) busy = reply.backend();
    if (reply.backend() == busy) continue;
    streams[i]->WritesDone();
    EXPECT_TRUE(streams[i]->Finish().ok());
    streams[i].reset();
  }
  std::map<std::string, int> answers = Answers(channel, 100);
  EXPECT_LE(answers[busy], 3) << "four draws of the same";
  EXPECT_EQ(answers.size() - answers.count(busy), 3u);
}

TEST_P(PickingPoliciesTest, RingHashKeepsUsersTogetherAndMovesOnlyThoseOfWhoLeaves) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 5);
  const PickingOptions options{.policy = picking::RingHash{.header = "x-user"}};
  auto channel = MustDial(client, options);
  auto second = MustDial(client, options);
  WaitReady(*channel, 5);
  WaitReady(*second, 5);
  auto stub = Echo::NewStub(channel);
  auto other_stub = Echo::NewStub(second);
  constexpr int kUsers = 100;
  std::map<std::string, std::string> homes;
  for (int user = 0; user < kUsers; ++user) {
    const std::string name = std::to_string(user);
    homes[name] = BlockingUnary(*stub, {.user = name}).backend;
    EXPECT_EQ(BlockingUnary(*other_stub, {.user = name}).backend, homes[name])
        << "the same for every client";
  }
  const std::string gone = homes["0"];
  Delete(client, gone);
  // The statistics may know a moment before the calls do.
  ASSERT_TRUE(WaitFor([&] { return Stats(*channel).backends.size() == 4; }));
  ASSERT_TRUE(WaitFor([&] { return BlockingUnary(*stub, {.user = "0"}).backend != gone; }));
  for (const auto& [user, home] : homes) {
    const std::string now = BlockingUnary(*stub, {.user = user}).backend;
    if (home == gone) {
      EXPECT_NE(now, gone);
    } else {
      EXPECT_EQ(now, home);
    }
  }
}

class ByTag final : public picking::Picker {
 public:
  const picking::Backend* Pick(const picking::PickArgs& args,
                               std::span<const picking::Backend* const> ready) override {
    const std::string wanted(args.Metadata("x-user").value_or(""));
    for (const picking::Backend* backend : ready) {
      const std::vector<std::string>& tags = backend->instance().tags;
      if (std::find(tags.begin(), tags.end(), wanted) != tags.end()) return backend;
    }
    return nullptr;
  }
};

TEST_P(PickingPoliciesTest, APickerOfTheApplicationsOwnHasTheWord) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 3,
        [](int i, Instance* instance) { instance->tags = {"shard-" + std::to_string(i)}; });
  auto channel = MustDial(client, {.policy = std::make_shared<ByTag>()});
  WaitReady(*channel, 3);
  for (int i = 0; i < 3; ++i) {
    const auto answers = Answers(channel, 5, {.user = "shard-" + std::to_string(i)});
    EXPECT_EQ(answers, (std::map<std::string, int>{{address(i), 5}}));
  }
  auto stub = Echo::NewStub(channel);
  const Echoed refused = BlockingUnary(*stub, {.user = "shard-3"});
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), HasSubstr(Name()));
  EXPECT_EQ(Stats(*channel).refused, 1u);
}

TEST_P(PickingPoliciesTest, ABackendWhoseCallsFailIsEjectedAndComesBack) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 3);
  auto channel = MustDial(client, {.outlier = picking::Outlier{.consecutive_failures = 3,
                                                               .base_ejection = absl::Seconds(2)}});
  WaitReady(*channel, 3);
  backends_[0]->EndWith(grpc::StatusCode::INTERNAL);
  auto stub = Echo::NewStub(channel);
  int failed = 0;
  ASSERT_TRUE(WaitFor([&] {
    failed += BlockingUnary(*stub, {}).status.ok() ? 0 : 1;
    return StatsOf(*channel, address(0)).ejected_for.has_value();
  }));
  EXPECT_GE(failed, 3);
  EXPECT_LE(failed, 6) << "the third failure is enough";
  EXPECT_GT(StatsOf(*channel, address(0)).ejected_for, absl::ZeroDuration());
  backends_[0]->EndWith(grpc::StatusCode::OK);
  const int calls = backends_[0]->calls();
  EXPECT_EQ(Answers(channel, 10).size(), 2u);
  ASSERT_TRUE(WaitFor([&] {
    EXPECT_TRUE(BlockingUnary(*stub, {}).status.ok());
    return backends_[0]->calls() > calls;
  }));
  EXPECT_FALSE(StatsOf(*channel, address(0)).ejected_for.has_value());
}

TEST_P(PickingPoliciesTest, AnswersOfTheApplicationAreNoFailuresOfTheBackend) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 2);
  auto channel = MustDial(client, {.outlier = picking::Outlier{.consecutive_failures = 1}});
  WaitReady(*channel, 2);
  backends_[0]->EndWith(grpc::StatusCode::NOT_FOUND);
  auto stub = Echo::NewStub(channel);
  for (int i = 0; i < 10; ++i) (void)BlockingUnary(*stub, {});
  EXPECT_EQ(backends_[0]->calls(), 5);
  EXPECT_EQ(StatsOf(*channel, address(0)).failures, 0u);
}

TEST_P(PickingPoliciesTest, ABackendThatSaysItIsNotServingGetsNoCalls) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend healthy("127.0.0.1:0", /*health=*/true);
  EchoBackend ailing("127.0.0.1:0", /*health=*/true);
  EchoBackend silent;  // has no health service
  for (const EchoBackend* backend : {&healthy, &ailing, &silent}) Put(client, *backend);
  auto channel = MustDial(client, {.health_check = true});
  WaitReady(*channel, 3);
  ailing.SetHealthy(false);
  WaitReady(*channel, 2);
  const auto answers = Answers(channel, 20);
  EXPECT_EQ(answers.count(ailing.address()), 0u);
  EXPECT_EQ(answers.size(), 2u);
  ailing.SetHealthy(true);
  WaitReady(*channel, 3);
  EXPECT_EQ(Answers(channel, 20).size(), 3u);
}

TEST_P(PickingPoliciesTest, WaitingDoesNotLeadToABackendThatIsNotServing) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend backend("127.0.0.1:0", /*health=*/true);
  Put(client, backend);
  auto channel = MustDial(client, {.health_check = true});
  WaitReady(*channel, 1);
  backend.SetHealthy(false);
  WaitReady(*channel, 0);
  auto stub = Echo::NewStub(channel);
  EXPECT_EQ(BlockingUnary(*stub, {}).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  Echoed waited;
  std::thread waiting([&] { waited = BlockingUnary(*stub, {.wait_for_ready = true}); });
  ASSERT_TRUE(WaitFor([&] { return StatsOf(*channel, backend.address()).in_flight == 1; }));
  EXPECT_EQ(backend.calls(), 0);
  backend.SetHealthy(true);
  waiting.join();
  EXPECT_TRUE(waited.status.ok()) << waited.status.error_message();
}

TEST_P(PickingPoliciesTest, CallsStayInTheZoneAndSpillOver) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 4, [](int i, Instance* instance) { instance->zone = i < 2 ? "here" : "there"; });
  auto channel = MustDial(client, {.prefer_zone = "here"});
  WaitReady(*channel, 4);
  std::map<std::string, int> answers = Answers(channel, 10);
  EXPECT_EQ(answers[address(0)], 5);
  EXPECT_EQ(answers[address(1)], 5);
  Delete(client, address(0));
  Delete(client, address(1));
  ASSERT_TRUE(WaitFor([&] { return Stats(*channel).backends.size() == 2; }));
  answers = Answers(channel, 10);
  EXPECT_EQ(answers[address(2)], 5);
  EXPECT_EQ(answers[address(3)], 5);
}

TEST_P(PickingPoliciesTest, ASubsetIsAllThatOneClientConnectsTo) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 10);
  const PickingOptions options{.filter = {.max_instances = 3, .subset_key = "client-7"}};
  auto channel = MustDial(client, options);
  auto again = MustDial(client, options);
  WaitReady(*channel, 3);
  WaitReady(*again, 3);
  const auto answers = Answers(channel, 30);
  EXPECT_EQ(answers.size(), 3u);
  EXPECT_EQ(Answers(again, 30), answers);
}

TEST_P(PickingPoliciesTest, TheFilterSaysWhichInstancesThereAre) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 4, [](int i, Instance* instance) {
    instance->zone = i < 2 ? "here" : "there";
    if (i % 2 == 1) instance->tags = {"canary"};
  });
  auto channel = MustDial(client, {.filter = {.exclude_tags = {"canary"}}, .prefer_zone = "here"});
  WaitReady(*channel, 2);
  EXPECT_EQ(Answers(channel, 4), (std::map<std::string, int>{{address(0), 4}}));
  // It leaves for the filter, and comes back.
  Put(client, {.address = address(0), .zone = "here", .tags = {"canary"}});
  ASSERT_TRUE(WaitFor([&] { return Answers(channel, 1).contains(address(2)); }));
  EXPECT_EQ(Answers(channel, 4), (std::map<std::string, int>{{address(2), 4}}));
  Put(client, {.address = address(0), .zone = "here"});
  ASSERT_TRUE(WaitFor([&] { return Answers(channel, 1).contains(address(0)); }));
  EXPECT_EQ(Answers(channel, 4), (std::map<std::string, int>{{address(0), 4}}));
}

TEST_P(PickingPoliciesTest, WhoJoinsStartsSlowly) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Start(client, 2);
  auto channel = MustDial(client, {.slow_start = absl::Seconds(4)});
  WaitReady(*channel, 2);
  EXPECT_EQ(StatsOf(*channel, address(0)).weight, 1);
  Start(client, 1);
  WaitReady(*channel, 3);
  const double at_first = StatsOf(*channel, address(2)).weight;
  EXPECT_LT(at_first, 0.9);
  ASSERT_TRUE(WaitFor([&] { return StatsOf(*channel, address(2)).weight > at_first; }));
  ASSERT_TRUE(WaitFor([&] { return StatsOf(*channel, address(2)).weight == 1; }));
}

TEST_P(PickingPoliciesTest, TheStatsAreMetricsToo) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  const auto registry = std::make_shared<prometheus::Registry>();
  auto client = Client::Connect({.endpoints = cluster->endpoints(), .metrics = registry});
  ASSERT_TRUE(client.ok());
  Start(*client, 2);
  auto channel = MustDial(*client);
  WaitReady(*channel, 2);
  EXPECT_EQ(Answers(channel, 10).size(), 2u);
  const auto text = [&registry] {
    return prometheus::TextSerializer().Serialize(registry->Collect());
  };
  const auto series = [this](const std::string& name, int i) {
    return "conclave_picking_" + name + "{backend=\"" + address(i) + "\",channel=\"";
  };
  ASSERT_TRUE(
      WaitFor([&] { return text().find(",service=\"" + Name() + "\"} 5") != text().npos; }));
  for (int i = 0; i < 2; ++i) {
    for (const std::string name :
         {"picks_total", "failures_total", "in_flight", "ready", "ejected", "weight"}) {
      EXPECT_THAT(text(), HasSubstr(series(name, i)));
    }
  }
  Delete(*client, address(1));
  ASSERT_TRUE(WaitFor([&] { return text().find(series("ready", 1)) == std::string::npos; }));
  EXPECT_THAT(text(), HasSubstr(series("ready", 0)));
  channel.reset();
  EXPECT_THAT(text(), Not(HasSubstr(series("ready", 0))));
}

INSTANTIATE_TEST_SUITE_P(Servers, PickingPoliciesTest,
                         ::testing::ValuesIn(testing::SingleServers()), testing::ServerName);

}  // namespace
}  // namespace conclave
