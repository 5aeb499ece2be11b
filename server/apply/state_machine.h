// StateMachine: the replicated state of a server, and everything that may happen to it.
//
// It owns the store, the leases, the members and the alarms: one state, moved from one applied
// index to the next by Apply, and written as one whole into a snapshot (snapshot.h).
//
//   client's request --Check--> Prepare --> log --> Apply on every member --> answer on the one
//   that is asked
//                        \--> Read (after a read round, or at once) --> answer, or a ReadTask for
//                        long ones
//
// Apply is a function of (state, entry). Nothing else may decide what it changes: no clock, no flag
// of this member, no cache. What depends on such things (random lease ids, the least TTL, the
// quota) is decided before proposing, and stands in the entry. `now` only moves the deadlines of
// the lessor's primary, which are not part of the replicated state.
//
// All checks of a request come before its first write: a request is done whole or not at all, and
// every member checks the same whether somebody waits there or not.
//
// Thread: one owner (the node's core thread). Limits: RequestLimits; quota_bytes on live bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/method.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/responses.h"
#include "conclave/base/bytes.h"
#include "conclave/base/prng.h"
#include "conclave/base/time.h"
#include "conclave/server/apply/access.h"
#include "conclave/server/apply/check.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/apply/membership.h"
#include "conclave/server/apply/read_task.h"
#include "conclave/server/apply/stream_task.h"
#include "conclave/server/auth/simple_tokens.h"
#include "conclave/server/auth/store.h"
#include "conclave/server/lease/lessor.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::apply {

inline constexpr int64_t kDefaultQuotaBytes = int64_t{2} << 30;

// This member's own settings: none of them decides what Apply does.
struct StateMachineOptions {
  uint64_t member_id = 0;  // in response headers
  RequestLimits limits;
  int64_t quota_bytes = kDefaultQuotaBytes;  // < 0: none
  int64_t lease_ttl_min_s = lease::kDefaultMinTtlSeconds;
  lease::LessorOptions lessor;
  Duration auth_token_ttl = std::chrono::seconds(300);  // of simple tokens, from their last use
  // A read of more keys than that becomes a ReadTask.
  size_t immediate_range_max = 1000;
};

// Where and when an entry is applied.
struct ApplyContext {
  uint64_t index = 0;       // the entry's
  uint64_t entry_term = 0;  // the entry's
  uint64_t raft_term = 0;   // the member's current one, for the response header
  Instant now{};
  bool want_response = false;  // somebody waits for it on this member
  bool replayed = false;       // the entry stood in the log when this life of the member began
};

struct ApplyResult {
  const wire::Error* error = nullptr;  // null: done
  Bytes response;                      // if it was wanted and there is no error
};

struct ReadContext {
  uint64_t raft_term = 0;
  Instant now{};
};

struct ReadResult {
  const wire::Error* error = nullptr;
  Bytes response;
  std::unique_ptr<ReadTask>
      task;  // not null: run it until it is done, then take error and response from it
};

struct StreamResult {
  const wire::Error* error = nullptr;
  std::unique_ptr<StreamTask> task;  // if there is no error
};

// An alarm as the Maintenance service knows it.
struct Alarm {
  uint64_t member_id = 0;
  int32_t type = 0;  // wire::AlarmType

  friend auto operator<=>(const Alarm&, const Alarm&) = default;
};

struct StateParts;

class StateMachine {
 public:
  explicit StateMachine(const StateMachineOptions& options);
  ~StateMachine();
  StateMachine(const StateMachine&) = delete;
  StateMachine& operator=(const StateMachine&) = delete;

  // Before the first entry of a new cluster: its members, in the same way on all of them.
  void Bootstrap(uint64_t cluster_id, std::vector<Member> members);

  // --- Writes ---

  // CheckRequest, and what depends on the state of this member: the quota, an alarm that forbids
  // writes. `request` is without headroom.
  [[nodiscard]] RequestCheck Check(wire::Method method, std::string_view request);

  // Makes the log's payload of a request that Check sent to kPropose. `buffer` has the headroom in
  // front and is not shared with anybody: usually it is the payload itself. Chooses what the log
  // must decide (lease ids).
  [[nodiscard]] Bytes Prepare(wire::Method method, Bytes buffer, uint64_t proposer,
                              uint64_t sequence, Prng* prng) const;

  // Whether Apply knows what this payload of an entry asks for. One that it does not know must not
  // come into the log.
  [[nodiscard]] static bool Knows(std::string_view payload);

  // The next entry of the log. CHECKs that the index is the one behind the last one applied, and
  // that this version knows the command.
  [[nodiscard]] ApplyResult Apply(const ApplyContext& context, const Bytes& payload);
  // The next entry is none of ours (a step of Raft's own, say): only the index moves.
  void Advance(uint64_t index, uint64_t entry_term);
  // The next entry changes the membership. It never fails; the response is the answer to the
  // change.
  [[nodiscard]] ApplyResult ApplyMemberChange(const ApplyContext& context,
                                              const MemberChange& change);
  // Out of the log's order, before the node runs: all other members are lost. The state moves to
  // `index`, which no log has. False if this member is none.
  [[nodiscard]] bool RetainOnlySelf(uint64_t index, uint64_t term);

  uint64_t applied_index() const { return applied_index_; }
  uint64_t applied_term() const { return applied_term_; }

  // --- Reads ---

  // Range, read-only Txn, LeaseTimeToLive, LeaseLeases, MemberList, Hash, HashKv, Alarm GET,
  // Downgrade VALIDATE: what Check sends to kRead, kReadLocal or kLeader. `request` is without
  // headroom and need not outlive the call.
  [[nodiscard]] ReadResult Read(const ReadContext& context, wire::Method method,
                                std::string_view request);

  // KV.RangeStream, of a request that CheckRequest takes for a Range.
  [[nodiscard]] StreamResult OpenRangeStream(const ReadContext& context, std::string_view request);
  // --- Who may do what ---

  // Null while authentication is off. The one judge: of entries when they are applied, and of reads
  // when they are served.
  [[nodiscard]] const wire::Error* CheckAccess(const auth::Identity& who, wire::Method method,
                                               std::string_view request) const;
  [[nodiscard]] const wire::Error* CheckAccess(const auth::Identity& who,
                                               const Access& access) const;
  // For what no unary method stands for.
  [[nodiscard]] const wire::Error* CheckRoot(const auth::Identity& who) const;
  const auth::AuthStore& auth() const { return auth_; }
  auth::SimpleTokens& tokens() { return tokens_; }

  // Cluster and member id, current revision and the given term.
  wire::ResponseHeader Header(uint64_t raft_term) const;

  // --- Leases: what the leader does beside the log ---

  // From now on this member decides about expiry; `extend` is added once, for the time without a
  // leader.
  void Promote(Instant now, Duration extend) { lessor_.Promote(now, extend); }
  void Demote() { lessor_.Demote(); }
  bool primary() const { return lessor_.primary(); }

  // A keep-alive. Take the header before it: its revision must not be later than the renewal.
  using Renewal = lease::Lessor::Renewal;
  using RenewResult = lease::Lessor::RenewResult;
  RenewResult Renew(int64_t id, Instant now) { return lessor_.Renew(id, now); }
  bool LeaseExists(int64_t id) const { return lessor_.Exists(id); }
  bool LeaseIsEnding(int64_t id) const { return lessor_.IsEnding(id); }

  // Payload of the command that ends leases whose time has passed, or that saves what is left of
  // others; empty if there are none now. `limit` leases at most; call again as long as it is not
  // empty. `early`: of those too that would be saved within so long.
  [[nodiscard]] Bytes TakeExpired(Instant now, uint64_t raft_term, size_t limit);
  [[nodiscard]] Bytes TakeCheckpoints(Instant now, size_t limit, Duration early = {});
  // When one of the two will have something; kNever if never.
  Instant NextLeaseDeadline() const;

  // --- State ---

  mvcc::Store& store() { return *store_; }
  const mvcc::Store& store() const { return *store_; }
  const Membership& membership() const { return membership_; }
  std::string_view cluster_version() const { return cluster_version_; }
  size_t lease_count() const { return lessor_.size(); }

  // The alarms that were raised, and NOSPACE of this member while it is over its quota. By member,
  // then type.
  std::vector<Alarm> Alarms() const;
  // The replicated ones only.
  const absl::btree_set<Alarm>& raised_alarms() const { return alarms_; }
  // Of the raised ones, the CORRUPT alarms of members that get the others' state meanwhile: nothing
  // is wrong with what the others have, so these stop no writes. By member, with the index of the
  // entry that raised it.
  const absl::btree_map<uint64_t, uint64_t>& refills() const { return refills_; }
  // Without keys; O(n).
  lease::LessorImage ExportLeases() const { return lessor_.Export(); }
  // The version that the cluster is on its way down to, "3.5.0"; empty: it is not.
  std::string_view downgrade_target() const { return downgrade_target_; }
  bool OverQuota() const;
  int64_t quota_bytes() const { return options_.quota_bytes; }

  // Everything of a StatusResponse that the state knows: sizes, quota, alarms, applied index,
  // storage version.
  void FillStatus(wire::Status* status) const;

  // Digest of the whole logical state: equal on all members at equal applied index. O(members).
  mvcc::Digest digest() const;

  // Frees what compaction has made garbage, looking at `budget` records; true while there is more
  // to do.
  bool CompactSlice(size_t budget) { return store_->CompactSlice(budget); }

  // Checks every invariant, at O(n). For tests.
  void CheckInvariants() const;

 private:
  friend absl::StatusOr<std::unique_ptr<StateMachine>> AssembleState(
      const StateMachineOptions& options, StateParts parts);
  friend class SnapshotTask;
  class StoreWriter;

  struct Commands;  // the methods whose requests stand in the log, and what applies each
  ApplyResult Execute(const ApplyContext& context, const CommandHeader& header,
                      std::string_view body);
  ApplyResult ExecuteInternal(const ApplyContext& context, const CommandHeader& header,
                              std::string_view body);
  ApplyResult ApplyPut(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyDeleteRange(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyTxn(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyCompact(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyLeaseGrant(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyLeaseRevoke(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyRefill(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyAlarm(const ApplyContext& context, std::string_view body);
  ApplyResult ApplyDowngrade(const ApplyContext& context, std::string_view body);
  // While authentication is on, or was when the entry was proposed.
  ApplyResult ApplyOnBehalf(const ApplyContext& context, CommandHeader header,
                            std::string_view body);
  ApplyResult ApplyAuth(const ApplyContext& context, wire::Method method, std::string_view body);
  template <wire::Method kMethod>
  ApplyResult ApplyAuth(const ApplyContext& context, std::string_view body) {
    return ApplyAuth(context, kMethod, body);
  }
  // None: it is malformed.
  std::optional<auth::Refusal> ChangeAuth(wire::Method method, std::string_view body);
  ApplyResult ApplyAuthenticate(const ApplyContext& context, std::string_view body);
  auth::Refusal CheckLeaseKeys(const auth::Identity& who, int64_t lease, bool write) const;

  // The error with which an alarm that was raised refuses this command, or null.
  const wire::Error* Forbidden(const CommandHeader& header, std::string_view body) const;
  // The outcome of a put, checks done: what stood there before.
  mvcc::RecordRef Put(mvcc::WriteTxn* txn, const wire::PutRequest& request);
  std::vector<mvcc::RecordRef> DeleteRange(mvcc::WriteTxn* txn,
                                           const wire::DeleteRangeRequest& request);
  // The key's lease was `from`, and is `to` now.
  void MoveLease(std::string_view key, int64_t from, int64_t to);
  bool RevokeLease(int64_t id);

  ReadResult ReadRange(const ReadContext& context, std::string_view body);
  ReadResult ReadTxn(const ReadContext& context, std::string_view body);
  ReadResult ReadHashKv(const ReadContext& context, int64_t revision, bool with_revisions);
  ReadResult ReadTimeToLive(const ReadContext& context, std::string_view body) const;
  ReadResult ReadAuth(const ReadContext& context, wire::Method method, std::string_view body) const;
  ReadResult ReadAlarms(const ReadContext& context, std::string_view body) const;
  ReadResult ReadDowngrade(const ReadContext& context, std::string_view body) const;
  Bytes EncodeDowngrade(uint64_t raft_term) const;
  // Whether the cluster may go down to what a request says; *target: in its full form.
  const wire::Error* CheckDowngrade(std::string_view version, std::string* target) const;
  ReadResult FinishOrHandOver(std::unique_ptr<ReadTask> task) const;

  StateMachineOptions options_;

  // The replicated state.
  uint64_t applied_index_ = 0;
  uint64_t applied_term_ = 0;
  std::unique_ptr<mvcc::Store> store_;
  lease::Lessor lessor_;
  Membership membership_;
  absl::btree_set<Alarm> alarms_;
  absl::btree_map<uint64_t, uint64_t> refills_;
  std::string cluster_version_;
  std::string downgrade_target_;
  auth::AuthStore auth_;

  // This member's own.
  bool quota_hit_ = false;  // a write was refused for the quota, and little was freed since
  wire::Builder builder_;   // scratch of the response in work
  auth::SimpleTokens tokens_;
  // Of auth_, as of a revision of it: it changes seldom, and is long.
  struct AuthDigest {
    uint64_t revision = 0;
    bool enabled = false;
    mvcc::Digest digest;
  };
  mutable AuthDigest auth_digest_;
};

}  // namespace conclave::apply
