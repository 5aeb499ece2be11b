// What a failed call knows beyond its code: etcd's own text, whether trying again is sensible, and
// whether a write may have happened.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace conclave {

enum class Outcome {
  kNotExecuted,  // the request had no effect, for certain
  kUnknown,      // a write that may or may not have taken effect: look before you write again
};

struct ErrorDetail {
  std::string
      server_error{};      // the server's text ("etcdserver: requested lease not found"), or empty
  std::string endpoint{};  // who answered, or failed to
  bool retryable = false;  // the same call may succeed later
  Outcome outcome = Outcome::kNotExecuted;
};

// Absent for a status that no call of this library gave.
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);
void SetErrorDetail(absl::Status& status, const ErrorDetail& detail);

// Shorthands. An OK status is neither.
bool IsRetryable(const absl::Status& status);
bool IsOutcomeUnknown(const absl::Status& status);
// The revision asked for: its history is gone for good; or this member does not have it yet.
bool IsCompacted(const absl::Status& status);
bool IsFutureRevision(const absl::Status& status);

}  // namespace conclave
