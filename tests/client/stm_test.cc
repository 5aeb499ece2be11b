// Software transactions against real servers: threads that move money, write skew, lost answers.
#include "conclave/client/stm.h"

#include <atomic>
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

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;
using testing::TcpProxy;

constexpr Isolation kAllLevels[] = {Isolation::kSerializableSnapshot, Isolation::kSerializable,
                                    Isolation::kRepeatableReads};

class StmTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    cluster_ = cluster;
    prefix_ = std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + "/";
    client_ = Connect(cluster->endpoints());
    ASSERT_TRUE(client_.has_value());
  }
  std::optional<Client> Connect(const std::vector<std::string>& endpoints) {
    absl::StatusOr<Client> client =
        Client::Connect({.endpoints = endpoints, .name_space = prefix_});
    EXPECT_TRUE(client.ok()) << client.status();
    if (!client.ok()) return std::nullopt;
    return *std::move(client);
  }
  int64_t Number(const std::string& key) {
    auto kv = client().Get(key);
    EXPECT_TRUE(kv.ok()) << kv.status();
    int64_t number = 0;
    if (!kv.ok() || !kv->has_value()) return 0;
    EXPECT_TRUE(absl::SimpleAtoi((*kv)->value, &number));
    return number;
  }
  Client& client() { return *client_; }

  testing::TestCluster* cluster_ = nullptr;
  std::string prefix_;
  std::optional<Client> client_;
};

TEST_P(StmTest, ReadsWritesAndDeletesAtOnce) {
  ASSERT_TRUE(client().Put("old", "x").ok());
  ASSERT_TRUE(client()
                  .Atomically([](Stm& tx) {
                    EXPECT_EQ(tx.Get("none"), std::nullopt);
                    EXPECT_EQ(tx.Get("old"), "x");
                    EXPECT_GT(tx.GetKeyValue("old")->mod_revision, 0);
                    tx.Delete("old");
                    EXPECT_EQ(tx.Get("old"), std::nullopt);
                    tx.PutInt("n", tx.GetInt("n").value_or(40) + 2);
                    EXPECT_EQ(tx.GetInt("n"), 42);
                    EXPECT_EQ(tx.Range(AllKeys()).size(), 1u);
                    EXPECT_EQ(tx.Range("n").size(), 1u);
                    return tx.status();
                  })
                  .ok());
  EXPECT_EQ(Number("n"), 42);
  auto rest = client().Range(AllKeys());
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_EQ(rest->kvs.size(), 1u);
}

TEST_P(StmTest, WhatTheFunctionReturnsEndsItWithoutEffect) {
  int runs = 0;
  const absl::Status status = client().Atomically([&runs](Stm& tx) {
    ++runs;
    tx.Put("k", "v");
    return absl::FailedPreconditionError("not enough");
  });
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(runs, 1);
  auto kv = client().Get("k");
  EXPECT_TRUE(kv.ok() && !kv->has_value());
}

TEST_P(StmTest, WhatCannotBeMeantIsRefusedWithoutEffect) {
  ASSERT_TRUE(client().Put("text", "abc").ok());
  const auto expect_refused = [this](absl::FunctionRef<absl::Status(Stm&)> transaction) {
    const absl::Status status = client().Atomically(transaction, {.marker = "marker"});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  };
  expect_refused([](Stm& tx) {
    EXPECT_EQ(tx.GetInt("text"), std::nullopt);
    EXPECT_FALSE(tx.status().ok());
    tx.Put("k", "v");
    return absl::OkStatus();
  });
  expect_refused([](Stm& tx) {
    tx.Put("k", "v");
    tx.Put("", "v");
    return absl::OkStatus();
  });
  expect_refused([](Stm& tx) {
    tx.Put("k", "v");
    tx.Get("");
    return absl::OkStatus();
  });
  expect_refused([](Stm& tx) {
    tx.Delete("marker");
    return absl::OkStatus();
  });
  auto kv = client().Get("k");
  EXPECT_TRUE(kv.ok() && !kv->has_value());
}

// The bank: threads move money between accounts; money is neither made nor lost, at no time.
TEST_P(StmTest, MoneyIsConserved) {
  constexpr int kAccounts = 5;
  constexpr int kThreads = 4;
  constexpr int kMoves = 15;
  constexpr int64_t kEach = 100;
  const auto account = [](uint64_t i) { return absl::StrCat("account/", i); };
  for (const Isolation isolation : kAllLevels) {
    for (int i = 0; i < kAccounts; ++i) {
      ASSERT_TRUE(client().Put(account(i), std::to_string(kEach)).ok());
    }
    std::atomic<bool> over = false;
    std::atomic<int> moved = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Prng prng(100 + t);
        for (int i = 0; i < kMoves; ++i) {
          const std::string from = account(prng.Below(kAccounts));
          const std::string to = account(prng.Below(kAccounts));
          const int64_t amount = prng.Between(1, 50);
          const absl::Status status = client().Atomically(
              [&](Stm& tx) -> absl::Status {
                const int64_t balance = tx.GetInt(from).value_or(0);
                if (balance < amount) return absl::OkStatus();
                tx.PutInt(from, balance - amount);
                tx.PutInt(to, tx.GetInt(to).value_or(0) + amount);
                return absl::OkStatus();
              },
              {.isolation = isolation}, {.timeout = absl::Seconds(60)});
          EXPECT_TRUE(status.ok()) << status;
          ++moved;
        }
      });
    }
    // An auditor that only reads, meanwhile: one key by one, and as a range.
    std::thread auditor([&] {
      while (!over) {
        int64_t sum = 0;
        int64_t range_sum = 0;
        const absl::Status status = client().Atomically(
            [&](Stm& tx) {
              sum = range_sum = 0;
              for (int i = 0; i < kAccounts; ++i) sum += tx.GetInt(account(i)).value_or(0);
              for (const KeyValue& kv : tx.Range(Prefix("account/"))) {
                int64_t balance = 0;
                EXPECT_TRUE(absl::SimpleAtoi(kv.value, &balance));
                range_sum += balance;
              }
              return absl::OkStatus();
            },
            {.isolation = isolation}, {.timeout = absl::Seconds(60)});
        EXPECT_TRUE(status.ok()) << status;
        EXPECT_EQ(sum, kAccounts * kEach);
        EXPECT_EQ(range_sum, kAccounts * kEach);
      }
    });
    for (std::thread& thread : threads) thread.join();
    over = true;
    auditor.join();
    EXPECT_EQ(moved, kThreads * kMoves);
    int64_t sum = 0;
    for (int i = 0; i < kAccounts; ++i) {
      const int64_t balance = Number(account(i));
      EXPECT_GE(balance, 0);
      sum += balance;
    }
    EXPECT_EQ(sum, kAccounts * kEach);
  }
}

// Interleaves two transactions of write skew, and an overwriting one, as no schedule would by
// chance: the rival commits while the first attempt of the other is about to.
TEST_P(StmTest, WriteSkewIsNeverAndBlindOverwritesOnlyBelowTheSnapshot) {
  for (const Isolation isolation : kAllLevels) {
    ASSERT_TRUE(client().Put("alice", "on").ok());
    ASSERT_TRUE(client().Put("bob", "on").ok());
    const auto leave = [&](const std::string& who, absl::FunctionRef<void()> meanwhile) {
      return client().Atomically(
          [&](Stm& tx) -> absl::Status {
            const bool both = tx.Get("alice") == "on" && tx.Get("bob") == "on";
            meanwhile();
            if (!both) return absl::FailedPreconditionError("the last one stays");
            tx.Put(who, "off");
            return absl::OkStatus();
          },
          {.isolation = isolation});
    };
    int runs = 0;
    const absl::Status alice = leave("alice", [&] {
      if (++runs > 1) return;
      EXPECT_TRUE(leave("bob", [] {}).ok());
    });
    EXPECT_TRUE(absl::IsFailedPrecondition(alice)) << alice;
    EXPECT_EQ(runs, 2);

    runs = 0;
    ASSERT_TRUE(client()
                    .Atomically(
                        [&](Stm& tx) {
                          tx.Get("alice");
                          tx.Put("note", "mine");
                          if (++runs > 1) return absl::OkStatus();
                          EXPECT_TRUE(client().Put("note", "theirs").ok());
                          return absl::OkStatus();
                        },
                        {.isolation = isolation})
                    .ok());
    EXPECT_EQ(runs, isolation == Isolation::kSerializableSnapshot ? 2 : 1);
  }
}

TEST_P(StmTest, ACompactedSnapshotBeginsANewOne) {
  ASSERT_TRUE(client().Put("a", "1").ok());
  int runs = 0;
  const absl::Status status = client().Atomically([&](Stm& tx) {
    const std::string a = tx.Get("a").value_or("");
    if (++runs == 1) {
      auto put = client().Put("b", "2");
      EXPECT_TRUE(put.ok() && client().Compact(put->revision).ok());
      // Whoever is asked has applied the compaction once this is there.
      EXPECT_TRUE(client().Get("b").ok());
    }
    tx.Put("sum", a + tx.Get("b").value_or("(absent)"));
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  auto sum = client().Get("sum");
  ASSERT_TRUE(sum.ok() && sum->has_value());
  // A member that has not compacted yet may still serve the old snapshot; then "b" is a conflict
  // or was not there.
  EXPECT_TRUE((*sum)->value == "12" || (*sum)->value == "1(absent)") << (*sum)->value;
}

TEST_P(StmTest, ConflictsUntilTheDeadlineOrAStop) {
  int64_t rival = 0;
  const auto never = [&](Stm& tx) {
    tx.GetInt("hot");
    tx.Put("k", "v");
    EXPECT_TRUE(client().Put("hot", std::to_string(++rival)).ok());
    return absl::OkStatus();
  };
  const absl::Status late = client().Atomically(never, {}, {.timeout = absl::Seconds(2)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
  EXPECT_GT(rival, 1);
  std::stop_source stop;
  const absl::Status stopped = client().Atomically(
      [&](Stm& tx) {
        if (rival > 5) stop.request_stop();
        return never(tx);
      },
      {}, {.timeout = absl::Seconds(60), .stop = stop.get_token()});
  EXPECT_TRUE(absl::IsCancelled(stopped)) << stopped;
  auto kv = client().Get("k");
  EXPECT_TRUE(kv.ok() && !kv->has_value());
}

TEST_P(StmTest, OnAFencedClientACommitIsFenced) {
  const Client fenced = client().Fenced(Absent("freeze"));
  const auto increment = [](Stm& tx) {
    tx.PutInt("n", tx.GetInt("n").value_or(0) + 1);
    return absl::OkStatus();
  };
  ASSERT_TRUE(fenced.Atomically(increment).ok());
  ASSERT_TRUE(client().Put("freeze", "").ok());
  EXPECT_TRUE(absl::IsAborted(fenced.Atomically(increment)));
  EXPECT_EQ(Number("n"), 1);
}

INSTANTIATE_TEST_SUITE_P(Servers, StmTest, ::testing::ValuesIn(AllServers()), ServerName);

// A network that loses the answer to the commit.
class StmOutcomeTest : public StmTest {
 protected:
  void SetUp() override {
    StmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const std::string endpoint = cluster_->endpoint(0);
    int port = 0;
    ASSERT_TRUE(absl::SimpleAtoi(endpoint.substr(endpoint.rfind(':') + 1), &port));
    auto proxy = TcpProxy::Start(port);
    ASSERT_TRUE(proxy.ok()) << proxy.status();
    proxy_ = *std::move(proxy);
    far_ = Connect({proxy_->endpoint()});
  }
  std::unique_ptr<TcpProxy> proxy_;
  std::optional<Client> far_;
};

TEST_P(StmOutcomeTest, AnUnknownOutcomeIsReportedAndNotRepeated) {
  int runs = 0;
  std::thread healer;
  const absl::Status status = far_->Atomically(
      [&](Stm& tx) {
        ++runs;
        tx.PutInt("n", tx.GetInt("n").value_or(0) + 1);
        // Nothing but the commit is left to be sent; its answer will not arrive.
        proxy_->Stall(TcpProxy::Direction::kToClient);
        healer = std::thread([this] {
          EXPECT_TRUE(testing::WaitFor([this] { return Number("n") == 1; }));
          proxy_->Reset();
          proxy_->Heal();
        });
        return absl::OkStatus();
      },
      {}, {.timeout = absl::Seconds(30)});
  healer.join();
  EXPECT_FALSE(status.ok());
  EXPECT_TRUE(IsOutcomeUnknown(status)) << status;
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(Number("n"), 1);
}

// The network breaks at any moment, before, within and after the commits; each still happens
// exactly once.
TEST_P(StmOutcomeTest, AMarkerSettlesItAndTheCountIsExact) {
  constexpr int kRounds = 6;
  for (int round = 1; round <= kRounds; ++round) {
    std::atomic<bool> over = false;
    std::thread breaker([&] {
      Prng prng(round);
      while (!over) {
        const absl::Time until = absl::Now() + absl::Milliseconds(prng.Between(20, 200));
        EXPECT_TRUE(testing::WaitFor([&] { return over || absl::Now() >= until; }));
        proxy_->Stall(prng.Chance(1, 2) ? TcpProxy::Direction::kToClient
                                        : TcpProxy::Direction::kToServer);
        const absl::Time healed = absl::Now() + absl::Milliseconds(prng.Between(0, 20));
        EXPECT_TRUE(testing::WaitFor([&] { return absl::Now() >= healed; }));
        proxy_->Reset();
        proxy_->Heal();
      }
    });
    for (int i = 0; i < 5; ++i) {
      const absl::Status status = far_->Atomically(
          [](Stm& tx) {
            tx.PutInt("n", tx.GetInt("n").value_or(0) + 1);
            return absl::OkStatus();
          },
          {.marker = "marker"}, {.timeout = absl::Seconds(60)});
      EXPECT_TRUE(status.ok()) << status;
    }
    over = true;
    breaker.join();
    ASSERT_EQ(Number("n"), 5 * round);
  }
}

INSTANTIATE_TEST_SUITE_P(Servers, StmOutcomeTest, ::testing::ValuesIn(SingleServers()), ServerName);

}  // namespace
}  // namespace conclave
