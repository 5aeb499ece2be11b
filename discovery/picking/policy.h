// The balancing policies of the picking channel, as options. No gRPC.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "conclave/discovery/picking/backend.h"

namespace conclave::picking {

// One after the other.
struct RoundRobin {};

// One after the other, in the proportions of the instances' weights, and smoothly: {5, 1, 1} is not
// five calls in a row to the first. Weight 0 is no calls; unset is 100.
struct WeightedRoundRobin {};

// Of `choices` backends drawn at random (by weight), the one with the fewest calls under way in
// proportion to its weight. Good where calls differ in cost, or backends in speed.
struct LeastRequest {
  int choices = 2;  // 2..16
};

// Calls with the same key go to the same backend, and move only if it leaves, fails or is ejected:
// then to the next one on the ring. Slow start and LeastRequest's counting play no part in it.
struct RingHash {
  // The key is the first value of this metadata key ("x-user", in lower case), ...
  std::string header{};
  // ... or what this function makes of the call. It runs in the threads that start calls.
  std::function<std::string(const PickArgs&)> key{};
  // A call without the header, or whose key is empty, goes to any backend.
};

using Policy =
    std::variant<RoundRobin, WeightedRoundRobin, LeastRequest, RingHash, std::shared_ptr<Picker>>;

// Takes a backend out for a while whose calls keep failing although its connection is good.
//
// Failures are the statuses UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN and DATA_LOSS. Any
// other status, as an answer of the application, counts as success, and CANCELLED as neither.
struct Outlier {
  int consecutive_failures = 5;
  // The n-th ejection in a row lasts n times that, up to the maximum. One is forgotten for each
  // base_ejection that the backend stands afterwards.
  absl::Duration base_ejection = absl::Seconds(30);
  absl::Duration max_ejection = absl::Minutes(5);
  // Of the ready backends; one may always be ejected if there are others.
  int max_ejection_percent = 50;
};

// InvalidArgument says what is wrong.
absl::Status ValidatePolicy(const Policy& policy);
absl::Status ValidateOutlier(const Outlier& outlier);

}  // namespace conclave::picking
