// Disks that are full, and disks that fail.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/client.h"
#include "conclave/tests/faults/failing_sync.h"
#include "conclave/tests/faults/small_disk.h"
#include "conclave/tests/gates/gates.h"
#include "conclave/tests/support/strace.h"

namespace conclave::gates {
namespace {

using testing::ServerKind;
using testing::TestCluster;
using testing::WaitFor;

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr size_t kValueBytes = 64 << 10;
constexpr int kPutsMax = 4000;  // 250 MB
constexpr int kRestarts = 2;
constexpr int kExitIoError = 74;

// A member on a disk that has become full.
class FullMember {
 public:
  FullMember(TestCluster* cluster, Client client) : cluster_(cluster), client_(std::move(client)) {}

  // Writes until it refuses. How many were acknowledged, or that the disk was never full.
  absl::StatusOr<int> Fill() {
    const std::string value(kValueBytes, 'v');
    for (int i = 0; i < kPutsMax; ++i) {
      if (!client_.Put(absl::StrCat("big-", i), value, {}, {.timeout = absl::Seconds(10)}).ok()) {
        return i;
      }
    }
    return absl::OutOfRangeError("the disk was never full");
  }
  // It answers a linearizable read, and everything that was acknowledged is there.
  bool Shows(int puts) {
    const auto keys =
        client_.Range(Prefix("big-"), {.count_only = true}, {.timeout = absl::Seconds(3)});
    return keys.ok() && keys->count >= puts;
  }
  int RestartsThatServe(int puts) {
    int serve = 0;
    for (int i = 0; i < kRestarts; ++i) {
      cluster_->Kill(1);
      if (!cluster_->Restart(1).ok() || !cluster_->WaitHealthy(1, kPatience).ok()) continue;
      serve += WaitFor([&] { return Shows(puts); }, kPatience) ? 1 : 0;
    }
    return serve;
  }
  // Deletes, compacts, and waits until it takes writes again: how long that took.
  absl::StatusOr<absl::Duration> Recover() {
    const absl::Time begin = absl::Now();
    const auto deleted = client_.Delete(Prefix("big-"));
    if (!deleted.ok()) return deleted.status();
    if (auto compacted = client_.Compact(deleted->revision); !compacted.ok()) return compacted;
    const bool again = WaitFor([&] { return client_.Put("after", "value").ok(); }, kPatience);
    if (!again) return absl::DeadlineExceededError("no writes");
    return absl::Now() - begin;
  }

 private:
  TestCluster* const cluster_;
  const Client client_;
};

}  // namespace

absl::StatusOr<Result> FullDisk(ServerKind kind, const Scale&) {
  absl::StatusOr<std::unique_ptr<TestCluster>> started =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 3});
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  cluster.Kill(1);
  const auto disk = testing::SmallDisk::Over(cluster.data_dir(1), "140m");
  if (disk == nullptr) return absl::UnimplementedError("no file system can be mounted here");
  absl::Status up = cluster.Restart(1);
  if (up.ok()) up = cluster.WaitHealthy(1, kPatience);
  if (!up.ok()) return up;
  absl::StatusOr<Client> client = Client::Connect(
      {.endpoints = {cluster.endpoint(1)}, .log_sink = [](LogLevel, std::string_view) {}});
  if (!client.ok()) return client.status();
  FullMember member(&cluster, *std::move(client));
  const absl::StatusOr<int> puts = member.Fill();
  if (!puts.ok()) return puts.status();
  const bool reads = WaitFor([&] { return member.Shows(*puts); });
  const int serve = member.RestartsThatServe(*puts);
  absl::StatusOr<absl::Duration> recovered = absl::UnavailableError("it does not serve");
  if (serve > 0) recovered = member.Recover();
  return Result{
      .kept = reads && serve == kRestarts && recovered.ok(),
      .measured = absl::StrCat(
          "full after ", (*puts * kValueBytes) >> 20, " MiB: ", reads ? "reads on" : "ends", "; ",
          serve, " of ", kRestarts, " restarts serve; ",
          recovered.ok() ? absl::StrCat("writes ", Seconds(*recovered), " after a delete")
                         : "writes never again")};
}

absl::StatusOr<Result> FailedSync(ServerKind kind, const Scale&) {
  if (absl::Status can = testing::CanTrace(); !can.ok()) {
    return absl::UnimplementedError(can.message());
  }
  const absl::StatusOr<testing::FailingSync> result =
      testing::RunFailingSync(kind, /*leader=*/true);
  if (!result.ok()) return result.status();
  const bool rewritten =
      result->first_write.has_value() && *result->first_write <= result->last_record;
  return Result{.kept = result->exit_code == kExitIoError && result->lost == 0 && rewritten,
                .measured = absl::StrCat(
                    "ends with code ", result->exit_code, "; back after ", Seconds(result->back),
                    "; ", result->lost, " of ", result->acknowledged, " acknowledged writes lost",
                    rewritten ? "; the tail of its log is written again" : "")};
}

}  // namespace conclave::gates
