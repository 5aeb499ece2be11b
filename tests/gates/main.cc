// gates_run: runs the gates against a server and prints a table of what was measured.
//
//   gates_run [--server conclave|etcd] [--gate NAME] [--full]
//
// --full: at the size of the promises (20 failovers of each kind, 1,000,000 leases of which 100,000
// run out at once, 1 GiB of events), which takes some minutes. Ends with 1 if a promise was not
// kept.
#include <cstdio>
#include <string_view>

#include "conclave/tests/gates/gates.h"

int main(int argc, char** argv) {
  using conclave::testing::ServerKind;
  ServerKind kind = ServerKind::kConclave;
  conclave::gates::Scale scale;
  std::string_view only;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    if (flag == "--full") {
      scale = {.failovers = 20,
               .leases = 1'000'000,
               .expiring = 100'000,
               .watched_bytes = int64_t{1} << 30};
    } else if (flag == "--server" && (value == "conclave" || value == "etcd")) {
      kind = value == "etcd" ? ServerKind::kEtcd : ServerKind::kConclave;
      ++i;
    } else if (flag == "--gate" && !value.empty()) {
      only = value;
      ++i;
    } else {
      std::fprintf(stderr, "usage: gates_run [--server conclave|etcd] [--gate NAME] [--full]\n");
      return 2;
    }
  }
  bool all_kept = true;
  std::printf("| gate | kept | measured |\n|---|---|---|\n");
  for (const conclave::gates::Gate& gate : conclave::gates::AllGates()) {
    if (!only.empty() && gate.name != only) continue;
    const auto result = gate.run(kind, scale);
    const bool measured = !absl::IsUnimplemented(result.status());
    const bool kept = result.ok() && result->kept;
    all_kept = all_kept && (kept || !measured);
    std::printf("| %.*s | %s | %s |\n", static_cast<int>(gate.name.size()), gate.name.data(),
                kept       ? "yes"
                : measured ? "no"
                           : "not measured",
                result.ok() ? result->measured.c_str() : result.status().ToString().c_str());
    std::fflush(stdout);
  }
  return all_kept ? 0 : 1;
}
