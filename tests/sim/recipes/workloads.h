// What the processes of a simulation do with the recipes: the production state machines, as the
// blocking faces use them, and notes about all that they say.
//
// A workload is one life of a process. Its callbacks run on the process's engine, and not after its
// death.
#pragma once

#include <memory>
#include <string>

#include "conclave/tests/sim/recipes/history.h"
#include "conclave/tests/sim/recipes/process.h"

namespace conclave::sim {

class Workload {
 public:
  virtual ~Workload() = default;
  // The end is near: give up what is held, begin nothing.
  virtual void Finish() = 0;
  // The process dies now: what that ends.
  virtual void Died() = 0;
};

struct WorkloadWorld {
  Simulation* simulation = nullptr;
  RecipeHistory* history = nullptr;
};

// Sessions and claims, and writes fenced by the tokens of those that exclude all others.
enum class Locking : uint8_t {
  kMutex,      // "lock/0" and "lock/1"
  kMultiLock,  // some of these and "lock/2" at once
  kRWMutex,    // "rw/0": reads, writes, and writes that become reads
  kSemaphore,  // "permits/0": one permit to all four
};
std::unique_ptr<Workload> MakeLocker(const WorkloadWorld& world, Process* process, Locking what);
// The recipes that block, one for all of a world's processes.
enum class Coordination : uint8_t { kNumbers, kQueue, kBarriers, kGroup, kCron };
std::unique_ptr<Workload> MakeCoordinating(const WorkloadWorld& world, Process* process,
                                           Coordination what);
// As lockers, for "election/0", with proclamations.
std::unique_ptr<Workload> MakeCandidate(const WorkloadWorld& world, Process* process);
// Registers "svc/10.0.0.<number>:80"; deregisters now and then. `left_alone`: nothing happens to
// its process.
std::unique_ptr<Workload> MakeProvider(const WorkloadWorld& world, Process* process, int number,
                                       bool left_alone);
// Observes "election/0" and resolves "svc".
std::unique_ptr<Workload> MakeWatcher(const WorkloadWorld& world, Process* process);

}  // namespace conclave::sim
