// The versions that this program tells of itself.
#pragma once

#include <string_view>

namespace conclave::app {

// Of Conclave.
inline constexpr std::string_view kVersion = "0.1.0";
// Of the etcd v3 protocol as it is served: what Status, /version and the metrics say, and what
// clients that look at a version make their choices by.
inline constexpr std::string_view kProtocolVersion = "3.6.0";

}  // namespace conclave::app
