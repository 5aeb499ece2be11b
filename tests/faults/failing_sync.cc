#include "conclave/tests/faults/failing_sync.h"

#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/tests/faults/acknowledged_writes.h"
#include "conclave/tests/faults/damaged_files.h"
#include "conclave/tests/support/strace.h"

namespace conclave::testing {
namespace {

constexpr size_t kWritesBefore = 100;
constexpr absl::Duration kPatience = absl::Seconds(60);

std::string Text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string LastLine(const std::string& path) {
  const std::string text = Text(path);
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  return lines.empty() ? "" : lines.back();
}

// Of the recorded calls, where the first one into the log wrote:
//   1234 pwritev(7</data/wal/0000000000000001-0000000000000001.log>, [...], 2, 8192) = 4096
std::optional<uint64_t> FirstWriteToLog(const std::string& recording) {
  const std::string text = Text(recording);
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    const size_t file = line.find("/wal/");
    const size_t end = line.rfind(") = ");
    if (line.find("pwritev(") == std::string::npos || file == std::string::npos ||
        end == std::string::npos || line.find(".log>", file) == std::string::npos) {
      continue;
    }
    const size_t comma = line.rfind(", ", end);
    uint64_t offset = 0;
    if (absl::SimpleAtoi(line.substr(comma + 2, end - comma - 2), &offset)) return offset;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<FailingSync> RunFailingSync(ServerKind kind, bool leader, const std::string& calls) {
  if (absl::Status can = CanTrace(); !can.ok()) return can;
  absl::StatusOr<std::unique_ptr<TestCluster>> started =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 3});
  if (!started.ok()) return started.status();
  TestCluster& cluster = **started;
  const absl::StatusOr<int> leads = cluster.Leader();
  if (!leads.ok()) return leads.status();
  const int victim = leader ? *leads : (*leads + 1) % cluster.size();
  absl::StatusOr<std::unique_ptr<AcknowledgedWrites>> writers = AcknowledgedWrites::Start(cluster);
  if (!writers.ok()) return writers.status();
  const auto written = [&] { return (*writers)->count(); };
  if (!WaitFor([&] { return written() >= kWritesBefore; }, kPatience)) {
    return absl::DeadlineExceededError("the cluster takes no writes");
  }
  const auto tracer = FailNext(calls, cluster.pid(victim));
  if (!tracer.ok()) return tracer.status();
  const absl::StatusOr<int> code = cluster.WaitEnd(victim, kPatience);
  if (!code.ok()) return code.status();
  FailingSync result{.exit_code = *code, .last_words = LastLine(cluster.log_path(victim))};
  // The others go on.
  const size_t before = written();
  if (!WaitFor([&] { return written() >= before + kWritesBefore; }, kPatience)) {
    return absl::DeadlineExceededError("the others take no writes");
  }
  const auto records = LastRecords(kind, cluster.data_dir(victim), 1);
  if (!records.empty()) result.last_record = records.back().offset;
  const std::string recording = cluster.data_dir(victim) + ".calls";
  const absl::Time begin = absl::Now();
  absl::Status back = kind == ServerKind::kConclave
                          ? cluster.Restart(victim, RecordingWrites(recording))
                          : cluster.Restart(victim);
  if (back.ok()) back = cluster.WaitHealthy(victim, kPatience);
  if (!back.ok()) return back;
  result.back = absl::Now() - begin;
  result.first_write = FirstWriteToLog(recording);
  (*writers)->End();
  result.acknowledged = static_cast<int>((*writers)->count());
  const absl::StatusOr<int> lost = (*writers)->CountLost(cluster);
  if (!lost.ok()) return lost.status();
  result.lost = *lost;
  return result;
}

}  // namespace conclave::testing
