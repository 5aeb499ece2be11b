// A member of ours whose state is not that of the others, though all of its files are whole.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace conclave::testing {

inline constexpr std::string_view kSpoiledKey = "spoiled";

// Writes the newest snapshot again, as if one more key had been put before it. The member is down.
absl::Status SpoilState(const std::string& data_dir);

}  // namespace conclave::testing
