// DialPicking: every kind of call on real backends, through every change of the set.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conclave/discovery/channel.h"
#include "conclave/tests/discovery/picking/picking_fixture.h"

namespace conclave {
namespace {

using testing::AllStyles;
using testing::BlockingUnary;
using ::testing::Each;
using testing::Echo;
using testing::EchoBackend;
using testing::Echoed;
using testing::EchoLoad;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ServerUnderTest;
using testing::WaitFor;

class PickingChannelTest : public testing::PickingFixture {};

TEST_P(PickingChannelTest, EveryStyleOfCallReachesEveryBackendAndIsCounted) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend one;
  EchoBackend two;
  Put(client, one);
  Put(client, two);
  auto channel = MustDial(client);
  WaitReady(*channel, 2);
  auto stub = Echo::NewStub(channel);
  uint64_t calls = 0;
  for (const testing::Style& style : AllStyles()) {
    std::map<std::string, int> reached;
    for (int i = 0; i < 4; ++i, ++calls) {
      const Echoed echoed = style.call(*stub, {});
      EXPECT_TRUE(echoed.status.ok()) << style.name << ": " << echoed.status.error_message();
      ++reached[echoed.backend];
    }
    EXPECT_EQ(reached[one.address()], 2) << style.name;
    EXPECT_EQ(reached[two.address()], 2) << style.name;
  }
  for (int i = 0; i < 4; ++i, ++calls) {
    const Echoed echoed = testing::GenericUnary(channel, {});
    EXPECT_TRUE(echoed.status.ok()) << echoed.status.error_message();
  }
  const picking::PickingStats stats = Stats(*channel);
  EXPECT_EQ(stats.service, Name());
  ASSERT_EQ(stats.backends.size(), 2u);
  EXPECT_EQ(stats.backends[0].picks + stats.backends[1].picks, calls);
  for (const auto& backend : stats.backends) {
    EXPECT_EQ(backend.in_flight, 0);
    EXPECT_EQ(backend.failures, 0u);
    EXPECT_EQ(backend.weight, 1);
  }
  EXPECT_EQ(one.connections(), 1u) << "all on one connection";
}

TEST_P(PickingChannelTest, CallsInFlightAreCountedUntilTheyEndHoweverTheyEnd) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend backend;
  Put(client, backend);
  auto channel = MustDial(client);
  WaitReady(*channel, 1);
  auto stub = Echo::NewStub(channel);
  const auto in_flight = [&] { return StatsOf(*channel, backend.address()).in_flight; };
  {
    grpc::ClientContext cancelled;
    auto stream = stub->Chat(&cancelled);
    EXPECT_EQ(in_flight(), 1);
    cancelled.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
    EXPECT_EQ(in_flight(), 0);
  }
  {
    grpc::ClientContext abandoned;  // neither finished nor cancelled
    auto stream = stub->Chat(&abandoned);
    EXPECT_EQ(in_flight(), 1);
  }
  EXPECT_EQ(in_flight(), 0);
  {
    testing::Steps steps;
    grpc::ClientContext never_started;
    auto call = stub->PrepareAsyncUnary(&never_started, {}, steps.queue());
    EXPECT_EQ(in_flight(), 1);
  }
  EXPECT_EQ(in_flight(), 0);
  const Echoed late = BlockingUnary(*stub, {.timeout = absl::Milliseconds(50), .pause_ms = 10'000});
  EXPECT_EQ(late.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(in_flight(), 0);
  const auto stats = StatsOf(*channel, backend.address());
  EXPECT_EQ(stats.picks, 4u);
  EXPECT_EQ(stats.failures, 1u) << "the deadline; not what the caller cancelled";
}

TEST_P(PickingChannelTest, AnEmptyServiceFailsFastAndWaitForReadyWaits) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  auto channel = MustDial(client);
  auto stub = Echo::NewStub(channel);
  for (int i = 0; i < 3; ++i) {
    const absl::Time begun = absl::Now();
    const Echoed echoed = BlockingUnary(*stub, {});
    EXPECT_EQ(echoed.status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(echoed.status.error_message(), HasSubstr(Name()));
    EXPECT_LT(absl::Now() - begun, absl::Seconds(10));
  }
  const Echoed impatient =
      BlockingUnary(*stub, {.timeout = absl::Milliseconds(300), .wait_for_ready = true});
  EXPECT_EQ(impatient.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  std::vector<std::thread> waiting;
  std::vector<Echoed> echoes(AllStyles().size());
  for (size_t i = 0; i < echoes.size(); ++i) {
    waiting.emplace_back(
        [&, i] { echoes[i] = AllStyles()[i].call(*stub, {.wait_for_ready = true}); });
  }
  ASSERT_TRUE(WaitFor([&] { return Stats(*channel).waited >= echoes.size(); }));
  EchoBackend backend;
  Put(client, backend);
  for (std::thread& thread : waiting) thread.join();
  for (size_t i = 0; i < echoes.size(); ++i) {
    EXPECT_TRUE(echoes[i].status.ok())
        << AllStyles()[i].name << ": " << echoes[i].status.error_message();
  }
}

TEST_P(PickingChannelTest, CallsFromTheVeryBeginningWait) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend one;
  EchoBackend two;
  Put(client, one);
  Put(client, two);
  Put(client, Instance{.address = "127.0.0.1:1"});  // nobody listens there
  for (int i = 0; i < 10; ++i) {
    auto stub = Echo::NewStub(MustDial(client));
    const Echoed echoed = BlockingUnary(*stub, {});
    EXPECT_TRUE(echoed.status.ok()) << echoed.status.error_message();
  }
}

TEST_P(PickingChannelTest, BackendsThatNobodyCanReachFailWithTheReason) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Put(client, Instance{.address = "127.0.0.1:1"});
  auto channel = MustDial(client);
  ASSERT_TRUE(WaitFor(
      [&] { return StatsOf(*channel, "127.0.0.1:1").state == picking::BackendState::kFailing; }));
  ASSERT_TRUE(WaitFor([&] { return channel->GetState(false) == GRPC_CHANNEL_TRANSIENT_FAILURE; }));
  auto stub = Echo::NewStub(channel);
  const Echoed echoed = BlockingUnary(*stub, {});
  EXPECT_EQ(echoed.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(echoed.status.error_message(), HasSubstr("127.0.0.1:1"));
  // With wait_for_ready it is whoever comes first, not that one.
  EchoBackend backend;
  Echoed waited;
  std::thread waiting([&] { waited = BlockingUnary(*stub, {.wait_for_ready = true}); });
  ASSERT_TRUE(WaitFor([&] { return Stats(*channel).waited > 0; }));
  Put(client, backend);
  waiting.join();
  EXPECT_TRUE(waited.status.ok()) << waited.status.error_message();
  EXPECT_EQ(waited.backend, backend.address());
}

TEST_P(PickingChannelTest, GracefulChangesUnderLoadOfEveryStyleFailNoCall) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  std::vector<std::unique_ptr<EchoBackend>> backends;
  const auto add = [&] {
    backends.push_back(std::make_unique<EchoBackend>());
    Put(client, *backends.back());
  };
  for (int i = 0; i < 3; ++i) add();
  auto channel = MustDial(client, {.policy = picking::LeastRequest{}});
  EchoLoad load(channel, AllStyles());
  load.Progress(200);
  const auto leave = [&](std::unique_ptr<EchoBackend> backend) {
    Delete(client, backend->address());
    ASSERT_TRUE(WaitFor([&] { return StatsOf(*channel, backend->address()).address.empty(); }));
    load.Progress(50);  // the notice: calls that were starting have started
    backend->Stop();
    load.Progress(50);
  };
  for (int round = 0; round < 2; ++round) {
    add();
    ASSERT_TRUE(WaitFor([&] { return backends.back()->calls() > 0; })) << "one joins";
    std::unique_ptr<EchoBackend> first = std::move(backends.front());
    backends.erase(backends.begin());
    leave(std::move(first));
    std::vector<std::unique_ptr<EchoBackend>> old = std::move(backends);
    backends.clear();
    for (int i = 0; i < 3; ++i) add();
    for (const auto& backend : backends) {
      ASSERT_TRUE(WaitFor([&] { return backend->calls() > 0; })) << "all are replaced";
    }
    for (auto& backend : old) leave(std::move(backend));
  }
  load.Finish();
  EXPECT_THAT(load.failures(), IsEmpty());
  std::cout << load.calls() << " calls\n";
  for (const auto& backend : Stats(*channel).backends) EXPECT_EQ(backend.in_flight, 0);
}

TEST_P(PickingChannelTest, AConnectionIsKeptAcrossChangesAndStreamsOutliveTheirBackendsLeaving) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend stays;
  EchoBackend leaves;
  Put(client, stays);
  Put(client, leaves);
  auto channel = MustDial(client, {.policy = picking::WeightedRoundRobin{}});
  WaitReady(*channel, 2);
  auto stub = Echo::NewStub(channel);
  // A stream on each.
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReaderWriter<testing::EchoRequest, testing::EchoReply>>>
      streams;
  testing::EchoReply reply;
  for (int i = 0; i < 2; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(stub->Chat(contexts.back().get()));
    ASSERT_TRUE(streams.back()->Write({}));
    ASSERT_TRUE(streams.back()->Read(&reply));
  }
  Delete(client, leaves.address());
  ASSERT_TRUE(WaitFor([&] { return Stats(*channel).backends.size() == 1; }));
  for (int i = 0; i < 5; ++i) {
    Put(client, {.address = stays.address(), .zone = "z" + std::to_string(i), .weight = i + 1});
    ASSERT_TRUE(WaitFor([&] { return StatsOf(*channel, stays.address()).weight == i + 1; }));
    const Echoed echoed = BlockingUnary(*stub, {});
    EXPECT_EQ(echoed.backend, stays.address());
  }
  for (const auto& stream : streams) {
    EXPECT_TRUE(stream->Write({}));
    EXPECT_TRUE(stream->Read(&reply));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
  }
  EXPECT_EQ(stays.connections(), 1u);
  EXPECT_EQ(leaves.connections(), 1u);
}

TEST_P(PickingChannelTest, DrainingAndDownInstancesGetNoCalls) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend serving;
  EchoBackend draining;
  Put(client, serving);
  Put(client, draining);
  auto channel = MustDial(client);
  WaitReady(*channel, 2);
  Put(client, {.address = draining.address(), .state = InstanceState::kDraining});
  ASSERT_TRUE(WaitFor([&] { return Stats(*channel).backends.size() == 1; }));
  auto stub = Echo::NewStub(channel);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(BlockingUnary(*stub, {}).backend, serving.address());
  EXPECT_EQ(draining.calls(), 0);
}

TEST_P(PickingChannelTest, ABackendThatIsKilledIsLeftWithinMilliseconds) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend stays;
  Put(client, stays);
  std::vector<double> left_ms;
  for (int round = 0; round < 5; ++round) {
    auto dies = std::make_unique<EchoBackend>();
    const std::string address = dies->address();
    Put(client, *dies);
    auto channel = MustDial(client);
    WaitReady(*channel, 2);
    const std::vector<testing::Style> styles = {{"unary", BlockingUnary},
                                                {"chat", testing::BlockingChat}};
    EchoLoad before(channel, styles);
    before.Progress(50);
    const absl::Time dying = absl::Now();
    std::thread killer([&dies] { dies->Stop(absl::ZeroDuration()); });  // calls are cut off
    ASSERT_TRUE(WaitFor([&] { return Ready(*channel) == 1; }));
    left_ms.push_back(absl::ToDoubleMilliseconds(absl::Now() - dying));
    before.Finish();
    EXPECT_LE(before.failures().size(), 10u) << "those under way, and those of the same moment";
    EchoLoad after(channel, styles);
    after.Progress(200);
    after.Finish();
    EXPECT_THAT(after.failures(), IsEmpty());
    killer.join();
    dies.reset();
    // It comes back at its address.
    dies = std::make_unique<EchoBackend>(address);
    WaitReady(*channel, 2);
    Delete(client, address);
  }
  std::sort(left_ms.begin(), left_ms.end());
  std::cout << "a killed backend was left after " << left_ms[left_ms.size() / 2]
            << " ms (median of " << left_ms.size() << "; polled every 5 ms)\n";
}

TEST_P(PickingChannelTest, TheStateOfTheWholeCanBeWaitedForInEveryWay) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  auto channel = MustDial(client);
  const auto in = [](absl::Duration time) { return absl::ToChronoTime(absl::Now() + time); };
  ASSERT_TRUE(WaitFor([&] { return channel->GetState(true) == GRPC_CHANNEL_TRANSIENT_FAILURE; }));
  EXPECT_FALSE(
      channel->WaitForStateChange(GRPC_CHANNEL_TRANSIENT_FAILURE, in(absl::Milliseconds(50))));
  EXPECT_TRUE(channel->WaitForStateChange(GRPC_CHANNEL_READY, in(absl::Seconds(20))))
      << "it has changed already";
  grpc::CompletionQueue queue;
  int tag = 0;
  channel->NotifyOnStateChange(GRPC_CHANNEL_TRANSIENT_FAILURE, in(absl::Seconds(60)), &queue, &tag);
  channel->NotifyOnStateChange(GRPC_CHANNEL_TRANSIENT_FAILURE, in(absl::Milliseconds(10)), &queue,
                               nullptr);
  void* got = &tag;
  bool ok = true;
  ASSERT_TRUE(queue.Next(&got, &ok));
  EXPECT_EQ(got, nullptr);
  EXPECT_FALSE(ok) << "the deadline";
  EchoBackend backend;
  Put(client, backend);
  EXPECT_TRUE(channel->WaitForConnected(in(absl::Seconds(20))));
  ASSERT_TRUE(queue.Next(&got, &ok));
  EXPECT_EQ(got, &tag);
  EXPECT_TRUE(ok) << "the change";
  // One that still waits when the channel ends is told, too.
  channel->NotifyOnStateChange(GRPC_CHANNEL_READY, in(absl::Seconds(600)), &queue, &tag);
  channel.reset();
  ASSERT_TRUE(queue.Next(&got, &ok));
  EXPECT_EQ(got, &tag);
}

TEST_P(PickingChannelTest, HostNamesAndBadAddresses) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend backend;
  const std::string port = backend.address().substr(backend.address().rfind(':'));
  for (const std::string bad : {"10.0.0.1", "10.0.0.1:0", "1.2.3:80", "unix:/tmp/x", "[::1"}) {
    Put(client, Instance{.address = bad});
  }
  Put(client, Instance{.address = "localhost" + port});
  auto channel = MustDial(client);
  WaitReady(*channel, 1);
  EXPECT_EQ(Stats(*channel).backends.size(), 1u);
  EXPECT_EQ(Stats(*channel).unusable, 5u);
  auto stub = Echo::NewStub(channel);
  EXPECT_TRUE(BlockingUnary(*stub, {}).status.ok());
}

TEST_P(PickingChannelTest, CallsGoOnWhileTheRegistryIsOutOfReach) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  EchoBackend backend;
  Put(client, backend);
  auto channel = MustDial(client);
  WaitReady(*channel, 1);
  for (int member = 0; member < cluster->size(); ++member) cluster->Kill(member);
  auto stub = Echo::NewStub(channel);
  for (int i = 0; i < 100; ++i) {
    const Echoed echoed = BlockingUnary(*stub, {});
    EXPECT_TRUE(echoed.status.ok()) << echoed.status.error_message();
  }
  for (int member = 0; member < cluster->size(); ++member) {
    ASSERT_TRUE(cluster->Restart(member).ok());
  }
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  EchoBackend second;
  Put(client, second);
  ASSERT_TRUE(WaitFor([&] { return Ready(*channel) == 2; }, absl::Seconds(30)));
  EXPECT_EQ(backend.connections(), 1u);
}

TEST_P(PickingChannelTest, BadArgumentsAreRefused) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  const auto code = [&](std::string_view service, const PickingOptions& options) {
    return DialPicking(client, service, grpc::InsecureChannelCredentials(), options)
        .status()
        .code();
  };
  EXPECT_EQ(code("etcd:///my-service", {}), absl::StatusCode::kOk);
  grpc::ChannelArguments no_json;
  no_json.SetServiceConfigJSON("{");
  for (const auto& [service, options] : std::vector<std::pair<std::string, PickingOptions>>{
           {"", {}},
           {"a//b", {}},
           {"a", {.policy = picking::LeastRequest{.choices = 0}}},
           {"a", {.policy = picking::RingHash{}}},
           {"a", {.policy = std::shared_ptr<picking::Picker>()}},
           {"a", {.health_service = "x"}},
           {"a", {.health_check = true, .args = no_json}},
           {"a", {.slow_start = -absl::Seconds(1)}},
           {"a", {.slow_start = absl::InfiniteDuration()}},
           {"a", {.outlier = picking::Outlier{.consecutive_failures = 0}}},
           {"a", {.panic_percent = 101}},
           {"a", {.filter = {.max_instances = 1, .subset_key = std::string(2'000, 'x')}}},
           {"a", {.filter = {.states = {InstanceState::kServing}}}},
           {"a", {.filter = {.prefer_zone = "a"}, .prefer_zone = "b"}},
           {"a", {.filter = {.zones = {"a"}}, .prefer_zone = "b"}},
           {"a", {.filter = {.subset_key = "me"}}},
           {"a", {.zone_ready_percent = -1}},
           {"a", {.reconnect_backoff_initial = absl::ZeroDuration()}},
           {"a", {.reconnect_backoff_max = absl::Milliseconds(1)}},
           {"a", {.connect_timeout = absl::ZeroDuration()}}}) {
    EXPECT_EQ(code(service, options), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(DialPicking(client, "a", nullptr).status().code(), absl::StatusCode::kInvalidArgument);
  const auto plain = grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials());
  EXPECT_EQ(ChannelStats(*plain).status().code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Servers, PickingChannelTest, ::testing::ValuesIn(testing::SingleServers()),
                         testing::ServerName);

}  // namespace
}  // namespace conclave
