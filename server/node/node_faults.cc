// What a member does when its disk is full, and when its state is not that of the others.
//
//   state      members tell each other digests of their states (Beacon) and keep what has come of
//              the comparisons. A member whose state differs from one that a majority agrees on
//              takes no further part: it writes its state down as evidence, asks to be started
//              again without it (Effects::diverged), and gets the others' by a snapshot. The leader
//              holds the CORRUPT alarm up for it until its state has been found equal again.
//   full disk  writes that add something are refused and the NOSPACE alarm is raised, until the
//              disk has room again. A snapshot is tried meanwhile, for what it lets go.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/requests.h"
#include "conclave/base/check.h"
#include "conclave/server/apply/quota.h"
#include "conclave/server/node/node_impl.h"
#include "conclave/server/node/own_call.h"

namespace conclave::node {
namespace {

// An alarm that does not come through is asked for again.
constexpr Duration kAlarmInterval = std::chrono::seconds(1);
constexpr uint64_t kAlarmCallBit = uint64_t{1} << 62;
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
  peer.was_disputed = true;
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
  snapshot_meta_ = MetaOfState();
  snapshot_ = std::make_unique<apply::SnapshotTask>(state_.get());
  snapshot_begun_ = false;
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
      evidence_saved_ = evidence_saved_ || (*saved)->meta == snapshot_meta_;
    } else if (std::holds_alternative<StopRequest>(input)) {
      effects_->stopped = true;
    }
  }
  SaveEvidence();
  if (evidence_saved_ || now_ >= evidence_until_) {
    effects_->diverged = true;
    evidence_until_ = kNever;
  }
}

void Node::Impl::SaveEvidence() {
  for (int i = 0; snapshot_ != nullptr && i < kEvidencePiecesPerTurn; ++i) {
    Bytes piece = snapshot_->Next(kEvidencePieceBytes);
    const bool last = piece.empty();
    effects_->snapshot_pieces.push_back({.meta = snapshot_meta_,
                                         .data = std::move(piece),
                                         .first = !snapshot_begun_,
                                         .last = last});
    snapshot_begun_ = true;
    if (last) snapshot_.reset();
  }
  again_ = snapshot_ != nullptr;
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

void Node::Impl::SetAlarm(raft::NodeId member, wire::AlarmType type, bool raise) {
  next_alarm_ = now_ + kAlarmInterval;
  if (itself_ == nullptr) {
    auto itself = std::make_shared<Credentials>();
    itself->server_itself = true;
    itself_ = std::move(itself);
  }
  UnaryCall call{CallId(kOwnCallBit | kAlarmCallBit | ++last_own_call_), Method::kAlarm,
                 AlarmCall(raise ? wire::AlarmAction::kActivate : wire::AlarmAction::kDeactivate,
                           member, type),
                 false, itself_};
  Take(call);
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
    disk_alarm_ = raised.contains(no_space);
    if (disk_alarm_) return SetAlarm(options_.id, wire::AlarmType::kNoSpace, /*raise=*/false);
  }
  if (!promoted_) return;
  for (auto& [member, peer] : peer_states_) {
    const apply::Alarm corrupt{member.value(), static_cast<int32_t>(wire::AlarmType::kCorrupt)};
    // Of two, nobody can say which one is wrong.
    const bool is_wrong = peer.disputed && (VotersAgreeing(peer.disputed) >= Majority() ||
                                            raft_.conf().voters.size() <= 2);
    if (is_wrong && !raised.contains(corrupt)) {
      return SetAlarm(member, wire::AlarmType::kCorrupt, /*raise=*/true);
    }
    if (!peer.disputed && peer.was_disputed && raised.contains(corrupt)) {
      return SetAlarm(member, wire::AlarmType::kCorrupt, /*raise=*/false);
    }
  }
}

}  // namespace conclave::node
