// Plan: what of a seed's run takes place. A whole run has all of it; one that fails is made smaller
// (shrink.h) by leaving out classes of faults and clients, and by ending the chaos sooner.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string>

#include "conclave/base/time.h"
#include "conclave/tests/sim/faults.h"

namespace conclave::sim {

// Who uses the cluster besides a few plain clients.
enum class Guests : uint8_t {
  kPlain,    // more of them: keys, watches, leases, compactions
  kRecipes,  // processes with the production client and the recipes on it
  kStorm,    // operators who change the membership all the time
  kAuth,     // users whose permissions change all the time
};
inline constexpr size_t kGuests = static_cast<size_t>(Guests::kAuth) + 1;

// Clients that a run can do without.
enum class Part : uint8_t { kKeys, kWatches, kLeases, kCompactions, kGuests };
inline constexpr size_t kParts = static_cast<size_t>(Part::kGuests) + 1;
inline constexpr std::array<const char*, kParts> kPartNames = {"keys", "watches", "leases",
                                                               "compactions", "guests"};

struct Plan {
  Guests guests = Guests::kPlain;
  std::bitset<kFaults> without_faults;
  std::bitset<kParts> without_parts;
  Duration chaos_max = kNever - Instant{};
  std::optional<uint64_t> clients;  // plain ones; else by the seed
  bool Has(Fault fault) const { return !without_faults.test(static_cast<size_t>(fault)); }
  bool Has(Part part) const { return !without_parts.test(static_cast<size_t>(part)); }
  // The flags of the program that make this plan.
  std::string Flags() const;
  // A class of faults or clients by its name; false: there is none of that name.
  bool LeaveOut(const std::string& name);
};

}  // namespace conclave::sim
