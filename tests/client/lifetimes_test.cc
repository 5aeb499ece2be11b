// Handles that are made, used, moved, and destroyed in any order, on several threads, inside
// callbacks and while the network breaks: 1,000 lifetimes of each kind. Nothing may be called after
// its owner is gone, nothing may be forgotten, and nothing may hang; run under ASan and TSan.
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/prng.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/tcp_proxy.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::TcpProxy;
using testing::WaitFor;

constexpr int kLifetimes = 1000;
constexpr int kThreads = 4;
constexpr absl::Duration kPatience = absl::Seconds(60);

// Good for a while, bad for a moment, and so on.
class Weather {
 public:
  explicit Weather(TcpProxy& network) : network_(network), thread_([this] { Run(); }) {}
  ~Weather() {
    over_ = true;
    thread_.join();
    network_.Heal();
  }

 private:
  void Run() {
    Prng prng(3);
    while (!over_) {
      Last(prng.Between(100, 300));
      switch (prng.Below(4)) {
        case 0:
          network_.Cut();
          break;
        case 1:
          network_.Stall();
          break;
        case 2:
          network_.Stall(TcpProxy::Direction::kToClient);
          break;
        default:
          network_.Reset();
      }
      Last(prng.Between(0, 30));
      network_.Heal();
    }
  }
  void Last(int64_t milliseconds) {
    const absl::Time end = absl::Now() + absl::Milliseconds(milliseconds);
    (void)WaitFor([&] { return over_ || absl::Now() >= end; });
  }

  TcpProxy& network_;
  std::atomic<bool> over_ = false;
  std::thread thread_;
};

// What a call may say while the network breaks; anything else is a defect.
void ExpectWeather(const absl::Status& status) {
  EXPECT_TRUE(status.ok() || absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status) ||
              absl::IsCancelled(status) || absl::IsResourceExhausted(status))
      << status;
}

class LifetimesTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    const std::string endpoint = cluster->endpoint(0);
    int port = 0;
    ASSERT_TRUE(absl::SimpleAtoi(endpoint.substr(endpoint.rfind(':') + 1), &port));
    auto proxy = TcpProxy::Start(port);
    ASSERT_TRUE(proxy.ok()) << proxy.status();
    proxy_ = *std::move(proxy);
    weather_ = std::make_unique<Weather>(*proxy_);
  }
  void TearDown() override { weather_.reset(); }

  std::optional<Client> Connect() {
    absl::StatusOr<Client> client = Client::Connect({
        .endpoints = {proxy_->endpoint()},
        .name_space = "lifetimes/",
        .request_timeout = absl::Milliseconds(300),
        .log_sink = [](LogLevel, std::string_view) {},
    });
    EXPECT_TRUE(client.ok()) << client.status();
    if (!client.ok()) return std::nullopt;
    return *std::move(client);
  }
  static void Live(const std::function<void(Prng& prng)>& one) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([t, &one] {
        Prng prng(40 + t);
        for (int i = 0; i < kLifetimes / kThreads; ++i) one(prng);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::unique_ptr<TcpProxy> proxy_;
  std::unique_ptr<Weather> weather_;
};

TEST_P(LifetimesTest, Clients) {
  std::atomic<int> started = 0;
  std::atomic<int> done = 0;
  Live([&](Prng& prng) {
    std::optional<Client> client = Connect();
    ASSERT_TRUE(client.has_value());
    if (prng.Chance(1, 2))
      ExpectWeather(client->Get("k", {}, {.timeout = absl::Milliseconds(20)}).status());
    if (prng.Chance(1, 2)) {
      ++started;
      // The callback may be the last to hold the client.
      client->PutAsync({.key = "k", .value = "v"}, {},
                       [&done, keep = prng.Chance(1, 2) ? client : std::nullopt](
                           const absl::StatusOr<PutResult>& result) mutable {
                         ExpectWeather(result.status());
                         keep.reset();
                         ++done;
                       });
    }
    std::optional<Client> copy = client;
    Client moved = *std::move(client);
    client.reset();
    if (prng.Chance(1, 2)) copy.reset();
    if (prng.Chance(1, 4)) {
      ++started;
      std::stop_source stop;
      moved.RangeAsync({.range = AllKeys()}, {.stop = stop.get_token()},
                       [&done](const absl::StatusOr<RangeResult>& result) {
                         ExpectWeather(result.status());
                         ++done;
                       });
      if (prng.Chance(1, 2)) stop.request_stop();
    }
    if (prng.Chance(1, 8)) {
      ++started;
      moved.RunOnCallbackThread([&done, last = moved] { ++done; });
    }
  });
  EXPECT_TRUE(WaitFor([&] { return done == started; }, kPatience))
      << done << " of " << started << " callbacks";
}

TEST_P(LifetimesTest, Watches) {
  // One that watches, as its callback sees it: its end must be the end of all callbacks.
  struct Owner {
    std::atomic<bool> gone = false;
    std::mutex mutex;
    std::optional<Watch> watch;  // guarded by mutex
    void Destroy() {
      std::optional<Watch> last;
      {
        std::lock_guard lock(mutex);
        last.swap(watch);
      }
      if (!last.has_value()) return;
      last.reset();
      gone = true;
    }
  };
  std::optional<Client> shared = Connect();
  ASSERT_TRUE(shared.has_value());
  std::atomic<int64_t> batches = 0;
  Live([&](Prng& prng) {
    const std::string key = absl::StrCat("w/", prng.Below(8));
    const bool suicidal = prng.Chance(1, 4);
    auto owner = std::make_shared<Owner>();
    std::optional<Client> client = prng.Chance(1, 50) ? Connect() : shared;
    ASSERT_TRUE(client.has_value());
    Watch watch =
        client->Watch(prng.Chance(1, 2) ? Prefix("w/") : KeyRange(key),
                      {.list_first = prng.Chance(1, 2), .report_connection = prng.Chance(1, 2)},
                      [owner, suicidal, &batches](const WatchBatch& batch) {
                        EXPECT_FALSE(owner->gone) << "called after its end";
                        EXPECT_TRUE(batch.status.ok()) << batch.status;
                        ++batches;
                        if (suicidal) owner->Destroy();
                      });
    client.reset();
    Watch moved = std::move(watch);
    {
      std::lock_guard lock(owner->mutex);
      owner->watch = std::move(moved);
    }
    if (prng.Chance(1, 2)) {
      ExpectWeather(shared->Put(key, "v", {}, {.timeout = absl::Milliseconds(100)}).status());
    }
    owner->Destroy();
  });
  EXPECT_GT(batches, 0);
}

TEST_P(LifetimesTest, Sessions) {
  std::optional<Client> shared = Connect();
  ASSERT_TRUE(shared.has_value());
  std::atomic<int> opened = 0;
  std::atomic<int> dying = 0;
  std::atomic<int> died = 0;
  Live([&](Prng& prng) {
    struct Owner {
      std::mutex mutex;
      Session session;  // guarded by mutex
      bool wanted = false;
    };
    auto owner = std::make_shared<Owner>();
    const bool doomed = prng.Chance(1, 40);
    auto health = [owner, doomed, &died](SessionHealth now) {
      if (!doomed || now != SessionHealth::kLost) return;
      Session last;
      {
        std::lock_guard lock(owner->mutex);
        std::swap(last, owner->session);
      }
      ++died;  // and its destructor runs in its own callback
    };
    absl::StatusOr<Session> session =
        shared->OpenSession({.ttl = absl::Seconds(doomed ? 1 : 10), .on_health = health});
    if (!session.ok()) return ExpectWeather(session.status());
    ++opened;
    std::stop_callback on_lost(session->stop_token(), [] {});
    const LeaseId lease = session->lease_id();
    if (doomed) {
      ++dying;
      {
        std::lock_guard lock(owner->mutex);
        owner->session = *std::move(session);
      }
      const absl::Status revoked = shared->Revoke(lease);
      if (!absl::IsNotFound(revoked)) ExpectWeather(revoked);
      return;
    }
    if (prng.Chance(1, 2)) {
      ExpectWeather(shared->Put(absl::StrCat("s/", lease), "v", {.lease = lease}).status());
    }
    Session moved = *std::move(session);
    if (prng.Chance(1, 4)) ExpectWeather(moved.Close({.timeout = absl::Milliseconds(200)}));
    if (prng.Chance(1, 4)) moved = Session();
  });
  EXPECT_GT(opened, kLifetimes / 2);
  EXPECT_GT(dying, 0);
  EXPECT_TRUE(WaitFor([&] { return died == dying; }, kPatience)) << died << " of " << dying;
}

TEST_P(LifetimesTest, PagesAndTransactions) {
  std::optional<Client> shared = Connect();
  ASSERT_TRUE(shared.has_value());
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(WaitFor([&] { return shared->Put(absl::StrCat("p/", i), "v").ok(); }, kPatience));
  }
  std::atomic<int> read = 0;
  std::atomic<int> committed = 0;
  Live([&](Prng& prng) {
    std::optional<Client> client = prng.Chance(1, 50) ? Connect() : shared;
    ASSERT_TRUE(client.has_value());
    conclave::Pages pages = client->Pages(Prefix("p/"), {.page_size = 7});
    TxnBuilder builder = client->Txn();
    builder.If(Present("p/1"), Absent("none"));
    const Client fenced = client->Fenced(Present("p/2"));
    client.reset();  // what was made from it lives on
    conclave::Pages moved = std::move(pages);
    size_t left = prng.Below(4);
    for (const absl::StatusOr<Page>& page : moved) {
      if (!page.ok()) ExpectWeather(page.status());
      if (page.ok()) ++read;
      if (left-- == 0) break;
    }
    TxnBuilder other = std::move(builder);
    other.Then(Put("t", "v"), Get("p/1"));
    if (prng.Chance(1, 2)) {
      auto result = other.Commit();
      ExpectWeather(result.status());
      if (result.ok()) ++committed;
    }
    if (prng.Chance(1, 4)) ExpectWeather(fenced.Put("t", "w").status());
    if (prng.Chance(1, 4)) {
      ExpectWeather(fenced.Atomically([](Stm& tx) {
        tx.PutInt("n", tx.GetInt("n").value_or(0) + 1);
        return absl::OkStatus();
      }));
    }
  });
  EXPECT_GT(read, kLifetimes / 2);
  EXPECT_GT(committed, kLifetimes / 8);
}

INSTANTIATE_TEST_SUITE_P(Servers, LifetimesTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
