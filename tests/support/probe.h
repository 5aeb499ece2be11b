// Single questions to a server by bare gRPC, apart from the client library that is under test.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace conclave::testing {

absl::Status ProbeLinearizableRead(const std::string& endpoint, absl::Duration timeout);
absl::StatusOr<bool> ProbeLeads(const std::string& endpoint, absl::Duration timeout);

}  // namespace conclave::testing
