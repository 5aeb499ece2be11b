// KeyLife: one existence of a key, from its creation to its end. For the checkers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conclave/tests/sim/history.h"

namespace conclave::sim {

struct KeyLife {
  std::string key;
  std::string value;    // as of its creation
  int64_t created = 0;  // revision
  int64_t lease = 0;    // as of its creation
  int64_t last_lease = 0;
  Instant from;
  int64_t deleted = 0;  // revision; 0: it is there in the end
  Instant until = kNever;
  int64_t rewritten = 0;  // revision of its second version; 0: there is none
  Instant rewritten_at = kNever;
};

// All existences of keys under a prefix, in the order of their creation.
std::vector<KeyLife> LivesUnder(const TrueHistory& truth, const std::string& prefix);

// "12.5 s", "never"
std::string Seconds(Instant at);
// What a checker finds in a value; 0 for what is no number.
int64_t Number(const std::string& text);

}  // namespace conclave::sim
