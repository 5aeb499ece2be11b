// The two errors a reader can cause, with the code and the text that clients know.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace conclave::mvcc {

inline constexpr std::string_view kCompactedText =
    "etcdserver: mvcc: required revision has been compacted";
inline constexpr std::string_view kFutureRevisionText =
    "etcdserver: mvcc: required revision is a future revision";

// Both OutOfRange.
[[nodiscard]] absl::Status CompactedError();
[[nodiscard]] absl::Status FutureRevisionError();

}  // namespace conclave::mvcc
