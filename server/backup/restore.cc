#include "conclave/server/backup/restore.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/reader.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/status.h"
#include "conclave/server/backup/schema.h"
#include "conclave/server/mvcc/snapshot_cursor.h"

namespace conclave::backup {
namespace {

constexpr int64_t kMsPerSecond = 1000;
constexpr size_t kCompactSlice = 100'000;

template <typename... Parts>
absl::Status Damaged(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat("etcd's database: ", parts...));
}

// A bucket that need not be there: etcd makes it when it first needs it.
absl::Status ForEachIfThere(bbolt::Database* database, std::string_view bucket,
                            bbolt::Database::Visit visit) {
  const absl::Status visited = database->ForEach(bucket, visit);
  return absl::IsNotFound(visited) ? absl::OkStatus() : visited;
}

// The records, and the revision that they come to; *records stays without what only says that.
class KeyReader {
 public:
  absl::Status Take(std::string_view key, std::string_view value) {
    const std::optional<RevisionKey> at = DecodeRevision(key);
    if (!at.has_value()) return Damaged("a key of the key bucket is no revision");
    last_ = at->revision.main;
    // A record of nothing raises the revision: so do etcd's tools after a restore.
    if (value.empty()) return absl::OkStatus();
    mvcc::RecordFields fields;
    int64_t mod_revision = 0;
    if (!DecodeKeyValue(value, &fields, &mod_revision)) {
      return Damaged("the record of revision ", at->revision.main, " is none");
    }
    fields.revision = at->revision;
    fields.tombstone = at->tombstone;
    if (at->tombstone) {
      fields.value = {};
      fields.create_revision = fields.version = fields.lease = 0;
    } else if (mod_revision != at->revision.main) {
      return Damaged("the record of revision ", at->revision.main, " says ", mod_revision);
    }
    return builder_.Add(fields);
  }

  absl::StatusOr<std::unique_ptr<mvcc::Store>> Finish(const RestoreOptions& options,
                                                      int64_t compacted) {
    int64_t current = std::max<int64_t>({last_, compacted, 1});
    if (options.bump_revision > static_cast<uint64_t>(INT64_MAX - current)) {
      return absl::InvalidArgumentError(
          absl::StrCat("revision ", current, " cannot be raised by ", options.bump_revision));
    }
    current += static_cast<int64_t>(options.bump_revision);
    if (options.mark_compacted) compacted = current;
    CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<mvcc::Store> store, builder_.FinishAt(current));
    if (compacted >= 0) {
      CONCLAVE_RETURN_IF_ERROR(store->Compact(compacted));
      while (store->CompactSlice(kCompactSlice)) {
      }
    }
    return store;
  }

 private:
  mvcc::StoreBuilder builder_;
  int64_t last_ = 0;
};

absl::Status TakeLease(std::string_view key, std::string_view value, lease::LessorImage* leases) {
  const std::optional<uint64_t> id = DecodeU64(key);
  const std::optional<Lease> lease = DecodeLease(value);
  if (!id.has_value() || !lease.has_value() || static_cast<uint64_t>(lease->id) != *id) {
    return Damaged("a lease is none");
  }
  if (lease->ttl_seconds < 1 || lease->ttl_seconds > lease::kMaxTtlSeconds) {
    return Damaged("a lease has a TTL of ", lease->ttl_seconds, " s");
  }
  int64_t remaining_s = lease->ttl_seconds;
  if (lease->remaining_seconds > 0) remaining_s = std::min(remaining_s, lease->remaining_seconds);
  leases->leases.push_back({lease->id, lease->ttl_seconds, remaining_s * kMsPerSecond});
  return absl::OkStatus();
}

absl::Status TakeAlarm(std::string_view key, absl::btree_set<apply::Alarm>* alarms) {
  apply::Alarm alarm;
  wire::Reader reader(key);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        alarm.member_id = reader.Varint();
        break;
      case wire::VarintTag(2):
        alarm.type = reader.Int32();
        break;
      default:
        reader.Skip(2);
    }
  }
  if (!reader.ok()) return Damaged("an alarm is none");
  alarms->insert(alarm);
  return absl::OkStatus();
}

absl::Status ReadAuth(bbolt::Database* database, auth::AuthStore* auth) {
  bool enabled = false;
  uint64_t revision = 1;
  absl::btree_map<std::string, auth::User> users;
  absl::btree_map<std::string, auth::Role> roles;
  CONCLAVE_RETURN_IF_ERROR(
      ForEachIfThere(database, kAuthBucket, [&](std::string_view key, std::string_view value) {
        if (key == kAuthEnabledKey) {
          enabled = value == std::string_view("\1", 1);
        } else if (key == kAuthRevisionKey) {
          const std::optional<uint64_t> number = DecodeU64(value);
          if (!number.has_value()) return Damaged("the auth revision is none");
          revision = std::max<uint64_t>(*number, 1);
        }
        return absl::OkStatus();
      }));
  CONCLAVE_RETURN_IF_ERROR(ForEachIfThere(
      database, kAuthUsersBucket, [&users](std::string_view key, std::string_view value) {
        return DecodeUser(value, &users[std::string(key)]) ? absl::OkStatus()
                                                           : Damaged("a user is none");
      }));
  CONCLAVE_RETURN_IF_ERROR(ForEachIfThere(
      database, kAuthRolesBucket, [&roles](std::string_view key, std::string_view value) {
        return DecodeRole(value, &roles[std::string(key)]) ? absl::OkStatus()
                                                           : Damaged("a role is none");
      }));
  auth->Restore(enabled, revision, std::move(users), std::move(roles));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<apply::StateParts> ReadState(bbolt::Database* database,
                                            const RestoreOptions& options) {
  int64_t compacted = -1;
  CONCLAVE_RETURN_IF_ERROR(
      ForEachIfThere(database, kMetaBucket, [&](std::string_view key, std::string_view value) {
        if (key != kFinishedCompactKey && key != kScheduledCompactKey) return absl::OkStatus();
        const std::optional<RevisionKey> revision = DecodeRevision(value);
        if (!revision.has_value()) return Damaged("the compact revision is none");
        compacted = std::max(compacted, revision->revision.main);
        return absl::OkStatus();
      }));

  apply::StateParts parts;
  KeyReader keys;
  const absl::Status read = database->ForEach(
      kKeyBucket,
      [&keys](std::string_view key, std::string_view value) { return keys.Take(key, value); });
  if (absl::IsNotFound(read)) return Damaged("it has no key bucket: is it one of etcd's?");
  CONCLAVE_RETURN_IF_ERROR(read);
  CONCLAVE_ASSIGN_OR_RETURN(parts.store, keys.Finish(options, compacted));

  CONCLAVE_RETURN_IF_ERROR(ForEachIfThere(database, kLeaseBucket,
                                          [&parts](std::string_view key, std::string_view value) {
                                            return TakeLease(key, value, &parts.leases);
                                          }));
  // They were in the order of unsigned numbers.
  std::sort(parts.leases.leases.begin(), parts.leases.leases.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  CONCLAVE_RETURN_IF_ERROR(ForEachIfThere(
      database, kAlarmBucket,
      [&parts](std::string_view key, std::string_view) { return TakeAlarm(key, &parts.alarms); }));
  CONCLAVE_RETURN_IF_ERROR(ReadAuth(database, &parts.auth));
  return parts;
}

absl::StatusOr<DatabaseStatus> Inspect(bbolt::Database* database) {
  CONCLAVE_RETURN_IF_ERROR(database->Check());
  DatabaseStatus status;
  status.total_bytes = database->size_bytes();
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<std::string> buckets, database->Buckets());
  for (const std::string& bucket : buckets) {
    status.hash = Crc32cExtend(status.hash, bucket);
    CONCLAVE_RETURN_IF_ERROR(
        database->ForEach(bucket, [&](std::string_view key, std::string_view value) {
          status.hash = Crc32cExtend(Crc32cExtend(status.hash, key), value);
          ++status.total_keys;
          if (bucket == kKeyBucket) {
            const std::optional<RevisionKey> revision = DecodeRevision(key);
            if (!revision.has_value()) return Damaged("a key of the key bucket is no revision");
            status.revision = revision->revision.main;
          } else if (bucket == kMetaBucket && key == kStorageVersionKey) {
            status.version = std::string(value);
          }
          return absl::OkStatus();
        }));
  }
  return status;
}

}  // namespace conclave::backup
