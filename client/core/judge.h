// Judging an attempt at a call: which status the caller gets, whether the call may be tried again,
// and whether the member is to blame.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace conclave {

enum class CallKind {
  kRead,   // may be tried again at any time
  kWrite,  // may be tried again only if it provably was not executed
};

// How an attempt ended on the wire. `code` counts as gRPC's and absl's codes do, 0 is OK.
struct WireStatus {
  int code = 0;
  std::string message{};
  bool sent = true;  // false: it provably never left this process

  bool ok() const { return code == 0; }
};

struct Verdict {
  absl::Status status;          // with an ErrorDetail
  bool try_again = false;       // the same call, now, is safe and sensible
  bool blame_endpoint = false;  // the member is gone, hung or without a leader: prefer others
};

// `wire` is a failure.
Verdict Judge(CallKind kind, const WireStatus& wire, std::string_view endpoint);

// The status for a server's error text, as in the cancel reason of a watch.
absl::Status StatusOfServerText(std::string_view text);

}  // namespace conclave
