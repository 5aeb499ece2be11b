// nemesis_run: real servers under faults, for as long as one likes.
//
//   nemesis_run [--server conclave|etcd] [--members 3] [--minutes 10 | --seconds 60] [--seed 1]
//
// Ends with 0 if nothing was wrong, 1 if a checker complains, 2 for wrong usage or a cluster that
// does not come back. etcd is for comparison.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "absl/strings/numbers.h"
#include "conclave/tests/nemesis/run.h"

namespace {

int Usage() {
  std::fprintf(stderr,
               "usage: nemesis_run [--server conclave|etcd] [--members N] [--minutes N | --seconds "
               "N] [--seed N]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  using conclave::testing::ServerKind;
  conclave::nemesis::RunOptions options;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (i + 1 >= argc) return Usage();
    const std::string_view value = argv[i + 1];
    int64_t number = 0;
    if (flag == "--server") {
      if (value != "conclave" && value != "etcd") return Usage();
      options.kind = value == "etcd" ? ServerKind::kEtcd : ServerKind::kConclave;
      continue;
    }
    if (!absl::SimpleAtoi(absl::string_view(value.data(), value.size()), &number) || number < 1) {
      return Usage();
    }
    if (flag == "--members" && number <= 7) {
      options.members = static_cast<int>(number);
    } else if (flag == "--minutes") {
      options.duration = absl::Minutes(number);
    } else if (flag == "--seconds") {
      options.duration = absl::Seconds(number);
    } else if (flag == "--seed") {
      options.seed = static_cast<uint64_t>(number);
    } else {
      return Usage();
    }
  }
  const absl::StatusOr<conclave::nemesis::Report> report = conclave::nemesis::Run(options);
  if (!report.ok()) {
    std::fprintf(stderr, "%s\n", report.status().ToString().c_str());
    return 2;
  }
  std::printf("%s", conclave::nemesis::Describe(*report).c_str());
  return report->complaints.empty() ? 0 : 1;
}
