// sim: runs simulations, one seed or as many as there is time for.
//
//   sim --recipes ...            the same with the recipes' processes as guests
//   sim --storm ...              the same with operators who change the membership
//   sim --seed N [--verbose]     replays one run and says what happened
//   sim --seconds S [--from N]   explores seeds from N on (1 if not given) for S seconds
//   sim --count C [--from N]     explores C seeds
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "conclave/tests/sim/simulation.h"

namespace {

using conclave::sim::Guests;
using conclave::sim::RecipeCounts;
using conclave::sim::Simulation;
using conclave::sim::Verdict;

[[noreturn]] void Usage() {
  std::fprintf(
      stderr,
      "usage: sim [--recipes|--storm] --seed N [--verbose] | --seconds S [--from N] | --count C "
      "[--from N]\n");
  std::exit(2);
}

uint64_t Number(const char* text) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') Usage();
  return number;
}

void Print(const Verdict& verdict, Guests guests) {
  std::printf(
      "seed %llu: %s, trace %016llx, %zu members, %llu faults, %llu of %llu operations "
      "acknowledged, %llu revisions, %llu elections, %llu states installed\n",
      static_cast<unsigned long long>(verdict.seed), verdict.ok() ? "ok" : "FAILED",
      static_cast<unsigned long long>(verdict.trace_hash), verdict.members,
      static_cast<unsigned long long>(verdict.faults),
      static_cast<unsigned long long>(verdict.acknowledged),
      static_cast<unsigned long long>(verdict.operations),
      static_cast<unsigned long long>(verdict.revisions),
      static_cast<unsigned long long>(verdict.elections),
      static_cast<unsigned long long>(verdict.snapshots_installed));
  if (guests == Guests::kRecipes) {
    const RecipeCounts& did = verdict.recipes;
    const std::pair<const char*, uint64_t> counts[] = {{"grants", did.grants},
                                                       {"reads", did.reads},
                                                       {"writes", did.writes},
                                                       {"downgrades", did.downgrades},
                                                       {"of semaphores", did.permits},
                                                       {"of several names", did.several},
                                                       {"numbers", did.numbers},
                                                       {"items", did.items},
                                                       {"barriers", did.barriers},
                                                       {"rounds", did.rounds},
                                                       {"members", did.members},
                                                       {"jobs", did.jobs},
                                                       {"leases", did.leases},
                                                       {"batches of leaders", did.leaders},
                                                       {"views", did.views}};
    for (const auto& [what, count] : counts) {
      if (count != 0) std::printf("  %llu %s\n", static_cast<unsigned long long>(count), what);
    }
  }
  if (guests == Guests::kStorm) {
    std::printf("  %llu changes of membership, %llu servers joined, %llu left\n",
                static_cast<unsigned long long>(verdict.storm.changes),
                static_cast<unsigned long long>(verdict.storm.joined),
                static_cast<unsigned long long>(verdict.storm.left));
  }
  for (const std::string& complaint : verdict.complaints) std::printf("  %s\n", complaint.c_str());
  if (!verdict.ok()) {
    std::printf("  replay: scripts/sim%s --seed %llu --verbose\n",
                guests == Guests::kRecipes ? " --recipes"
                : guests == Guests::kStorm ? " --storm"
                                           : "",
                static_cast<unsigned long long>(verdict.seed));
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seed = 0;
  uint64_t seconds = 0;
  uint64_t count = 0;
  uint64_t from = 1;
  bool one = false;
  bool verbose = false;
  Guests guests = Guests::kPlain;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--verbose") {
      verbose = true;
      continue;
    }
    if (flag == "--recipes" || flag == "--storm") {
      guests = flag == "--storm" ? Guests::kStorm : Guests::kRecipes;
      continue;
    }
    if (i + 1 >= argc) Usage();
    const uint64_t value = Number(argv[++i]);
    if (flag == "--seed") {
      seed = value;
      one = true;
    } else if (flag == "--seconds") {
      seconds = value;
    } else if (flag == "--count") {
      count = value;
    } else if (flag == "--from") {
      from = value;
    } else {
      Usage();
    }
  }
  if (one) {
    const Verdict verdict = Simulation(seed, verbose, guests).Run();
    Print(verdict, guests);
    return verdict.ok() ? 0 : 1;
  }
  if (seconds == 0 && count == 0) Usage();
  const auto begin = std::chrono::steady_clock::now();
  const auto spent = [&] { return std::chrono::steady_clock::now() - begin; };
  uint64_t failed = 0;
  uint64_t runs = 0;
  uint64_t faults = 0;
  double simulated_s = 0;
  for (uint64_t next = from;
       count > 0 ? next < from + count : spent() < std::chrono::seconds(seconds); ++next) {
    // A CHECK that fails ends the process: say before which seed it was.
    std::fprintf(stderr, "\rseed %llu ", static_cast<unsigned long long>(next));
    const Verdict verdict = Simulation(next, false, guests).Run();
    ++runs;
    faults += verdict.faults;
    simulated_s += std::chrono::duration<double>(verdict.simulated).count();
    if (!verdict.ok()) {
      ++failed;
      Print(verdict, guests);
    }
  }
  const double took_s = std::chrono::duration<double>(spent()).count();
  std::printf("\n%llu seeds, %llu failed, %llu faults, %.0f s simulated in %.1f s\n",
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(failed),
              static_cast<unsigned long long>(faults), simulated_s, took_s);
  return failed == 0 ? 0 : 1;
}
