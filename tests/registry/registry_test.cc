// Registration: that it comes back, whatever happened to its key, its lease or its servers.
#include "conclave/registry/registry.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/registry/advertise.h"
#include "conclave/registry/graceful_stop.h"
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

TEST_P(RegistryTest, AnInstanceStandsUnderItsServiceUntilItDeregisters) {
  States states;
  Registration registration =
      MustRegister({.address = "127.0.0.1:8080", .weight = 7}, {.on_state = states.Callback()});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  std::optional<KeyValue> kv = Stored("127.0.0.1:8080");
  ASSERT_TRUE(kv.has_value());
  EXPECT_EQ(kv->value, R"({"Op":0,"Addr":"127.0.0.1:8080","Metadata":{"weight":7}})");
  EXPECT_NE(kv->lease, 0);
  auto shown = Etcdctl(*cluster_, {"get", "--prefix", service_ + "/", "--keys-only"});
  ASSERT_TRUE(shown.ok());
  EXPECT_NE(shown->find(service_ + "/127.0.0.1:8080"), std::string::npos);
  ASSERT_TRUE(registration.Deregister().ok());
  EXPECT_EQ(registration.state(), RegState::kGone);
  EXPECT_FALSE(Stored("127.0.0.1:8080").has_value());
  EXPECT_TRUE(WaitFor([&] { return states.Had(RegState::kGone); }));
  auto ttl = client().TimeToLive(kv->lease);
  ASSERT_TRUE(ttl.ok());
  EXPECT_FALSE(ttl->exists());
}

TEST_P(RegistryTest, TheEndOfTheHandleDeregisters) {
  {
    Registration registration = MustRegister({.address = "h:1"});
    ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  }
  EXPECT_FALSE(Stored("h:1").has_value());
}

TEST_P(RegistryTest, ComesBackWhenTheKeyIsDeletedByHand) {
  Registration registration = MustRegister({.address = "h:1"});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  const int64_t created = Stored("h:1")->create_revision;
  ASSERT_TRUE(Etcdctl(*cluster_, {"del", service_ + "/h:1"}).ok());
  EXPECT_TRUE(WaitFor([&] {
    auto kv = Stored("h:1");
    return kv.has_value() && kv->create_revision > created;
  }));
  EXPECT_TRUE(WaitFor([&] { return registration.state() == RegState::kRegistered; }));
}

TEST_P(RegistryTest, ComesBackWhenTheLeaseIsRevoked) {
  States states;
  Registration registration =
      MustRegister({.address = "h:1"}, {.ttl = absl::Seconds(3), .on_state = states.Callback()});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  const LeaseId lease = Stored("h:1")->lease;
  ASSERT_TRUE(Etcdctl(*cluster_, {"lease", "revoke", absl::StrCat(absl::Hex(lease))}).ok());
  EXPECT_TRUE(WaitFor([&] {
    auto kv = Stored("h:1");
    return kv.has_value() && kv->lease != lease;
  }));
  EXPECT_TRUE(WaitFor([&] { return registration.state() == RegState::kRegistered; }));
}

TEST_P(RegistryTest, ComesBackWhenTheKeyIsOverwritten) {
  Registration registration = MustRegister({.address = "h:1"});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  const std::string value = Stored("h:1")->value;
  ASSERT_TRUE(client().Put(service_ + "/h:1", "nonsense").ok());
  EXPECT_TRUE(WaitFor([&] {
    auto kv = Stored("h:1");
    return kv.has_value() && kv->value == value && kv->lease != 0;
  }));
}

TEST_P(RegistryTest, ARepairWritesTheLatestInstance) {
  Registration registration = MustRegister({.address = "h:1", .weight = 1});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  EXPECT_TRUE(registration
                  .Update([](Instance& instance) {
                    instance.weight = 2;
                    instance.address = "other:1";  // not to be changed
                  })
                  .ok());
  EXPECT_EQ(registration.instance().address, "h:1");
  const auto has_weight = [&](int64_t weight) {
    return WaitFor([&, weight] {
      auto kv = Stored("h:1");
      return kv.has_value() && DecodeNamingValue(kv->value)->weight == weight;
    });
  };
  EXPECT_TRUE(has_weight(2));
  ASSERT_TRUE(client().Delete(service_ + "/h:1").ok());
  EXPECT_TRUE(has_weight(2));
  for (int64_t weight = 3; weight <= 20; ++weight) {
    (void)registration.Update([weight](Instance& instance) { instance.weight = weight; });
  }
  EXPECT_TRUE(has_weight(20));
}

TEST_P(RegistryTest, ANewIncarnationTakesOverItsAddress) {
  auto old_lease = client().Grant(absl::Seconds(60));
  ASSERT_TRUE(old_lease.ok());
  ASSERT_TRUE(
      client()
          .Put(service_ + "/h:1", EncodeNamingValue({.address = "h:1"}), {.lease = old_lease->id})
          .ok());
  Registration registration = MustRegister({.id = "new", .address = "h:1"});
  ASSERT_TRUE(registration.WaitRegistered(absl::Seconds(5)).ok());
  ASSERT_TRUE(client().Revoke(old_lease->id).ok());
  EXPECT_TRUE(Stored("h:1").has_value());
}

TEST_P(RegistryTest, AnAddressOfAnotherIdIsTakenUntilThatOneLeaves) {
  States states;
  Registration first = MustRegister({.id = "one", .address = "h:1"});
  ASSERT_TRUE(first.WaitRegistered(kLong).ok());
  Registration second =
      MustRegister({.id = "two", .address = "h:1"}, {.on_state = states.Callback()});
  EXPECT_TRUE(WaitFor([&] { return states.last().code() == absl::StatusCode::kAlreadyExists; }));
  EXPECT_EQ(DecodeNamingValue(Stored("h:1")->value)->id, "one");
  ASSERT_TRUE(first.Deregister().ok());
  EXPECT_TRUE(second.WaitRegistered(kLong).ok());
  EXPECT_EQ(DecodeNamingValue(Stored("h:1")->value)->id, "two");
}

TEST_P(RegistryTest, BadArgumentsAreRefusedAtOnce) {
  Registry registry(client());
  for (const Instance& bad : std::vector<Instance>{{.service = "", .address = "h:1"},
                                                   {.service = "a/", .address = "h:1"},
                                                   {.service = "s", .address = ""},
                                                   {.service = "s", .address = "0.0.0.0:1"},
                                                   {.service = "s", .address = "[::]:1"},
                                                   {.service = "s", .address = "h"}}) {
    EXPECT_EQ(registry.Register(bad).status().code(), absl::StatusCode::kInvalidArgument)
        << bad.service << " " << bad.address;
  }
  EXPECT_FALSE(
      registry.Register({.service = "s", .address = "h:1"}, {.ttl = absl::Milliseconds(100)}).ok());
}

TEST_P(RegistryTest, FindsItsOwnHost) {
  Registration registration = MustRegister({.address = ":8080"});
  EXPECT_EQ(registration.instance().address, "127.0.0.1:8080");  // the way to the test's servers
}

TEST_P(RegistryTest, LeavesInTheRightOrder) {
  Registration registration = MustRegister({.address = "h:1"});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  std::vector<std::string> steps;
  const auto note = [&](const std::string& step) {
    auto kv = Stored("h:1");
    steps.push_back(absl::StrCat(step, kv.has_value() ? ", key is there" : ", key is gone"));
  };
  std::atomic<bool> draining = false;
  Watch watch = client().Watch(service_ + "/h:1", {}, [&](const WatchBatch& batch) {
    for (const WatchEvent& event : batch.events) {
      if (event.kv.value.find("draining") != std::string::npos) draining = true;
    }
  });
  std::stop_source stop;
  stop.request_stop();
  const int signal_number = RunUntilSignal({&registration},
                                           {.notice = absl::Milliseconds(100),
                                            .settle = absl::Milliseconds(10),
                                            .not_serving = [&] { note("not serving"); },
                                            .shutdown = [&](absl::Duration) { note("shutdown"); }},
                                           stop.get_token());
  EXPECT_EQ(signal_number, 0);
  EXPECT_EQ(steps,
            (std::vector<std::string>{"not serving, key is there", "shutdown, key is gone"}));
  EXPECT_TRUE(WaitFor([&] { return draining.load(); }));
  EXPECT_EQ(registration.state(), RegState::kGone);
}

INSTANTIATE_TEST_SUITE_P(Servers, RegistryTest, ::testing::ValuesIn(AllServers()), ServerName);

class RegistryFaultTest : public RegistryTest {
 protected:
  void SetUp() override { service_ = "my-service"; }
};

TEST_P(RegistryFaultTest, ComesBackAfterAnOutageLongerThanItsLease) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  States states;
  Registration registration =
      MustRegister({.address = "h:1"}, {.ttl = absl::Seconds(2), .on_state = states.Callback()});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  for (int i = 0; i < cluster->size(); ++i) cluster->Kill(i);
  ASSERT_TRUE(WaitFor([&] { return states.Had(RegState::kLost); }));
  EXPECT_TRUE(states.Had(RegState::kSuspect));
  for (int i = 0; i < cluster->size(); ++i) ASSERT_TRUE(cluster->Restart(i).ok());
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  EXPECT_TRUE(registration.WaitRegistered(kLong).ok());
  // The key is on the new lease; that of the old one must not take it along.
  auto kv = Stored("h:1");
  ASSERT_TRUE(kv.has_value());
  auto ttl = client().TimeToLive(kv->lease);
  ASSERT_TRUE(ttl.ok());
  EXPECT_TRUE(ttl->exists());
}

TEST_P(RegistryFaultTest, APartitionEndsWithTheLatestOfEverySharer) {
  constexpr int kCount = 20;
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  Registry registry(client());
  std::vector<Registration> registrations;
  for (int i = 1; i <= kCount; ++i) {
    registrations.push_back(
        MustRegister(registry, {.address = absl::StrCat("h:", i)}, {.ttl = absl::Seconds(2)}));
  }
  for (auto& each : registrations) ASSERT_TRUE(each.WaitRegistered(kLong).ok());
  for (int i = 0; i < cluster->size(); ++i) cluster->Pause(i);
  for (auto& each : registrations) {
    EXPECT_TRUE(WaitFor([&] { return each.state() == RegState::kLost; }, kLong));
    EXPECT_TRUE(each.Update([](Instance& instance) { instance.weight = 7; }).ok());
  }
  for (int i = 0; i < cluster->size(); ++i) cluster->Resume(i);
  EXPECT_TRUE(WaitFor(
      [&] {
        auto range = client().Range(Prefix(service_ + "/"));
        if (!range.ok() || range->kvs.size() != kCount) return false;
        for (const KeyValue& kv : range->kvs) {
          if (DecodeNamingValue(kv.value)->weight != 7) return false;
          if (kv.lease != range->kvs[0].lease) return false;
        }
        return true;
      },
      absl::Seconds(40)));
  for (auto& each : registrations) EXPECT_TRUE(each.WaitRegistered(kLong).ok());
}

TEST_P(RegistryFaultTest, RegistersWhenTheClusterComesUpLater) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  for (int i = 0; i < cluster->size(); ++i) cluster->Kill(i);
  Connect(*cluster);
  Registration registration = MustRegister({.address = "h:1"});
  EXPECT_EQ(registration.WaitRegistered(absl::Milliseconds(300)).code(),
            absl::StatusCode::kDeadlineExceeded);
  for (int i = 0; i < cluster->size(); ++i) ASSERT_TRUE(cluster->Restart(i).ok());
  EXPECT_TRUE(registration.WaitRegistered(kLong).ok());
}

TEST_P(RegistryFaultTest, ASignalIsHeard) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  Registration registration = MustRegister({.address = "h:1"});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  signal(SIGTERM, SIG_IGN);  // until RunUntilSignal listens
  std::atomic<bool> down = false;
  std::thread killer([&] {
    while (!down) {
      kill(getpid(), SIGTERM);
      absl::SleepFor(absl::Milliseconds(2));
    }
  });
  const int signal_number =
      RunUntilSignal({&registration}, {.notice = absl::Milliseconds(1),
                                       .settle = absl::Milliseconds(1),
                                       .shutdown = [&](absl::Duration) { down = true; }});
  killer.join();
  signal(SIGTERM, SIG_DFL);
  EXPECT_EQ(signal_number, SIGTERM);
  EXPECT_FALSE(Stored("h:1").has_value());
}

INSTANTIATE_TEST_SUITE_P(Servers, RegistryFaultTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
