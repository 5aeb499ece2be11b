// Leases of registrations: who shares one, who has one of his own, and what a thousand of them
// cost.
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "conclave/base/prng.h"
#include "conclave/registry/registry.h"
#include "conclave/tests/registry/registry_fixture.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::Etcdctl;
using testing::kLong;
using testing::RegistryTest;
using testing::ServerName;
using testing::SingleServers;
using testing::States;
using testing::WaitFor;

// The sum of a metric's series that have all of `labels` in their line, as the server shows it.
double MetricOf(const testing::TestCluster& cluster, const std::string& name,
                const std::string& label) {
  auto page = testing::RunCommand({"curl", "-s", "http://" + cluster.endpoint(0) + "/metrics"});
  EXPECT_TRUE(page.ok()) << page.status();
  double sum = 0;
  if (!page.ok()) return sum;
  for (absl::string_view line : absl::StrSplit(*page, '\n')) {
    if (!absl::StartsWith(line, name + "{") || !absl::StrContains(line, label)) continue;
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value)) << line;
    sum += value;
  }
  return sum;
}

TEST_P(RegistryTest, RegistrationsOfARegistryShareALease) {
  Registry registry(client());
  Registration first = MustRegister(registry, {.address = "h:1"});
  Registration second = MustRegister(registry, {.address = "h:2"});
  ASSERT_TRUE(first.WaitRegistered(kLong).ok());
  ASSERT_TRUE(second.WaitRegistered(kLong).ok());
  const LeaseId lease = Stored("h:1")->lease;
  EXPECT_EQ(Stored("h:2")->lease, lease);
  ASSERT_TRUE(first.Deregister().ok());
  EXPECT_FALSE(Stored("h:1").has_value());
  EXPECT_EQ(Stored("h:2")->lease, lease) << "only its own key goes";
  // Another one joins the lease that is there.
  Registration third = MustRegister(registry, {.address = "h:1"});
  ASSERT_TRUE(third.WaitRegistered(kLong).ok());
  EXPECT_EQ(Stored("h:1")->lease, lease);
  ASSERT_TRUE(second.Deregister().ok());
  ASSERT_TRUE(third.Deregister().ok());
  auto ttl = client().TimeToLive(lease);
  ASSERT_TRUE(ttl.ok());
  EXPECT_FALSE(ttl->exists()) << "the last one out ends the lease";
  // And the first after that opens another one.
  Registration fourth = MustRegister(registry, {.address = "h:1"});
  ASSERT_TRUE(fourth.WaitRegistered(kLong).ok());
  EXPECT_NE(Stored("h:1")->lease, lease);
}

TEST_P(RegistryTest, AnotherTtlIsolationAndGoZeroHaveOtherLeases) {
  Registry registry(client());
  std::vector<Registration> registrations;
  registrations.push_back(MustRegister(registry, {.address = "h:1"}, {.ttl = absl::Seconds(10)}));
  registrations.push_back(MustRegister(registry, {.address = "h:2"}, {.ttl = absl::Seconds(20)}));
  registrations.push_back(MustRegister(registry, {.address = "h:3"}, {.isolated_lease = true}));
  registrations.push_back(
      MustRegister(registry, {.address = "h:4"}, {.ttl = absl::Milliseconds(9500)}));
  for (int i : {5, 6}) {
    registrations.push_back(
        MustRegister(registry, {.address = absl::StrCat("h:", i)}, {.format = Format::kGoZero}));
  }
  for (auto& each : registrations) ASSERT_TRUE(each.WaitRegistered(kLong).ok());
  std::set<LeaseId> leases;
  for (int i : {1, 2, 3}) leases.insert(Stored(absl::StrCat("h:", i))->lease);
  EXPECT_EQ(leases.size(), 3u);
  EXPECT_EQ(Stored("h:4")->lease, Stored("h:1")->lease) << "9.5 s are rounded up to 10";
  auto all = client().Range(Prefix(service_ + "/"));
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->kvs.size(), 6u);
  for (const KeyValue& kv : all->kvs) {
    if (kv.value[0] != 'h') continue;
    EXPECT_EQ(kv.key, absl::StrCat(service_, "/", kv.lease));
    leases.insert(kv.lease);
  }
  EXPECT_EQ(leases.size(), 5u);
}

TEST_P(RegistryTest, ASessionOfTheCallersIsUsedAndLeftToHim) {
  auto session = client().OpenSession({.ttl = absl::Seconds(5)});
  ASSERT_TRUE(session.ok());
  States states;
  Registration first = MustRegister({.address = "h:1"}, {.session = &*session});
  Registration second =
      MustRegister({.address = "h:2"}, {.session = &*session, .on_state = states.Callback()});
  ASSERT_TRUE(first.WaitRegistered(kLong).ok());
  ASSERT_TRUE(second.WaitRegistered(kLong).ok());
  EXPECT_EQ(Stored("h:1")->lease, session->lease_id());
  ASSERT_TRUE(first.Deregister().ok());
  EXPECT_FALSE(Stored("h:1").has_value());
  EXPECT_TRUE(session->alive());
  EXPECT_TRUE(Stored("h:2").has_value());
  ASSERT_TRUE(session->Close().ok());
  EXPECT_TRUE(WaitFor([&] { return second.state() == RegState::kLost; }));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(Stored("h:2").has_value());
  EXPECT_TRUE(second.Deregister().ok());
  // A session that is lost already, and none.
  Registration late = MustRegister({.address = "h:3"}, {.session = &*session});
  EXPECT_TRUE(WaitFor([&] { return late.state() == RegState::kLost; }));
  Session none;
  EXPECT_TRUE(absl::IsInvalidArgument(
      Registry(client())
          .Register({.service = service_, .address = "h:4"}, {.session = &none})
          .status()));
}

TEST_P(RegistryTest, ALostLeaseIsFollowedByOneForAll) {
  constexpr int kCount = 50;
  Registry registry(client());
  std::vector<Registration> registrations;
  for (int i = 1; i <= kCount; ++i) {
    registrations.push_back(MustRegister(registry, {.address = absl::StrCat("h:", i)}));
  }
  for (auto& each : registrations) ASSERT_TRUE(each.WaitRegistered(kLong).ok());
  const LeaseId lease = Stored("h:1")->lease;
  ASSERT_TRUE(client().Revoke(lease).ok());
  std::set<LeaseId> leases;
  EXPECT_TRUE(WaitFor(
      [&] {
        leases.clear();
        auto range = client().Range(Prefix(service_ + "/"));
        if (!range.ok()) return false;
        for (const KeyValue& kv : range->kvs) leases.insert(kv.lease);
        return range->kvs.size() == kCount && leases.size() == 1 && !leases.contains(lease);
      },
      kLong));
  for (auto& each : registrations) EXPECT_TRUE(each.WaitRegistered(kLong).ok());
}

TEST_P(RegistryTest, OneAddressIsRegisteredOnceInARegistry) {
  Registry registry(client());
  const Registry copy = registry;
  Registration first = MustRegister(registry, {.address = "h:1"});
  const auto again = [&](RegistrationOptions options = {}) {
    return Registry(copy).Register({.service = service_, .address = "h:1"}, std::move(options));
  };
  EXPECT_TRUE(absl::IsAlreadyExists(again().status()));
  EXPECT_TRUE(again({.format = Format::kKitex}).ok()) << "another format is another key";
  EXPECT_TRUE(absl::IsAlreadyExists(again({.ttl = absl::Seconds(30)}).status()));
  ASSERT_TRUE(first.WaitRegistered(kLong).ok());
  ASSERT_TRUE(first.Deregister().ok());
  auto second = again();
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_TRUE(second->WaitRegistered(kLong).ok());
  { Registration end_of_the_first = std::move(first); }
  EXPECT_TRUE(Stored("h:1").has_value()) << "the first one's end is not the second one's";
  EXPECT_TRUE(absl::IsAlreadyExists(again().status()));
}

INSTANTIATE_TEST_SUITE_P(Servers, RegistryTest, ::testing::ValuesIn(AllServers()), ServerName);

class ManyRegistrationsTest : public RegistryTest {
 protected:
  void SetUp() override { service_ = "my-service"; }
};

TEST_P(ManyRegistrationsTest, AThousandCostOneLeaseAndOneStream) {
  constexpr int kCount = 1000;
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  const double streams_before =
      MetricOf(*cluster, "grpc_server_started_total", "\"LeaseKeepAlive\"");
  Registry registry(client());
  std::vector<Registration> registrations;
  const absl::Time start = absl::Now();
  for (int i = 1; i <= kCount; ++i) {
    registrations.push_back(MustRegister(registry, {.address = absl::StrCat("10.0.0.1:", i)},
                                         {.ttl = absl::Seconds(3)}));
  }
  for (auto& each : registrations) ASSERT_TRUE(each.WaitRegistered(absl::Seconds(60)).ok());
  const absl::Duration took = absl::Now() - start;
  auto leases = client().Leases();
  ASSERT_TRUE(leases.ok());
  EXPECT_EQ(leases->size(), 1u);
  auto shown = Etcdctl(*cluster, {"lease", "list"});
  ASSERT_TRUE(shown.ok()) << shown.status();
  EXPECT_TRUE(absl::StrContains(*shown, "found 1 leases")) << *shown;
  auto range = client().Range(Prefix("my-service/"), {.count_only = true});
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(range->count, kCount);
  // Over several renewals there is one stream.
  const int64_t renewed_from = absl::ToUnixMillis(absl::Now());
  EXPECT_TRUE(WaitFor([&] { return absl::ToUnixMillis(absl::Now()) > renewed_from + 2500; }));
  EXPECT_EQ(MetricOf(*cluster, "grpc_server_started_total", "\"LeaseKeepAlive\"") - streams_before,
            1);
  std::printf("%d registrations in %s: 1 lease, 1 stream\n", kCount,
              absl::FormatDuration(took).c_str());
  RecordProperty("register_ms", static_cast<int>(absl::ToInt64Milliseconds(took)));

  // They leave one by one; the last one takes the lease along.
  registrations.clear();
  range = client().Range(Prefix("my-service/"), {.count_only = true});
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(range->count, 0);
  leases = client().Leases();
  ASSERT_TRUE(leases.ok());
  EXPECT_TRUE(leases->empty());
}

TEST_P(ManyRegistrationsTest, AThousandRandomLifetimesLeaveNothingBehind) {
  constexpr int kSteps = 1000;
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  Prng random(20240607);
  std::atomic<int> callbacks = 0;
  {
    std::vector<std::optional<Registry>> registries(3);
    std::vector<std::optional<Registration>> slots(16);
    for (int step = 0; step < kSteps; ++step) {
      std::optional<Registry>& registry = registries[random.Below(registries.size())];
      std::optional<Registration>& slot = slots[random.Below(slots.size())];
      if (!registry.has_value()) registry = Registry(client());
      switch (random.Below(8)) {
        case 0:
          registry.reset();
          break;
        case 1:
          slot.reset();
          break;
        case 2:
          if (slot.has_value()) (void)slot->Deregister({.timeout = absl::Milliseconds(20)});
          break;
        case 3:
          if (slot.has_value()) {
            EXPECT_TRUE(slot->Update([&](Instance& instance) { instance.weight = step; }).ok());
          }
          break;
        case 4:
          if (slot.has_value()) slot->Drain();
          break;
        default: {
          RegistrationOptions options;
          options.ttl = absl::Seconds(static_cast<int64_t>(5 + random.Below(2)));
          options.isolated_lease = random.Chance(1, 8);
          options.format = random.Chance(1, 4) ? Format::kGoZero : Format::kEtcdNaming;
          options.on_state = [&callbacks](RegState, const absl::Status&) { ++callbacks; };
          if (random.Chance(1, 4)) {
            options.health =
                CustomCheck([] { return absl::OkStatus(); }, {.interval = absl::Milliseconds(10)});
          }
          auto made = registry->Register(
              {.service = "my-service", .address = absl::StrCat("h:", 1 + random.Below(40))},
              std::move(options));
          EXPECT_TRUE(made.ok() || absl::IsAlreadyExists(made.status())) << made.status();
          if (made.ok()) slot = *std::move(made);
          break;
        }
      }
    }
  }
  EXPECT_GT(callbacks.load(), 0);
  // What could not be deleted within the short deadlines goes with the leases at the latest.
  EXPECT_TRUE(WaitFor(
      [&] {
        auto range = client().Range(Prefix("my-service/"), {.count_only = true});
        auto leases = client().Leases();
        return range.ok() && range->count == 0 && leases.ok() && leases->empty();
      },
      absl::Seconds(30)));
}

INSTANTIATE_TEST_SUITE_P(Servers, ManyRegistrationsTest, ::testing::ValuesIn(SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
