// The way out: TakeReady turns all that the inputs of a turn have changed into one Ready.
#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/raft/raw_node.h"

namespace conclave::raft {

Ready RawNode::TakeReady() {
  Ready ready;
  if (auto* leader = std::get_if<Leader>(&role_)) {
    Replicate(*leader, &ready);
    if (leader->abdicate) Abdicate(*leader);
  }
  if (auto* follower = std::get_if<Follower>(&role_)) AskForReads(*follower);
  TakeAppend(&ready);
  TakeCommitted(&ready);
  const SoftState soft_state{role(), leader()};
  if (soft_state != given_soft_state_) ready.soft_state = given_soft_state_ = soft_state;
  ready.messages.swap(messages_);
  ready.reads.swap(reads_);
  ready.failed_reads.swap(failed_reads_);
  ready.dropped_proposals.swap(dropped_proposals_);
  return ready;
}

bool RawNode::HasReady() const {
  if (!messages_.empty() || !messages_when_durable_.empty() || !reads_.empty() ||
      !failed_reads_.empty() || !dropped_proposals_.empty() || reset_.has_value()) {
    return true;
  }
  if (log_.last_index() > log_.written() || log_.handed_out() < Deliverable()) return true;
  if (term_ != given_hard_state_.term || vote_ != given_hard_state_.vote) return true;
  if (given_soft_state_ != SoftState{role(), leader()}) return true;
  if (const auto* follower = std::get_if<Follower>(&role_)) {
    return follower->leader && follower->reads.WantsRound();
  }
  return is_leader() && LeaderHasNews();
}

bool RawNode::LeaderHasNews() const {
  const Leader& leader = std::get<Leader>(role_);
  return leader.replicate || leader.heartbeat_due || leader.abdicate ||
         (leader.reads.WantsRound() &&
          (leader_is_current() || MUTANT("read-before-the-first-commit")));
}

// Once per turn: everything that has gathered goes to each peer, and one round serves all waiting
// reads.
void RawNode::Replicate(Leader& leader, Ready* ready) {
  if (!LeaderHasNews()) return;
  const bool round_opened =
      leader.reads.WantsRound() && (leader_is_current() || MUTANT("read-before-the-first-commit"));
  if (round_opened) {
    leader.reads.OpenRound(log_.commit());
    ConfirmReads(leader);  // a single voter is its own quorum
  }
  for (auto& [peer, progress] : leader.tracker.all()) {
    if (peer == config_.id) continue;
    SendEntries(peer, progress, ready);
    if (leader.heartbeat_due && progress.StalledSinceLastCheck()) AskAgain(peer, progress, ready);
    const bool commit_is_news = std::min(progress.match(), log_.commit()) > progress.sent_commit;
    if (leader.heartbeat_due || commit_is_news || (round_opened && !progress.is_learner)) {
      SendHeartbeat(leader, peer, progress);
    }
  }
  leader.replicate = false;
  leader.heartbeat_due = false;
  leader.tracker.DropDeparted();
}

// What is in flight may be lost. An empty append right behind it: the follower rejects it if
// something is missing. If the log no longer reaches back to there, whatever was lost cannot be
// sent again either.
void RawNode::AskAgain(NodeId peer, Progress& progress, Ready* ready) {
  REACHED("raft: a peer that has stalled is asked again");
  if (const std::optional<Term> prev_term = log_.TermAt(progress.next() - 1)) {
    SendAppend(peer, progress, *prev_term, {});
  } else {
    REACHED("raft: what is in flight has left the log");
    progress.BecomeProbe(progress.match() + 1);
    SendEntries(peer, progress, ready);
  }
}

void RawNode::SendEntries(NodeId peer, Progress& progress, Ready* ready) {
  while (!progress.Paused()) {
    const bool nothing_new = progress.next() > log_.last_index();
    if (nothing_new && progress.state() == PeerState::kReplicate) return;
    const std::optional<Term> prev_term = log_.TermAt(progress.next() - 1);
    if (!prev_term.has_value()) {
      // Not for a peer that may be dead, nor for one that leaves.
      if (!progress.recent_active || progress.departure.has_value()) return;
      if (MUTANT("no-snapshot-for-who-lags")) return;
      REACHED("raft: a peer needs a snapshot");
      progress.BecomeSnapshot();
      ready->snapshots_needed.push_back(peer);
      return;
    }
    // As some do; who commits what the append does not cover is wrong then.
    if (MUTANT("commit-beyond-the-append") && progress.state() == PeerState::kProbe) {
      SendAppend(peer, progress, *prev_term, {});
      continue;
    }
    SendAppend(peer, progress, *prev_term,
               log_.Limited(progress.next(), log_.last_index(), config_.max_append_bytes));
  }
}

void RawNode::SendAppend(NodeId peer, Progress& progress, Term prev_term,
                         RaftLog::Portion portion) {
  const Index prev = progress.next() - 1;
  const Index last = prev + portion.entries.size();
  AppendEntries append{
      .prev_index = prev, .prev_term = prev_term, .commit = log_.commit(), .entries = {}};
  append.entries.assign(portion.entries.begin(), portion.entries.end());
  Send(peer, std::move(append));
  progress.sent_commit = std::max(progress.sent_commit, std::min(log_.commit(), last));
  progress.Sent(last, portion.bytes);
}

void RawNode::SendHeartbeat(const Leader& leader, NodeId peer, Progress& progress) {
  const Index commit = MUTANT("heartbeat-commits-beyond-match")
                           ? log_.commit()
                           : std::min(progress.match(), log_.commit());
  progress.sent_commit = std::max(progress.sent_commit, commit);
  Send(peer, Heartbeat{.commit = commit, .round = leader.reads.newest()});
}

// The leader was removed, and its removal is committed: its work is done. The most advanced voter
// takes over at once, so that nobody waits for an election timeout.
void RawNode::Abdicate(Leader& leader) {
  NodeId heir;
  Index heir_match;
  leader.tracker.quorum().ForEach([&](NodeId id) {
    const Progress& progress = *leader.tracker.Find(id);
    if (progress.recent_active && (!heir || progress.match() > heir_match)) {
      heir = id;
      heir_match = progress.match();
    }
  });
  if (heir) {
    REACHED("raft: a leader that was removed names its heir");
    Send(heir, TimeoutNow{});
  }
  BecomeFollower(term_, NodeId());
}

void RawNode::AskForReads(Follower& follower) {
  if (!follower.leader || !follower.reads.WantsRound()) return;
  ++newest_read_round_;
  follower.reads.Ask(newest_read_round_);
  Send(follower.leader, ReadRequest{newest_read_round_});
}

// What goes to the disk. The commit index goes along with other writes and is never written for its
// own sake: it is only a lower bound, and what was committed is found out again. It is given no
// further than the stable log, so that whatever is read back has the entries to it.
void RawNode::TakeAppend(Ready* ready) {
  const bool has_entries = log_.last_index() > log_.written();
  const bool votes_changed = term_ != given_hard_state_.term ||
                             (vote_ != given_hard_state_.vote && !MUTANT("vote-not-written"));
  const bool writes = votes_changed || has_entries || reset_.has_value();
  if (!writes && messages_when_durable_.empty()) return;
  if (!writes && writes_.empty()) {
    REACHED("raft: messages speak of what is durable already");
    std::move(messages_when_durable_.begin(), messages_when_durable_.end(),
              std::back_inserter(messages_));
    messages_when_durable_.clear();
    return;
  }
  AppendRequest& append = ready->append.emplace();
  const HardState hard_state{term_, vote_, std::min(log_.commit(), log_.stable())};
  if (writes && hard_state != given_hard_state_) append.hard_state = given_hard_state_ = hard_state;
  const std::span<const Entry> entries = log_.Slice(log_.written() + 1, log_.last_index());
  if (reset_.has_value()) {
    REACHED("raft: the log starts anew behind a snapshot");
    append.entries.push_back({.term = reset_->term, .index = reset_->index});
    reset_.reset();
  }
  append.entries.insert(append.entries.end(), entries.begin(), entries.end());
  append.messages.swap(messages_when_durable_);
  log_.WriteTo(log_.last_index());
  append.id = writes_.Begin(log_.last_index(), term_);
}

// See the class comment for the rule and its reason.
Index RawNode::Deliverable() const {
  return is_leader() ? log_.commit() : std::min(log_.commit(), log_.stable());
}

void RawNode::TakeCommitted(Ready* ready) {
  const Index deliverable = Deliverable();
  if (log_.handed_out() >= deliverable) return;
  if (MUTANT("single-member-applies-before-it-is-durable") && is_leader() &&
      conf().voters.size() == 1) {
    log_.CommitTo(log_.last_index());
  }
  const RaftLog::Portion portion =
      log_.Limited(log_.handed_out() + 1, deliverable,
                   MUTANT("committed-entries-skipped") ? 1 : config_.max_committed_bytes);
  ready->committed.assign(portion.entries.begin(), portion.entries.end());
  log_.HandOutTo(MUTANT("committed-entries-skipped") ? deliverable : ready->committed.back().index);
  if (auto* leader = std::get_if<Leader>(&role_)) {
    CONCLAVE_CHECK(leader->uncommitted_bytes >= portion.bytes);
    leader->uncommitted_bytes -= portion.bytes;
  }
}

}  // namespace conclave::raft
