// How long nobody can write after the leader is gone.
#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/client.h"
#include "conclave/tests/gates/gates.h"

namespace conclave::gates {
namespace {

using testing::ServerKind;
using testing::TestCluster;

constexpr absl::Duration kHalfWithin = absl::Milliseconds(600);
constexpr absl::Duration kAllWithin = absl::Milliseconds(1200);
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr absl::Duration kCallTimeout = absl::Milliseconds(300);
constexpr int kWritesBefore = 50;

// One thread per member, each of which writes through this member alone: a write that any of them
// acknowledges ends the gap, whatever clients do to find another member.
class Writers {
 public:
  static absl::StatusOr<std::unique_ptr<Writers>> Start(const TestCluster& cluster) {
    auto writers = std::make_unique<Writers>();
    for (int i = 0; i < cluster.size(); ++i) {
      absl::StatusOr<Client> client = Client::Connect(
          {.endpoints = {cluster.endpoint(i)}, .log_sink = [](LogLevel, std::string_view) {}});
      if (!client.ok()) return client.status();
      writers->threads_.emplace_back([writers = writers.get(), client = *std::move(client), i] {
        const std::string key = absl::StrCat("writer/", i);
        while (!writers->ending_) {
          if (client.Put(key, "x", {}, {.timeout = kCallTimeout}).ok()) writers->Acknowledged();
          absl::SleepFor(absl::Milliseconds(2));  // the load's own rate
        }
      });
    }
    return writers;
  }
  ~Writers() {
    ending_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

  void Acknowledged() {
    std::lock_guard lock(mutex_);
    times_.push_back(absl::Now());
  }
  size_t count() const {
    std::lock_guard lock(mutex_);
    return times_.size();
  }
  // The longest time without an acknowledgement from the last one before `since` on.
  absl::Duration GapFrom(absl::Time since) const {
    std::lock_guard lock(mutex_);
    absl::Duration longest{};
    for (size_t i = 1; i < times_.size(); ++i) {
      if (times_[i] > since) longest = std::max(longest, times_[i] - times_[i - 1]);
    }
    return longest;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<absl::Time> times_;
  std::atomic<bool> ending_ = false;
  std::vector<std::thread> threads_;
};

absl::StatusOr<Result> WriteGap(ServerKind kind, const Scale& scale, bool kill) {
  // The timings of those who name none.
  absl::StatusOr<std::unique_ptr<TestCluster>> started = TestCluster::Start(
      TestCluster::Options{.kind = kind, .members = 3, .heartbeat_ms = 100, .election_ms = 1000});
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  std::vector<absl::Duration> gaps;
  for (int round = 0; round < scale.failovers; ++round) {
    const absl::StatusOr<int> leader = cluster.Leader();
    if (!leader.ok()) return leader.status();
    absl::StatusOr<std::unique_ptr<Writers>> writers = Writers::Start(cluster);
    if (!writers.ok()) return writers.status();
    if (!testing::WaitFor([&] { return (*writers)->count() >= kWritesBefore; }, kPatience)) {
      return absl::DeadlineExceededError("the cluster takes no writes");
    }
    const absl::Time harm = absl::Now();
    if (kill) {
      cluster.Kill(*leader);
    } else {
      cluster.Pause(*leader);
    }
    const size_t before = (*writers)->count() + 3;  // what was under way may still be answered
    const bool again =
        testing::WaitFor([&] { return (*writers)->count() >= before + kWritesBefore; }, kPatience);
    gaps.push_back(again ? (*writers)->GapFrom(harm) : kPatience);
    if (!kill) cluster.Resume(*leader);
    if (kill) {
      if (absl::Status restarted = cluster.Restart(*leader); !restarted.ok()) return restarted;
    }
    if (absl::Status healthy = cluster.WaitAllHealthy(); !healthy.ok()) return healthy;
  }
  const absl::Duration half = Percentile(gaps, 0.5);
  const absl::Duration longest = Percentile(gaps, 1);
  return Result{.kept = half <= kHalfWithin && longest <= kAllWithin,
                .measured = absl::StrCat("median ", Seconds(half), ", longest ", Seconds(longest),
                                         " of ", gaps.size())};
}

}  // namespace

absl::StatusOr<Result> WriteGapAfterAKill(ServerKind kind, const Scale& scale) {
  return WriteGap(kind, scale, /*kill=*/true);
}

absl::StatusOr<Result> WriteGapAfterAPause(ServerKind kind, const Scale& scale) {
  return WriteGap(kind, scale, /*kill=*/false);
}

}  // namespace conclave::gates
