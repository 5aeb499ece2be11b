// What a member does beside answering clients: leases, snapshots, and its end.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/base/check.h"
#include "conclave/base/failpoint.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/node/node_impl.h"
#include "conclave/server/node/settings.h"

namespace conclave::node {
namespace {

constexpr size_t kLeasesPerCommand = 1000;
constexpr size_t kLeaseCommandsPerTurn = 8;
// Nobody asks a sole member for old entries; a member that joins it starts with a snapshot.
constexpr uint64_t kWindowAloneBytes = 1 << 20;
// What was read cannot be gone on with in another state.
constexpr wire::Error kErrStateReplaced{
    wire::Code::kUnavailable,
    "conclave: this member has taken over the state of its leader; try again"};
// For a follower that gets a snapshot the entries behind it stay in memory until it has them too,
// up to so many windows.
constexpr uint64_t kWindowsForCatchUp = 8;
constexpr int kGoodbyeHeartbeats = 5;
// How often a snapshot is tried while the disk has no room for much.
constexpr Duration kSpaceSnapshotInterval = std::chrono::seconds(5);

std::string Hex(uint64_t id) { return absl::StrCat(absl::Hex(id)); }

}  // namespace

// ---- Leases -------------------------------------------------------------------------------------

LeaseTurn Node::Impl::ThisLeaseTurn() {
  LeaseTurn turn;
  turn.now = now_;
  turn.state = state_.get();
  turn.term = raft_.term();
  turn.leader = raft_.leader();
  turn.primary = promoted_ && promoted_ == raft_.term() && raft_.is_leader();
  turn.verified = turn.primary && !raft_.transferee() &&
                  (MUTANT("lease-leadership-not-verified") || sole_member() ||
                   (confirmed_ != Instant::min() && now_ - confirmed_ < VerifiedFor(options_)));
  turn.confirmed = sole_member() || MUTANT("lease-leadership-not-verified") ? now_ : confirmed_;
  turn.links = &links_;
  turn.effects = effects_;
  return turn;
}

void Node::Impl::Leases() {
  const LeaseTurn turn = ThisLeaseTurn();
  LeaseDesk::Wishes wishes = leases_.Work(turn);
  bool verify = wishes.verify;
  if (!wishes.replicate.empty()) {
    CONCLAVE_FAILPOINT(beforeCheckpointInLeaseRenew);
    const uint64_t sequence = proposals_.next_sequence();
    Waiter waiter;
    waiter.kind = Waiter::Kind::kInternal;
    waiter.tag = kRenewals;
    waiter.arrived = now_;
    proposals_.Add(waiter,
                   apply::EncodeLeaseCheckpoint(options_.id.value(), sequence, wishes.replicate));
    leases_.Replicating(turn, sequence);
  }
  if (turn.primary && state_->NextLeaseDeadline() <= now_) {
    if (turn.verified) {
      ProposeExpiry();
    } else {
      REACHED("lease: the leadership is verified before leases end");
      verify = true;
    }
  }
  // A transfer under way holds everything; no round is asked for then.
  if (verify && !verifying_ && !raft_.transferee()) {
    verifying_ = true;
    reads_.Add({CallId(), Method::kRange, kVerifyLeadership, {}, now_});
  }
  TakeEndedLeaseCalls();
}

// What leases have left, into *commands; `early`: of those too that are due within so long.
void Node::Impl::CheckpointLeases(Duration early, std::vector<Bytes>* commands) {
  for (size_t i = 0; i < kLeaseCommandsPerTurn; ++i) {
    Bytes checkpoints = state_->TakeCheckpoints(now_, kLeasesPerCommand, early);
    if (checkpoints.empty()) break;
    commands->push_back(std::move(checkpoints));
  }
}

// The heir hears first what leases have left: it would give them again what it has not heard of.
// Nothing can be proposed behind the request.
raft::TransferStatus Node::Impl::TransferLeader(raft::NodeId heir) {
  std::vector<Bytes> commands;
  // All leases of which there is a little to tell; of long ones, when it is much.
  if (!raft_.transferee()) CheckpointLeases(options_.lease_checkpoint_lag * 9 / 10, &commands);
  // If they get lost, leases live longer; never shorter.
  if (!commands.empty()) (void)raft_.Propose(commands);
  confirmed_ = Instant::min();  // another may lead from now on
  return raft_.TransferLeader(heir);
}

void Node::Impl::ProposeExpiry() {
  for (size_t i = 0; i < kLeaseCommandsPerTurn; ++i) {
    Bytes expired = state_->TakeExpired(now_, raft_.term().value(), kLeasesPerCommand);
    if (expired.empty()) break;
    unawaited_.push_back(std::move(expired));
  }
  CheckpointLeases({}, &unawaited_);
}

void Node::Impl::TakeEndedLeaseCalls() {
  for (LeaseDesk::Ended& ended : leases_.TakeEnded()) {
    if (ended.ask_again) {
      reads_.Add({ended.call, Method::kLeaseTimeToLive, kClientRead, std::move(ended.request),
                  ended.arrived, std::move(ended.who)});
    } else if (ended.code != 0) {
      ReplyError(ended.call, ended.code, ended.message);
    } else {
      Reply(ended.call, Method::kLeaseTimeToLive, ended.arrived, 0, ended.error,
            std::move(ended.response));
    }
  }
}

void Node::Impl::InternalApplied(const Waiter& waiter, uint64_t sequence) {
  if (waiter.tag == kPublish) {
    published_ = true;
  } else if (waiter.tag == kRenewals) {
    REACHED("lease: renewals were replicated");
    leases_.Replicated(ThisLeaseTurn(), sequence);
  }
}

// ---- Being a member -----------------------------------------------------------------------------

void Node::Impl::CheckPublished() {
  const apply::Member* self = state_->membership().Find(options_.id.value());
  published_ =
      self != nullptr && self->name == options_.name && self->client_urls == options_.client_urls;
  if (!published_) PublishSelf();
}

void Node::Impl::PublishSelf() {
  Waiter waiter;
  waiter.kind = Waiter::Kind::kInternal;
  waiter.tag = kPublish;
  waiter.arrived = now_;
  proposals_.Add(waiter, apply::EncodeMemberAttributes(
                             options_.id.value(), proposals_.next_sequence(),
                             {options_.id.value(), options_.name, options_.client_urls}));
}

// The leader sets what all members speak: its own minor version, as long as members of other
// versions do not exist; on the way down to another version, that.
void Node::Impl::PublishClusterVersion() {
  const std::vector<std::string> parts = absl::StrSplit(options_.version, '.');
  if (parts.size() < 2) return;
  version_published_for_ = std::string(state_->downgrade_target());
  const std::string own = absl::StrCat(parts[0], ".", parts[1], ".0");
  if (version_published_for_ == own) EndDowngrade();
  const std::string version = version_published_for_.empty() ? own : version_published_for_;
  if (state_->cluster_version() == version) return;
  unawaited_.push_back(apply::EncodeClusterVersion(options_.id.value(), 0, version));
}

// The leader is of the version that the cluster was to go down to. The others' versions are not
// known here, and do not matter: all versions understand each other.
void Node::Impl::EndDowngrade() {
  Log(Severity::kInfo, "the cluster has been downgraded",
      {{"cluster-version", version_published_for_}});
  unawaited_.push_back(apply::EncodeDowngradeEnd(options_.id.value(), 0));
}

void Node::Impl::CheckReady() {
  if (ready_ || !published_ || !raft_.leader()) return;
  ready_ = true;
  effects_->ready = true;
}

// ---- Snapshots ----------------------------------------------------------------------------------

raft::SnapshotMeta Node::Impl::MetaOfState() const {
  if (MUTANT("snapshot-with-the-newest-configuration")) {
    return {applied(), raft::Term(state_->applied_term()), raft_.conf()};
  }
  return {applied(), raft::Term(state_->applied_term()), raft_.ConfStateAt(applied())};
}

// Of our own, for the disk, so that the log can be cut.
void Node::Impl::TakeSnapshot() {
  constexpr size_t kPieceBytes = 256 << 10;
  if (snapshot_ == nullptr) {
    if (snapshot_unsaved_) return;
    const uint64_t grown = appends_.total_bytes() - log_bytes_at_snapshot_;
    const bool by_bytes = grown >= std::max(options_.snapshot_log_bytes_min, saved_bytes_);
    const bool by_entries =
        options_.snapshot_entries > 0 && applied() >= saved_index_ + options_.snapshot_entries;
    const bool for_files = fresh_snapshots_ > 0 && now_ >= next_space_snapshot_;
    if (!(by_bytes || by_entries || for_files || SnapshotForSpace()) || receiver_.active() ||
        applied() > raft_.stable() || applied() <= saved_index_ ||
        applied() < std::min(recovered_last_, raft_.last_index())) {
      return;  // nothing to write, or not yet: the log that was recovered belongs into it
    }
    snapshot_meta_ = MetaOfState();
    snapshot_ = std::make_unique<apply::SnapshotTask>(state_.get());
    snapshot_begun_ = false;
    snapshot_next_ = now_;
    log_bytes_at_snapshot_ = appends_.total_bytes();
    next_space_snapshot_ = now_ + kSpaceSnapshotInterval;
  }
  if (now_ < snapshot_next_ || unwritten_.full()) return;
  Bytes piece = snapshot_->Next(kPieceBytes);
  const bool last = piece.empty();
  snapshot_next_ =
      now_ + Duration(std::chrono::seconds(1)) * piece.size() / options_.snapshot_bytes_per_second;
  unwritten_.Put(
      {.meta = snapshot_meta_, .data = std::move(piece), .first = !snapshot_begun_, .last = last},
      effects_);
  snapshot_begun_ = true;
  if (!last) return;
  snapshot_.reset();
  snapshot_unsaved_ = true;
}

void Node::Impl::Take(SnapshotWritten& written) { unwritten_.Written(written.bytes); }

void Node::Impl::Take(std::unique_ptr<SnapshotSaved>& saved) {
  if (saved->meta == snapshot_meta_) snapshot_unsaved_ = false;
  if (saved->failed) {
    // The rest of it would be for nobody. Of our own, the log still has everything.
    if (snapshot_ != nullptr && snapshot_meta_ == saved->meta) snapshot_.reset();
    const auto refusal = receiver_.NotSaved(saved->meta);
    if (refusal.has_value()) links_.Send(refusal->first, PeerLane::kSnapshot, refusal->second);
    return;
  }
  ++stats_.snapshots_saved;
  if (fresh_snapshots_ > 0) --fresh_snapshots_;
  // The snapshot before this one stays too, with the log behind it, should this one prove
  // unreadable.
  if (saved->meta.index > saved_index_)
    previous_index_ = std::exchange(saved_index_, saved->meta.index);
  saved_bytes_ = saved->bytes;
  log_bytes_at_saved_ = log_bytes_at_snapshot_;
  // Where room is short, that is a luxury.
  if (disk_.full || disk_.tight) previous_index_ = saved_index_;
  if (previous_index_) effects_->truncate = LogTruncate{previous_index_};
  if (MUTANT("log-cut-beyond-the-snapshot")) effects_->truncate = LogTruncate{applied()};
  if (auto ready = receiver_.Saved(saved->meta)) Install(*std::move(ready));
}

void Node::Impl::DropOldLog() {
  const uint64_t held = appends_.window_bytes();
  const uint64_t window = sole_member() ? std::min(kWindowAloneBytes, options_.log_window_bytes)
                                        : options_.log_window_bytes;
  const uint64_t entries = options_.catch_up_entries;
  const bool too_many = entries > 0 && applied() >= raft_.first_index() + (entries + entries / 4) &&
                        saved_index_ >= raft_.first_index();
  if (held < window + window / 4 && !too_many) return;
  raft::Index drop = std::min({appends_.WindowBegin(window), applied(), raft_.stable()});
  if (too_many) drop = std::min({applied() - entries, saved_index_, raft_.stable()});
  if (held < kWindowsForCatchUp * options_.log_window_bytes) {
    const raft::Index needed = NeededForCatchUp(drop);
    if (needed < drop) REACHED("node: a transfer holds old entries");
    drop = needed;
  }
  if (drop < raft_.first_index()) return;
  raft_.CompactLog(drop);
  appends_.Dropped(drop);
}

// The lowest index below `drop` that one stands at who has got a snapshot, or is getting one; else
// `drop`. Without this, who is slower than the clients write would get one snapshot after the
// other.
raft::Index Node::Impl::NeededForCatchUp(raft::Index drop) {
  raft::Index needed = drop;
  if (const raft::Index oldest = sender_.oldest_index()) needed = std::min(needed, oldest);
  if (catching_up_.empty()) return needed;
  for (const raft::PeerStatus& peer : raft_.status().peers) {
    const auto found = catching_up_.find(peer.id);
    if (found == catching_up_.end()) continue;
    // What it was given, until it says more itself.
    const raft::Index match = std::max(peer.match, found->second);
    if (match >= drop || match + 1 < raft_.first_index() || !peer.recent_active) {
      catching_up_.erase(found);
    } else {
      needed = std::min(needed, match);
    }
  }
  return needed;
}

void Node::Impl::EndTransfers() {
  for (const SnapshotSender::Outcome& outcome : sender_.TakeOutcomes()) {
    raft_.SnapshotStatus(outcome.peer, outcome.index);
    again_ = true;
    const bool sent = outcome.index.has_value();
    if (sent) catching_up_[outcome.peer] = *outcome.index;
    Log(sent ? Severity::kInfo : Severity::kWarning,
        sent ? "sent database snapshot" : "failed to send database snapshot",
        {{"remote-peer-id", Hex(outcome.peer.value())}},
        {{"snapshot-index", static_cast<int64_t>(outcome.index.value_or(raft::Index()).value())},
         {"sent-bytes", static_cast<int64_t>(outcome.sent_bytes)},
         {"covered-bytes", static_cast<int64_t>(outcome.covered_bytes)}});
  }
}

void Node::Impl::StartTransfer(raft::NodeId peer) {
  if (!raft_.is_leader() || !links_.connected(peer, PeerLane::kSnapshot)) {
    REACHED("node: a snapshot cannot be sent now");
    raft_.SnapshotStatus(peer, std::nullopt);
    return;
  }
  Log(Severity::kInfo, "sending database snapshot", {{"remote-peer-id", Hex(peer.value())}},
      {{"snapshot-index", static_cast<int64_t>(applied().value())}});
  ++stats_.snapshots_sent;
  sender_.Start(peer, MetaOfState(), raft_.term(), state_.get(), now_);
}

SnapshotReceiver::Use Node::Impl::UseOf(const SnapshotChunk& chunk) const {
  const bool is_of_now = chunk.term >= raft_.term() && !raft_.is_leader();
  if (!is_of_now) return SnapshotReceiver::Use::kNone;
  if (raft_.CanInstallSnapshot(chunk.meta)) return SnapshotReceiver::Use::kWanted;
  return raft_.HasAllOf(chunk.meta) ? SnapshotReceiver::Use::kHeld : SnapshotReceiver::Use::kNone;
}

void Node::Impl::ReceiveChunk(raft::NodeId from, SnapshotChunk& chunk) {
  const SnapshotReceiver::Use use = UseOf(chunk);
  if (use == SnapshotReceiver::Use::kWanted && snapshot_ != nullptr) {
    REACHED("node: a snapshot is given up for one that comes");
    snapshot_.reset();  // what comes replaces it
    if (snapshot_begun_) {
      effects_->snapshot_pieces.push_back({.meta = snapshot_meta_, .abandon = true});
    }
  }
  const raft::SnapshotMeta meta = chunk.meta;
  // A state that others find wrong is nothing to build upon.
  const bool is_good = std::none_of(peer_states_.begin(), peer_states_.end(),
                                    [](const auto& entry) { return entry.second.disputed; });
  const mvcc::Store* const own = is_good ? &state_->store() : nullptr;
  const auto ack = receiver_.Take(from, std::move(chunk), use, own, now_, effects_);
  if (MUTANT("snapshot-installed-before-it-is-saved")) {
    if (auto ready = receiver_.Saved(meta)) Install(*std::move(ready));
  }
  if (ack.has_value()) links_.Send(from, PeerLane::kSnapshot, *ack);
}

void Node::Impl::Install(SnapshotReceiver::Ready ready) {
  if (!raft_.CanInstallSnapshot(ready.meta)) {
    REACHED("node: the log was faster than a snapshot that was saved");
    return;  // the file does no harm
  }
  CONCLAVE_FAILPOINT(raftBeforeApplySnap);
  CONCLAVE_CHECK(raft_.InstallSnapshot(ready.meta));
  appends_.ResetAt(ready.meta);
  appends_.Dropped(ready.meta.index);
  Log(Severity::kInfo, "applied snapshot", {{"from", Hex(ready.from.value())}},
      {{"current-applied-index", static_cast<int64_t>(applied().value())},
       {"incoming-leader-snapshot-index", static_cast<int64_t>(ready.meta.index.value())},
       {"incoming-leader-snapshot-term", static_cast<int64_t>(ready.meta.term.value())}});
  ++stats_.snapshots_received;
  sender_.StopAll();
  snapshot_.reset();
  if (!long_reads_.empty()) REACHED("node: long reads begin again");
  for (LongRead& long_read : long_reads_) long_read.task.reset();
  downloads_.EndRunning(kErrStateReplaced, effects_);
  memory_check_.reset();
  CONCLAVE_FAILPOINT(applyBeforeOpenSnapshot);
  watches_.Restore(&ready.state->store());
  state_ = std::move(ready.state);
  CONCLAVE_FAILPOINT(applyAfterOpenSnapshot);
  RestartLongReads();
  digests_.Clear();
  peer_states_.clear();
  state_since_ = ready.meta.index;
  follow_members_ = true;
  CheckPublished();
  if (proposals_.size() > 0) REACHED("node: proposals wait while the state is replaced");
  // Whether these are in the state cannot be told.
  proposals_.FailHanded([this](uint64_t sequence, const Waiter& waiter) {
    ++stats_.proposals_failed;
    (void)auth_.Ended(sequence);
    if (waiter.kind == Waiter::Kind::kCall) {
      Reply(waiter.call, waiter.method, waiter.arrived, waiter.bytes, &wire::kErrTimeoutLeaderFail,
            {});
    } else if (waiter.tag == kRenewals) {
      leases_.NotReplicated(sequence);
    }
  });
  member_desk_.FailHanded([this](const MemberDesk::Call& call) {
    Reply(call.call, call.change.method, call.arrived, call.bytes, &wire::kErrTimeoutLeaderFail,
          {});
  });
  links_.Send(ready.from, PeerLane::kSnapshot, ready.ack);
  again_ = true;
  CONCLAVE_FAILPOINT(raftAfterApplySnap);
}

// ---- Divergence ---------------------------------------------------------------------------------

void Node::Impl::Beacons() {
  if (digests_.expects_anything()) {
    while (const auto outcome = digests_.TakeOutcome()) Judge(*outcome);
  }
  if (now_ < next_beacon_ || sole_member()) return;
  next_beacon_ = now_ + options_.divergence_check_interval;
  digests_.Record(applied(), state_->digest().low);
  links_.SendBeacons(now_, [this](raft::NodeId peer) { return BeaconFor(peer); });
  ReportComparisons(options_.divergence_report_interval, "finished compaction hash check",
                    &compaction_checks_);
  ReportComparisons(options_.corruption_report_interval, "finished peer corruption check",
                    &corruption_checks_);
}

void Node::Impl::ReportComparisons(Duration interval, std::string_view line, Comparisons* made) {
  if (interval == Duration::zero() || !raft_.is_leader() || now_ < made->next_report) return;
  made->next_report = now_ + interval;
  Log(Severity::kInfo, std::string(line), {},
      {{"number-of-hashes-checked", std::exchange(made->digests, 0)},
       {"number-of-peers-checked",
        static_cast<int64_t>(state_->membership().members().size()) - 1}});
}

// ---- The end ------------------------------------------------------------------------------------

void Node::Impl::Take(StopRequest&) {
  if (stopping_.has_value()) return;
  stopping_ = now_;
  BeginStop();
}

void Node::Impl::BeginStop() {
  if (!raft_.is_leader() || sole_member()) return;
  raft::NodeId heir;
  raft::Index heir_match;
  for (const raft::PeerStatus& peer : raft_.status().peers) {
    if (peer.id == options_.id || peer.is_learner || !peer.recent_active) continue;
    if (!heir || peer.match > heir_match) {
      heir = peer.id;
      heir_match = peer.match;
    }
  }
  if (!heir || TransferLeader(heir) != raft::TransferStatus::kStarted) return;
  REACHED("node: a leader that stops hands over");
  Log(Severity::kInfo, "handing over the leadership", {{"to", Hex(heir.value())}});
}

void Node::Impl::CheckStop() {
  if (!stopping_.has_value() || stopped_) return;
  const bool leads_others = raft_.is_leader() && !sole_member() && raft_.transferee();
  const bool waits = leads_others || proposals_.size() > 0 || reads_.size() > 0 || !auth_.idle();
  // A removed member has still to say so: to its client, and as a leader to its successor.
  const Duration wait =
      removed_ ? kGoodbyeHeartbeats * options_.heartbeat_interval : options_.election_timeout;
  if ((waits || removed_) && now_ - *stopping_ < wait) return;
  if (waits) REACHED("node: a member stops though something waits");
  stopped_ = true;
  const auto stop = [this](CallId call, Method method, Instant arrived, size_t bytes) {
    Reply(call, method, arrived, bytes, &wire::kErrStopped, {});
  };
  proposals_.FailAll([&](uint64_t, const Waiter& waiter) {
    if (waiter.kind != Waiter::Kind::kCall) return;
    stop(waiter.call, waiter.method, waiter.arrived, waiter.bytes);
  });
  reads_.FailAll([&](const ReadQueue::Read& read) {
    if (read.tag == kClientRead) stop(read.call, read.method, read.arrived, read.request.size());
  });
  for (const LongRead& long_read : long_reads_) {
    stop(long_read.read.call, long_read.read.method, long_read.read.arrived, 0);
  }
  long_reads_.clear();
  member_desk_.FailAll([&](const MemberDesk::Call& call) {
    stop(call.call, call.change.method, call.arrived, call.bytes);
  });
  for (const LeaderMove& move : moves_) stop(move.call, Method::kMoveLeader, move.arrived, 0);
  moves_.clear();
  AnswerCompactions(&wire::kErrStopped);
  StopAuth();
  leases_.EndAll(wire::kErrStopped, effects_);
  TakeEndedLeaseCalls();
  watches_.EndAll(wire::kErrStopped, effects_);
  downloads_.EndAll(wire::kErrStopped, effects_);
  effects_->stopped = true;
}

// ---- Figures and log ----------------------------------------------------------------------------

void Node::Impl::Log(Severity severity, std::string message,
                     std::vector<std::pair<std::string, std::string>> fields,
                     std::vector<std::pair<std::string, int64_t>> numbers) {
  effects_->log_lines.push_back(
      {severity, std::move(message), std::move(fields), std::move(numbers)});
}

void Node::Impl::LogCompaction(Duration took) {
  const mvcc::Store& store = state_->store();
  Log(Severity::kInfo, "finished scheduled compaction", {},
      {{"compact-revision", store.compact_revision()},
       {"current-db-size-bytes", store.sizes().record_bytes},
       {"current-db-size-in-use-bytes", store.sizes().live_bytes}});
  effects_->log_lines.back().took = took;
}

void Node::Impl::LogClusterVersion() {
  if (state_->cluster_version() == logged_version_) return;
  logged_version_ = state_->cluster_version();
  Log(Severity::kInfo, "enabled capabilities for version",
      {{"cluster-version", logged_version_.substr(0, logged_version_.rfind('.'))}});
}

void Node::Impl::Take(StatsRequest& request) {
  effects_->stats_replies.push_back({request.id, CollectStats()});
}

std::shared_ptr<Stats> Node::Impl::CollectStats() const {
  auto stats = std::make_shared<Stats>(stats_);
  stats->member = options_.id;
  stats->cluster_id = options_.cluster_id;
  const RaftStatus raft = raft_status();
  stats->leader = raft.leader;
  stats->term = raft.term;
  stats->commit = raft.commit;
  stats->applied = raft.applied;
  stats->has_leader = static_cast<bool>(raft.leader);
  stats->is_leader = raft.is_leader;
  stats->is_learner = raft.is_learner;
  stats->awaits_repair = awaits_repair_;
  stats->quarantined = quarantined_;
  stats->disk_full = disk_.full;
  stats->cluster_version = state_->cluster_version();
  for (const apply::Alarm& alarm : state_->Alarms()) {
    const bool refilled = alarm.type == static_cast<int32_t>(wire::AlarmType::kCorrupt) &&
                          state_->refills().contains(alarm.member_id);
    stats->alarms.push_back({raft::NodeId(alarm.member_id), alarm.type, refilled});
  }
  stats->proposals_committed = raft.commit.value();
  stats->proposals_applied = raft.applied.value();
  stats->proposals_pending = proposals_.size();
  stats->log_window_bytes = appends_.window_bytes();
  stats->peers = links_.stats();
  const mvcc::StoreSizes sizes = state_->store().sizes();
  stats->revision = state_->store().current_revision();
  stats->compact_revision = state_->store().compact_revision();
  stats->keys = static_cast<uint64_t>(sizes.live_keys);
  stats->bytes = static_cast<uint64_t>(sizes.record_bytes);
  stats->bytes_in_use = static_cast<uint64_t>(sizes.live_bytes);
  stats->quota_bytes = state_->quota_bytes();
  stats->digest = state_->digest().low;
  stats->leases = state_->lease_count();
  stats->leases_renewed = leases_.renewed();
  stats->watch_streams = watches_.size();
  stats->keep_alive_streams = leases_.streams();
  stats->watchers = watches_.sizes().watchers;
  stats->watchers_slow = watches_.sizes().lagging;
  stats->events = watches_.events_sent();
  stats->frames_refused = links_.frames_refused();
  return stats;
}

}  // namespace conclave::node
