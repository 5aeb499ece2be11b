// Override: what an operator says about an instance from outside, and what the instance heeds.
//
// It stands in the store without a lease, under "<prefix><service>/<id or address>" with the prefix
// ".override/", as one of
//   out        the instance leaves the registry, but goes on running
//   drain      it says that it is draining
//   weight=N   it carries that weight, 0 and up
// and holds until somebody removes it: over the instance's re-registrations and its restarts. If
// both the id and the address have one, that of the id counts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace conclave {

struct Override {
  enum class Kind { kOut, kDrain, kWeight };

  Kind kind = Kind::kOut;
  int64_t weight = 0;  // of kWeight

  friend bool operator==(const Override&, const Override&) = default;
};

std::string OverrideText(const Override& value);
// InvalidArgument for anything else.
absl::StatusOr<Override> ParseOverride(std::string_view text);

inline constexpr std::string_view kOverridePrefix = ".override/";
// `name` is an id or an address.
std::string OverrideKey(std::string_view prefix, std::string_view service, std::string_view name);

}  // namespace conclave
