// sim: runs simulations, one seed or as many as there is time for.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "conclave/base/mutant.h"
#include "conclave/tests/sim/explorer.h"
#include "conclave/tests/sim/mutants.h"
#include "conclave/tests/sim/shrink.h"
#include "conclave/tests/sim/simulation.h"

namespace {

using conclave::sim::Exploration;
using conclave::sim::Out;
using conclave::sim::Plan;
using conclave::sim::Print;
using conclave::sim::Simulation;
using conclave::sim::Verdict;

constexpr int kShrinkRunsMax = 150;

constexpr char kUsage[] =
    R"(usage: sim [GUESTS] WHAT [PLAN]
WHAT
  --seed N [--verbose] [--shrink]  replays one run, and makes a smaller one of it that fails too
  --seconds S [--from N]           explores seeds from N on (1 if not given) for S seconds
  --cpu-seconds S [--from N]       the same by the processor's clock
  --count C [--from N]             explores C seeds
  --jobs J                         explores with so many processes, not with one for each core
  --list-mutants                   in a build with mutants: their names, guests and bugs
GUESTS
  --recipes   processes that use the recipes
  --storm     operators who change the membership all the time
  --auth      users whose permissions change all the time
  --mixed     when exploring: another of these with each seed, in turn
PLAN
  --without CLASS   leaves out a class of faults or clients; may be repeated
  --chaos-ms N      ends the chaos sooner
  --clients N       so many plain clients, each with some ten operations a second
  --first           stops at the first seed that fails
  --marks           prints the coverage marks that were not reached
  --mutant NAME     in a build with mutants: this bug is alive
)";

[[noreturn]] void Usage() {
  std::fputs(kUsage, stderr);
  std::exit(2);
}

uint64_t Number(const char* text) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') Usage();
  return number;
}

// In a process of its own, because a CHECK that fails ends it.
bool Fails(uint64_t seed, const Plan& plan) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    std::_Exit(Simulation(seed, plan).Run().ok() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

int ShrinkSeed(uint64_t seed, const Plan& plan) {
  if (!Fails(seed, plan)) {
    std::printf("seed %llu does not fail\n", Out(seed));
    return 0;
  }
  const Plan small = conclave::sim::Shrink(
      plan, kShrinkRunsMax, [seed](const Plan& smaller) { return Fails(seed, smaller); });
  std::printf("replay: scripts/sim%s --seed %llu --verbose\n", small.Flags().c_str(), Out(seed));
  std::fflush(stdout);
  const Verdict verdict = Simulation(seed, small, /*verbose=*/true).Run();
  Print(verdict, small);
  return 1;
}

int ListMutants() {
  for (const auto& mutant : conclave::sim::kMutants) {
    Plan plan;
    plan.guests = mutant.guests;
    std::printf("%s\t%s\t%s\t%s\n", mutant.name, plan.Flags().c_str(), mutant.history, mutant.what);
  }
  return 0;
}

// False: there is no such mutant, or this build has none.
bool Awaken(const std::string& name) {
#ifdef CONCLAVE_MUTANTS
  for (const auto& mutant : conclave::sim::kMutants) {
    if (name != mutant.name) continue;
    conclave::mutant::alive = conclave::mutant::HashOf(name);
    return true;
  }
#endif
  std::fprintf(stderr, "no mutant %s in this build\n", name.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seed = 0;
  bool one = false;
  bool verbose = false;
  bool shrink = false;
  Exploration exploration;
  Plan plan;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto next = [&] { return ++i < argc ? argv[i] : (Usage(), nullptr); };
    if (flag == "--verbose") {
      verbose = true;
    } else if (flag == "--shrink") {
      shrink = true;
    } else if (flag == "--first") {
      exploration.first = true;
    } else if (flag == "--mixed") {
      exploration.mixed = true;
    } else if (flag == "--marks") {
      exploration.marks = true;
    } else if (flag == "--recipes") {
      plan.guests = conclave::sim::Guests::kRecipes;
    } else if (flag == "--storm") {
      plan.guests = conclave::sim::Guests::kStorm;
    } else if (flag == "--auth") {
      plan.guests = conclave::sim::Guests::kAuth;
    } else if (flag == "--list-mutants") {
      return ListMutants();
    } else if (flag == "--mutant") {
      if (!Awaken(next())) return 2;
    } else if (flag == "--without") {
      if (!plan.LeaveOut(next())) Usage();
    } else if (flag == "--chaos-ms") {
      plan.chaos_max = std::chrono::milliseconds(Number(next()));
    } else if (flag == "--clients") {
      plan.clients = Number(next());
    } else if (flag == "--jobs") {
      exploration.jobs = Number(next());
    } else if (flag == "--seed") {
      seed = Number(next());
      one = true;
    } else if (flag == "--seconds") {
      exploration.seconds = Number(next());
    } else if (flag == "--cpu-seconds") {
      exploration.cpu_seconds = Number(next());
    } else if (flag == "--count") {
      exploration.count = Number(next());
    } else if (flag == "--from") {
      exploration.from = Number(next());
    } else {
      Usage();
    }
  }
  if (one && shrink) return ShrinkSeed(seed, plan);
  if (one) {
    const Verdict verdict = Simulation(seed, plan, verbose).Run();
    Print(verdict, plan);
    return verdict.ok() ? 0 : 1;
  }
  if (exploration.seconds + exploration.cpu_seconds + exploration.count == 0) Usage();
  return conclave::sim::Explore(exploration, plan);
}
