// sim: runs simulations, one seed or as many as there is time for.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/mutant.h"
#include "conclave/tests/sim/marks.h"
#include "conclave/tests/sim/mutants.h"
#include "conclave/tests/sim/shrink.h"
#include "conclave/tests/sim/simulation.h"

namespace {

using conclave::sim::FaultCounts;
using conclave::sim::Guests;
using conclave::sim::kFaultNames;
using conclave::sim::kFaults;
using conclave::sim::kGuests;
using conclave::sim::Marks;
using conclave::sim::Plan;
using conclave::sim::RecipeCounts;
using conclave::sim::Simulation;
using conclave::sim::Verdict;

// One run in so many takes place twice, and must be the same.
constexpr uint64_t kTwiceEvery = 64;
constexpr int kShrinkRunsMax = 150;

constexpr char kUsage[] =
    R"(usage: sim [GUESTS] WHAT [PLAN]
WHAT
  --seed N [--verbose] [--shrink]  replays one run, and makes a smaller one of it that fails too
  --seconds S [--from N]           explores seeds from N on (1 if not given) for S seconds
  --cpu-seconds S [--from N]       the same by the processor's clock
  --count C [--from N]             explores C seeds
  --list-mutants                   in a build with mutants: their names, guests and bugs
GUESTS
  --recipes   processes that use the recipes
  --storm     operators who change the membership all the time
  --auth      users whose permissions change all the time
  --mixed     when exploring: another of these with each seed, in turn
PLAN
  --without CLASS   leaves out a class of faults or clients; may be repeated
  --chaos-ms N      ends the chaos sooner
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

unsigned long long Out(uint64_t number) { return number; }

void PrintRecipes(const RecipeCounts& did) {
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
    if (count != 0) std::printf("  %llu %s\n", Out(count), what);
  }
}

void Print(const Verdict& verdict, const Plan& plan) {
  std::printf(
      "seed %llu: %s, trace %016llx, %zu members, %llu faults of %zu classes, %llu of %llu "
      "operations acknowledged, %llu revisions, %llu elections, %llu states installed\n",
      Out(verdict.seed), verdict.ok() ? "ok" : "FAILED", Out(verdict.trace_hash), verdict.members,
      Out(verdict.faults.all()), verdict.faults.classes(), Out(verdict.acknowledged),
      Out(verdict.operations), Out(verdict.revisions), Out(verdict.elections),
      Out(verdict.snapshots_installed));
  if (plan.guests == Guests::kRecipes) PrintRecipes(verdict.recipes);
  if (plan.guests == Guests::kStorm) {
    std::printf("  %llu changes of membership, %llu servers joined, %llu left\n",
                Out(verdict.storm.changes), Out(verdict.storm.joined), Out(verdict.storm.left));
  }
  for (const std::string& complaint : verdict.complaints) std::printf("  %s\n", complaint.c_str());
  if (!verdict.ok()) {
    std::printf("  replay: scripts/sim%s --seed %llu --verbose; --shrink makes it smaller\n",
                plan.Flags().c_str(), Out(verdict.seed));
  }
  std::fflush(stdout);
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

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Exploration {
  uint64_t from = 1;
  uint64_t count = 0;        // 0: not bounded by that
  uint64_t seconds = 0;      // likewise
  uint64_t cpu_seconds = 0;  // likewise
  bool first = false;
  bool marks = false;
  bool mixed = false;  // guests of all kinds, in turn
};

class Explorer {
 public:
  Explorer(const Exploration& what, const Plan& plan) : what_(what), plan_(plan) {}

  int Run() {
    for (uint64_t seed = what_.from; !Enough(seed) && !(what_.first && failed_ > 0); ++seed) {
      // A CHECK that fails ends the process: say before which seed it was.
      if (what_.mixed) plan_.guests = static_cast<Guests>(seed % kGuests);
      std::fprintf(stderr, "\rseed %llu%s ", Out(seed), plan_.Flags().c_str());
      const double before_s = CpuSeconds();
      Verdict verdict = Simulation(seed, plan_).Run();
      if (verdict.members == 3) CountTrio(verdict, CpuSeconds() - before_s);
      Take(std::move(verdict));
    }
    Summarise();
    return failed_ == 0 ? 0 : 1;
  }

 private:
  bool Enough(uint64_t next) const {
    if (what_.count > 0) return next >= what_.from + what_.count;
    if (what_.cpu_seconds > 0) return CpuSeconds() >= static_cast<double>(what_.cpu_seconds);
    return std::chrono::steady_clock::now() - begin_ >= std::chrono::seconds(what_.seconds);
  }

  void CountTrio(const Verdict& verdict, double cpu_s) {
    const double simulated_s = std::chrono::duration<double>(verdict.simulated).count();
    trio_simulated_s_ += simulated_s;
    trio_cpu_s_ += cpu_s;
    trio_operations_ += verdict.operations;
  }

  void Take(Verdict verdict) {
    ++runs_;
    if (verdict.seed % kTwiceEvery == 0 &&
        Simulation(verdict.seed, plan_).Run().trace_hash != verdict.trace_hash) {
      verdict.complaints.push_back("the same seed is another run");
    }
    all_ += verdict.faults;
    faults_.push_back(verdict.faults.all());
    classes_.push_back(verdict.faults.classes());
    simulated_s_ += std::chrono::duration<double>(verdict.simulated).count();
    if (verdict.ok()) return;
    ++failed_;
    Print(verdict, plan_);
  }

  static uint64_t Median(std::vector<uint64_t>& values) {
    if (values.empty()) return 0;
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2),
                     values.end());
    return values[values.size() / 2];
  }

  void Summarise() {
    const double cpu_s = CpuSeconds();
    std::printf(
        "\n%llu seeds, %llu failed, %.0f s simulated in %.1f s of CPU: %.0f times as fast\n",
        Out(runs_), Out(failed_), simulated_s_, cpu_s, simulated_s_ / cpu_s);
    if (trio_cpu_s_ > 0) {
      std::printf("three members: %.0f operations a second, %.0f times as fast\n",
                  static_cast<double>(trio_operations_) / trio_simulated_s_,
                  trio_simulated_s_ / trio_cpu_s_);
    }
    std::printf("%llu faults; median of a run: %llu faults of %llu classes\n", Out(all_.all()),
                Out(Median(faults_)), Out(Median(classes_)));
    for (size_t i = 0; i < kFaults; ++i) {
      const auto fault = static_cast<conclave::sim::Fault>(i);
      std::printf("  %s %llu%s", kFaultNames[i], Out(all_.of(fault)), i % 6 == 5 ? "\n" : "");
    }
    std::printf("\n");
    const auto marks = Marks();
    const auto reached =
        std::count_if(marks.begin(), marks.end(), [](const auto& mark) { return mark.reached; });
    std::printf("%zd of %zu marks reached\n", static_cast<ssize_t>(reached), marks.size());
    if (!what_.marks) return;
    for (const auto& mark : marks) {
      if (!mark.reached) std::printf("  not reached: %s\n", mark.name.c_str());
    }
  }

  const Exploration what_;
  Plan plan_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  uint64_t runs_ = 0;
  uint64_t failed_ = 0;
  double simulated_s_ = 0;
  double trio_simulated_s_ = 0;  // of runs with three founders
  double trio_cpu_s_ = 0;
  uint64_t trio_operations_ = 0;
  FaultCounts all_;
  std::vector<uint64_t> faults_;
  std::vector<uint64_t> classes_;
};

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
      plan.guests = Guests::kRecipes;
    } else if (flag == "--storm") {
      plan.guests = Guests::kStorm;
    } else if (flag == "--auth") {
      plan.guests = Guests::kAuth;
    } else if (flag == "--list-mutants") {
      return ListMutants();
    } else if (flag == "--mutant") {
      if (!Awaken(next())) return 2;
    } else if (flag == "--without") {
      if (!plan.LeaveOut(next())) Usage();
    } else if (flag == "--chaos-ms") {
      plan.chaos_max = std::chrono::milliseconds(Number(next()));
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
  return Explorer(exploration, plan).Run();
}
