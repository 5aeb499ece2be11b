// Leading: what the leader takes on, what its peers answer, and what follows from a quorum of
// answers.
#include <utility>

#include "absl/status/statusor.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/raft/confchange/changer.h"
#include "conclave/server/raft/raw_node.h"

namespace conclave::raft {
namespace {

uint64_t PayloadBytes(std::span<const Bytes> payloads) {
  uint64_t bytes = 0;
  for (const Bytes& payload : payloads) bytes += payload.size();
  return bytes;
}

}  // namespace

// ---- Wishes of the state machine ----

ProposeStatus RawNode::MayPropose(const Leader& leader, std::span<const Bytes> payloads) const {
  if (leader.transferee) {
    REACHED("raft: a proposal waits for a transfer");
    return ProposeStatus::kTransferring;
  }
  // One batch is always let in, however large: else it could never be.
  if (leader.uncommitted_bytes > 0 &&
      leader.uncommitted_bytes + PayloadBytes(payloads) > config_.max_uncommitted_bytes) {
    return ProposeStatus::kTooManyUncommitted;
  }
  return ProposeStatus::kAccepted;
}

// One change at a time (thesis 4.1), and none before this leader has committed in its own term:
// else two leaders may each append a change that the other does not know of, and their majorities
// need not meet (Ongaro's note on single-server changes, raft-dev, July 2015).
ProposeStatus RawNode::MayChangeConf(const Leader& leader, const ConfChange& change) const {
  if (leader.transferee) return ProposeStatus::kTransferring;
  if ((!leader_is_current() && !MUTANT("conf-change-before-the-first-commit")) ||
      (confs_.entry() > log_.commit() && !MUTANT("two-conf-changes-at-once"))) {
    REACHED("raft: a change of membership waits for another");
    return ProposeStatus::kConfChangePending;
  }
  return ApplyConfChange(conf(), change).ok() ? ProposeStatus::kAccepted
                                              : ProposeStatus::kConfChangeInvalid;
}

ProposeResult RawNode::Propose(std::span<Bytes> payloads) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return {.status = ProposeStatus::kNotLeader};
  const ProposeStatus status = MayPropose(*leader, payloads);
  if (status != ProposeStatus::kAccepted) return {.status = status};
  ProposeResult result{.status = status, .first_index = log_.last_index() + 1, .term = term_};
  for (Bytes& payload : payloads) {
    CONCLAVE_CHECK(!payload.empty(), "an empty command is the leader's own first entry");
    AppendOwn(*leader, EntryType::kCommand, std::move(payload));
  }
  return result;
}

ProposeResult RawNode::ProposeConfChange(const ConfChange& change) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return {.status = ProposeStatus::kNotLeader};
  const ProposeStatus status = MayChangeConf(*leader, change);
  if (status != ProposeStatus::kAccepted) return {.status = status};
  ProposeResult result{.status = status, .first_index = log_.last_index() + 1, .term = term_};
  AppendOwn(*leader, EntryType::kConfChange, EncodeConfChange(change));
  return result;
}

ProposeResult RawNode::Forward(EntryType type, std::span<Bytes> payloads) {
  const auto* follower = std::get_if<Follower>(&role_);
  if (follower == nullptr || !follower->leader) return {.status = ProposeStatus::kNotLeader};
  ForwardedProposals forwarded{.id = ++newest_forward_, .type = type, .payloads = {}};
  forwarded.payloads.assign(std::move_iterator(payloads.begin()),
                            std::move_iterator(payloads.end()));
  Send(follower->leader, std::move(forwarded));
  return {.status = ProposeStatus::kForwarded, .forwarded = newest_forward_};
}

ReadStatus RawNode::ReadIndex(ReadId id) {
  if (auto* leader = std::get_if<Leader>(&role_)) {
    if (leader->reads.local_count() >= config_.max_waiting_reads) return ReadStatus::kTooMany;
    if (!leader_is_current()) {
      REACHED("raft: a read waits for the first commit of the term");
      if (MUTANT("read-dropped-before-the-first-commit")) return ReadStatus::kAccepted;
    }
    leader->reads.Add(id);
    return ReadStatus::kAccepted;
  }
  auto* follower = std::get_if<Follower>(&role_);
  if (follower == nullptr || !follower->leader) return ReadStatus::kNoLeader;
  if (follower->reads.count() >= config_.max_waiting_reads) return ReadStatus::kTooMany;
  follower->reads.Add(id);
  return ReadStatus::kAccepted;
}

TransferStatus RawNode::TransferLeader(NodeId target) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return TransferStatus::kNotLeader;
  if (target == config_.id) return TransferStatus::kAlreadyLeader;
  if (!confs_.IsVoter(target)) return TransferStatus::kNotVoter;
  leader->transferee = target;
  leader->transfer_elapsed = 0;
  leader->replicate = true;
  HandOver(*leader);
  return TransferStatus::kStarted;
}

// Once the transferee has everything, it need not wait for its election timer (thesis 3.10). Until
// then replication goes on, and each acknowledgement comes back here.
void RawNode::HandOver(Leader& leader) {
  const Progress* progress = leader.tracker.Find(leader.transferee);
  if (progress != nullptr && progress->match() == log_.last_index()) {
    Send(leader.transferee, TimeoutNow{});
  }
}

void RawNode::AppendOwn(Leader& leader, EntryType type, Bytes payload) {
  const Index index = log_.last_index() + 1;
  leader.uncommitted_bytes += payload.size();
  leader.replicate = true;
  log_.Append({.term = term_, .index = index, .type = type, .payload = std::move(payload)});
  if (type != EntryType::kConfChange) return;

  confs_.Append(log_.At(index));
  leader.tracker.SetConf(conf(), index, index);
  if (Progress* self = leader.tracker.Find(config_.id)) {
    self->SetLocal(log_.stable(), log_.last_index());
  }
  if (!confs_.IsVoter(leader.transferee)) {
    if (leader.transferee) REACHED("raft: the next leader loses its vote");
    leader.transferee = {};
  }
  // The new quorum may be smaller, and have what the old one waited for.
  CommitWhatQuorumHas(leader);
  ConfirmReads(leader);
}

// ---- Answers of peers ----

Progress* RawNode::HeardFrom(NodeId peer) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) {
    ++counters_.messages_unexpected;
    return nullptr;
  }
  Progress* progress = leader->tracker.Find(peer);
  if (progress == nullptr) {
    REACHED("raft: an answer of somebody who is no peer");
    ++counters_.messages_unknown_peer;
    return nullptr;
  }
  progress->recent_active = true;
  return progress;
}

void RawNode::Handle(const Envelope& envelope, AppendResponse& response) {
  Progress* progress = HeardFrom(envelope.from);
  if (progress == nullptr) return;
  Leader& leader = std::get<Leader>(role_);
  leader.replicate = true;
  if (!response.rejected) {
    HandleAccepted(leader, envelope.from, *progress, response.index);
    return;
  }
  const RaftLog::Position agreement =
      log_.LargestAgreement({response.hint_index, response.hint_term});
  (void)progress->Reject(response.index, agreement.index);
}

void RawNode::HandleAccepted(Leader& leader, NodeId peer, Progress& progress, Index index) {
  CONCLAVE_CHECK(index <= log_.last_index(), "member ", peer.value(), " acknowledges ",
                 index.value(), ", the leader's last entry is ", log_.last_index().value());
  const bool is_news = progress.Acknowledge(index);
  switch (progress.state()) {
    case PeerState::kProbe:
      if (is_news || index == progress.match()) progress.BecomeReplicate();
      break;
    case PeerState::kSnapshot:
      // However it came by it: its log now meets what is left of this one.
      if (progress.match() >= log_.base_index()) {
        REACHED("raft: a peer needs its snapshot no more");
        progress.BecomeReplicate();
      }
      break;
    case PeerState::kReplicate:
      break;
  }
  if (is_news) CommitWhatQuorumHas(leader);
  if (leader.transferee == peer) HandOver(leader);
}

void RawNode::Handle(const Envelope& envelope, HeartbeatResponse& response) {
  Progress* progress = HeardFrom(envelope.from);
  if (progress == nullptr) return;
  Leader& leader = std::get<Leader>(role_);
  if (!MUTANT("probe-never-resumed")) progress->Resume();
  if (progress->match() < log_.last_index()) leader.replicate = true;
  if (response.round > progress->acked_round) {
    CONCLAVE_CHECK(response.round <= leader.reads.newest(), "an answer to no round");
    progress->acked_round = response.round;
    ConfirmReads(leader);
  }
}

void RawNode::Handle(const Envelope& envelope, ReadRequest& request) {
  if (HeardFrom(envelope.from) == nullptr) return;
  std::get<Leader>(role_).reads.AddPeer({envelope.from, request.round});
}

bool ForwardsSeen::Add(ProposalId id) {
  for (ProposalId& newest : newest_of_life_) {
    const uint64_t distance = id > newest ? id - newest : newest - id;
    if (distance >= kOneLife) continue;
    if (id <= newest && !MUTANT("forwarded-proposals-taken-twice")) {
      REACHED("raft: forwarded proposals come twice");
      return false;
    }
    newest = id;
    return true;
  }
  if (!newest_of_life_.empty()) REACHED("raft: a peer forwards in its next life");
  if (newest_of_life_.size() >= kMaxLives) return false;
  newest_of_life_.push_back(id);
  return true;
}

// A batch counts only in the term that it was sent in (AnswerOldTerm ignores it later), and once.
// It must neither take effect twice, nor be called refused after it was accepted.
void RawNode::Handle(const Envelope& envelope, ForwardedProposals& forwarded) {
  if (HeardFrom(envelope.from) == nullptr) return;
  if (!std::get<Leader>(role_).forwards_seen[envelope.from].Add(forwarded.id)) {
    ++counters_.messages_unexpected;
    return;
  }
  ProposeStatus status = ProposeStatus::kConfChangeInvalid;
  if (forwarded.type == EntryType::kCommand) {
    status = Propose(forwarded.payloads).status;
  } else if (forwarded.payloads.size() == 1) {
    const std::optional<ConfChange> change = DecodeConfChange(forwarded.payloads.front());
    if (change.has_value()) status = ProposeConfChange(*change).status;
  }
  if (status != ProposeStatus::kAccepted) {
    REACHED("raft: a leader refuses what was forwarded");
    Send(envelope.from, ProposalsRefused{.id = forwarded.id, .reason = status});
  }
}

void RawNode::SnapshotStatus(NodeId peer, std::optional<Index> index) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  Progress* progress = leader->tracker.Find(peer);
  if (progress == nullptr || progress->state() != PeerState::kSnapshot) return;
  progress->BecomeProbe(index.has_value() ? *index + 1 : progress->match() + 1);
  if (!index.has_value()) REACHED("raft: a snapshot was not delivered");
  // A failed one is not repeated before the peer shows that it lives; after a good one, its own
  // acknowledgement is on the way.
  progress->Pause();
  leader->replicate = true;
}

void RawNode::ReportUnreachable(NodeId peer) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  Progress* progress = leader->tracker.Find(peer);
  if (progress == nullptr || progress->state() != PeerState::kReplicate) return;
  REACHED("raft: a peer cannot be reached");
  progress->BecomeProbe(progress->match() + 1);
  progress->Pause();
}

// ---- What follows from a quorum ----

// Only entries of the leader's own term are committed by counting; earlier ones come along with
// them (thesis 3.6.2, figure 3.7): an entry of an earlier term may be on a quorum and still be
// replaced.
void RawNode::CommitWhatQuorumHas(Leader& leader) {
  const Index index = leader.tracker.CommittedIndex();
  if (index <= log_.commit()) return;
  if (log_.TermAt(index) != term_ && !MUTANT("entries-of-old-terms-committed-by-counting")) {
    REACHED("raft: a quorum has entries of an earlier term only");
    return;
  }
  log_.CommitTo(index);
  leader.replicate = true;
  if (!confs_.IsVoter(config_.id) && confs_.entry() <= log_.commit()) {
    REACHED("raft: a leader that was removed abdicates");
    leader.abdicate = true;
  }
  LeaveJointIfDue(leader);
}

// The joint configuration has served when it is committed. Whoever leads then ends it; the entry of
// the end is the latest change from that moment on, so it is not proposed twice.
void RawNode::LeaveJointIfDue(Leader& leader) {
  if (!conf().auto_leave || !leader_is_current() || confs_.entry() > log_.commit()) return;
  ConfChange leave;
  leave.kind = ConfChangeKind::kLeaveJoint;
  AppendOwn(leader, EntryType::kConfChange, EncodeConfChange(leave));
}

void RawNode::ConfirmReads(Leader& leader) {
  if (!leader.reads.newest()) return;
  LeaderReads::Confirmed confirmed;
  const ReadRound acknowledged = leader.tracker.AcknowledgedRound(leader.reads.newest());
  leader.reads.Confirm(MUTANT("read-without-a-quorum") ? leader.reads.newest() : acknowledged,
                       &confirmed);
  reads_.insert(reads_.end(), confirmed.local.begin(), confirmed.local.end());
  for (const auto& [read, index] : confirmed.peers) {
    Send(read.peer, ReadResponse{.round = read.round, .index = index});
  }
}

}  // namespace conclave::raft
