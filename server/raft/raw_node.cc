// The way in: construction, dispatch by term and type, ticks; and what the node may ask.
#include "conclave/server/raft/raw_node.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::raft {
namespace {

// Random starts leave room to count up for ever.
constexpr int kRandomStartShift = 2;

Config WithSuspicion(Config config) {
  if (config.suspect_ticks == 0) config.suspect_ticks = config.election_ticks;
  return config;
}

}  // namespace

RawNode::RawNode(const Config& config, RestoredState restored)
    : config_(WithSuspicion(config)),
      prng_(config.seed),
      term_(restored.hard_state.term),
      vote_(restored.hard_state.vote),
      log_({restored.snapshot.index, restored.snapshot.term}, std::move(restored.entries)),
      lost_{restored.lost_index, restored.lost_term},
      confs_(restored.snapshot.index, std::move(restored.snapshot.conf)),
      newest_read_round_(prng_.Next() >> kRandomStartShift),
      first_forward_(prng_.Next() >> kRandomStartShift),
      newest_forward_(first_forward_),
      given_hard_state_(restored.hard_state) {
  CONCLAVE_CHECK(config_.id, "a member needs an id");
  CONCLAVE_CHECK(config_.heartbeat_ticks > 0 && config_.suspect_ticks > config_.heartbeat_ticks &&
                 config_.election_ticks >= config_.suspect_ticks);
  CONCLAVE_CHECK(config_.max_inflight_messages > 0 && config_.max_inflight_bytes > 0);
  for (const Entry& entry : log_.Slice(log_.first_index(), log_.last_index())) {
    if (entry.type == EntryType::kConfChange) confs_.Append(entry);
  }
  // A snapshot that was installed may be of a later term than the last hard state.
  if (restored.snapshot.term > term_) {
    REACHED("raft: a snapshot is of a later term than the hard state");
    term_ = restored.snapshot.term;
    vote_ = {};
  }
  CONCLAVE_CHECK(log_.last().term <= term_, "the log is of a later term than the hard state");
  CONCLAVE_CHECK(!log_is_short() || lost_.term < term_,
                 "a log that was cut, in a term in which it may have been acknowledged");
  log_.CommitTo(restored.hard_state.commit);
  ResetElectionTimer();
}

void RawNode::Send(NodeId to, Message message) {
  messages_.push_back({config_.id, to, term_, std::move(message)});
}

const char* RawNode::Step(Envelope envelope) {
  if (envelope.to != config_.id || envelope.from == config_.id || !envelope.from) {
    ++counters_.messages_wrong_address;
    return nullptr;
  }
  if (envelope.term < term_ && !MUTANT("old-term-accepted")) {
    AnswerOldTerm(envelope);
    return nullptr;
  }
  if (const char* reason = Impossible(envelope)) {
    ++counters_.messages_impossible;
    return reason;
  }
  if (envelope.term > term_ && !AdoptTerm(envelope)) return nullptr;
  std::visit([&](auto& message) { Handle(envelope, message); }, envelope.message);
  return nullptr;
}

// A later term ends whatever role is played here. The exceptions: while a leader is alive nobody is
// elected without its consent (thesis 4.2.3); and a pre-vote is only a question about that term.
bool RawNode::AdoptTerm(const Envelope& envelope) {
  if (const auto* request = std::get_if<VoteRequest>(&envelope.message)) {
    if (!request->leadership_transfer && HearsLeader()) {
      REACHED("raft: a vote is withheld while a leader lives");
      ++counters_.votes_withheld;
      return false;
    }
    if (request->pre_vote) return true;
  }
  if (const auto* response = std::get_if<VoteResponse>(&envelope.message)) {
    if (response->pre_vote && response->granted) return true;
  }
  const bool from_leader = std::holds_alternative<AppendEntries>(envelope.message) ||
                           std::holds_alternative<Heartbeat>(envelope.message);
  BecomeFollower(envelope.term, from_leader ? envelope.from : NodeId());
  return true;
}

// The sender is behind. Two kinds must be told so, for nobody else would tell them: a leader that
// was cut off while others moved on, and one that asks for pre-votes in a term that is over.
// (Pre-vote keeps a cut-off member from raising its term, so it cannot tell the leader by a higher
// term of its own.)
void RawNode::AnswerOldTerm(Envelope& envelope) {
  ++counters_.messages_old_term;
  if (std::holds_alternative<AppendEntries>(envelope.message) ||
      std::holds_alternative<Heartbeat>(envelope.message)) {
    REACHED("raft: an old leader is told of the new term");
    Send(envelope.from, HeartbeatResponse{});
  } else if (const auto* request = std::get_if<VoteRequest>(&envelope.message)) {
    if (request->pre_vote) {
      REACHED("raft: a pre-vote of an old term is answered");
      Send(envelope.from, VoteResponse{.pre_vote = true, .granted = false});
    }
  } else if (auto* refused = std::get_if<ProposalsRefused>(&envelope.message)) {
    REACHED("raft: a refusal of an old term is taken");
    Handle(envelope, *refused);
  }
}

void RawNode::Step(StorageAppended appended) {
  const PendingWrites::Completed completed = writes_.Complete(appended.id);
  log_.StableTo(completed.stable);
  if (auto* leader = std::get_if<Leader>(&role_)) {
    if (Progress* self = leader->tracker.Find(config_.id)) {
      self->SetLocal(log_.stable(), log_.last_index());
    }
    CommitWhatQuorumHas(*leader);
  } else if (auto* candidate = std::get_if<Candidate>(&role_)) {
    // Its own vote counts like those of the others: when it is durable.
    if (!candidate->pre_vote && completed.term == term_) RecordVote(config_.id, true);
  }
}

void RawNode::Tick() {
  if (auto* leader = std::get_if<Leader>(&role_)) {
    TickLeader(*leader);
  } else {
    TickFollower();
  }
}

void RawNode::TickLeader(Leader& leader) {
  if (++leader.heartbeat_elapsed >= config_.heartbeat_ticks) {
    leader.heartbeat_elapsed = 0;
    leader.heartbeat_due = true;
  }
  leader.tracker.TickDepartures();
  if (leader.transferee && ++leader.transfer_elapsed >= config_.election_ticks &&
      !MUTANT("transfer-never-ends")) {
    REACHED("raft: a transfer of the leadership is given up");
    leader.transferee = {};
  }
  if (++election_elapsed_ >= config_.election_ticks) {
    election_elapsed_ = 0;
    if (!leader.tracker.TakeQuorumActive() && !MUTANT("no-check-quorum")) {
      REACHED("raft: a leader without a quorum steps down");
      ++counters_.quorum_lost;
      BecomeFollower(term_, NodeId());
    }
  }
}

void RawNode::TickFollower() {
  if (auto* follower = std::get_if<Follower>(&role_)) follower->reads.Tick(config_.heartbeat_ticks);
  if (++election_elapsed_ < election_timeout_) return;
  if (Promotable()) {
    StartElection(Election::kPreVote);
  } else {
    // A learner, or a member that does not know the cluster yet, only notices that the leader is
    // gone.
    if (leader()) {
      REACHED("raft: who may not stand for election notices that the leader is gone");
      BecomeFollower(term_, NodeId());
    }
    election_elapsed_ = 0;
  }
}

void RawNode::AdvanceElectionTimer(uint32_t ticks) {
  if (is_leader() || election_timeout_ == 0) return;
  const uint64_t elapsed = uint64_t{election_elapsed_} + ticks;
  election_elapsed_ = static_cast<uint32_t>(std::min<uint64_t>(elapsed, election_timeout_ - 1));
}

void RawNode::Campaign() {
  if (!is_leader() && Promotable()) StartElection(Election::kPreVote);
}

void RawNode::Applied(Index index) { log_.ApplyTo(index); }

void RawNode::CompactLog(Index index) {
  CONCLAVE_CHECK(index <= log_.applied(), "compaction of what is not applied");
  log_.CompactTo(index);
  confs_.CompactTo(index);
}

Role RawNode::role() const {
  if (is_leader()) return Role::kLeader;
  const auto* candidate = std::get_if<Candidate>(&role_);
  if (candidate == nullptr) return Role::kFollower;
  return candidate->pre_vote ? Role::kPreCandidate : Role::kCandidate;
}

NodeId RawNode::leader() const {
  if (is_leader()) return config_.id;
  const auto* follower = std::get_if<Follower>(&role_);
  return follower == nullptr ? NodeId() : follower->leader;
}

NodeId RawNode::transferee() const {
  const auto* leader = std::get_if<Leader>(&role_);
  return leader == nullptr ? NodeId() : leader->transferee;
}

bool RawNode::leader_is_current() const { return is_leader() && log_.commit() >= first_own(); }

Index RawNode::first_own() const {
  const auto* leader = std::get_if<Leader>(&role_);
  return leader == nullptr ? Index() : leader->first_own;
}

Status RawNode::status() const {
  Status status;
  status.id = config_.id;
  status.role = role();
  status.leader = leader();
  status.term = term_;
  status.commit = log_.commit();
  status.applied = log_.applied();
  status.stable = log_.stable();
  status.first_index = log_.first_index();
  status.last_index = log_.last_index();
  status.transferee = transferee();
  status.conf = conf();
  status.counters = counters_;
  if (const auto* leader = std::get_if<Leader>(&role_)) {
    for (const auto& [id, progress] : leader->tracker.all()) {
      PeerStatus peer;
      peer.id = id;
      peer.state = id == config_.id ? PeerState::kReplicate : progress.state();
      peer.match = progress.match();
      peer.next = progress.next();
      peer.recent_active = id == config_.id || progress.recent_active;
      peer.is_learner = progress.is_learner;
      peer.inflight_messages = progress.inflights().count();
      peer.inflight_bytes = progress.inflights().bytes();
      status.peers.push_back(peer);
    }
  }
  return status;
}

}  // namespace conclave::raft
