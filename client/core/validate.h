// What is wrong with a request, said before it is sent. A server would refuse it as well, but
// later, and in its own words; some it would take for something else (an empty key within a name
// space, a negative limit).
//
// OK, or InvalidArgument with an ErrorDetail: nothing was executed.
#pragma once

#include "absl/status/status.h"
#include "conclave/client/core/types.h"

namespace conclave {

// Transactions within transactions: servers read messages only to a depth of 100, two for each.
inline constexpr int kTxnDepthMax = 32;

absl::Status Validate(const KeyRange& range);
absl::Status Validate(const RangeRequest& request);
absl::Status Validate(const PutRequest& request);
absl::Status Validate(const DeleteRequest& request);
absl::Status Validate(const TxnRequest& request);

// The status of such a complaint.
absl::Status InvalidRequest(std::string_view what);

}  // namespace conclave
