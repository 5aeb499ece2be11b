// The errors of the protocol: gRPC's code and the exact text. Clients tell errors apart by the
// text.
//
// An error is a constant, so a `const Error*` (null: no error) travels without allocation and
// compares by address.
#pragma once

#include <string_view>

namespace conclave::wire {

// gRPC's status codes, by number, so that this library needs no gRPC.
enum class Code : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

struct Error {
  Code code = Code::kUnknown;
  std::string_view message;
};

#define CONCLAVE_WIRE_ERROR(name, code, message) \
  inline constexpr Error name { Code::code, message }

// Requests that say something impossible.
CONCLAVE_WIRE_ERROR(kErrEmptyKey, kInvalidArgument, "etcdserver: key is not provided");
CONCLAVE_WIRE_ERROR(kErrKeyNotFound, kInvalidArgument, "etcdserver: key not found");
CONCLAVE_WIRE_ERROR(kErrValueProvided, kInvalidArgument, "etcdserver: value is provided");
CONCLAVE_WIRE_ERROR(kErrLeaseProvided, kInvalidArgument, "etcdserver: lease is provided");
CONCLAVE_WIRE_ERROR(kErrTooManyOps, kInvalidArgument,
                    "etcdserver: too many operations in txn request");
CONCLAVE_WIRE_ERROR(kErrDuplicateKey, kInvalidArgument,
                    "etcdserver: duplicate key given in txn request");
CONCLAVE_WIRE_ERROR(kErrInvalidClientApiVersion, kInvalidArgument,
                    "etcdserver: invalid client api version");
CONCLAVE_WIRE_ERROR(kErrInvalidSortOption, kInvalidArgument, "etcdserver: invalid sort option");
CONCLAVE_WIRE_ERROR(kErrMemberBadUrls, kInvalidArgument,
                    "etcdserver: given member URLs are invalid");
CONCLAVE_WIRE_ERROR(kErrRequestTooLarge, kInvalidArgument, "etcdserver: request is too large");
CONCLAVE_WIRE_ERROR(kErrTooManyRequests, kUnknown, "etcdserver: too many requests");

// The versioned store.
CONCLAVE_WIRE_ERROR(kErrCompacted, kOutOfRange,
                    "etcdserver: mvcc: required revision has been compacted");
CONCLAVE_WIRE_ERROR(kErrFutureRevision, kOutOfRange,
                    "etcdserver: mvcc: required revision is a future revision");
CONCLAVE_WIRE_ERROR(kErrNoSpace, kResourceExhausted, "etcdserver: mvcc: database space exceeded");

// Leases.
CONCLAVE_WIRE_ERROR(kErrLeaseNotFound, kNotFound, "etcdserver: requested lease not found");
CONCLAVE_WIRE_ERROR(kErrLeaseExists, kFailedPrecondition, "etcdserver: lease already exists");
CONCLAVE_WIRE_ERROR(kErrLeaseTtlTooLarge, kOutOfRange, "etcdserver: too large lease TTL");
CONCLAVE_WIRE_ERROR(kErrNotPrimaryLessor, kUnknown, "not a primary lessor");

// Members.
CONCLAVE_WIRE_ERROR(kErrMemberNotFound, kNotFound, "etcdserver: member not found");
CONCLAVE_WIRE_ERROR(kErrMemberExists, kFailedPrecondition, "etcdserver: member ID already exist");
CONCLAVE_WIRE_ERROR(kErrPeerUrlExists, kFailedPrecondition, "etcdserver: Peer URLs already exists");
CONCLAVE_WIRE_ERROR(kErrMemberNotEnoughStarted, kUnknown,
                    "etcdserver: re-configuration failed due to not enough started members");
CONCLAVE_WIRE_ERROR(kErrMemberNotLearner, kFailedPrecondition,
                    "etcdserver: can only promote a learner member");
CONCLAVE_WIRE_ERROR(kErrLearnerNotReady, kFailedPrecondition,
                    "etcdserver: can only promote a learner member which is in sync with leader");
CONCLAVE_WIRE_ERROR(kErrTooManyLearners, kFailedPrecondition,
                    "etcdserver: too many learner members in cluster");
CONCLAVE_WIRE_ERROR(kErrNotLeader, kFailedPrecondition, "etcdserver: not leader");
CONCLAVE_WIRE_ERROR(kErrNotSupportedForLearner, kFailedPrecondition,
                    "etcdserver: rpc not supported for learner");
CONCLAVE_WIRE_ERROR(kErrBadLeaderTransferee, kFailedPrecondition,
                    "etcdserver: bad leader transferee");

// Downgrade.
CONCLAVE_WIRE_ERROR(kErrUnknownMethod, kUnknown, "etcdserver: unknown method");
CONCLAVE_WIRE_ERROR(kErrWrongDowngradeVersionFormat, kInvalidArgument,
                    "etcdserver: wrong downgrade target version format");
CONCLAVE_WIRE_ERROR(kErrInvalidDowngradeTarget, kInvalidArgument,
                    "etcdserver: invalid downgrade target version");
CONCLAVE_WIRE_ERROR(kErrClusterVersionUnavailable, kFailedPrecondition,
                    "etcdserver: cluster version not found during downgrade");
CONCLAVE_WIRE_ERROR(kErrDowngradeInProgress, kFailedPrecondition,
                    "etcdserver: cluster has a downgrade job in progress");

// Users and roles.
CONCLAVE_WIRE_ERROR(kErrRootUserMissing, kFailedPrecondition,
                    "etcdserver: root user does not exist");
CONCLAVE_WIRE_ERROR(kErrRootRoleMissing, kFailedPrecondition,
                    "etcdserver: root user does not have root role");
CONCLAVE_WIRE_ERROR(kErrUserExists, kFailedPrecondition, "etcdserver: user name already exists");
CONCLAVE_WIRE_ERROR(kErrUserEmpty, kInvalidArgument, "etcdserver: user name is empty");
CONCLAVE_WIRE_ERROR(kErrUserNotFound, kFailedPrecondition, "etcdserver: user name not found");
CONCLAVE_WIRE_ERROR(kErrRoleExists, kFailedPrecondition, "etcdserver: role name already exists");
CONCLAVE_WIRE_ERROR(kErrRoleNotFound, kFailedPrecondition, "etcdserver: role name not found");
CONCLAVE_WIRE_ERROR(kErrRoleEmpty, kInvalidArgument, "etcdserver: role name is empty");
CONCLAVE_WIRE_ERROR(kErrAuthFailed, kInvalidArgument,
                    "etcdserver: authentication failed, invalid user ID or password");
CONCLAVE_WIRE_ERROR(kErrPermissionNotGiven, kInvalidArgument, "etcdserver: permission not given");
CONCLAVE_WIRE_ERROR(kErrPermissionDenied, kPermissionDenied, "etcdserver: permission denied");
CONCLAVE_WIRE_ERROR(kErrRoleNotGranted, kFailedPrecondition,
                    "etcdserver: role is not granted to the user");
CONCLAVE_WIRE_ERROR(kErrPermissionNotGranted, kFailedPrecondition,
                    "etcdserver: permission is not granted to the role");
CONCLAVE_WIRE_ERROR(kErrNoPasswordUser, kUnknown,
                    "auth: authentication failed, password was given for no password user");
CONCLAVE_WIRE_ERROR(kErrAuthNotEnabled, kFailedPrecondition,
                    "etcdserver: authentication is not enabled");
CONCLAVE_WIRE_ERROR(kErrInvalidAuthToken, kUnauthenticated, "etcdserver: invalid auth token");
CONCLAVE_WIRE_ERROR(kErrInvalidAuthManagement, kInvalidArgument,
                    "etcdserver: invalid auth management");
CONCLAVE_WIRE_ERROR(kErrAuthOldRevision, kInvalidArgument,
                    "etcdserver: revision of auth store is old");

// The state of the cluster. Unavailable is the only class that clients retry.
CONCLAVE_WIRE_ERROR(kErrNoLeader, kUnavailable, "etcdserver: no leader");
CONCLAVE_WIRE_ERROR(kErrStopped, kUnavailable, "etcdserver: server stopped");
CONCLAVE_WIRE_ERROR(kErrTimeout, kUnavailable, "etcdserver: request timed out");
CONCLAVE_WIRE_ERROR(kErrTimeoutLeaderFail, kUnavailable,
                    "etcdserver: request timed out, possibly due to previous leader failure");
CONCLAVE_WIRE_ERROR(kErrTimeoutConnectionLost, kUnavailable,
                    "etcdserver: request timed out, possibly due to connection lost");
CONCLAVE_WIRE_ERROR(kErrUnhealthy, kUnavailable, "etcdserver: unhealthy cluster");
CONCLAVE_WIRE_ERROR(kErrTimeoutLeaderTransfer, kUnknown,
                    "etcdserver: request timed out, leader transfer took too long");
CONCLAVE_WIRE_ERROR(kErrCorrupt, kDataLoss, "etcdserver: corrupt cluster");
CONCLAVE_WIRE_ERROR(kErrDeadlineExceeded, kDeadlineExceeded, "context deadline exceeded");

// Not etcd's: a password of which bcrypt would not see the whole.
CONCLAVE_WIRE_ERROR(kErrBadPassword, kInvalidArgument,
                    "conclave: a password has at most 72 bytes, and none of them is zero");
CONCLAVE_WIRE_ERROR(kErrAuthUnavailable, kFailedPrecondition,
                    "conclave: this member has no private key to sign tokens with");

// Not etcd's: a message that is no valid encoding of its type, and what this server does not do.
CONCLAVE_WIRE_ERROR(kErrMalformed, kInternal, "grpc: error unmarshalling request");
CONCLAVE_WIRE_ERROR(kErrUnimplemented, kUnimplemented, "conclave: method is not implemented");

#undef CONCLAVE_WIRE_ERROR

}  // namespace conclave::wire
