// The clients of a simulation: they ask as real ones do (encoded requests, one member at a time,
// another one when it fails them) and write down what they did and heard.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/history.h"

namespace conclave::sim {

class Simulation;

// What recipes got done, so that a run can be seen not to be empty.
struct RecipeCounts {
  uint64_t grants = 0;  // of any kind; and of these:
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t downgrades = 0;
  uint64_t permits = 0;
  uint64_t several = 0;  // names at once
  uint64_t numbers = 0;  // additions and ranges of ids
  uint64_t items = 0;    // got from a queue
  uint64_t barriers = 0;
  uint64_t rounds = 0;  // of a double barrier, for each member
  uint64_t members = 0;
  uint64_t jobs = 0;
  uint64_t leases = 0;
  uint64_t leaders = 0;  // batches that observers heard
  uint64_t views = 0;
  uint64_t faults = 0;
};

// What storms of membership got done.
struct StormCounts {
  uint64_t changes = 0;  // acknowledged
  uint64_t joined = 0;   // servers that were started for a new member
  uint64_t left = 0;     // removed members that have stopped by themselves
};

// What users got done.
struct AuthCounts {
  uint64_t changes = 0;  // of users, roles and permissions, acknowledged
  uint64_t deeds = 0;    // that needed a permission, and events
};

class Client {
 public:
  virtual ~Client() = default;
  // Everything is put right in the world.
  virtual void Heal() {}
  // The end is near: no new work.
  virtual void Finish() {}
  // What its own history shows.
  virtual Complaints Check(const TrueHistory& truth) const = 0;
  virtual void Count(RecipeCounts*) const {}
  virtual void Count(StormCounts*) const {}
  virtual void Count(AuthCounts*) const {}
};

// Puts, deletes, swaps and reads a handful of keys, one call after the other.
std::unique_ptr<Client> MakeKvClient(Simulation* simulation, int number, Duration think);
// Watches all of them, over as many streams as it takes; the third one again and again.
std::unique_ptr<Client> MakeWatchClient(Simulation* simulation, int number);
// Grants leases, ties a key to each, keeps it alive for a while, and leaves it.
std::unique_ptr<Client> MakeLeaseClient(Simulation* simulation, int number);
// Compacts now and then; some of the time right at a deletion.
std::unique_ptr<Client> MakeCompactor(Simulation* simulation);
// When all is well again: hands the leadership over all the time, and nobody is to notice; or
// reads, one read at a time, while frames get lost.
std::unique_ptr<Client> MakeMover(Simulation* simulation);
std::unique_ptr<Client> MakeLonelyReader(Simulation* simulation);

}  // namespace conclave::sim
