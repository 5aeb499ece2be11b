// What a picking channel tells of itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace conclave::picking {

enum class BackendState { kConnecting, kReady, kFailing };

struct BackendStats {
  std::string address{};
  std::string zone{};
  BackendState state = BackendState::kConnecting;
  double weight = 0;   // of the moment; 0 before it was first ready
  uint64_t picks = 0;  // calls given to it
  int64_t in_flight = 0;
  uint64_t failures = 0;                        // calls whose end spoke against it (see Outlier)
  std::optional<absl::Duration> ejected_for{};  // how long it is still out; nullopt: it is not
};

struct PickingStats {
  std::string service{};
  std::vector<BackendStats> backends{};  // in the order of addresses
  // Calls that began while no backend was ready and waited for one.
  uint64_t waited = 0;
  // Calls that were failed at once: no instances, or the application's picker wanted none.
  uint64_t refused = 0;
  uint64_t unusable = 0;  // serving instances left out because of their addresses
  bool panic = false;     // too many are ejected, so ejections are ignored
};

}  // namespace conclave::picking
