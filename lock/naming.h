// What the kinds of locks have in common: names that are good, and the value of a contender's key.
// For the kinds of locks, not for users.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client_impl.h"
#include "conclave/lock/guard.h"

namespace conclave {

inline constexpr size_t kLockNameBytesMax = 1024;
inline constexpr size_t kLockInfoBytesMax = 64 * 1024;
inline constexpr absl::Duration kLockDelayMax = absl::Hours(1);

// InvalidArgument, with what to do, unless the name is at most kLockNameBytesMax of UTF-8 without
// control characters that neither begins nor ends with a slash nor has an empty part.
absl::Status CheckLockName(std::string_view name);
absl::Status CheckLockInfo(std::string_view info);

std::string HostAndPid();
// What others may read about a holder. Other clients ignore the value, and store what they like.
std::string DescribeHolder(const std::string& holder, const std::string& info);
LockInfo LockInfoOf(const KeyValue& kv);
// "<name>/<lease in hex>": the key of Go's concurrency package.
std::string LeaseKey(std::string_view name, LeaseId lease);

// The key that asks the holder to release a lock.
std::string ReleaseMarkerKey(std::string_view name);

// All keys of `range`, the oldest first.
absl::StatusOr<std::vector<LockInfo>> ReadQueue(const std::shared_ptr<SessionRep>& session,
                                                const KeyRange& range, const CallOptions& call);
// With the client's timeout, if the call names none: for tries, which do not wait.
CallOptions Bounded(const std::shared_ptr<SessionRep>& session, const CallOptions& call);

}  // namespace conclave
