// Explore: runs seed after seed, on all cores, and says what came of it.
#pragma once

#include <cstdint>

#include "conclave/tests/sim/plan.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {

// As "%llu" wants it.
inline unsigned long long Out(uint64_t number) { return number; }

struct Exploration {
  uint64_t from = 1;
  uint64_t count = 0;        // 0: not bounded by that
  uint64_t seconds = 0;      // likewise
  uint64_t cpu_seconds = 0;  // likewise, of each process
  uint64_t jobs = 0;         // processes; 0: as many as there are cores
  bool first = false;        // each process stops at the first seed that fails
  bool marks = false;        // names the marks that were not reached
  bool mixed = false;        // guests of all kinds, in turn
};

// Prints failures as they come and a summary in the end. The exit code: 0 if all is well, else 1.
int Explore(const Exploration& what, const Plan& plan);

// What came of one run, and how to replay it.
void Print(const Verdict& verdict, const Plan& plan);

}  // namespace conclave::sim
