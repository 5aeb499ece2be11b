// The live view of a service, against real servers.
#include "conclave/discovery/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "conclave/client/client.h"
#include "conclave/discovery/cache_file.h"
#include "conclave/registry/codec.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/discovery/service_fixture.h"
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

class DiscoveryTest : public testing::ServiceFixture {
 protected:
  static void PutInstance(const Client& client, const std::string& service,
                          const std::string& address) {
    ServiceFixture::PutInstance(client, service, {.address = address});
  }
  static bool Becomes(const Service& service, const std::vector<std::string>& addresses,
                      absl::Duration timeout = absl::Seconds(20)) {
    const auto snapshot = service.Wait(
        [&](const Snapshot& now) { return now.known() && Addresses(now.instances()) == addresses; },
        {.timeout = timeout});
    return snapshot.ok();
  }
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
  for (const std::string& bad :
       {std::string("a//b"), std::string("/a"), std::string("a/"), std::string("a\nb"),
        std::string("a\0b", 3), std::string("\xff\xfe"), std::string(10'000, 'x'),
        std::string("etcd:///"), std::string("etcd:////a")}) {
    EXPECT_EQ(discovery.Watch(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
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

TEST_P(DiscoveryTest, HandlesWithAFilterSeeTheirPartOfTheSameWatch) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  const auto put = [&](const Instance& instance) {
    ASSERT_TRUE(
        client.Put(InstanceKey(Name(), instance.address), EncodeNamingValue(instance)).ok());
  };
  put({.address = "10.0.0.1:80", .zone = "east"});
  put({.address = "10.0.0.2:80", .zone = "west", .tags = {"canary"}});
  Discovery discovery(client);
  auto all = discovery.Watch(Name());
  auto east = discovery.Watch(Name(), {.prefer_zone = "east"});
  auto stable = discovery.Watch(Name(), {.exclude_tags = {"canary"}});
  ASSERT_TRUE(all.ok() && east.ok() && stable.ok());
  EXPECT_TRUE(Becomes(*all, {"10.0.0.1:80", "10.0.0.2:80"}));
  EXPECT_TRUE(Becomes(*east, {"10.0.0.1:80"}));
  EXPECT_TRUE(Becomes(*stable, {"10.0.0.1:80"}));
  // One that is watched already is known at once.
  EXPECT_TRUE(discovery.Watch(Name(), {.zones = {"west"}})->snapshot()->known());
  std::atomic<int> heard = 0;
  Subscription subscription =
      stable->Subscribe([&](const Snapshot&, const Delta& delta) { heard += !delta.empty(); });
  ASSERT_TRUE(WaitFor([&] { return heard == 1; }));
  put({.address = "10.0.0.3:80", .tags = {"canary"}});
  EXPECT_TRUE(Becomes(*all, {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}));
  DeleteInstance(client, Name(), "10.0.0.1:80");
  EXPECT_TRUE(Becomes(*east, {"10.0.0.2:80", "10.0.0.3:80"}));
  EXPECT_TRUE(east->snapshot()->spilled_over());
  ASSERT_TRUE(WaitFor([&] { return heard == 2; })) << "not of what the filter leaves out";
  EXPECT_EQ(discovery.Watch(Name(), {.version = "*1"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(DiscoveryTest, AReaderSeesWhatTheServiceSees) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  Discovery discovery(client);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  SnapshotReader reader(*service);
  for (int i = 0; i < 20; ++i) {
    PutInstance(client, Name(), "10.0.0." + std::to_string(i) + ":80");
    ASSERT_TRUE(WaitFor([&] { return reader.Read().instances().size() == i + 1u; }));
    EXPECT_EQ(&reader.Read(), service->snapshot().get());
  }
  EXPECT_LT(absl::Now() - service->last_heard(), absl::Minutes(1));
}

TEST_P(DiscoveryTest, ReadsWhatOtherProjectsWrite) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  for (const Format format : {Format::kEtcdNaming, Format::kKratos, Format::kKitex, Format::kGoZero,
                              Format::kGoMicro, Format::kSkyDns}) {
    const Codec& codec = CodecFor(format);
    const std::string name = std::string(FormatName(format)) + "-" + std::to_string(run_);
    const Instance instance{.service = name, .address = "10.0.0.7:80"};
    ASSERT_TRUE(client.Put(codec.Key(instance, 77), codec.Encode(instance)).ok());
    ASSERT_TRUE(client.Put(codec.Prefix(name) + "1", "\x01 garbage").ok());
    auto service = Discovery(client, {.format = format}).Watch(name);
    ASSERT_TRUE(service.ok()) << service.status();
    EXPECT_TRUE(Becomes(*service, {"10.0.0.7:80"})) << FormatName(format);
    EXPECT_TRUE(service
                    ->Wait([](const Snapshot& now) { return now.skipped() == 1; },
                           {.timeout = absl::Seconds(20)})
                    .ok())
        << FormatName(format);
  }
}

struct RemovedAtTheEnd {
  ~RemovedAtTheEnd() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  const std::string path;
};

TEST_P(DiscoveryTest, BeginsWithTheSetOnDiskWhileTheClusterIsAway) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  std::string pattern = ::testing::TempDir() + "/discovery_XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const RemovedAtTheEnd folder{pattern};  // outlives who writes to it
  const DiscoveryOptions options{.cache_dir = pattern + "/cache",
                                 .cache_after = absl::Milliseconds(100)};
  const std::string path = CacheFile::PathOf(options.cache_dir, Name());
  {
    Client client = Connect(*cluster);
    PutInstance(client, Name(), "10.0.0.1:80");
    PutInstance(client, Name(), "10.0.0.2:80");
    Discovery discovery(client, options);
    auto service = discovery.Watch(Name());
    ASSERT_TRUE(service.ok());
    ASSERT_TRUE(Becomes(*service, {"10.0.0.1:80", "10.0.0.2:80"}));
    // One of them alone may have been saved first.
    ASSERT_TRUE(WaitFor([&] {
      const auto saved = CacheFile::Read(path, Name());
      return saved.ok() && saved->instances.size() == 2;
    }));
  }
  for (int member = 0; member < cluster->size(); ++member) cluster->Kill(member);
  const absl::Time saved_at = CacheFile::Read(path, Name())->saved_at;
  Client client = Connect(*cluster);
  Discovery discovery(client, options);
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  ASSERT_TRUE(Becomes(*service, {"10.0.0.1:80", "10.0.0.2:80"}));
  EXPECT_TRUE(service->snapshot()->from_cache());
  EXPECT_EQ(service->snapshot()->stale_since(), saved_at);
  // A damaged file is as good as none.
  std::ofstream(CacheFile::PathOf(options.cache_dir, Name("b"))) << "garbage";
  auto other = discovery.Watch(Name("b"));
  ASSERT_TRUE(other.ok());
  for (int member = 0; member < cluster->size(); ++member) {
    ASSERT_TRUE(cluster->Restart(member).ok());
  }
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  DeleteInstance(Connect(*cluster), Name(), "10.0.0.1:80");
  EXPECT_TRUE(Becomes(*service, {"10.0.0.2:80"}));
  EXPECT_FALSE(service->snapshot()->from_cache());
  EXPECT_FALSE(service->snapshot()->stale_since().has_value());
  EXPECT_TRUE(Becomes(*other, {}));
}

TEST_P(DiscoveryTest, AListThatShrinksSuddenlyIsHeldUntilASecondOneConfirmsIt) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  for (int i = 0; i < 6; ++i) PutInstance(client, Name(), "10.0.0." + std::to_string(i) + ":80");
  std::atomic<int> warnings = 0;
  auto watching = Client::Connect(
      {.endpoints = cluster->endpoints(), .log_sink = [&](LogLevel level, std::string_view line) {
         warnings += level == LogLevel::kWarning && line.find("list lacks 5 of 6") != line.npos;
       }});
  ASSERT_TRUE(watching.ok());
  Discovery discovery(*watching, {.shrink_hold = absl::Seconds(4)});
  auto service = discovery.Watch(Name());
  ASSERT_TRUE(service.ok());
  const auto size_is = [](size_t size) {
    return [size](const Snapshot& now) { return now.instances().size() == size; };
  };
  ASSERT_TRUE(service->Wait(size_is(6), {.timeout = absl::Seconds(20)}).ok());
  // Five go while the watcher is away, and their history with them.
  for (int member = 0; member < cluster->size(); ++member) cluster->Kill(member);
  ASSERT_TRUE(service
                  ->Wait([](const Snapshot& now) { return now.stale_since().has_value(); },
                         {.timeout = absl::Seconds(60)})
                  .ok());
  for (int member = 0; member < cluster->size(); ++member) {
    ASSERT_TRUE(cluster->Restart(member).ok());
  }
  ASSERT_TRUE(cluster->WaitAllHealthy().ok());
  const auto deleted = Connect(*cluster).Delete(
      KeyRange(InstanceKey(Name(), "10.0.0.1"), InstanceKey(Name(), "10.0.0.9")));
  ASSERT_TRUE(deleted.ok());
  const auto last = Connect(*cluster).Put("unrelated", "");
  ASSERT_TRUE(last.ok());
  ASSERT_TRUE(Connect(*cluster).Compact(last->revision).ok());
  // Either the watch was back before the compaction and saw them go, or it lists again and holds.
  ASSERT_TRUE(service
                  ->Wait(
                      [](const Snapshot& now) {
                        return now.suspect_since().has_value() || now.instances().size() == 1;
                      },
                      {.timeout = absl::Seconds(60)})
                  .ok());
  if (service->snapshot()->suspect_since().has_value()) {
    EXPECT_EQ(service->snapshot()->instances().size(), 6u);
    EXPECT_EQ(service->snapshot()->held(), 5);
    EXPECT_EQ(warnings, 1);
  }
  EXPECT_TRUE(service->Wait(size_is(1), {.timeout = absl::Seconds(60)}).ok());
  EXPECT_FALSE(service->snapshot()->suspect_since().has_value());
}

TEST_P(DiscoveryTest, CountsWhatItSees) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  auto registry = std::make_shared<prometheus::Registry>();
  auto client = Client::Connect({.endpoints = cluster->endpoints(), .metrics = registry});
  ASSERT_TRUE(client.ok());
  PutInstance(*client, Name(), "10.0.0.1:80");
  ASSERT_TRUE(client->Put(Name("/x"), "garbage").ok());
  auto service = Discovery(*client).Watch(Name());
  ASSERT_TRUE(service.ok());
  ASSERT_TRUE(Becomes(*service, {"10.0.0.1:80"}));
  const auto value = [&](const std::string& name) {
    for (const auto& family : registry->Collect()) {
      if (family.name != name) continue;
      for (const auto& metric : family.metric) {
        if (metric.label.at(0).value != Name()) continue;
        return family.type == prometheus::MetricType::Counter ? metric.counter.value
                                                              : metric.gauge.value;
      }
    }
    return -1.0;
  };
  EXPECT_EQ(value("conclave_discovery_instances"), 1);
  // A member that lags may have listed the one before the other was there.
  EXPECT_TRUE(WaitFor([&] { return value("conclave_discovery_skipped") == 1; }));
  EXPECT_EQ(value("conclave_discovery_unreadable_total"), 1);
  EXPECT_EQ(value("conclave_discovery_lists_total"), 1);
  EXPECT_GE(value("conclave_discovery_updates_total"), 1);
  EXPECT_EQ(value("conclave_discovery_stale_seconds"), 0);
  EXPECT_EQ(value("conclave_discovery_guard_holds_total"), 0);
}

TEST_P(DiscoveryTest, OptionsThatMakeNoSenseAreRefused) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  const auto refused = [&](const DiscoveryOptions& options) {
    return Discovery(client, options).Watch("s").status().code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused({.resolve_interval = absl::ZeroDuration()}));
  EXPECT_TRUE(refused({.shrink_guard = 1.0}));
  EXPECT_TRUE(refused({.shrink_guard = -0.1}));
  EXPECT_TRUE(refused({.shrink_hold = absl::ZeroDuration()}));
  EXPECT_TRUE(refused({.cache_after = -absl::Seconds(1)}));
}

INSTANTIATE_TEST_SUITE_P(Servers, DiscoveryTest, ::testing::ValuesIn(testing::AllServers()),
                         testing::ServerName);

}  // namespace
}  // namespace conclave
