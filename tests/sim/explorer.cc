#include "conclave/tests/sim/explorer.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "conclave/base/check.h"
#include "conclave/tests/marks/marks.h"
#include "nlohmann/json.hpp"

namespace conclave::sim {
namespace {

// One run in so many takes place twice, and must be the same.
constexpr uint64_t kTwiceEvery = 64;

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

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

uint64_t Median(std::vector<uint64_t> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// What the runs of one process, or of all, came to.
struct Tally {
  uint64_t failed = 0;
  double cpu_s = 0;
  double simulated_s = 0;
  double trio_cpu_s = 0;  // of runs with three founders
  double trio_simulated_s = 0;
  uint64_t trio_operations = 0;
  std::vector<uint64_t> of_fault = std::vector<uint64_t>(kFaults);
  std::vector<uint64_t> faults{};   // of each run
  std::vector<uint64_t> classes{};  // likewise
  std::vector<bool> reached = std::vector<bool>(Marks().size());

  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Tally, failed, cpu_s, simulated_s, trio_cpu_s, trio_simulated_s,
                                 trio_operations, of_fault, faults, classes, reached)

  void Add(const Tally& other) {
    failed += other.failed;
    cpu_s += other.cpu_s;
    simulated_s += other.simulated_s;
    trio_cpu_s += other.trio_cpu_s;
    trio_simulated_s += other.trio_simulated_s;
    trio_operations += other.trio_operations;
    for (size_t i = 0; i < of_fault.size(); ++i) of_fault[i] += other.of_fault[i];
    faults.insert(faults.end(), other.faults.begin(), other.faults.end());
    classes.insert(classes.end(), other.classes.begin(), other.classes.end());
    for (size_t i = 0; i < reached.size(); ++i) reached[i] = reached[i] || other.reached[i];
  }
};

// Every `stride`-th seed from `from` on.
class Worker {
 public:
  // *seed is always the one that is run: a CHECK that fails ends the process.
  Worker(const Exploration& what, const Plan& plan, uint64_t first, uint64_t stride, uint64_t* seed)
      : what_(what), plan_(plan), first_(first), stride_(stride), seed_(*seed) {}

  Tally Run() {
    for (seed_ = first_; !Enough() && !(what_.first && tally_.failed > 0); seed_ += stride_) {
      if (what_.mixed) plan_.guests = static_cast<Guests>(seed_ % kGuests);
      std::fprintf(stderr, "\rseed %llu%s ", Out(seed_), plan_.Flags().c_str());
      const double before_s = CpuSeconds();
      Take(Simulation(seed_, plan_).Run(), before_s);
    }
    tally_.cpu_s = CpuSeconds();
    const std::vector<Mark> marks = Marks();
    for (size_t i = 0; i < marks.size(); ++i) tally_.reached[i] = marks[i].reached;
    return std::move(tally_);
  }

 private:
  bool Enough() const {
    if (what_.count > 0) return seed_ >= what_.from + what_.count;
    if (what_.cpu_seconds > 0) return CpuSeconds() >= static_cast<double>(what_.cpu_seconds);
    return std::chrono::steady_clock::now() - begin_ >= std::chrono::seconds(what_.seconds);
  }

  void Take(Verdict verdict, double before_s) {
    const double simulated_s = std::chrono::duration<double>(verdict.simulated).count();
    tally_.simulated_s += simulated_s;
    if (verdict.members == 3) {
      tally_.trio_simulated_s += simulated_s;
      tally_.trio_cpu_s += CpuSeconds() - before_s;
      tally_.trio_operations += verdict.operations;
    }
    for (size_t i = 0; i < kFaults; ++i) {
      tally_.of_fault[i] += verdict.faults.of(static_cast<Fault>(i));
    }
    tally_.faults.push_back(verdict.faults.all());
    tally_.classes.push_back(verdict.faults.classes());
    if (verdict.seed % kTwiceEvery == 0 &&
        Simulation(verdict.seed, plan_).Run().trace_hash != verdict.trace_hash) {
      verdict.complaints.push_back("the same seed is another run");
    }
    if (verdict.ok()) return;
    ++tally_.failed;
    Print(verdict, plan_);
  }

  const Exploration what_;
  Plan plan_;
  const uint64_t first_;
  const uint64_t stride_;
  uint64_t& seed_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  Tally tally_;
};

// A worker in a process of its own. Its tally comes through a pipe.
class Job {
 public:
  Job(const Exploration& what, const Plan& plan, uint64_t first, uint64_t stride, uint64_t* seed)
      : seed_(*seed) {
    int ends[2] = {};
    CONCLAVE_CHECK(pipe(ends) == 0, "no pipe can be had");
    std::fflush(nullptr);
    child_ = fork();
    CONCLAVE_CHECK(child_ >= 0, "no process can be had");
    if (child_ == 0) {
      close(ends[0]);
      const std::string text = nlohmann::json(Worker(what, plan, first, stride, seed).Run()).dump();
      for (size_t sent = 0; sent < text.size();) {
        const ssize_t more = write(ends[1], text.data() + sent, text.size() - sent);
        if (more <= 0) std::_Exit(1);
        sent += static_cast<size_t>(more);
      }
      std::fflush(nullptr);
      std::_Exit(0);
    }
    close(ends[1]);
    output_ = ends[0];
  }

  // One whose process died has one failed seed, and what it did before is not known.
  Tally Wait() const {
    std::string text;
    char buffer[4096];
    for (ssize_t more = 0; (more = read(output_, buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(more));
    }
    close(output_);
    int status = 0;
    waitpid(child_, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      return nlohmann::json::parse(text).get<Tally>();
    }
    std::printf("\nseed %llu ended its process; what that process did before is not counted\n",
                Out(seed_));
    Tally died;
    died.failed = 1;
    return died;
  }

 private:
  const uint64_t& seed_;
  pid_t child_ = 0;
  int output_ = -1;
};

Tally RunJobs(const Exploration& what, const Plan& plan, uint64_t jobs) {
  if (jobs == 1) {
    uint64_t seed = 0;
    return Worker(what, plan, what.from, 1, &seed).Run();
  }
  void* shared = mmap(nullptr, jobs * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CONCLAVE_CHECK(shared != MAP_FAILED, "no memory can be shared");
  const absl::Span<uint64_t> seeds(static_cast<uint64_t*>(shared), jobs);
  std::vector<Job> running;
  for (uint64_t i = 0; i < jobs; ++i)
    running.emplace_back(what, plan, what.from + i, jobs, &seeds[i]);
  Tally all;
  for (const Job& job : running) all.Add(job.Wait());
  munmap(shared, jobs * sizeof(uint64_t));
  return all;
}

void Summarise(const Tally& all, bool with_marks) {
  std::printf("\n%zu seeds, %llu failed, %.0f s simulated in %.1f s of CPU: %.0f times as fast\n",
              all.faults.size(), Out(all.failed), all.simulated_s, all.cpu_s,
              all.simulated_s / all.cpu_s);
  if (all.trio_cpu_s > 0) {
    std::printf("three members: %.0f operations a second, %.0f times as fast\n",
                static_cast<double>(all.trio_operations) / all.trio_simulated_s,
                all.trio_simulated_s / all.trio_cpu_s);
  }
  uint64_t faults = 0;
  for (const uint64_t count : all.of_fault) faults += count;
  std::printf("%llu faults; median of a run: %llu faults of %llu classes\n", Out(faults),
              Out(Median(all.faults)), Out(Median(all.classes)));
  for (size_t i = 0; i < kFaults; ++i) {
    std::printf("  %s %llu%s", kFaultNames[i], Out(all.of_fault[i]), i % 6 == 5 ? "\n" : "");
  }
  std::printf("\n");
  const auto reached = std::count(all.reached.begin(), all.reached.end(), true);
  std::printf("%td of %zu marks reached\n", reached, all.reached.size());
  if (!with_marks) return;
  const std::vector<Mark> marks = Marks();
  for (size_t i = 0; i < marks.size(); ++i) {
    if (!all.reached[i]) std::printf("  not reached: %s\n", marks[i].name.c_str());
  }
}

}  // namespace

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

int Explore(const Exploration& what, const Plan& plan) {
  const uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  // What is bounded by the processor's clock is a measurement of one process.
  const uint64_t jobs = what.jobs > 0 ? what.jobs : what.cpu_seconds > 0 ? 1 : cores;
  const Tally all = RunJobs(what, plan, jobs);
  Summarise(all, what.marks);
  return all.failed == 0 ? 0 : 1;
}

}  // namespace conclave::sim
