// The state machine's entrance: which command does what. Writes of KV are in kv_commands.cc, reads
// in reads.cc.
#include "conclave/server/apply/state_machine.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/apply/auth_image.h"
#include "conclave/server/apply/quota.h"

namespace conclave::apply {
namespace {

using wire::Error;
using wire::Method;

ApplyResult Refuse(const Error* error) { return {error, Bytes()}; }

// Once refused for the quota, NOSPACE is reported until an eighth of the quota is free again.
constexpr int64_t kQuotaRelief = 8;

bool IsAlarm(int32_t type) {
  return type == static_cast<int32_t>(wire::AlarmType::kNoSpace) ||
         type == static_cast<int32_t>(wire::AlarmType::kCorrupt);
}

bool IsCorrupt(const Alarm& alarm) {
  return alarm.type == static_cast<int32_t>(wire::AlarmType::kCorrupt);
}

// Who is a member no more cannot take back an alarm that stops all others.
void ForgetAlarmsOfRemoved(const Membership& membership, absl::btree_set<Alarm>* alarms,
                           absl::btree_map<uint64_t, uint64_t>* refills) {
  const auto is_removed = [&](uint64_t id) { return membership.removed().contains(id); };
  absl::erase_if(*alarms, [&](const Alarm& alarm) { return is_removed(alarm.member_id); });
  absl::erase_if(*refills, [&](const auto& refill) { return is_removed(refill.first); });
}

// Digits only, and few enough.
bool ParseNumber(std::string_view text, int64_t* number) {
  constexpr size_t kDigitsMax = 9;
  if (text.empty() || text.size() > kDigitsMax) return false;
  *number = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return false;
    *number = *number * 10 + (digit - '0');
  }
  return true;
}

std::vector<std::string_view> Split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t dot = text.find('.'); dot != std::string_view::npos; dot = text.find('.')) {
    parts.push_back(text.substr(0, dot));
    text.remove_prefix(dot + 1);
  }
  parts.push_back(text);
  return parts;
}

struct Version {
  int64_t major = 0;
  int64_t minor = 0;
};

// "3.5.0" or "3.5"; what follows the third number's digits (-alpha.1, +meta) does not matter.
std::optional<Version> ParseVersion(std::string_view text) {
  const std::vector<std::string_view> parts = Split(text.substr(0, text.find_first_of("-+")));
  if (parts.size() < 2 || parts.size() > 3) return std::nullopt;
  int64_t numbers[3] = {};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!ParseNumber(parts[i], &numbers[i])) return std::nullopt;
  }
  return Version{numbers[0], numbers[1]};
}

const char* AlarmName(int32_t type) {
  return type == static_cast<int32_t>(wire::AlarmType::kNoSpace) ? "NOSPACE" : "CORRUPT";
}

}  // namespace

struct StateMachine::Commands {
  using Handler = ApplyResult (StateMachine::*)(const ApplyContext& context, std::string_view body);
  static constexpr std::pair<Method, Handler> kAll[] = {
      {Method::kPut, &StateMachine::ApplyPut},
      {Method::kTxn, &StateMachine::ApplyTxn},
      {Method::kDeleteRange, &StateMachine::ApplyDeleteRange},
      {Method::kCompact, &StateMachine::ApplyCompact},
      {Method::kLeaseGrant, &StateMachine::ApplyLeaseGrant},
      {Method::kLeaseRevoke, &StateMachine::ApplyLeaseRevoke},
      {Method::kAlarm, &StateMachine::ApplyAlarm},
      {Method::kDowngrade, &StateMachine::ApplyDowngrade},
      {Method::kAuthEnable, &StateMachine::ApplyAuth<Method::kAuthEnable>},
      {Method::kAuthDisable, &StateMachine::ApplyAuth<Method::kAuthDisable>},
      {Method::kAuthenticate, &StateMachine::ApplyAuthenticate},
      {Method::kUserAdd, &StateMachine::ApplyAuth<Method::kUserAdd>},
      {Method::kUserDelete, &StateMachine::ApplyAuth<Method::kUserDelete>},
      {Method::kUserChangePassword, &StateMachine::ApplyAuth<Method::kUserChangePassword>},
      {Method::kUserGrantRole, &StateMachine::ApplyAuth<Method::kUserGrantRole>},
      {Method::kUserRevokeRole, &StateMachine::ApplyAuth<Method::kUserRevokeRole>},
      {Method::kRoleAdd, &StateMachine::ApplyAuth<Method::kRoleAdd>},
      {Method::kRoleDelete, &StateMachine::ApplyAuth<Method::kRoleDelete>},
      {Method::kRoleGrantPermission, &StateMachine::ApplyAuth<Method::kRoleGrantPermission>},
      {Method::kRoleRevokePermission, &StateMachine::ApplyAuth<Method::kRoleRevokePermission>},
  };

  // By the number that stands in a command's header; null: it is no such method's.
  static constexpr size_t kKinds = size_t{std::numeric_limits<uint8_t>::max()} + 1;
  static constexpr std::array<Handler, kKinds> kByKind = [] {
    std::array<Handler, kKinds> by_kind{};
    for (const auto& [method, handler] : kAll) by_kind[static_cast<size_t>(method)] = handler;
    return by_kind;
  }();
  static Handler Of(uint8_t kind) { return kByKind[kind]; }
};

StateMachine::StateMachine(const StateMachineOptions& options)
    : options_(options),
      store_(std::make_unique<mvcc::Store>()),
      lessor_(options.lessor),
      tokens_(options.auth_token_ttl) {}

StateMachine::~StateMachine() = default;

void StateMachine::Bootstrap(uint64_t cluster_id, std::vector<Member> members) {
  CONCLAVE_CHECK(applied_index_ == 0, "a cluster begins before its first entry");
  membership_.Bootstrap(cluster_id, std::move(members));
}

wire::ResponseHeader StateMachine::Header(uint64_t raft_term) const {
  return {membership_.cluster_id(), options_.member_id, store_->current_revision(), raft_term};
}

// ---- Before the log -----------------------------------------------------------------------------

RequestCheck StateMachine::Check(Method method, std::string_view request) {
  RequestCheck check = CheckRequest(method, request, options_.limits);
  if (check.error != nullptr || check.route != Route::kPropose || options_.quota_bytes < 0) {
    return check;
  }
  const int64_t live_bytes = store_->sizes().live_bytes;
  if (quota_hit_ && !OverQuota()) quota_hit_ = false;
  if (FitsQuota(method, request, live_bytes, options_.quota_bytes)) return check;
  quota_hit_ = true;
  check.error = &wire::kErrNoSpace;
  return check;
}

bool StateMachine::OverQuota() const {
  const int64_t relief = options_.quota_bytes / kQuotaRelief;
  return quota_hit_ && store_->sizes().live_bytes >= options_.quota_bytes - relief;
}

Bytes StateMachine::Prepare(Method method, Bytes buffer, uint64_t proposer, uint64_t sequence,
                            Prng* prng) const {
  CONCLAVE_CHECK(buffer.size() >= kCommandHeaderSize);
  if (method == Method::kLeaseGrant) {
    wire::LeaseGrantRequest request;
    CONCLAVE_CHECK(wire::Parse(buffer.view().substr(kCommandHeaderSize), &request));
    while (request.id == lease::kNoLease) {
      const auto id = static_cast<int64_t>(prng->Next() >> 1);
      if (!lessor_.Exists(id)) request.id = id;
    }
    const absl::StatusOr<int64_t> ttl_s =
        lease::Lessor::EffectiveTtl(request.ttl_s, options_.lease_ttl_min_s);
    CONCLAVE_CHECK(ttl_s.ok(), "a lease that Check has refused");
    request.ttl_s = *ttl_s;
    wire::Builder builder;
    builder.Extend(kCommandHeaderSize);
    builder.AppendNumber(1, request.ttl_s);
    builder.AppendNumber(2, request.id);
    buffer = builder.Take();
  }
  WriteCommandHeader(buffer.MutableData(), {static_cast<uint8_t>(method), proposer, sequence});
  return buffer;
}

// ---- From the log -------------------------------------------------------------------------------

void StateMachine::Advance(uint64_t index, uint64_t entry_term) {
  CONCLAVE_CHECK(index == applied_index_ + 1, "entry ", index, " behind ", applied_index_);
  CONCLAVE_CHECK(entry_term >= applied_term_);
  applied_index_ = index;
  applied_term_ = entry_term;
}

ApplyResult StateMachine::ApplyMemberChange(const ApplyContext& context,
                                            const MemberChange& change) {
  Advance(context.index, context.entry_term);
  membership_.Apply(change);
  ForgetAlarmsOfRemoved(membership_, &alarms_, &refills_);
  if (!context.want_response) return {};
  return {nullptr, membership_.EncodeChanged(Header(context.raft_term), change)};
}

bool StateMachine::RetainOnlySelf(uint64_t index, uint64_t term) {
  Advance(index, term);
  const bool is_member = membership_.RetainOnly(options_.member_id);
  ForgetAlarmsOfRemoved(membership_, &alarms_, &refills_);
  return is_member;
}

ApplyResult StateMachine::Apply(const ApplyContext& context, const Bytes& payload) {
  Advance(context.index, context.entry_term);
  if (payload.empty()) return {};
  const std::optional<CommandHeader> header = ReadCommandHeader(payload.view());
  CONCLAVE_CHECK(header.has_value(), "entry ", context.index,
                 " is no command that this version knows");
  const std::string_view body = payload.view().substr(kCommandHeaderSize);
  if (auth_.enabled()) [[unlikely]]
    return ApplyOnBehalf(context, *header, body);
  if (!alarms_.empty()) {
    if (const Error* error = Forbidden(*header, body)) return Refuse(error);
  }
  ApplyResult result = Execute(context, *header, body);
  if (MUTANT("refused-entry-not-counted") && result.error != nullptr) --applied_index_;
  return result;
}

bool StateMachine::Knows(std::string_view payload) {
  if (payload.empty()) return true;
  const std::optional<CommandHeader> header = ReadCommandHeader(payload);
  if (!header.has_value()) return false;
  if (Commands::Of(header->kind) != nullptr) return true;
  switch (static_cast<CommandKind>(header->kind)) {
    case CommandKind::kLeaseExpire:
    case CommandKind::kLeaseCheckpoint:
    case CommandKind::kMemberAttributes:
    case CommandKind::kClusterVersion:
    case CommandKind::kRefill:
      return true;
    case CommandKind::kOnBehalf: {
      OnBehalf command;
      return DecodeOnBehalf(payload.substr(kCommandHeaderSize), &command) &&
             Commands::Of(static_cast<uint8_t>(command.method)) != nullptr;
    }
  }
  return false;
}

ApplyResult StateMachine::Execute(const ApplyContext& context, const CommandHeader& header,
                                  std::string_view body) {
  if (const Commands::Handler apply = Commands::Of(header.kind); apply != nullptr) [[likely]] {
    return (this->*apply)(context, body);
  }
  return ExecuteInternal(context, header, body);
}

ApplyResult StateMachine::ExecuteInternal(const ApplyContext& context, const CommandHeader& header,
                                          std::string_view body) {
  switch (static_cast<CommandKind>(header.kind)) {
    case CommandKind::kLeaseExpire: {
      LeaseExpire command;
      if (!DecodeLeaseExpire(body, &command)) return Refuse(&wire::kErrMalformed);
      if (command.term != context.entry_term) {
        REACHED("lease: an end of leases that comes in another term");
        return {};
      }
      for (const int64_t id : command.ids) RevokeLease(id);
      return {};
    }
    case CommandKind::kLeaseCheckpoint: {
      std::vector<LeaseRemaining> leases;
      if (!DecodeLeaseCheckpoint(body, &leases)) return Refuse(&wire::kErrMalformed);
      for (const LeaseRemaining& lease : leases) {
        lessor_.Checkpoint(lease.id, lease.remaining_ms, context.now);
      }
      return {};
    }
    case CommandKind::kMemberAttributes: {
      MemberAttributes command;
      if (!DecodeMemberAttributes(body, &command)) return Refuse(&wire::kErrMalformed);
      if (!membership_.SetAttributes(command.member_id, std::move(command.name),
                                     std::move(command.client_urls))) {
        return Refuse(&wire::kErrMemberNotFound);
      }
      return {};
    }
    case CommandKind::kClusterVersion: {
      std::string version;
      if (!DecodeClusterVersion(body, &version)) return Refuse(&wire::kErrMalformed);
      cluster_version_ = std::move(version);
      return {};
    }
    case CommandKind::kRefill:
      return ApplyRefill(context, body);
    case CommandKind::kOnBehalf:
      return ApplyOnBehalf(context, header, body);
  }
  // Going on without knowing what it does would part this member from the others.
  CONCLAVE_CHECK(false, "entry ", context.index, " has command ", header.kind,
                 ", which this version does not know");
  return {};
}

const Error* StateMachine::Forbidden(const CommandHeader& header, std::string_view body) const {
  bool corrupt = false;
  bool no_space = false;
  for (const Alarm& alarm : alarms_) {
    if (IsCorrupt(alarm)) {
      corrupt |= !refills_.contains(alarm.member_id);
    } else {
      no_space = true;
    }
  }
  if (corrupt) {
    const bool writes = header.Is(Method::kPut) || header.Is(Method::kDeleteRange) ||
                        header.Is(Method::kTxn) || header.Is(Method::kCompact) ||
                        header.Is(Method::kLeaseGrant) || header.Is(Method::kLeaseRevoke) ||
                        header.Is(CommandKind::kLeaseExpire);
    return writes ? &wire::kErrCorrupt : nullptr;
  }
  if (!no_space) return nullptr;
  // A malformed transaction is refused as such later.
  if (header.Is(Method::kTxn) && !wire::ValidTxn(body)) return nullptr;
  return QuotaCost(static_cast<Method>(header.kind), body) > 0 ? &wire::kErrNoSpace : nullptr;
}

// ---- Leases -------------------------------------------------------------------------------------

ApplyResult StateMachine::ApplyLeaseGrant(const ApplyContext& context, std::string_view body) {
  wire::LeaseGrantRequest request;
  if (!wire::Parse(body, &request) || request.ttl_s < 1) return Refuse(&wire::kErrMalformed);
  if (request.id == lease::kNoLease) return Refuse(&wire::kErrLeaseNotFound);
  if (request.ttl_s > lease::kMaxTtlSeconds) return Refuse(&wire::kErrLeaseTtlTooLarge);
  if (lessor_.Exists(request.id)) return Refuse(&wire::kErrLeaseExists);
  const absl::Status granted = lessor_.Grant(request.id, request.ttl_s, context.now);
  CONCLAVE_CHECK(granted.ok(), granted.ToString());
  if (!context.want_response) return {};
  return {nullptr, wire::EncodeLeaseGrant(Header(context.raft_term), request.id, request.ttl_s)};
}

ApplyResult StateMachine::ApplyLeaseRevoke(const ApplyContext& context, std::string_view body) {
  wire::LeaseRevokeRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  if (!RevokeLease(request.id)) return Refuse(&wire::kErrLeaseNotFound);
  if (!context.want_response) return {};
  return {nullptr, wire::EncodeHeaderOnly(Header(context.raft_term))};
}

// The lease and its keys go in one revision, the keys in ascending order.
bool StateMachine::RevokeLease(int64_t id) {
  const absl::StatusOr<std::vector<std::string>> keys = lessor_.Revoke(id);
  if (!keys.ok()) return false;
  if (MUTANT("keys-outlive-their-lease")) return true;
  if (MUTANT("lease-ends-in-many-revisions")) {
    for (const std::string& key : *keys) {
      mvcc::WriteTxn one = store_->Begin();
      one.Delete(key);
      one.Commit();
    }
    return true;
  }
  mvcc::WriteTxn txn = store_->Begin();
  for (const std::string& key : *keys) {
    const mvcc::RecordRef deleted = txn.Delete(key);
    CONCLAVE_CHECK(deleted && deleted->lease() == id, "a key that does not belong to its lease");
  }
  txn.Commit();
  return true;
}

Bytes StateMachine::TakeExpired(Instant now, uint64_t raft_term, size_t limit) {
  LeaseExpire command{raft_term, lessor_.Expired(now, limit)};
  if (command.ids.empty()) return Bytes();
  return EncodeLeaseExpire(options_.member_id, 0, command);
}

Bytes StateMachine::TakeCheckpoints(Instant now, size_t limit, Duration early) {
  const std::vector<lease::LeaseImage> due = lessor_.DueCheckpoints(now, limit, early);
  if (due.empty()) return Bytes();
  std::vector<LeaseRemaining> leases;
  leases.reserve(due.size());
  for (const lease::LeaseImage& lease : due) leases.push_back({lease.id, lease.remaining_ms});
  return EncodeLeaseCheckpoint(options_.member_id, 0, leases);
}

Instant StateMachine::NextLeaseDeadline() const {
  return std::min(lessor_.NextDeadline(), lessor_.NextCheckpoint());
}

// ---- Alarms, status, digest ---------------------------------------------------------------------

ApplyResult StateMachine::ApplyRefill(const ApplyContext& context, std::string_view body) {
  Refill command;
  if (!DecodeRefill(body, &command)) return Refuse(&wire::kErrMalformed);
  const Alarm alarm{command.member_id, static_cast<int32_t>(wire::AlarmType::kCorrupt)};
  if (command.begins) {
    if (membership_.removed().contains(command.member_id)) return {};
    // One that was raised otherwise already means more, and stays what it is.
    if (alarms_.insert(alarm).second) refills_[command.member_id] = context.index;
  } else if (refills_.erase(command.member_id) > 0) {
    alarms_.erase(alarm);
  }
  return {};
}

ApplyResult StateMachine::ApplyAlarm(const ApplyContext& context, std::string_view body) {
  wire::AlarmRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  const Alarm alarm{request.member_id, request.alarm};
  bool concerned = false;
  if (IsAlarm(request.alarm)) {
    if (request.action == static_cast<int32_t>(wire::AlarmAction::kActivate)) {
      // Its own may come behind its removal.
      concerned = !membership_.removed().contains(alarm.member_id);
      if (concerned) alarms_.insert(alarm);
      if (IsCorrupt(alarm)) refills_.erase(alarm.member_id);
    } else if (request.action == static_cast<int32_t>(wire::AlarmAction::kDeactivate)) {
      concerned = alarms_.erase(alarm) > 0;
      if (IsCorrupt(alarm)) refills_.erase(alarm.member_id);
      // The quota's own alarm is this member's affair: it comes back if there is still no space.
      if (alarm == Alarm{options_.member_id, static_cast<int32_t>(wire::AlarmType::kNoSpace)}) {
        concerned |= std::exchange(quota_hit_, false);
      }
    }
  }
  if (!context.want_response) return {};
  const wire::AlarmMember member{alarm.member_id, alarm.type};
  return {nullptr, wire::EncodeAlarm(Header(context.raft_term), {&member, concerned ? 1u : 0u})};
}

// ENABLE and CANCEL; a CANCEL without a downgrade is fine, as in etcd.
ApplyResult StateMachine::ApplyDowngrade(const ApplyContext& context, std::string_view body) {
  wire::DowngradeRequest request;
  if (!wire::Parse(body, &request)) return Refuse(&wire::kErrMalformed);
  if (request.action == static_cast<int32_t>(wire::DowngradeAction::kEnable)) {
    std::string target;
    if (const Error* error = CheckDowngrade(request.version, &target)) return Refuse(error);
    downgrade_target_ = std::move(target);
  } else {
    downgrade_target_.clear();
  }
  if (!context.want_response) return {};
  return {nullptr, EncodeDowngrade(context.raft_term)};
}

// The answer names the cluster's version without its last number.
Bytes StateMachine::EncodeDowngrade(uint64_t raft_term) const {
  std::string version;
  if (const auto current = ParseVersion(cluster_version_)) {
    version = absl::StrCat(current->major, ".", current->minor);
  }
  return wire::EncodeDowngrade(Header(raft_term), version);
}

const Error* StateMachine::CheckDowngrade(std::string_view version, std::string* target) const {
  const std::optional<Version> wanted = ParseVersion(version);
  if (!wanted.has_value()) return &wire::kErrWrongDowngradeVersionFormat;
  const std::optional<Version> current = ParseVersion(cluster_version_);
  if (!current.has_value()) return &wire::kErrClusterVersionUnavailable;
  // One minor version down, and nothing else.
  if (wanted->major != current->major || wanted->minor + 1 != current->minor) {
    return &wire::kErrInvalidDowngradeTarget;
  }
  if (!downgrade_target_.empty()) return &wire::kErrDowngradeInProgress;
  *target = absl::StrCat(wanted->major, ".", wanted->minor, ".0");
  return nullptr;
}

std::vector<Alarm> StateMachine::Alarms() const {
  absl::btree_set<Alarm> all = alarms_;
  if (OverQuota()) {
    all.insert({options_.member_id, static_cast<int32_t>(wire::AlarmType::kNoSpace)});
  }
  return {all.begin(), all.end()};
}

void StateMachine::FillStatus(wire::Status* status) const {
  const mvcc::StoreSizes sizes = store_->sizes();
  status->db_size = sizes.record_bytes;
  status->db_size_in_use = sizes.live_bytes;
  status->db_size_quota = options_.quota_bytes;
  status->raft_applied_index = applied_index_;
  status->storage_version = cluster_version_;
  status->downgrade_target = downgrade_target_;
  const Member* const self = membership_.Find(options_.member_id);
  status->is_learner = self != nullptr && self->is_learner;
  for (const Alarm& alarm : Alarms()) {
    status->errors.push_back(
        absl::StrCat("memberID:", alarm.member_id, " alarm:", AlarmName(alarm.type)));
  }
}

mvcc::Digest StateMachine::digest() const {
  mvcc::Digest digest = mvcc::Mix(store_->digest(), lessor_.digest());
  const mvcc::Digest members = membership_.digest();
  digest = mvcc::Mix(mvcc::Mix(digest, members.low), members.high);
  for (const Alarm& alarm : alarms_) {
    digest = mvcc::Mix(mvcc::Mix(digest, alarm.member_id), static_cast<uint64_t>(alarm.type));
  }
  for (const auto& [member, since] : refills_) {
    digest = mvcc::Mix(mvcc::Mix(digest, member), since);
  }
  const mvcc::Digest version = mvcc::HashBytes(cluster_version_);
  digest = mvcc::Mix(mvcc::Mix(digest, version.low), version.high);
  if (!downgrade_target_.empty()) {
    const mvcc::Digest target = mvcc::HashBytes(downgrade_target_);
    digest = mvcc::Mix(mvcc::Mix(digest, target.low), target.high);
  }
  if (auth_.pristine()) return digest;
  if (auth_digest_.revision != auth_.revision() || auth_digest_.enabled != auth_.enabled()) {
    auth_digest_ = {auth_.revision(), auth_.enabled(), mvcc::HashBytes(EncodeAuthStore(auth_))};
  }
  return mvcc::Mix(mvcc::Mix(digest, auth_digest_.digest.low), auth_digest_.digest.high);
}

void StateMachine::CheckInvariants() const {
  store_->CheckInvariants();
  lessor_.CheckInvariants();
  // Keys and leases know of each other.
  size_t attached = 0;
  store_->ForEach(mvcc::KeyRange::All(), mvcc::kLatest, [&](const mvcc::Record& record) {
    if (record.lease() == lease::kNoLease) return true;
    ++attached;
    CONCLAVE_CHECK(lessor_.Exists(record.lease()), "a key with a lease that is gone");
    return true;
  });
  size_t keys = 0;
  for (const lease::LeaseId id : lessor_.Leases()) keys += lessor_.KeyCount(id);
  CONCLAVE_CHECK(keys == attached, keys, " keys of leases, ", attached, " keys with leases");
}

}  // namespace conclave::apply
