// The clients of a simulation: they ask as real ones do (encoded requests, one member at a time,
// another one when it fails them) and write down what they did and heard.
#pragma once

#include <memory>
#include <string>

#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/history.h"

namespace conclave::sim {

class Simulation;

class Client {
 public:
  virtual ~Client() = default;
  // The end is near: no new work.
  virtual void Finish() {}
  // What its own history shows.
  virtual Complaints Check(const TrueHistory& truth) const = 0;
};

// Puts, deletes, swaps and reads a handful of keys, one call after the other.
std::unique_ptr<Client> MakeKvClient(Simulation* simulation, int number, Duration think);
// Watches all of them, over as many streams as it takes.
std::unique_ptr<Client> MakeWatchClient(Simulation* simulation, int number);
// Grants leases, ties a key to each, keeps it alive for a while, and leaves it.
std::unique_ptr<Client> MakeLeaseClient(Simulation* simulation, int number);
// Compacts now and then.
std::unique_ptr<Client> MakeCompactor(Simulation* simulation);

}  // namespace conclave::sim
