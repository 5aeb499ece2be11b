// Mutants: bugs of history, put in on purpose, to show that the simulator finds them. They exist in
// builds with -DCONCLAVE_MUTANTS=ON only, and there one at a time, chosen by name; elsewhere the
// macro is `false`, and nothing of them is in any binary.
//
//   if (MUTANT("vote-twice")) granted = true;
//
// Every name stands in tests/sim/mutants.cc too, with the bug that it stands for.
#pragma once

#ifdef CONCLAVE_MUTANTS

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace conclave::mutant {

constexpr uint64_t HashOf(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// Of the name of the one that is alive; 0: none. Set before anything runs.
inline uint64_t alive = 0;

}  // namespace conclave::mutant

#define MUTANT(name)            \
  (::conclave::mutant::alive == \
   std::integral_constant<uint64_t, ::conclave::mutant::HashOf(name)>::value)

#else

#define MUTANT(name) false

#endif
