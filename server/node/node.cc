#include "conclave/server/node/node.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/failpoint.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/node/node_impl.h"
#include "conclave/server/node/settings.h"

namespace conclave::node {
namespace {

// Raft's clock: twice as fine as heartbeats, so that election timeouts differ by less than one.
constexpr uint32_t kHeartbeatTicks = 2;
// After a pause, what has arrived is heard first; time is not made up for beyond this, or a member
// that wakes up would think that everybody else is dead.
constexpr uint32_t kTicksPerTurnMax = 3 * kHeartbeatTicks;
constexpr size_t kProposeBytesMax = 8 << 20;  // of one turn's batch
constexpr Duration kExpiryInterval = std::chrono::milliseconds(100);
constexpr Duration kRefusalLineInterval = std::chrono::seconds(1);  // however much garbage comes

raft::Config RaftConfig(const Options& options) {
  raft::Config config;
  config.id = options.id;
  config.seed = options.seed;
  config.heartbeat_ticks = kHeartbeatTicks;
  config.election_ticks = static_cast<uint32_t>(
      std::max<int64_t>(2 * kHeartbeatTicks,
                        options.election_timeout * kHeartbeatTicks / options.heartbeat_interval));
  config.suspect_ticks = std::clamp(
      static_cast<uint32_t>(SuspicionOf(options) * kHeartbeatTicks / options.heartbeat_interval),
      kHeartbeatTicks + 1, config.election_ticks);
  config.max_append_bytes = options.append_bytes_max;
  config.max_committed_bytes = 4 << 20;
  return config;
}

watch::WatchOptions WatchSettings(const Options& options) {
  watch::WatchOptions settings;
  settings.stream_bytes_max = options.stream_unsent_bytes_max;
  settings.fragment_bytes = options.request_bytes_max + (512 << 10);
  settings.batch_revisions_max = options.watch_batch_revisions_max;
  settings.watchers_per_stream_max = options.watchers_per_stream_max;
  settings.progress_interval = options.watch_progress_interval;
  settings.seed = options.seed;
  return settings;
}

// What cannot be read at all is Raft's to refuse.
bool KnowsChange(const Bytes& payload) {
  const auto change = raft::DecodeConfChange(payload);
  return !change.has_value() || change->context.empty() ||
         apply::DecodeMemberChange(change->context.view()).has_value();
}

// What is in the log will be applied, or the member cannot go on.
bool KnowsCommands(const raft::Envelope& envelope) {
  if (const auto* append = std::get_if<raft::AppendEntries>(&envelope.message)) {
    return std::all_of(append->entries.begin(), append->entries.end(), [](const auto& entry) {
      return entry.type == raft::EntryType::kCommand
                 ? apply::StateMachine::Knows(entry.payload.view())
                 : KnowsChange(entry.payload);
    });
  }
  if (const auto* forwarded = std::get_if<raft::ForwardedProposals>(&envelope.message)) {
    // Changes of membership come another way (member_desk.h).
    return forwarded->type == raft::EntryType::kCommand &&
           std::all_of(
               forwarded->payloads.begin(), forwarded->payloads.end(),
               [](const Bytes& payload) { return apply::StateMachine::Knows(payload.view()); });
  }
  return true;
}

raft::RestoredState RaftState(Recovered& recovered) {
  return {.hard_state = recovered.hard_state,
          .snapshot = recovered.snapshot,
          .entries = recovered.entries,
          .lost_index = recovered.lost_index,
          .lost_term = recovered.lost_term};
}

}  // namespace

Recovered::Recovered() = default;
Recovered::Recovered(Recovered&&) noexcept = default;
Recovered& Recovered::operator=(Recovered&&) noexcept = default;
Recovered::~Recovered() = default;

Node::Node(Options options, Recovered recovered, Instant now)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(recovered), now)) {}
Node::~Node() = default;

void Node::Turn(Instant now, std::span<Input> inputs, Effects* effects) {
  impl_->Turn(now, inputs, effects);
}
Instant Node::NextDeadline() const { return impl_->NextDeadline(); }
RaftStatus Node::raft_status() const { return impl_->raft_status(); }
const apply::StateMachine& Node::state() const { return impl_->state(); }
const raft::ConfState& Node::conf() const { return impl_->conf(); }

// ---- The turn -----------------------------------------------------------------------------------

Node::Impl::Impl(Options options, Recovered recovered, Instant now)
    : options_(std::move(options)),
      apply_options_(StateSettings(options_)),
      tick_(options_.heartbeat_interval / kHeartbeatTicks),
      patience_(std::chrono::seconds(5) + 2 * options_.election_timeout),
      prng_(options_.seed),
      state_(std::move(recovered.state)),
      raft_(RaftConfig(options_), RaftState(recovered)),
      links_(options_.id),
      proposals_(prng_.Next() | 1),
      leases_(options_.id, patience_, prng_.Next() >> 2),
      member_desk_(options_.id, prng_.Next()),
      watches_(&state_->store(), WatchSettings(options_)),
      downloads_(options_.stream_unsent_bytes_max),
      auth_({.verifier = options_.token_verifier,
             .bcrypt_cost = options_.bcrypt_cost,
             .patience = patience_},
            prng_.Next()),
      sender_({.chunk_bytes = options_.snapshot_chunk_bytes,
               .chunks_in_flight_max = options_.snapshot_chunks_in_flight_max,
               .bytes_per_second = options_.snapshot_bytes_per_second}),
      receiver_(apply_options_, &unwritten_, std::move(recovered.unfinished), now),
      now_(now),
      last_tick_(now),
      next_expiry_(now),
      next_beacon_(now + options_.divergence_check_interval),
      leader_lost_(now),
      led_since_(Instant::min()),
      confirmed_(Instant::min()),
      state_since_(recovered.snapshot.index),
      next_file_check_(options_.file_check_interval < Duration::zero()
                           ? kNever
                           : now + options_.file_check_interval),
      next_memory_check_(options_.memory_check_interval < Duration::zero()
                             ? kNever
                             : now + options_.memory_check_interval),
      evidence_until_(kNever),
      next_alarm_(now),
      next_space_snapshot_(now),
      disk_watch_(SlowSyncOf(options_), now),
      next_hand_over_(now),
      snapshot_next_(now),
      saved_index_(recovered.snapshot.index),
      previous_index_(recovered.snapshot.index),
      saved_bytes_(recovered.snapshot_bytes),
      acquaintances_(std::move(recovered.acquaintances)),
      next_votes_(now) {
  CONCLAVE_CHECK(state_->applied_index() == recovered.snapshot.index.value(),
                 "the state does not stand where its snapshot says");
  appends_.Recovered(recovered.entries);
  recovered_last_ = raft_.last_index();
  if (sole_member()) {
    raft_.Campaign();  // there is nobody to wait for
  } else if (options_.initial_election_advance) {
    raft_.AdvanceElectionTimer(static_cast<uint32_t>(options_.election_timeout / tick_));
  }
}

void Node::Impl::Turn(Instant now, std::span<Input> inputs, Effects* effects) {
  CONCLAVE_CHECK(now >= now_, "time goes back");
  now_ = now;
  effects_ = effects;
  again_ = false;
  ++stats_.turns;
  stats_.inputs += inputs.size();
  if (stats_.turns == 1) {
    FollowMembers();
    CheckPublished();
    awaits_repair_ = raft_.log_is_short();
    if (awaits_repair_) {
      Log(Severity::kWarning,
          "this member's log was damaged and is waiting for a leader to fill it again; until then "
          "this member does not stand for election");
    }
  }
  if (!quarantined_) [[likely]] {
    for (Input& input : inputs) std::visit([this](auto& what) { Take(what); }, input);
    inputs = {};
  }
  if (quarantined_) [[unlikely]] {
    TurnQuarantined(inputs);
    effects_ = nullptr;
    return;
  }
  Tick();
  Leases();
  Expire();
  ProposeMembers();
  Propose();
  AskReads();
  HandleReady();
  UpdateLeadership();
  FollowMembers();
  if (awaits_repair_ && !raft_.log_is_short()) [[unlikely]] {
    awaits_repair_ = false;
    Log(Severity::kInfo, "the damaged log is whole again", {},
        {{"last-index", static_cast<int64_t>(raft_.last_index().value())}});
  }
  reads_.Serve(applied(), [this](ReadQueue::Read& read, Instant asked) { Serve(read, asked); });
  TakeParked();
  TakeEndedLeaseCalls();
  Background();
  if (disk_alarm_) [[unlikely]]
    HearOfAlarms();
  Flush();
  effects_ = nullptr;
}

Instant Node::Impl::NextDeadline() const {
  if (again_) return now_;
  if (quarantined_) return evidence_until_;
  Instant next = std::min({leases_.NextDeadline(), watches_.NextDeadline(), sender_.NextDeadline(),
                           next_memory_check_, next_file_check_});
  if (!raft_.is_leader() || !sole_member()) next = std::min(next, last_tick_ + tick_);
  if (proposals_.size() > 0 || reads_.size() > 0 || !auth_.idle() || !moves_.empty() ||
      stopping_.has_value() || member_desk_.calls() > 0 || !departing_.empty() || disk_.full ||
      disk_alarm_ || !strangers_.empty()) {
    next = std::min(next, next_expiry_);
  }
  // What is due waits for the leadership to be verified, if that is under way.
  if (state_->primary() && !verifying_ && !raft_.transferee()) {
    next = std::min(next, state_->NextLeaseDeadline());
  }
  if (!sole_member()) next = std::min(next, next_beacon_);
  if (snapshot_ != nullptr && !unwritten_.full()) next = std::min(next, snapshot_next_);
  if (compacting_since_.has_value() && next_compaction_ > now_) {
    next = std::min(next, next_compaction_);
  }
  return std::max(next, now_);
}

RaftStatus Node::Impl::raft_status() const {
  RaftStatus status;
  status.term = raft_.term();
  status.leader = raft_.leader();
  status.commit = raft_.commit();
  status.applied = applied();
  status.conf_entry = raft_.conf_entry();
  status.is_leader = raft_.is_leader();
  status.first_own = raft_.first_own();
  const apply::Member* self = state_->membership().Find(options_.id.value());
  status.is_learner = self != nullptr && self->is_learner;
  status.awaits_repair = raft_.log_is_short();
  return status;
}

void Node::Impl::Tick() {
  const auto due = (now_ - last_tick_) / tick_;
  if (due <= 0) return;
  last_tick_ += due * tick_;
  for (int64_t i = std::min<int64_t>(due, kTicksPerTurnMax); i > 0; --i) raft_.Tick();
}

void Node::Impl::Expire() {
  if (now_ < next_expiry_) return;
  next_expiry_ = now_ + kExpiryInterval;
  const Instant latest = now_ - patience_;
  proposals_.Expire(latest, [this](uint64_t sequence, const Waiter& waiter) {
    REACHED("node: a proposal is given up");
    ++stats_.proposals_failed;
    (void)auth_.Ended(sequence);
    if (waiter.kind == Waiter::Kind::kCall) {
      const wire::Error& error =
          MUTANT("timeout-is-a-refusal") ? wire::kErrTooManyRequests : TimeoutError(waiter.arrived);
      Reply(waiter.call, waiter.method, waiter.arrived, waiter.bytes, &error, {});
    } else if (waiter.tag == kRenewals) {
      REACHED("node: renewals are given up");
      leases_.NotReplicated(sequence);
    } else if (waiter.tag == kPublish) {
      PublishSelf();
    }
  });
  reads_.Expire(latest, [this](const ReadQueue::Read& read) {
    REACHED("node: a read is given up");
    ++stats_.reads_failed;
    UnaryCall parked;
    if (read.tag == kVerifyLeadership) {
      REACHED("node: the leadership could not be verified");
      verifying_ = false;
    } else if (read.tag == kAwaitToken) {
      if (auth_.Unpark(read.call.value(), &parked)) {
        Reply(parked.id, parked.method, read.arrived, parked.request.size(),
              &TimeoutError(read.arrived), {});
      } else {
        streams_unparked_ = true;
      }
    } else if (read.tag == kRemoteTimeToLive) {
      AnswerRemote(read.call, &wire::kErrTimeout, {});
    } else if (read.tag == kDownload) {
      RefuseDownload(read.call, TimeoutError(read.arrived));
    } else {
      Reply(read.call, read.method, read.arrived, read.request.size(), &TimeoutError(read.arrived),
            {});
    }
  });
  auth_.Expire(latest, [this](CallId call, Method method, Instant arrived, size_t bytes) {
    Reply(call, method, arrived, bytes, &TimeoutError(arrived), {});
  });
  member_desk_.Expire(latest, [this](const MemberDesk::Call& call) {
    REACHED("node: a change of membership is given up");
    Reply(call.call, call.change.method, call.arrived, call.bytes, &TimeoutError(call.arrived), {});
  });
  member_desk_.DropOld(latest);
  KeepAlarms();
  LeaveLeadToBetterDisks();
  CheckMoves();
  CheckStop();
  receiver_.Expire(now_, effects_);
  if (!raft_.leader() && now_ - leader_lost_ > 3 * options_.election_timeout) {
    REACHED("node: streams that need a leader end");
    watches_.EndLeaderRequiring(wire::kErrNoLeader, effects_);
  }
}

// ---- Inputs -------------------------------------------------------------------------------------

void Node::Impl::Take(PeerFrame& frame) {
  if (!links_.Knows(frame.from)) Meet(frame);
  items_.clear();
  if (!links_.Receive(frame, &items_)) {
    return Distrust(frame.from, "it is damaged, not for this member, or of none that it knows");
  }
  for (PeerItem& item : items_) {
    if (const char* reason = Take(frame.from, item)) return Distrust(frame.from, reason);
  }
}

// The rest of the frame is not looked at, nor what follows on that connection. The member may come
// back on a new one: whether it was the network, its memory or its program, nobody can tell from
// here.
void Node::Impl::Distrust(raft::NodeId from, std::string_view reason) {
  REACHED("node: a frame is not to be trusted");
  effects_->distrusted.push_back(from);
  if (now_ < next_refusal_line_) return;
  next_refusal_line_ = now_ + kRefusalLineInterval;
  Log(Severity::kWarning, "refused a message of another member and closed its connection",
      {{"from", absl::StrCat(absl::Hex(from.value()))}, {"reason", std::string(reason)}});
}

const char* Node::Impl::Take(raft::NodeId from, PeerItem& item) {
  if (auto* envelope = std::get_if<raft::Envelope>(&item)) {
    if (!KnowsCommands(*envelope)) return "it has a command that this version does not know";
    return raft_.Step(std::move(*envelope));
  }
  if (auto* request = std::get_if<ForwardedRequest>(&item)) {
    if (request->kind == ForwardedRequest::Kind::kKeepAlive) {
      leases_.KeepAliveFrom(from, *request, now_);
      return nullptr;
    }
    if (request->kind == ForwardedRequest::Kind::kMemberChange) {
      return TakeMemberChange(from, *request);
    }
    remote_reads_[++last_remote_read_] = {
        from, request->id, std::make_shared<const Asker>(Asker{std::move(request->who), nullptr})};
    if (!raft_.is_leader()) {
      REACHED("node: somebody else is asked what a lease has left");
      AnswerRemote(CallId(last_remote_read_), &wire::kErrNotPrimaryLessor, {});
      return nullptr;
    }
    reads_.Add({CallId(last_remote_read_), Method::kLeaseTimeToLive, kRemoteTimeToLive,
                std::move(request->body), now_, remote_reads_[last_remote_read_].who});
  } else if (auto* answer = std::get_if<ForwardedAnswer>(&item)) {
    if ((answer->id & MemberDesk::kForwardedBit) != 0) {
      MemberChangeRefused(*answer);
    } else {
      leases_.Answered(ThisLeaseTurn(), from, *answer);
    }
  } else if (auto* chunk = std::get_if<SnapshotChunk>(&item)) {
    ReceiveChunk(from, *chunk);
  } else if (auto* ack = std::get_if<SnapshotAck>(&item)) {
    sender_.Acked(from, *ack, now_);
  } else if (auto* beacon = std::get_if<Beacon>(&item)) {
    links_.Send(from, PeerLane::kMessages, BeaconEcho{beacon->sent_at});
    CompareDigest(from, *beacon);
  } else if (auto* echo = std::get_if<BeaconEcho>(&item)) {
    const Duration trip = now_.time_since_epoch() - Duration(static_cast<int64_t>(echo->sent_at));
    if (trip >= Duration::zero()) links_.RoundTrip(from, trip);
  }
  return nullptr;
}

void Node::Impl::Take(PeerConnection& connection) {
  links_.Connected(connection, now_);
  if (connection.connected) {
    if (connection.lane == PeerLane::kMessages) Introduce(connection.peer);
    return;
  }
  if (connection.lane == PeerLane::kSnapshot) {
    REACHED("node: the connection for snapshots breaks");
    sender_.LaneDown(connection.peer, now_);
    return;
  }
  raft_.ReportUnreachable(connection.peer);
  // A connection that breaks says that its process may be gone: the rest of the randomised timeout
  // is enough to wait. If the leader lives, its next heartbeat sets the timer back, and the others
  // would not vote anyway.
  if (connection.peer == raft_.leader()) {
    REACHED("node: the connection to the leader breaks");
    raft_.AdvanceElectionTimer(static_cast<uint32_t>(options_.election_timeout / tick_));
  }
}

void Node::Impl::Take(LogSynced& synced) {
  stats_.wal_fsync.Record(synced.write_time);
  disk_watch_.Synced(synced.batch, synced.write_time, now_);
  messages_.clear();
  appends_.Synced(synced.batch, &messages_);
  Send(messages_);
  DurableToRaft();
}

void Node::Impl::DurableToRaft() {
  if (const auto durable = appends_.TakeDurable()) raft_.Step(raft::StorageAppended{*durable});
}

// ---- Raft ---------------------------------------------------------------------------------------

void Node::Impl::Propose() {
  if (!unawaited_.empty()) {
    // What they say is found out again if they are not taken.
    if (raft_.is_leader()) (void)raft_.Propose(unawaited_);
    unawaited_.clear();
  }
  // What could only be lost on the way to the leader waits for the lane instead.
  const raft::NodeId leader = raft_.leader();
  if (!leader || (leader != options_.id && !links_.connected(leader, PeerLane::kMessages))) return;
  while (proposals_.has_unsent()) {
    proposals_.TakeUnsent(kProposeBytesMax, &payloads_, &sequences_);
    const raft::ProposeResult result = raft_.is_leader()
                                           ? raft_.Propose(payloads_)
                                           : raft_.Forward(raft::EntryType::kCommand, payloads_);
    payloads_.clear();
    if (result.status == raft::ProposeStatus::kAccepted ||
        result.status == raft::ProposeStatus::kForwarded) {
      proposals_.Handed(sequences_, raft_.term(), result.forwarded);
      continue;
    }
    REACHED("node: proposals are not taken now");
    proposals_.NotHanded(sequences_);
    break;
  }
}

void Node::Impl::AskReads() {
  while (reads_.wants_round() && raft_.leader()) {
    ++last_read_id_;
    reads_.Asked(last_read_id_, now_);
    if (raft_.ReadIndex(last_read_id_) != raft::ReadStatus::kAccepted) {
      reads_.NotAsked();
      break;
    }
    ++stats_.read_rounds;
  }
}

void Node::Impl::Send(std::vector<raft::Envelope>& messages) {
  if (messages.empty()) return;
  if (raft_.is_leader()) {
    CONCLAVE_FAILPOINT(raftBeforeLeaderSend);
  } else {
    CONCLAVE_FAILPOINT(raftBeforeFollowerSend);
  }
  for (raft::Envelope& envelope : messages) {
    const raft::NodeId to = envelope.to;
    if (!links_.Send(to, PeerLane::kMessages, std::move(envelope))) raft_.ReportUnreachable(to);
  }
  messages.clear();
}

void Node::Impl::HandleReady() {
  if (!raft_.HasReady()) return;
  raft::Ready ready = raft_.TakeReady();
  if (ready.append.has_value()) {
    effects_->append = appends_.Push(*std::move(ready.append));
    if (effects_->append.has_value()) disk_watch_.Written(effects_->append->batch, now_);
    appends_.ReleaseUnwritten(&ready.messages);
  }
  Send(ready.messages);
  for (const raft::DroppedProposals& dropped : ready.dropped_proposals) {
    proposals_.Refused(dropped.id);
  }
  if (!ready.committed.empty()) Apply(ready.committed);
  for (const raft::ReadState& read : ready.reads) reads_.Confirmed(read.id, read.index);
  for (const raft::ReadId failed : ready.failed_reads) reads_.Failed(failed);
  UpdateLeadership();
  for (const raft::NodeId peer : ready.snapshots_needed) StartTransfer(peer);
  DurableToRaft();
  // Refused proposals and failed reads wait for a leader to be known, not for this.
  if (raft_.HasReady()) again_ = true;
}

void Node::Impl::Apply(const std::vector<raft::Entry>& entries) {
  CONCLAVE_FAILPOINT(beforeCommit);
  apply::ApplyContext context;
  context.raft_term = raft_.term().value();
  context.now = now_;
  for (const raft::Entry& entry : entries) {
    context.index = entry.index.value();
    context.entry_term = entry.term.value();
    if (entry.type == raft::EntryType::kConfChange) {
      CONCLAVE_FAILPOINT(beforeApplyOneConfChange);
      ApplyConfChange(context, entry);
    } else {
      CONCLAVE_FAILPOINT(beforeApplyOneEntryNormal);
      const auto header =
          entry.payload.empty() ? std::nullopt : apply::ReadCommandHeader(entry.payload.view());
      Waiter waiter;
      const bool ours = header.has_value() && header->proposer == options_.id.value() &&
                        header->sequence != 0 && proposals_.Take(header->sequence, &waiter);
      context.want_response = ours && waiter.kind == Waiter::Kind::kCall;
      context.replayed = entry.index <= recovered_last_;
      const size_t leases = state_->lease_count();
      apply::ApplyResult result = state_->Apply(context, entry.payload);
      if (state_->lease_count() != leases) CountLeases(*header, leases);
      if (header.has_value() && (header->Is(apply::CommandKind::kMemberAttributes) ||
                                 header->Is(apply::CommandKind::kClusterVersion))) {
        follow_members_ = true;
      }
      if (context.want_response && auth_.awaits_entries() &&
          BeginsAgain(waiter, header->sequence, entry.payload, &result)) [[unlikely]] {
        // Its outcome is still to come.
      } else if (context.want_response) {
        Answer(waiter, std::move(result));
      } else if (ours) {
        InternalApplied(waiter, header->sequence);
      }
    }
    proposals_.TermApplied(entry.term);
    if (member_desk_.calls() > 0) member_desk_.TermApplied(entry.term);
    if (digests_.Wants(entry.index)) digests_.Record(entry.index, state_->digest().low);
  }
  raft_.Applied(entries.back().index);
  CONCLAVE_FAILPOINT(afterCommit);
}

// To a client whose entry was applied.
void Node::Impl::Answer(const Waiter& waiter, apply::ApplyResult result) {
  constexpr size_t kAwaitedCompactionsMax = 1000;
  stats_.apply.Record(now_ - waiter.arrived);
  if (waiter.tag == kPhysical && result.error == nullptr && state_->store().compaction_pending() &&
      awaited_compactions_.size() < kAwaitedCompactionsMax) [[unlikely]] {
    awaited_compactions_.push_back({waiter, std::move(result.response)});
    return;
  }
  Reply(waiter.call, waiter.method, waiter.arrived, waiter.bytes, result.error,
        std::move(result.response));
}

void Node::Impl::CountLeases(const apply::CommandHeader& header, size_t before) {
  const size_t after = state_->lease_count();
  if (after > before) {
    stats_.leases_granted += after - before;
  } else if (header.Is(apply::CommandKind::kLeaseExpire)) {
    stats_.leases_expired += before - after;
  } else {
    stats_.leases_revoked += before - after;
  }
}

void Node::Impl::UpdateLeadership() {
  const raft::NodeId leader = raft_.leader();
  if (leader != leader_) {
    if (leader_) leader_lost_ = now_;
    leader_ = leader;
    leader_since_ = now_;
    if (leader) {
      ++stats_.leader_changes_seen;
      CheckMoves();
      again_ = true;  // what has waited for a leader goes to it
      Log(Severity::kInfo, "leader found", {{"leader", absl::StrCat(absl::Hex(leader.value()))}},
          {{"term", static_cast<int64_t>(raft_.term().value())}});
    } else {
      Log(Severity::kWarning, "leader lost", {},
          {{"term", static_cast<int64_t>(raft_.term().value())}});
    }
  }
  if (promoted_ && (!raft_.is_leader() || raft_.term() != promoted_)) {
    REACHED("node: a leader is one no more");
    if (!MUTANT("lessor-not-demoted")) state_->Demote();
    sender_.StopAll();
    catching_up_.clear();
    promoted_ = raft::Term();
  }
  if (!promoted_ && raft_.is_leader() && raft_.leader_is_current() &&
      state_->applied_term() == raft_.term().value()) {
    promoted_ = raft_.term();
    led_since_ = now_;
    confirmed_ = Instant::min();
    verifying_ = false;
    // The leader before may still renew on its own for as long as it takes itself for verified.
    state_->Promote(now_, std::max(options_.heartbeat_interval, VerifiedFor(options_)));
    PublishClusterVersion();
    again_ = true;
  } else if (promoted_ && version_published_for_ != state_->downgrade_target()) {
    PublishClusterVersion();
    again_ = true;
  }
  CheckReady();
}

// ---- The rest of the turn -----------------------------------------------------------------------

void Node::Impl::Background() {
  constexpr size_t kCatchUpBudget = 2000;
  constexpr size_t kDownloadBudget = 2000;
  RunLongReads();
  if (downloads_.Work(kDownloadBudget, effects_)) again_ = true;
  Compact();
  LogClusterVersion();
  TakeSnapshot();
  sender_.Work(now_, &links_);
  EndTransfers();
  DropOldLog();  // when it is known who has got a snapshot and needs what is behind it
  if (CheckWatchersAgain()) again_ = true;
  if (now_ >= next_memory_check_) CheckMemory();
  if (now_ >= next_file_check_) {
    effects_->check_files = true;
    next_file_check_ = kNever;
  }
  watches_.Notify();
  if (watches_.Work(now_, kCatchUpBudget)) again_ = true;
  Beacons();
}

void Node::Impl::Compact() {
  if (!state_->store().compaction_pending()) return AnswerCompactions(nullptr);
  if (now_ < next_compaction_) return;
  if (!compacting_since_.has_value()) compacting_since_ = now_;
  CONCLAVE_FAILPOINT(compactBeforeCommitBatch);
  const bool more = state_->CompactSlice(options_.compaction_slice_records);
  CONCLAVE_FAILPOINT(compactAfterCommitBatch);
  next_compaction_ = now_ + options_.compaction_rest;
  if (more && next_compaction_ <= now_) again_ = true;
  if (state_->store().compaction_pending()) return;
  CONCLAVE_FAILPOINT(compactBeforeSetFinishedCompact);
  LogCompaction(now_ - *std::exchange(compacting_since_, std::nullopt));
  AnswerCompactions(nullptr);
}

void Node::Impl::AnswerCompactions(const wire::Error* error) {
  for (AwaitedCompaction& awaited : awaited_compactions_) {
    const Waiter& waiter = awaited.waiter;
    Reply(waiter.call, waiter.method, waiter.arrived, waiter.bytes, error,
          error == nullptr ? std::move(awaited.response) : Bytes());
  }
  awaited_compactions_.clear();
}

void Node::Impl::Flush() {
  watches_.Flush(
      state_->Header(raft_.term().value()),
      [this](const AskerRef& who, std::string_view key, std::string_view range_end) {
        return MayStillWatch(who, key, range_end);
      },
      effects_);
  CheckStop();
  if (!shown_streams_.empty()) [[unlikely]] {
    // Of those that have ended here, nobody will say that they are gone.
    for (const StreamEffect& effect : effects_->streams) {
      if (effect.finish) shown_streams_.erase(effect.id);
    }
  }
  links_.Flush(effects_);
}

}  // namespace conclave::node
