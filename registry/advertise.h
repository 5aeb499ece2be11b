// The address that others can reach this machine by.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace conclave {

// "host:port" as it stands, checked; ":port" gets the host that this machine uses towards the first
// of `endpoints` that has a route. InvalidArgument for what cannot be registered (see
// ValidateAddress).
absl::StatusOr<std::string> AdvertiseAddress(const std::string& address,
                                             const std::vector<std::string>& endpoints);

}  // namespace conclave
