// What a member does when its disk is full or slow, and when its state is not that of the others.
//
//   state      members tell each other digests of their states (Beacon) and keep what has come of
//              the comparisons. A member whose state differs from one that a majority agrees on
//              takes no further part: it writes its state down as evidence, asks to be started
//              again without it (Effects::diverged), and gets the others' by a snapshot. The leader
//              holds the CORRUPT alarm up for it until its state has been found equal again; this
//              one stops no writes.
//   slow disk  a leader whose syncs take too long hands over to a member whose disk is better, if
//              there is one.
//   full disk  writes that add something are refused and the NOSPACE alarm is raised, until the
//              disk has room again. A snapshot is tried meanwhile, for what it lets go.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/requests.h"
#include "conclave/base/check.h"
#include "conclave/base/reached.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/apply/quota.h"
#include "conclave/server/node/node_impl.h"
#include "conclave/server/node/own_call.h"

namespace conclave::node {
namespace {

// An alarm that does not come through is asked for again.
constexpr Duration kAlarmInterval = std::chrono::seconds(1);
constexpr Duration kHopelessAfter = std::chrono::seconds(5);
constexpr uint64_t kAlarmCallBit = uint64_t{1} << 62;
// A leader with a slow disk looks for another one so often, and goes no more often than that,
// should it be elected again.
constexpr Duration kHeirInterval = std::chrono::seconds(5);
constexpr Duration kHandOverRest = std::chrono::seconds(60);
// The evidence is worth waiting for, but not for long.
constexpr Duration kEvidencePatience = std::chrono::seconds(10);
constexpr size_t kEvidencePieceBytes = 256 << 10;
constexpr int kEvidencePiecesPerTurn = 16;
// While room is short: how much log must have gathered for a snapshot to be worth it.
constexpr uint64_t kSpaceSnapshotLogBytes = 1 << 20;

std::string Hex(uint64_t id) { return absl::StrCat(absl::Hex(id)); }

// An etcdserverpb.AlarmRequest: 1 action, 2 member, 3 alarm.
Bytes AlarmCall(wire::AlarmAction action, raft::NodeId member, wire::AlarmType type) {
  std::string request(kRequestHeadroom, '\0');
  const auto number = [&](int field, uint64_t value) {
    request.push_back(static_cast<char>(field << 3));
    for (; value >= 0x80; value >>= 7) request.push_back(static_cast<char>(value | 0x80));
    request.push_back(static_cast<char>(value));
  };
  number(1, static_cast<uint64_t>(action));
  number(2, member.value());
  number(3, static_cast<uint64_t>(type));
  return Bytes::Copy(request);
}

}  // namespace

// ---- States that differ -------------------------------------------------------------------------

void Node::Impl::CompareDigest(raft::NodeId peer, const Beacon& beacon) {
  PeerState& state = peer_states_[peer];
  state.slow_disk = beacon.slow_disk;
  state.heard = now_;
  if (beacon.index) {
    ++compaction_checks_.digests;
    ++corruption_checks_.digests;
    if (beacon.index > applied()) {
      digests_.Expect(peer, {beacon.index, beacon.digest});
    } else {
      if (beacon.index == applied()) digests_.Record(applied(), state_->digest().low);
      Judge({peer, beacon.index, digests_.Compare({beacon.index, beacon.digest})});
    }
  }
  // What was found before this state was taken over from another member is not about this state.
  if (beacon.disputed > state_since_ && beacon.agreeing >= Majority()) Quarantine(beacon);
}

void Node::Impl::Judge(const DigestLog::Outcome& outcome) {
  if (outcome.verdict == DigestLog::Verdict::kUnknown) return;
  PeerState& peer = peer_states_[outcome.member];
  if (outcome.verdict == DigestLog::Verdict::kEqual) {
    peer.agreed = std::max(peer.agreed, outcome.index);
    if (peer.disputed && outcome.index > peer.disputed) {
      peer.disputed = raft::Index();
      Log(Severity::kInfo, "a member's data is that of this member again",
          {{"remote-peer-id", Hex(outcome.member.value())}},
          {{"index", static_cast<int64_t>(outcome.index.value())}});
    }
    return;
  }
  ++stats_.divergences;
  if (peer.disputed) return;
  peer.disputed = outcome.index;
  peer.disputed_since = now_;
  Log(Severity::kError, "found data inconsistency with peers",
      {{"remote-peer-id", Hex(outcome.member.value())}},
      {{"index", static_cast<int64_t>(outcome.index.value())}});
  next_beacon_ = now_;
}

uint64_t Node::Impl::Majority() const {
  const raft::ConfState& conf = raft_.conf();
  // While the voters change there are two majorities: it can wait.
  if (!conf.voters_outgoing.empty() || conf.voters.empty()) return UINT64_MAX;
  return conf.voters.size() / 2 + 1;
}

uint64_t Node::Impl::VotersAgreeing(raft::Index at) const {
  uint64_t agreeing = 0;
  for (const raft::NodeId voter : raft_.conf().voters) {
    const auto found = peer_states_.find(voter);
    const bool agrees =
        found != peer_states_.end() && !found->second.disputed && found->second.agreed >= at;
    if (agrees || voter == options_.id) ++agreeing;
  }
  return agreeing;
}

Beacon Node::Impl::BeaconFor(raft::NodeId peer) const {
  Beacon beacon;
  beacon.slow_disk = disk_watch_.is_slow(now_);
  beacon.index = digests_.newest().index;
  beacon.digest = digests_.newest().digest;
  const auto found = peer_states_.find(peer);
  if (found != peer_states_.end() && found->second.disputed) {
    beacon.disputed = found->second.disputed;
    beacon.agreeing = VotersAgreeing(beacon.disputed);
  }
  return beacon;
}

void Node::Impl::Quarantine(const Beacon& beacon) {
  if (quarantined_) return;
  quarantined_ = true;
  evidence_until_ = now_ + kEvidencePatience;
  Log(Severity::kError,
      "this member's data is not that of the majority; it stops serving, keeps its data aside as "
      "evidence and gets the others'",
      {}, {{"index", static_cast<int64_t>(beacon.disputed.value())}});
  if (snapshot_ != nullptr && snapshot_begun_) {
    effects_->snapshot_pieces.push_back({.meta = snapshot_meta_, .abandon = true});
  }
  BeginEvidence();
}

void Node::Impl::BeginEvidence() {
  snapshot_meta_ = MetaOfState();
  snapshot_ = std::make_unique<apply::SnapshotTask>(state_.get());
  snapshot_begun_ = false;
}

// All records are hashed anew, a slice at a time: 200 of them take some 0.1 ms, so it is half a
// percent of a core while it goes on.
void Node::Impl::CheckMemory() {
  constexpr size_t kRecords = 200;
  constexpr size_t kBytes = 256 << 10;
  constexpr Duration kRest = std::chrono::milliseconds(20);
  if (memory_check_ == nullptr) {
    memory_check_ = std::make_unique<mvcc::DigestCheck>(&state_->store());
  }
  next_memory_check_ = now_ + kRest;
  if (memory_check_->Advance(kRecords, kBytes)) return;
  const bool is_good = memory_check_->Matches();
  memory_check_.reset();
  next_memory_check_ = now_ + options_.memory_check_interval;
  ++stats_.memory_checks;
  if (is_good) return;
  REACHED("node: the memory is not as it was written");
  Log(Severity::kError,
      "this member's memory does not hold what was written to it; it stops serving, and starts "
      "again "
      "from its disk");
  quarantined_ = true;
  memory_is_bad_ = true;
  again_ = true;
}

// What is damaged on the disk is whole in memory. Two snapshots are kept, with the log behind the
// older one; so after two new ones nothing of what was there is needed.
void Node::Impl::Take(FilesChecked& checked) {
  constexpr Duration kRest = std::chrono::seconds(1);
  next_file_check_ = now_ + (checked.done ? options_.file_check_interval : kRest);
  if (checked.done) ++stats_.file_checks;
  if (checked.damage.empty()) return;
  REACHED("node: a file is not as it was written");
  ++stats_.files_damaged;
  fresh_snapshots_ = 2;
  Log(Severity::kError, "found a damaged file; new snapshots are taken in its place",
      {{"error", checked.damage}});
}

// It is silent towards the others, and answers clients with nothing but the error.
void Node::Impl::TurnQuarantined(std::span<Input> inputs) {
  for (Input& input : inputs) {
    if (auto* call = std::get_if<UnaryCall>(&input)) {
      Reply(call->id, call->method, now_, call->request.size(), &wire::kErrCorrupt, {});
    } else if (auto* opened = std::get_if<StreamOpened>(&input)) {
      FinishStream(opened->id, &wire::kErrCorrupt);
    } else if (auto* request = std::get_if<StatsRequest>(&input)) {
      Take(*request);
    } else if (auto* saved = std::get_if<std::unique_ptr<SnapshotSaved>>(&input)) {
      EvidenceSaved(**saved);
    } else if (const auto* written = std::get_if<SnapshotWritten>(&input)) {
      unwritten_.Written(written->bytes);
    } else if (std::holds_alternative<StopRequest>(input)) {
      effects_->stopped = true;
    }
  }
  if (memory_is_bad_) {
    effects_->reload = !std::exchange(reload_told_, true);
    return;
  }
  SaveEvidence();
  if (evidence_saved_ || now_ >= evidence_until_) {
    if (!evidence_saved_) {
      REACHED("node: the evidence is not there");
      Log(Severity::kError,
          "the state that differs could not be written down; what is kept as evidence is the log "
          "and the snapshots from before");
    }
    effects_->diverged = true;
    evidence_until_ = kNever;
  }
}

// A disk that is full has dropped older snapshots, so that a second attempt may find room. The
// others' state is worth more than evidence: there is no third.
void Node::Impl::EvidenceSaved(const SnapshotSaved& saved) {
  if (saved.meta != snapshot_meta_) return;
  if (!saved.failed) {
    evidence_saved_ = true;
  } else if (!std::exchange(evidence_retried_, true)) {
    REACHED("node: the evidence is written a second time");
    BeginEvidence();
  } else {
    snapshot_.reset();
    evidence_until_ = std::min(evidence_until_, now_);
  }
}

void Node::Impl::SaveEvidence() {
  for (int i = 0; snapshot_ != nullptr && !unwritten_.full() && i < kEvidencePiecesPerTurn; ++i) {
    Bytes piece = snapshot_->Next(kEvidencePieceBytes);
    const bool last = piece.empty();
    unwritten_.Put(
        {.meta = snapshot_meta_, .data = std::move(piece), .first = !snapshot_begun_, .last = last},
        effects_);
    snapshot_begun_ = true;
    if (last) snapshot_.reset();
  }
  again_ = snapshot_ != nullptr && !unwritten_.full();
}

// ---- The slow disk ------------------------------------------------------------------------------

void Node::Impl::LeaveLeadToBetterDisks() {
  disk_watch_.Look(now_);
  if (!disk_watch_.should_not_lead() || !promoted_ || raft_.transferee() || stopping_.has_value() ||
      now_ < next_hand_over_) {
    return;
  }
  const raft::NodeId heir = HeirWithGoodDisk();
  if (!heir) {
    REACHED("node: no disk is better than the leader's slow one");
    next_hand_over_ = now_ + kHeirInterval;
    return;
  }
  if (TransferLeader(heir) != raft::TransferStatus::kStarted) return;
  REACHED("node: a leader with a slow disk hands over");
  next_hand_over_ = now_ + kHandOverRest;
  Log(Severity::kWarning, "handing over the leadership, because this member's disk is slow",
      {{"to", Hex(heir.value())}});
}

// A voter that has all that is committed, and has lately said that its disk is fine; the most
// advanced of them. 0: there is none, or too few of them: votes are synced before they are given,
// so the disks of a majority decide whether an election comes to an end.
raft::NodeId Node::Impl::HeirWithGoodDisk() const {
  raft::NodeId heir;
  raft::Index heir_match;
  uint64_t good = 0;
  for (const raft::PeerStatus& peer : raft_.status().peers) {
    if (peer.id == options_.id || peer.is_learner || !peer.recent_active) continue;
    const auto found = peer_states_.find(peer.id);
    if (found == peer_states_.end() || found->second.slow_disk || found->second.disputed ||
        now_ - found->second.heard > 3 * options_.divergence_check_interval) {
      continue;
    }
    ++good;
    if (peer.match < raft_.commit() || (heir && peer.match <= heir_match)) continue;
    heir = peer.id;
    heir_match = peer.match;
  }
  return good >= Majority() ? heir : raft::NodeId();
}

// ---- The full disk ------------------------------------------------------------------------------

void Node::Impl::Take(DiskSpace& space) {
  if (space.full && !disk_.full) {
    Log(Severity::kError,
        "the disk is full: writes are refused until there is room again; reads, deletes and "
        "compaction go on");
  } else if (!space.full && disk_.full) {
    Log(Severity::kInfo, "the disk has room again");
  }
  disk_ = space;
  // An alarm of an earlier life is still there: it would stay for ever.
  disk_alarm_ = disk_alarm_ || disk_.full || !std::exchange(disk_told_, true);
}

const wire::Error* Node::Impl::NoSpaceFor(const UnaryCall& call) const {
  return apply::QuotaCost(call.method, call.request.view().substr(kRequestHeadroom)) > 0
             ? &wire::kErrNoSpace
             : nullptr;
}

// A snapshot lets the log before it go, and so do the deletes that made it small.
bool Node::Impl::SnapshotForSpace() const {
  if (!(disk_.full || disk_.tight) || now_ < next_space_snapshot_) return false;
  const uint64_t log_bytes = appends_.total_bytes() - log_bytes_at_saved_;
  const auto live = static_cast<uint64_t>(state_->store().sizes().live_bytes);
  return log_bytes >= std::max(kSpaceSnapshotLogBytes, live / 2) || live < saved_bytes_ / 2;
}

// ---- Alarms -------------------------------------------------------------------------------------

void Node::Impl::CallAboutAlarms(Bytes request) {
  next_alarm_ = now_ + kAlarmInterval;
  if (itself_ == nullptr) {
    auto itself = std::make_shared<Credentials>();
    itself->server_itself = true;
    itself_ = std::move(itself);
  }
  UnaryCall call{CallId(kOwnCallBit | kAlarmCallBit | ++last_own_call_), Method::kAlarm,
                 std::move(request), false, itself_};
  if (disk_alarm_) alarm_calls_.insert(call.id.value());
  Take(call);
}

void Node::Impl::SetAlarm(raft::NodeId member, wire::AlarmType type, bool raise) {
  alarms_known_ = false;
  CallAboutAlarms(AlarmCall(raise ? wire::AlarmAction::kActivate : wire::AlarmAction::kDeactivate,
                            member, type));
}

void Node::Impl::HearOfAlarms() {
  for (const node::Reply& reply : effects_->replies) {
    if (alarm_calls_.erase(reply.id.value()) == 0 || reply.id.value() != alarm_question_) continue;
    alarms_known_ = reply.error == nullptr;
  }
}

// What stands in the state is compared with what should: so it does not matter whether a proposal
// gets lost, nor who leads.
void Node::Impl::KeepAlarms() {
  if (now_ < next_alarm_ || !raft_.leader() || applied() < recovered_last_) return;
  const absl::btree_set<apply::Alarm>& raised = state_->raised_alarms();
  const apply::Alarm no_space{options_.id.value(), static_cast<int32_t>(wire::AlarmType::kNoSpace)};
  if (disk_.full && !raised.contains(no_space)) {
    return SetAlarm(options_.id, wire::AlarmType::kNoSpace, /*raise=*/true);
  }
  if (!disk_.full && disk_alarm_) {
    if (raised.contains(no_space)) {
      return SetAlarm(options_.id, wire::AlarmType::kNoSpace, /*raise=*/false);
    }
    // That it does not stand here may be old, and one that this member raised still on its way.
    disk_alarm_ = !alarms_known_ || !alarm_calls_.empty();
    if (disk_alarm_) {
      alarm_question_ = kOwnCallBit | kAlarmCallBit | (last_own_call_ + 1);
      CallAboutAlarms(AlarmCall(wire::AlarmAction::kGet, {}, wire::AlarmType::kNone));
    } else {
      alarms_known_ = false;
    }
  }
  if (promoted_) KeepCorruptAlarms();
}

// A member that a majority finds wrong is refilled, and writes go on meanwhile. Where nobody can
// say who is wrong, of two or if no majority is left that agrees, writes stop as in etcd.
void Node::Impl::KeepCorruptAlarms() {
  const bool is_hopeless = NoMajorityAgrees();
  for (const auto& [member, since] : state_->refills()) {
    const bool is_gone = state_->membership().Find(member) == nullptr;
    if (is_gone) return SetRefill(raft::NodeId(member), /*begins=*/false);
  }
  for (auto& [member, peer] : peer_states_) {
    const apply::Alarm corrupt{member.value(), static_cast<int32_t>(wire::AlarmType::kCorrupt)};
    const bool is_raised = state_->raised_alarms().contains(corrupt);
    const auto refill = state_->refills().find(member.value());
    const bool is_refilled = refill != state_->refills().end();
    if (peer.disputed && is_hopeless && (!is_raised || is_refilled)) {
      peer.alarm_raised_here = true;
      return SetAlarm(member, wire::AlarmType::kCorrupt, /*raise=*/true);
    }
    if (peer.disputed && !is_raised && VotersAgreeing(peer.disputed) >= Majority()) {
      return SetRefill(member, /*begins=*/true);
    }
    // The index at which the refill began is enough: where nobody writes there is no later one.
    if (!peer.disputed && is_refilled && peer.agreed.value() >= refill->second) {
      return SetRefill(member, /*begins=*/false);
    }
    if (!peer.disputed && peer.alarm_raised_here && is_raised && !is_refilled) {
      peer.alarm_raised_here = false;
      return SetAlarm(member, wire::AlarmType::kCorrupt, /*raise=*/false);
    }
  }
}

void Node::Impl::SetRefill(raft::NodeId member, bool begins) {
  next_alarm_ = now_ + kAlarmInterval;
  unawaited_.push_back(apply::EncodeRefill(options_.id.value(), 0, {member.value(), begins}));
  again_ = true;
}

// With more than two voters it may be this member that is wrong: then it hears so before long.
bool Node::Impl::NoMajorityAgrees() const {
  const std::vector<raft::NodeId>& voters = raft_.conf().voters;
  if (Majority() == UINT64_MAX) return false;
  size_t disputed = 0;
  for (const raft::NodeId voter : voters) {
    const auto found = peer_states_.find(voter);
    if (found == peer_states_.end() || !found->second.disputed) continue;
    const Duration patience = voters.size() > 2 ? kHopelessAfter : Duration::zero();
    if (now_ - found->second.disputed_since >= patience) ++disputed;
  }
  return disputed > 0 && voters.size() - disputed < Majority();
}

}  // namespace conclave::node
