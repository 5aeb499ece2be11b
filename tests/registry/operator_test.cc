// What others say about an instance, and what it says of itself: overrides, draining, formats,
// states, metrics; and what it must not say.
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
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
using testing::States;
using testing::WaitFor;

constexpr Override kOut{.kind = Override::Kind::kOut};
constexpr Override kDrain{.kind = Override::Kind::kDrain};

class OperatorTest : public RegistryTest {
 protected:
  std::string Value(const std::string& address) {
    auto kv = Stored(address);
    return kv.has_value() ? kv->value : "";
  }
  bool Becomes(const std::string& address, const std::string& value) {
    return WaitFor([&] { return Value(address) == value; }, kLong);
  }
  // Of an event that has not happened yet.
  int64_t NextRevision() {
    auto range = client().Range("none");
    EXPECT_TRUE(range.ok()) << range.status();
    return range.ok() ? range->revision + 1 : 0;
  }
  static std::string Plain(const std::string& metadata) {
    return R"({"Op":0,"Addr":"h:1","Metadata":)" + metadata + "}";
  }
};

TEST_P(OperatorTest, AnOverrideHoldsUntilItIsRemoved) {
  Registry registry(client());
  Registration registration = MustRegister(registry, {.id = "i-1", .address = "h:1"});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  ASSERT_TRUE(registry.SetOverride(service_, "i-1", {Override::Kind::kWeight, 3}).ok());
  EXPECT_TRUE(Becomes("h:1", Plain(R"({"id":"i-1","weight":3})")));
  EXPECT_EQ(registration.instance().weight, std::nullopt) << "what its owner wants is untouched";
  ASSERT_TRUE(registry.SetOverride(service_, "i-1", kDrain).ok());
  EXPECT_TRUE(Becomes("h:1", Plain(R"({"id":"i-1","state":"draining"})")));
  EXPECT_TRUE(WaitFor([&] { return registration.state() == RegState::kDraining; }));
  ASSERT_TRUE(registry.SetOverride(service_, "i-1", kOut).ok());
  EXPECT_TRUE(Becomes("h:1", ""));
  EXPECT_TRUE(WaitFor([&] { return absl::StrContains(registration.status().message(), "out"); }));
  // Updates do not bring it back.
  EXPECT_TRUE(registration.Update([](Instance& instance) { instance.zone = "z"; }).ok());
  auto list = registry.ListOverrides(service_);
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ((*list)[0].name, "i-1");
  EXPECT_EQ((*list)[0].value, kOut);
  EXPECT_EQ(Value("h:1"), "");
  ASSERT_TRUE(registry.ClearOverride(service_, "i-1").ok());
  EXPECT_TRUE(Becomes("h:1", Plain(R"({"id":"i-1","zone":"z"})")));
  EXPECT_TRUE(WaitFor([&] { return registration.state() == RegState::kRegistered; }));
  EXPECT_TRUE(registry.ListOverrides(service_)->empty());
}

TEST_P(OperatorTest, AnOverrideOutlivesRepairsAndRestarts) {
  Registry registry(client());
  ASSERT_TRUE(
      Etcdctl(*cluster_, {"put", absl::StrCat(".override/", service_, "/h:1"), "drain"}).ok());
  const std::string draining = Plain(R"({"state":"draining"})");
  {
    Registration registration = MustRegister(registry, {.address = "h:1"});
    EXPECT_TRUE(Becomes("h:1", draining));
    const LeaseId lease = Stored("h:1")->lease;
    ASSERT_TRUE(client().Revoke(lease).ok());
    EXPECT_TRUE(WaitFor([&] {
      auto kv = Stored("h:1");
      return kv.has_value() && kv->lease != lease && kv->value == draining;
    }));
  }
  // The next incarnation is never seen without it.
  std::vector<std::string> seen;
  std::mutex mutex;
  Watch watch = client().Watch(InstanceKey(service_, "h:1"), {.from_revision = NextRevision()},
                               [&](const WatchBatch& batch) {
                                 std::lock_guard lock(mutex);
                                 for (const WatchEvent& event : batch.events)
                                   seen.push_back(event.kv.value);
                               });
  Registration next = MustRegister({.address = "h:1"});
  ASSERT_TRUE(next.WaitRegistered(kLong).ok());
  ASSERT_TRUE(Etcdctl(*cluster_, {"del", absl::StrCat(".override/", service_, "/h:1")}).ok());
  EXPECT_TRUE(Becomes("h:1", Plain("null")));
  EXPECT_TRUE(WaitFor([&] {
    std::lock_guard lock(mutex);
    return !seen.empty() && seen.back() == Plain("null");
  }));
  std::lock_guard lock(mutex);
  EXPECT_EQ(seen, (std::vector<std::string>{draining, Plain("null")}));
}

TEST_P(OperatorTest, BadOverridesAreRefusedHereAndIgnoredThere) {
  Registry registry(client());
  for (const auto& [service, name] : std::vector<std::pair<std::string, std::string>>{
           {"", "i"}, {"s/", "i"}, {"s", ""}, {"s", "a/b"}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(registry.SetOverride(service, name, kOut)));
    EXPECT_TRUE(absl::IsInvalidArgument(registry.ClearOverride(service, name)));
  }
  EXPECT_TRUE(
      absl::IsInvalidArgument(registry.SetOverride(service_, "i", {Override::Kind::kWeight, -1})));
  ASSERT_TRUE(client().Put(absl::StrCat(".override/", service_, "/h:1"), "wieght=3").ok());
  Registration registration = MustRegister(registry, {.address = "h:1"});
  EXPECT_TRUE(Becomes("h:1", Plain("null")));
  auto list = registry.ListOverrides(service_);
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ((*list)[0].text, "wieght=3");
  EXPECT_EQ((*list)[0].value, std::nullopt);
  ASSERT_TRUE(registry.SetOverride(service_, "h:1", {Override::Kind::kWeight, 0}).ok());
  EXPECT_TRUE(Becomes("h:1", Plain(R"({"weight":0})")));
  ASSERT_TRUE(registry.ClearOverride(service_, "h:1").ok());
  // A registry may live without them.
  Registry deaf(client(), {.override_prefix = ""});
  EXPECT_TRUE(absl::IsFailedPrecondition(deaf.ListOverrides().status()));
  EXPECT_TRUE(MustRegister(deaf, {.address = "h:2"}).WaitRegistered(kLong).ok());
}

TEST_P(OperatorTest, DrainsAndComesBack) {
  States states;
  Registration registration = MustRegister({.address = "h:1"}, {.on_state = states.Callback()});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  const absl::Time registered = registration.since();
  EXPECT_LE(registered, absl::Now());
  registration.Drain();
  EXPECT_TRUE(WaitFor([&] { return registration.state() == RegState::kDraining; }));
  EXPECT_EQ(Value("h:1"), Plain(R"({"state":"draining"})"));
  EXPECT_TRUE(registration.WaitRegistered(absl::ZeroDuration()).ok());
  EXPECT_GE(registration.since(), registered);
  registration.Undrain();
  EXPECT_TRUE(Becomes("h:1", Plain("null")));
  EXPECT_TRUE(WaitFor([&] { return registration.state() == RegState::kRegistered; }));
  EXPECT_TRUE(WaitFor([&] { return states.Had(RegState::kDraining); }));
  EXPECT_EQ(RegStateName(RegState::kDraining), "draining");
}

TEST_P(OperatorTest, EachFormatStandsWhereItsProjectLooks) {
  Registry registry(client());
  struct Case {
    Format format;
    std::string key;
    std::string value;
  };
  // SkyDNS wants a domain name.
  const std::string name = "svc-" + service_;
  const std::vector<Case> cases = {
      {Format::kKratos, "/microservices/" + name + "/i-1",
       R"({"id":"i-1","name":")" + name +
           R"(","version":"1.2","metadata":null,"endpoints":["grpc://10.0.0.1:80"]})"},
      {Format::kKitex, "kitex/registry-etcd/" + name + "/10.0.0.1:80",
       R"({"network":"tcp","address":"10.0.0.1:80","weight":0,"tags":{"id":"i-1","version":"1.2"}})"},
      {Format::kGoMicro, "/micro/registry/" + name + "/i-1",
       R"({"name":")" + name + R"(","version":"1.2","metadata":null,"endpoints":null,)" +
           R"("nodes":[{"id":"i-1","address":"10.0.0.1:80","metadata":null}]})"},
      {Format::kSkyDns, "/skydns/" + name + "/i-1", R"({"host":"10.0.0.1","port":80})"}};
  const auto stored = [&](const std::string& key) {
    auto kv = client().Get(key);
    return kv.ok() && kv->has_value() ? (*kv)->value : "";
  };
  for (const Case& each : cases) {
    auto registration = registry.Register(
        {.service = name, .id = "i-1", .address = "10.0.0.1:80", .version = "1.2"},
        {.format = each.format});
    ASSERT_TRUE(registration.ok()) << registration.status();
    ASSERT_TRUE(registration->WaitRegistered(kLong).ok());
    EXPECT_EQ(stored(each.key), each.value);
    ASSERT_TRUE(client().Delete(each.key).ok());
    EXPECT_TRUE(WaitFor([&] { return stored(each.key) == each.value; })) << "it is repaired";
    registration->Drain();
    EXPECT_TRUE(WaitFor([&] { return stored(each.key).empty(); })) << "readers know no draining";
    registration->Undrain();
    EXPECT_TRUE(WaitFor([&] { return stored(each.key) == each.value; }));
    ASSERT_TRUE(registration->Deregister().ok());
    EXPECT_EQ(stored(each.key), "");
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      registry.Register({.service = "a b", .address = "h:1"}, {.format = Format::kSkyDns})
          .status()));
}

TEST_P(OperatorTest, AGoZeroKeyFollowsItsLease) {
  Registration registration = MustRegister({.address = "h:1"}, {.format = Format::kGoZero});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  const auto keys = [&] {
    auto range = client().Range(Prefix(service_ + "/"));
    return range.ok() ? range->kvs : std::vector<KeyValue>();
  };
  ASSERT_EQ(keys().size(), 1u);
  const KeyValue before = keys()[0];
  EXPECT_EQ(before.key, absl::StrCat(service_, "/", before.lease));
  ASSERT_TRUE(client().Revoke(before.lease).ok());
  EXPECT_TRUE(WaitFor([&] {
    const std::vector<KeyValue> now = keys();
    return now.size() == 1 && now[0].lease != before.lease &&
           now[0].key == absl::StrCat(service_, "/", now[0].lease) && now[0].value == "h:1";
  }));
  ASSERT_TRUE(registration.Deregister().ok());
  EXPECT_TRUE(keys().empty());
}

// Watchers of the older naming package learn from the last value who has left.
TEST_P(OperatorTest, WhoHasLeftStandsInThePreviousValue) {
  std::vector<std::string> left;
  std::mutex mutex;
  Watch watch = client().Watch(Prefix(service_ + "/"),
                               {.from_revision = NextRevision(), .prev_kv = true, .no_puts = true},
                               [&](const WatchBatch& batch) {
                                 std::lock_guard lock(mutex);
                                 for (const WatchEvent& event : batch.events) {
                                   if (!event.prev_kv.has_value()) continue;
                                   auto instance = DecodeNamingValue(event.prev_kv->value);
                                   if (instance.ok()) left.push_back(instance->address);
                                 }
                               });
  const auto has_left = [&](const std::vector<std::string>& who) {
    return WaitFor([&] {
      std::lock_guard lock(mutex);
      return left == who;
    });
  };
  Registry registry(client());
  Registration first = MustRegister(registry, {.address = "h:1"});
  Registration second = MustRegister(registry, {.address = "h:2"});
  ASSERT_TRUE(first.WaitRegistered(kLong).ok());
  ASSERT_TRUE(second.WaitRegistered(kLong).ok());
  ASSERT_TRUE(first.Deregister().ok());
  EXPECT_TRUE(has_left({"h:1"}));
  ASSERT_TRUE(second.Deregister().ok());  // with its lease
  EXPECT_TRUE(has_left({"h:1", "h:2"}));
}

TEST_P(OperatorTest, ShowsItselfInMetrics) {
  auto metrics = std::make_shared<prometheus::Registry>();
  auto measured = Client::Connect({.endpoints = cluster_->endpoints(), .metrics = metrics});
  ASSERT_TRUE(measured.ok());
  const auto shows = [&](const std::string& name, const std::string& value) {
    return WaitFor([&] {
      const std::string text = prometheus::TextSerializer().Serialize(metrics->Collect());
      for (absl::string_view line : absl::StrSplit(text, '\n')) {
        if (absl::StartsWith(line, "conclave_registration_" + name) &&
            absl::StrContains(line, service_) && absl::EndsWith(line, " " + value)) {
          return true;
        }
      }
      return false;
    });
  };
  auto registration = Registry(*measured).Register({.service = service_, .address = "h:1"}, {});
  ASSERT_TRUE(registration.ok());
  EXPECT_TRUE(shows("registered", "1"));
  EXPECT_TRUE(shows("repairs_total", "0"));
  ASSERT_TRUE(client().Delete(InstanceKey(service_, "h:1")).ok());
  EXPECT_TRUE(shows("repairs_total", "1"));
  ASSERT_TRUE(registration->WaitRegistered(kLong).ok());
  ASSERT_TRUE(WaitFor([&] { return Stored("h:1").has_value(); }));
  ASSERT_TRUE(client().Revoke(Stored("h:1")->lease).ok());
  EXPECT_TRUE(shows("reregistrations_total", "1"));
  ASSERT_TRUE(registration->Deregister().ok());
  EXPECT_TRUE(shows("registered", "0"));
}

TEST_P(OperatorTest, BadArgumentsAreRefusedAtTheCall) {
  Registry registry(client());
  const auto refused = [&](Instance instance, RegistrationOptions options = {}) {
    const absl::Status status = registry.Register(std::move(instance), std::move(options)).status();
    EXPECT_FALSE(status.message().empty());
    return absl::IsInvalidArgument(status);
  };
  for (absl::Duration ttl : {absl::ZeroDuration(), absl::Milliseconds(999), -absl::Seconds(5),
                             absl::Hours(48), absl::InfiniteDuration()}) {
    EXPECT_TRUE(refused({.service = "s", .address = "h:1"}, {.ttl = ttl})) << ttl;
  }
  EXPECT_TRUE(refused({.service = std::string(65536, 'a'), .address = "h:1"}));
  EXPECT_TRUE(refused({.service = "\xff\xfe", .address = "h:1"}));
  EXPECT_TRUE(refused({.service = "s", .address = "[fe80::1%lo]:1"}));
  EXPECT_TRUE(refused({.service = "s", .address = ":0"}));
  EXPECT_TRUE(refused({.service = "s", .address = ":65536"}));
  EXPECT_TRUE(refused({.service = "s", .id = "a/b", .address = "h:1"}));
  EXPECT_TRUE(
      refused({.service = "s", .address = "h:1", .attrs = {{"a", std::string(1 << 20, 'x')}}}));
  EXPECT_TRUE(refused({.service = "s", .address = "h:1", .raw_metadata = "{\"half"}));
  // Refused as an update, too; and then nothing changes.
  Registration registration = MustRegister({.address = "h:1", .zone = "z"});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(registration.Update(
      [](Instance& instance) { instance.zone = std::string(size_t{1} << 20, 'x'); })));
  EXPECT_EQ(registration.instance().zone, "z");
  EXPECT_EQ(Value("h:1"), Plain(R"({"zone":"z"})"));
  // A handle of nothing says so.
  Registration nothing;
  EXPECT_EQ(nothing.state(), RegState::kGone);
  EXPECT_TRUE(absl::IsFailedPrecondition(nothing.status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(nothing.Update([](Instance&) {})));
  nothing.Drain();
  nothing.Undrain();
}

INSTANTIATE_TEST_SUITE_P(Servers, OperatorTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
