// Sets the process's failpoints up, as its environment says:
//   GOFAIL_HTTP=host:port            the door to them
//   GOFAIL_FAILPOINTS="a=panic;b=sleep(\"1s\")"   armed from the start
// In builds without failpoints (base/failpoint.h) it does nothing.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"

namespace conclave::failpoint {

// Once, before there are threads. InvalidArgument, NotFound or Unavailable name the variable.
absl::Status SetUp(const std::map<std::string, std::string>& environment);

}  // namespace conclave::failpoint
