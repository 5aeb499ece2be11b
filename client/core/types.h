// The vocabulary of the client: plain data in and out of every call. No protobuf, no gRPC, no
// threads.
//
// Revisions are the store's: one number for the whole cluster that grows by one with every write.
// Lease ids are never 0; 0 means "no lease".
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace conclave {

using LeaseId = int64_t;

// No store has seen this many writes: a revision beyond it is nonsense.
inline constexpr int64_t kRevisionMax = int64_t{1} << 62;
// The longest TTL of a lease, in seconds, that the protocol knows.
inline constexpr int64_t kTtlSecondsMax = 9'000'000'000;

// How long one call may take, and who may cut it short. Every blocking call of this library takes
// one.
struct CallOptions {
  // Counted from the call; unset: ConnectOptions::request_timeout.
  std::optional<absl::Duration> timeout{};
  // Absolute, on the wall clock; the earlier of both holds.
  absl::Time deadline = absl::InfiniteFuture();
  // Requesting a stop ends the call with Cancelled. A write that was already on its way may still
  // take effect: its outcome is then kUnknown (ErrorDetail).
  std::stop_token stop{};
};

struct KeyValue {
  std::string key{};
  std::string value{};
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
  int64_t version = 0;  // 1 at creation, +1 with every put
  LeaseId lease = 0;

  friend bool operator==(const KeyValue&, const KeyValue&) = default;
};

// A set of keys: one key, or all keys in [key, end) by bytes. The protocol's conventions: end empty
// is the one key, end "\0" is everything from key on.
struct KeyRange {
  KeyRange() = default;
  KeyRange(std::string_view single) : key(single) {}    // NOLINT: a key is a range of one
  KeyRange(const std::string& single) : key(single) {}  // NOLINT
  KeyRange(const char* single) : key(single) {}         // NOLINT
  KeyRange(std::string_view begin, std::string_view past_end) : key(begin), end(past_end) {}

  bool single() const { return end.empty(); }
  bool Contains(std::string_view candidate) const;

  std::string key{};
  std::string end{};

  friend bool operator==(const KeyRange&, const KeyRange&) = default;
};

KeyRange Prefix(std::string_view prefix);  // all keys that begin with prefix; "" is all keys
KeyRange FromKey(std::string_view key);    // key and everything behind it
KeyRange AllKeys();

// ---- Range
// -----------------------------------------------------------------------------------------

enum class SortOrder { kNone, kAscend, kDescend };
enum class SortTarget { kKey, kVersion, kCreateRevision, kModRevision, kValue };

struct RangeOptions {
  int64_t limit = 0;     // 0: all
  int64_t revision = 0;  // 0: the latest
  SortOrder sort_order = SortOrder::kNone;
  SortTarget sort_target = SortTarget::kKey;
  bool serializable = false;  // answered by any member from its own state, possibly stale
  bool keys_only = false;
  bool count_only = false;
  int64_t min_mod_revision = 0;
  int64_t max_mod_revision = 0;
  int64_t min_create_revision = 0;
  int64_t max_create_revision = 0;
};

struct RangeResult {
  int64_t revision = 0;  // of the store when it answered
  std::vector<KeyValue> kvs{};
  int64_t count = 0;  // of all keys in the range, beyond the limit too
  bool more = false;
};

// ---- Put and Delete
// --------------------------------------------------------------------------------

struct PutOptions {
  LeaseId lease = 0;
  bool prev_kv = false;
  bool ignore_value = false;  // keep the value that is there
  bool ignore_lease = false;  // keep the lease that is there
};

struct PutResult {
  int64_t revision = 0;
  std::optional<KeyValue> prev_kv{};
};

struct DeleteOptions {
  bool prev_kv = false;
};

struct DeleteResult {
  int64_t revision = 0;
  int64_t deleted = 0;
  std::vector<KeyValue> prev_kvs{};
};

struct CompactOptions {
  bool physical = false;  // answer only when the space is reclaimed
};

// ---- Txn
// -------------------------------------------------------------------------------------------

struct RangeRequest {
  KeyRange range{};
  RangeOptions options{};
};

struct PutRequest {
  std::string key{};
  std::string value{};
  PutOptions options{};
};

struct DeleteRequest {
  KeyRange range{};
  DeleteOptions options{};
};

// One condition of a transaction. With a range all keys in it must satisfy the condition.
struct Compare {
  enum class Target { kVersion, kCreateRevision, kModRevision, kValue, kLease };
  enum class Result { kEqual, kGreater, kLess, kNotEqual };

  Target target = Target::kVersion;
  Result result = Result::kEqual;
  KeyRange range{};
  int64_t number = 0;   // for all targets but kValue
  std::string value{};  // for kValue

  friend bool operator==(const Compare&, const Compare&) = default;
};

struct Op;

// If all conditions hold, `success` runs, else `failure`; all of it at one revision. No key may be
// put twice in one run.
struct TxnRequest {
  std::vector<Compare> conditions{};
  std::vector<Op> success;  // no initialisers: Op is not complete yet
  std::vector<Op> failure;
};

// One operation of a transaction; a transaction is one, too.
struct Op : std::variant<RangeRequest, PutRequest, DeleteRequest, TxnRequest> {
  using variant::variant;
};

Op Get(std::string_view key);
Op Range(const KeyRange& range, const RangeOptions& options = {});
Op Put(std::string_view key, std::string_view value, const PutOptions& options = {});
Op Delete(const KeyRange& range, const DeleteOptions& options = {});

namespace compare_internal {
// What `ModRevision("k") == 7` is made of.
template <typename Operand>
struct Subject {
  Compare::Target target;
  KeyRange range{};

  Compare Make(Compare::Result result, Operand operand) const {
    Compare compare{.target = target, .result = result, .range = range};
    if constexpr (std::is_same_v<Operand, int64_t>) {
      compare.number = operand;
    } else {
      compare.value = std::string(operand);
    }
    return compare;
  }
  Compare operator==(Operand operand) const { return Make(Compare::Result::kEqual, operand); }
  Compare operator!=(Operand operand) const { return Make(Compare::Result::kNotEqual, operand); }
  Compare operator<(Operand operand) const { return Make(Compare::Result::kLess, operand); }
  Compare operator>(Operand operand) const { return Make(Compare::Result::kGreater, operand); }
};
}  // namespace compare_internal

inline compare_internal::Subject<int64_t> Version(const KeyRange& range) {
  return {Compare::Target::kVersion, range};
}
inline compare_internal::Subject<int64_t> CreateRevision(const KeyRange& range) {
  return {Compare::Target::kCreateRevision, range};
}
inline compare_internal::Subject<int64_t> ModRevision(const KeyRange& range) {
  return {Compare::Target::kModRevision, range};
}
inline compare_internal::Subject<int64_t> LeaseOf(const KeyRange& range) {
  return {Compare::Target::kLease, range};
}
inline compare_internal::Subject<std::string_view> Value(const KeyRange& range) {
  return {Compare::Target::kValue, range};
}
inline Compare Absent(const KeyRange& range) { return CreateRevision(range) == 0; }
inline Compare Present(const KeyRange& range) { return CreateRevision(range) > 0; }

// A transaction within a transaction: its conditions choose between its own branches.
Op Txn(TxnRequest request);

struct OpResult;

struct TxnResult {
  int64_t revision = 0;
  bool succeeded = false;         // which branch ran
  std::vector<OpResult> results;  // no initialiser: OpResult is not complete yet

  // The i-th operation's result; the caller knows its kind. Aborts on a wrong index or kind.
  const RangeResult& range(size_t i) const;
  const PutResult& put(size_t i) const;
  const DeleteResult& deleted(size_t i) const;
  const TxnResult& txn(size_t i) const;
  // The one key of a Get, or null if it was not there.
  const KeyValue* get(size_t i) const;
};

struct OpResult : std::variant<RangeResult, PutResult, DeleteResult, TxnResult> {
  using variant::variant;
};

inline const RangeResult& TxnResult::range(size_t i) const {
  return std::get<RangeResult>(results.at(i));
}
inline const PutResult& TxnResult::put(size_t i) const {
  return std::get<PutResult>(results.at(i));
}
inline const DeleteResult& TxnResult::deleted(size_t i) const {
  return std::get<DeleteResult>(results.at(i));
}
inline const TxnResult& TxnResult::txn(size_t i) const {
  return std::get<TxnResult>(results.at(i));
}
inline const KeyValue* TxnResult::get(size_t i) const {
  const RangeResult& result = range(i);
  return result.kvs.empty() ? nullptr : &result.kvs.front();
}

// ---- Lease
// -----------------------------------------------------------------------------------------

struct GrantOptions {
  LeaseId id = 0;  // 0: the server chooses
};

struct GrantResult {
  LeaseId id = 0;
  absl::Duration ttl{};  // as granted, which may be more than was asked for
};

struct TimeToLiveOptions {
  bool keys = false;
};

struct TimeToLiveResult {
  LeaseId id = 0;
  absl::Duration remaining{};  // negative: there is no such lease
  absl::Duration granted{};
  std::vector<std::string> keys{};

  bool exists() const { return remaining >= absl::ZeroDuration(); }
};

// How it stands with a session (see Session).
enum class SessionHealth {
  kAlive,
  kSuspect,  // renewals go unanswered; the local deadline is near
  kLost,     // the lease is gone, or can no longer be shown to live. Final.
};

// ---- Watch
// -----------------------------------------------------------------------------------------

struct WatchEvent {
  enum class Type { kPut, kDelete };

  Type type = Type::kPut;
  KeyValue kv{};  // of a delete: key and mod_revision only
  std::optional<KeyValue> prev_kv{};

  bool is_create() const { return type == Type::kPut && kv.create_revision == kv.mod_revision; }
};

struct WatchOptions {
  // The first revision whose events are wanted; 0: those after the watch began.
  int64_t from_revision = 0;
  // Begin with the state: the first batch is `resynced` and holds the range as it is (from_revision
  // is ignored); the events follow without a gap.
  bool list_first = false;
  // The lists that the watch makes (list_first, after a compaction) may come from any member's own
  // state. Events follow from that state's revision, so nothing is lost; it may only be old at
  // first.
  bool serializable_list = false;
  bool prev_kv = false;
  bool no_puts = false;
  bool no_deletes = false;
  // Deliver an empty batch when the connection is lost and when it is back (WatchBatch::connected).
  bool report_connection = false;
  // Deliver an empty batch when the server tells only that nothing happened up to a revision.
  bool report_progress = false;
  // A resynced batch also carries, as events, the difference between its state and what this watch
  // has delivered before (at first: nothing, so all of it): a consumer that only applies events is
  // then right as well. A key that went meanwhile comes as a delete with the batch's revision.
  // Costs a copy of the range in memory, values only with prev_kv.
  bool diff_on_resync = false;
};

// One delivery of a watch. Revisions never go back and come whole: all events of one revision stand
// in one batch, none comes twice, none is missing (unless `resynced` says so).
struct WatchBatch {
  std::vector<WatchEvent> events{};
  // Everything up to here has been delivered.
  int64_t revision = 0;
  // `state` is the whole range as of `revision`, and replaces what was known: the first batch of
  // list_first, or the events between were compacted away.
  bool resynced = false;
  std::vector<KeyValue> state{};
  // False while no member answers.
  bool connected = true;
  // Not OK: the watch has ended for good (permission, a bad range); this is its last batch.
  absl::Status status{};
};

// How far a watch is behind (Watch::lag).
struct WatchLag {
  int64_t delivered = 0;  // the callback has had everything up to here
  int64_t received = 0;   // has come from the server and may wait for the callback thread
  int64_t newest = 0;     // the newest revision of the store that any answer to this client told of
  // Since the server last said anything on the watch stream. A quiet store is silent too: after
  // ConnectOptions::watch_silence the client asks for a sign of life.
  absl::Duration silence{};
  bool connected = false;

  // An upper bound: writes outside the watched range count until the server's next sign of life.
  int64_t revisions() const { return newest > delivered ? newest - delivered : 0; }
};

// ---- Auth
// ------------------------------------------------------------------------------------------

struct AuthStatus {
  bool enabled = false;
  uint64_t revision = 0;  // grows with every change of users and roles
};

// Leave to touch a range of keys, as a role grants it.
struct Permission {
  enum class Access { kRead = 0, kWrite = 1, kReadWrite = 2 };

  Access access = Access::kReadWrite;
  KeyRange range{};

  friend bool operator==(const Permission&, const Permission&) = default;
};

// ---- Cluster
// ---------------------------------------------------------------------------------------

struct Member {
  uint64_t id = 0;
  std::string name{};
  std::vector<std::string> peer_urls{};
  std::vector<std::string> client_urls{};
  bool is_learner = false;
};

struct MemberStatus {
  uint64_t member_id = 0;
  std::string version{};
  int64_t db_size = 0;
  uint64_t leader = 0;
  uint64_t raft_term = 0;
  uint64_t raft_index = 0;
  int64_t revision = 0;
  std::vector<std::string> errors{};
  int64_t db_size_in_use = 0;
  int64_t db_size_quota = 0;  // 0: the server does not say
  bool is_learner = false;
  uint64_t raft_applied_index = 0;
  std::string storage_version{};   // empty before etcd 3.6
  std::string downgrade_target{};  // empty: no downgrade is under way
};

struct MemberAdded {
  Member member{};
  std::vector<Member> members{};  // all there are then
};

enum class AlarmType { kNone = 0, kNoSpace = 1, kCorrupt = 2 };

struct Alarm {
  uint64_t member_id = 0;
  AlarmType type = AlarmType::kNone;

  friend bool operator==(const Alarm&, const Alarm&) = default;
};

struct HashKvResult {
  uint64_t member_id = 0;
  uint32_t hash = 0;     // equal on members with the same keys and history up to hash_revision
  int64_t revision = 0;  // of the store
  int64_t compact_revision = 0;
  int64_t hash_revision = 0;  // 0: the server does not say (before etcd 3.6)
};

enum class DowngradeAction { kValidate = 0, kEnable = 1, kCancel = 2 };

}  // namespace conclave
