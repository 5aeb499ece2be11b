// Who leads: elections, votes, and the changes of role.
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/raft/raw_node.h"

namespace conclave::raft {

// Sticky votes: as long as it does not suspect its leader itself, this member takes part in no
// election. A leader always hears itself; it steps down by its own check of the quorum.
bool RawNode::HearsLeader() const {
  return leader() && (is_leader() || election_elapsed_ < config_.suspect_ticks);
}

// A voter by its own log may stand for election. So may one whose removal is in its log but not
// known to be committed: its log may be the only one that can win (thesis 4.2.2). It does not count
// its own vote.
//
//     member  log              configuration
//       1     .. 7  8(-1)      (2)      removed itself, then lost the leadership before 8 was
//       anywhere else 2     .. 7             (1 2)    needs the vote of 1, which has the longer log
//       and gives it to none
//
// One whose log is short of what it once was may not: what it has acknowledged may be missing.
bool RawNode::Promotable() const {
  return !log_is_short() && confs_.IsVoterSince(log_.commit(), config_.id);
}

void RawNode::ResetElectionTimer() {
  election_elapsed_ = 0;
  election_timeout_ = static_cast<uint32_t>(
      prng_.Between(config_.suspect_ticks, 2 * int64_t{config_.suspect_ticks} - 1));
}

// A pre-vote asks for the next term without entering it, and may be asked at once. A real election
// enters the term and votes for itself; both must be durable before anybody hears of it, so the
// requests are held.
void RawNode::StartElection(Election kind) {
  CONCLAVE_CHECK(!is_leader() && Promotable());
  FailReads();
  const bool pre_vote = kind == Election::kPreVote;
  if (!pre_vote) {
    ++term_;
    vote_ = config_.id;
    ++counters_.elections_started;
  }
  role_ = Candidate{
      .pre_vote = pre_vote, .leadership_transfer = kind == Election::kTransfer, .votes = {}};
  ResetElectionTimer();

  const RaftLog::Position last = log_.last();
  const VoteRequest request{.pre_vote = pre_vote,
                            .leadership_transfer = kind == Election::kTransfer,
                            .last_index = last.index,
                            .last_term = last.term};
  const bool held = !pre_vote && !MUTANT("own-vote-before-it-is-durable");
  std::vector<Envelope>& out = held ? messages_when_durable_ : messages_;
  const Term asked_term = pre_vote ? term_ + 1 : term_;
  confs_.quorum().ForEach([&](NodeId id) {
    if (id != config_.id) out.push_back({config_.id, id, asked_term, request});
  });
  if (!held) RecordVote(config_.id, true);
}

// The vote itself follows thesis 3.4 and 3.6.1: one vote per term, and only for a log that is at
// least as up-to-date. Nobody asks whether this member is a voter by its own configuration: it may
// be behind, and the candidate counts only those who are voters by the candidate's (thesis 4.1).
//
// A member that lost a part of its log still knows where it had ended (or a bound of that), and
// that is what the candidate's is compared with: it votes as it would have with all of it. So for
// others it is a member that is slow, and every entry that it has acknowledged stays protected.
void RawNode::Handle(const Envelope& envelope, VoteRequest& request) {
  const bool free_to_vote = vote_ == envelope.from || (!vote_ && !leader()) ||
                            (request.pre_vote && envelope.term > term_);
  const RaftLog::Position asked{request.last_index, request.last_term};
  const bool up_to_date = log_.IsUpToDate(asked) && RaftLog::IsUpToDate(asked, lost_);
  bool granted =
      (free_to_vote || MUTANT("vote-twice")) && (up_to_date || MUTANT("vote-for-a-shorter-log"));
  if (MUTANT("learner-refuses-its-vote")) granted &= confs_.IsVoter(config_.id);
  if (free_to_vote && !granted) REACHED("raft: a vote is refused to a shorter log");
  if (!free_to_vote) REACHED("raft: a vote is refused, for another has it");
  VoteResponse response{.pre_vote = request.pre_vote, .granted = granted};
  if (request.pre_vote) {
    const Term term = granted ? envelope.term : term_;
    messages_.push_back({config_.id, envelope.from, term, response});
    return;
  }
  if (!granted) {
    Send(envelope.from, response);
    return;
  }
  // Who has given a vote away no longer asks for any of its own in this term.
  const auto* candidate = std::get_if<Candidate>(&role_);
  if (candidate != nullptr && candidate->pre_vote) {
    REACHED("raft: a pre-candidate gives its vote away");
    BecomeFollower(term_, NodeId());
  }
  vote_ = envelope.from;
  election_elapsed_ = 0;
  if (MUTANT("vote-before-it-is-durable")) return Send(envelope.from, response);
  messages_when_durable_.push_back({config_.id, envelope.from, term_, response});
}

void RawNode::Handle(const Envelope& envelope, VoteResponse& response) {
  const auto* candidate = std::get_if<Candidate>(&role_);
  if (candidate == nullptr || candidate->pre_vote != response.pre_vote) {
    ++counters_.messages_unexpected;
    return;
  }
  const Term expected = response.pre_vote && response.granted ? term_ + 1 : term_;
  if (envelope.term != expected) {
    REACHED("raft: a vote of another term");
    ++counters_.messages_unexpected;
    return;
  }
  RecordVote(envelope.from, response.granted);
}

void RawNode::RecordVote(NodeId voter, bool granted) {
  Candidate& candidate = std::get<Candidate>(role_);
  if (!candidate.VoteOf(voter).has_value()) candidate.votes.emplace_back(voter, granted);
  switch (confs_.quorum().Result([&](NodeId id) { return candidate.VoteOf(id); })) {
    case VoteResult::kPending:
      return;
    case VoteResult::kLost:
      REACHED("raft: an election is lost");
      BecomeFollower(term_, NodeId());
      return;
    case VoteResult::kWon:
      if (candidate.pre_vote) {
        StartElection(Election::kReal);
      } else {
        BecomeLeader();
      }
      return;
  }
}

void RawNode::Handle(const Envelope&, TimeoutNow&) {
  if (is_leader() || !Promotable()) {
    REACHED("raft: who may not lead is asked to");
    ++counters_.messages_unexpected;
    return;
  }
  REACHED("raft: an election for a transfer");
  StartElection(Election::kTransfer);
}

void RawNode::BecomeFollower(Term term, NodeId leader) {
  CONCLAVE_CHECK(term >= term_);
  FailReads();
  if (term > term_) {
    term_ = term;
    vote_ = {};
  }
  if (leader && leader != last_leader_) {
    last_leader_ = leader;
    ++counters_.leader_changes;
  }
  role_ = Follower{.leader = leader, .reads = {}};
  ResetElectionTimer();
}

// The empty entry (thesis 3.6.2 and 6.4): earlier terms' entries are committed through it, and
// reads wait for it, because only then this leader knows everything that was ever committed.
void RawNode::BecomeLeader() {
  CONCLAVE_CHECK(vote_ == config_.id && Promotable());
  if (last_leader_ != config_.id) {
    last_leader_ = config_.id;
    ++counters_.leader_changes;
  }
  const ProgressTracker::Limits limits{.max_inflight_messages = config_.max_inflight_messages,
                                       .max_inflight_bytes = config_.max_inflight_bytes,
                                       .departure_ticks = 2 * config_.election_ticks};
  role_ = Leader{.tracker = ProgressTracker(config_.id, limits), .reads = {}};
  Leader& leader = std::get<Leader>(role_);
  leader.tracker.SetConf(conf(), confs_.entry(), log_.last_index() + 1);
  for (const Entry& entry : log_.Slice(log_.handed_out() + 1, log_.last_index())) {
    leader.uncommitted_bytes += entry.payload.size();
  }
  leader.first_own = log_.last_index() + 1;
  ResetElectionTimer();
  AppendOwn(leader, EntryType::kCommand, Bytes());
}

void RawNode::FailReads() {
  if (auto* follower = std::get_if<Follower>(&role_)) follower->reads.TakeAll(&failed_reads_);
  if (auto* leader = std::get_if<Leader>(&role_)) leader->reads.TakeLocal(&failed_reads_);
}

}  // namespace conclave::raft
