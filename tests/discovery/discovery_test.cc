// The live view of a service, against real servers.
#include "conclave/discovery/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "conclave/client/client.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::ServerUnderTest;
using testing::TestCluster;
using testing::WaitFor;

std::vector<std::string> Addresses(const InstanceList& instances) {
  std::vector<std::string> addresses;
  for (const Instance& instance : instances) addresses.push_back(instance.address);
  return addresses;
}

class DiscoveryTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override { ++run_; }
  static Client Connect(const TestCluster& cluster) {
    auto client = Client::Connect({.endpoints = cluster.endpoints()});
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  static std::string Name(const std::string& suffix = "") {
    const std::string test = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    return test.substr(0, test.find('/')) + "." + std::to_string(run_) + suffix;
  }
  static void PutInstance(const Client& client, const std::string& service,
                          const std::string& address) {
    const auto put = client.Put(InstanceKey(service, address),
                                EncodeNamingValue({.service = service, .address = address}));
    ASSERT_TRUE(put.ok()) << put.status();
  }
  static void DeleteInstance(const Client& client, const std::string& service,
                             const std::string& address) {
    ASSERT_TRUE(client.Delete(InstanceKey(service, address)).ok());
  }
  static bool Becomes(const Service& service, const std::vector<std::string>& addresses,
                      absl::Duration timeout = absl::Seconds(20)) {
    const auto snapshot = service.Wait(
        [&](const Snapshot& now) { return now.known() && Addresses(now.instances()) == addresses; },
        {.timeout = timeout});
    return snapshot.ok();
  }

  static inline int run_ = 0;  // names differ between repetitions, which share a cluster
};

TEST_P(DiscoveryTest, ListsWhatIsThereAndFollowsChanges) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  PutInstance(client, Name(), "10.0.0.1:80");
  Discovery discovery(client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok()) << service.status();
  EXPECT_TRUE(Becomes(*service, {"10.0.0.1:80"}));
  PutInstance(client, Name(), "10.0.0.2:80");
  EXPECT_TRUE(Becomes(*service, {"10.0.0.1:80", "10.0.0.2:80"}));
  const int64_t revision = service->snapshot()->revision();
  DeleteInstance(client, Name(), "10.0.0.1:80");
  EXPECT_TRUE(Becomes(*service, {"10.0.0.2:80"}));
  EXPECT_GT(service->snapshot()->revision(), revision);
  EXPECT_FALSE(service->snapshot()->stale_since().has_value());
  EXPECT_LT(service->snapshot()->age(), absl::Seconds(20));
}

TEST_P(DiscoveryTest, KnowsAnEmptyServiceFromAnUnknownOne) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Discovery discovery(Connect(*cluster));
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  EXPECT_TRUE(Becomes(*service, {}));
}

TEST_P(DiscoveryTest, ShowsWhatEtcdctlPut) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  const auto put = testing::Etcdctl(
      *cluster, {"put", Name() + "/1.2.3.4", R"({"Addr":"1.2.3.4:80","Metadata":"..."})"});
  if (!put.ok()) GTEST_SKIP() << put.status();
  Discovery discovery(Connect(*cluster));
  auto service = discovery.Watch("etcd:///" + Name());
  ASSERT_TRUE(service.ok());
  EXPECT_TRUE(Becomes(*service, {"1.2.3.4:80"}));
}

TEST_P(DiscoveryTest, DoesNotSeeTheInstancesOfALongerName) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  PutInstance(client, Name("b"), "10.0.0.2:80");
  ASSERT_TRUE(client.Put(Name(), R"({"Op":0,"Addr":"10.0.0.3:80","Metadata":null})").ok());
  PutInstance(client, Name(), "10.0.0.1:80");
  Discovery discovery(client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  EXPECT_TRUE(Becomes(*service, {"10.0.0.1:80"}));
}

TEST_P(DiscoveryTest, LeavesOutWhatItCannotReadAndKeepsTheOthers) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  ASSERT_TRUE(client.Put(Name("/x"), "garbage").ok());
  ASSERT_TRUE(client.Put(Name("/y"), "").ok());
  PutInstance(client, Name(), "10.0.0.1:80");
  Discovery discovery(client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  EXPECT_TRUE(Becomes(*service, {"10.0.0.1:80"}));
  EXPECT_EQ(service->snapshot()->skipped(), 2);
}

TEST_P(DiscoveryTest, SubscribersHearTheStateFirstThenTheChanges) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  PutInstance(client, Name(), "10.0.0.1:80");
  Discovery discovery(client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  absl::Mutex mutex;
  std::vector<std::string> heard;
  Subscription subscription = service->Subscribe([&](const Snapshot&, const Delta& delta) {
    absl::MutexLock lock(&mutex);
    for (const Instance& instance : delta.added) heard.push_back("+" + instance.address);
    for (const Instance& instance : delta.removed) heard.push_back("-" + instance.address);
  });
  const auto count = [&] {
    absl::MutexLock lock(&mutex);
    return heard.size();
  };
  ASSERT_TRUE(WaitFor([&] { return count() == 1; }));
  PutInstance(client, Name(), "10.0.0.2:80");
  ASSERT_TRUE(WaitFor([&] { return count() == 2; }));
  DeleteInstance(client, Name(), "10.0.0.1:80");
  ASSERT_TRUE(WaitFor([&] { return count() == 3; }));
  subscription.Cancel();
  EXPECT_THAT(heard, ElementsAre("+10.0.0.1:80", "+10.0.0.2:80", "-10.0.0.1:80"));
  PutInstance(client, Name(), "10.0.0.3:80");
  EXPECT_TRUE(Becomes(*service, {"10.0.0.2:80", "10.0.0.3:80"}));
  EXPECT_EQ(heard.size(), 3u) << "not after the end of the subscription";
}

TEST_P(DiscoveryTest, ASubscriptionAndAllHandlesMayEndInTheirOwnCallback) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  absl::Notification ended;
  auto discovery = std::make_shared<Discovery>(Connect(*cluster));
  auto service = std::make_shared<Service>(*discovery->Watch(Name()));
  auto subscription = std::make_shared<Subscription>();
  absl::Notification stored;
  *subscription = service->Subscribe([&](const Snapshot&, const Delta&) {
    stored.WaitForNotification();
    if (subscription == nullptr) return;
    service.reset();
    discovery.reset();
    subscription.reset();
    ended.Notify();
  });
  stored.Notify();
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_P(DiscoveryTest, HandlesOfOneNameShareOneWatch) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Discovery discovery(client);
  auto one = discovery.Watch(Name());
  auto two = discovery.Watch(Name());
  ASSERT_TRUE(one.ok() && two.ok());
  PutInstance(client, Name(), "10.0.0.1:80");
  EXPECT_TRUE(Becomes(*one, {"10.0.0.1:80"}));
  EXPECT_EQ(one->snapshot(), two->snapshot());
}

TEST_P(DiscoveryTest, RefusesNamesThatAreNone) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Discovery discovery(Connect(*cluster));
  EXPECT_EQ(discovery.Watch("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(discovery.Watch("a//b").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(DiscoveryTest, AWaitEndsAtItsDeadlineAndAtAStop) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Discovery discovery(Connect(*cluster));
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  const auto never = [](const Snapshot&) { return false; };
  EXPECT_EQ(service->Wait(never, {.timeout = absl::Milliseconds(50)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::stop_source stop;
  std::thread stopper([&] { stop.request_stop(); });
  EXPECT_EQ(service->Wait(never, {.stop = stop.get_token()}).status().code(),
            absl::StatusCode::kCancelled);
  stopper.join();
}

TEST_P(DiscoveryTest, SurvivesARestartOfTheClusterAndACompactionMeanwhile) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  PutInstance(client, Name(), "10.0.0.1:80");
  PutInstance(client, Name(), "10.0.0.2:80");
  Discovery discovery(client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  ASSERT_TRUE(Becomes(*service, {"10.0.0.1:80", "10.0.0.2:80"}));
  for (int round = 0; round < 2; ++round) {
    for (int member = 0; member < cluster->size(); ++member) cluster->Kill(member);
    // Out of reach: the set stays, and says that it may be old.
    ASSERT_TRUE(service
                    ->Wait([](const Snapshot& now) { return now.stale_since().has_value(); },
                           {.timeout = absl::Seconds(20)})
                    .ok());
    EXPECT_THAT(Addresses(service->snapshot()->instances()),
                ElementsAre("10.0.0.1:80", "10.0.0.2:80"));
    for (int member = 0; member < cluster->size(); ++member) {
      ASSERT_TRUE(cluster->Restart(member).ok());
    }
    ASSERT_TRUE(cluster->WaitAllHealthy().ok());
    // As soon as it is back, and perhaps before the watch is: changes, and their history is gone.
    Client other = Connect(*cluster);
    DeleteInstance(other, Name(), "10.0.0.1:80");
    PutInstance(other, Name(), "10.0.0.3:80");
    const auto last = other.Put("unrelated", "");
    ASSERT_TRUE(last.ok());
    ASSERT_TRUE(other.Compact(last->revision).ok());
    EXPECT_TRUE(Becomes(*service, {"10.0.0.2:80", "10.0.0.3:80"}));
    EXPECT_FALSE(service->snapshot()->stale_since().has_value());
    DeleteInstance(other, Name(), "10.0.0.3:80");
    PutInstance(other, Name(), "10.0.0.1:80");
    EXPECT_TRUE(Becomes(*service, {"10.0.0.1:80", "10.0.0.2:80"})) << "it follows again";
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, DiscoveryTest, ::testing::ValuesIn(testing::AllServers()),
                         testing::ServerName);

}  // namespace
}  // namespace conclave
