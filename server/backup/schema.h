// What etcd keeps in which bucket of its bbolt file.
//
//   alarm            key AlarmMember (protobuf), no value
//   auth             authEnabled: one byte 0 or 1; authRevision: u64
//   authRoles        name -> authpb.Role
//   authUsers        name -> authpb.User
//   cluster          clusterVersion: "3.6.0"; downgrade: JSON
//   key              revision (below) -> mvccpb.KeyValue
//   lease            id, u64 -> leasepb.Lease (1 ID, 2 TTL, 3 remaining TTL)
//   members          id in hexadecimal digits -> JSON
//   members_removed  id in hexadecimal digits -> "removed"
//   meta             consistent_index: u64; term: u64; confState: JSON; finishedCompactRev and
//                    scheduledCompactRev: revisions; storageVersion: "3.6.0"
//
// Integers are big-endian. A revision is main u64, '_', sub u64, and 't' behind a tombstone's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "conclave/server/auth/store.h"
#include "conclave/server/mvcc/record.h"

namespace conclave::backup {

inline constexpr std::string_view kAlarmBucket = "alarm";
inline constexpr std::string_view kAuthBucket = "auth";
inline constexpr std::string_view kAuthRolesBucket = "authRoles";
inline constexpr std::string_view kAuthUsersBucket = "authUsers";
inline constexpr std::string_view kClusterBucket = "cluster";
inline constexpr std::string_view kKeyBucket = "key";
inline constexpr std::string_view kLeaseBucket = "lease";
inline constexpr std::string_view kMembersBucket = "members";
inline constexpr std::string_view kMembersRemovedBucket = "members_removed";
inline constexpr std::string_view kMetaBucket = "meta";

inline constexpr std::string_view kAuthEnabledKey = "authEnabled";
inline constexpr std::string_view kAuthRevisionKey = "authRevision";
inline constexpr std::string_view kClusterVersionKey = "clusterVersion";
inline constexpr std::string_view kDowngradeKey = "downgrade";
inline constexpr std::string_view kConfStateKey = "confState";
inline constexpr std::string_view kConsistentIndexKey = "consistent_index";
inline constexpr std::string_view kTermKey = "term";
inline constexpr std::string_view kFinishedCompactKey = "finishedCompactRev";
inline constexpr std::string_view kScheduledCompactKey = "scheduledCompactRev";
inline constexpr std::string_view kStorageVersionKey = "storageVersion";

[[nodiscard]] std::string EncodeU64(uint64_t number);
// None unless there are eight bytes.
[[nodiscard]] std::optional<uint64_t> DecodeU64(std::string_view bytes);

[[nodiscard]] std::string EncodeRevision(mvcc::Revision revision, bool tombstone = false);
struct RevisionKey {
  mvcc::Revision revision;
  bool tombstone = false;
};
[[nodiscard]] std::optional<RevisionKey> DecodeRevision(std::string_view bytes);

struct Lease {
  int64_t id = 0;
  int64_t ttl_seconds = 0;
  int64_t remaining_seconds = 0;  // 0: all of it
};
[[nodiscard]] std::string EncodeLease(const Lease& lease);
[[nodiscard]] std::optional<Lease> DecodeLease(std::string_view bytes);

// authpb.User and authpb.Role. Decoding: false unless the message is one.
[[nodiscard]] std::string EncodeUser(std::string_view name, const auth::User& user);
[[nodiscard]] bool DecodeUser(std::string_view bytes, auth::User* user);
[[nodiscard]] std::string EncodeRole(std::string_view name, const auth::Role& role);
[[nodiscard]] bool DecodeRole(std::string_view bytes, auth::Role* role);

// mvccpb.KeyValue; the views point into `bytes`. Revision and tombstone stand in the key instead.
[[nodiscard]] bool DecodeKeyValue(std::string_view bytes, mvcc::RecordFields* fields,
                                  int64_t* mod_revision);

}  // namespace conclave::backup
