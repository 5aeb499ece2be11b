#include "conclave/server/mvcc/errors.h"

namespace conclave::mvcc {

absl::Status CompactedError() {
  return absl::OutOfRangeError(absl::string_view(kCompactedText.data(), kCompactedText.size()));
}

absl::Status FutureRevisionError() {
  return absl::OutOfRangeError(
      absl::string_view(kFutureRevisionText.data(), kFutureRevisionText.size()));
}

}  // namespace conclave::mvcc
