// Following: appends and heartbeats of the leader, snapshots, and answers to what was asked of the
// leader.
#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/raft/raw_node.h"

namespace conclave::raft {

// The sender is the leader of this term.
void RawNode::Follow(NodeId leader) {
  CONCLAVE_CHECK(!is_leader(), "two leaders in term ", term_.value(), ": ", config_.id.value(),
                 " and ", leader.value());
  const auto* follower = std::get_if<Follower>(&role_);
  if (follower == nullptr || !follower->leader) {
    BecomeFollower(term_, leader);
    return;
  }
  CONCLAVE_CHECK(follower->leader == leader, "two leaders in term ", term_.value(), ": ",
                 follower->leader.value(), " and ", leader.value());
  election_elapsed_ = 0;
}

void RawNode::Handle(const Envelope& envelope, AppendEntries& append) {
  Follow(envelope.from);
  // Committed entries are equal everywhere; an append that starts below them is an old one, or the
  // leader does not know yet how far this member is.
  if (append.prev_index < log_.commit()) {
    REACHED("raft: an append starts below the commit index");
    Acknowledge(envelope.from, log_.commit());
    return;
  }
  if (!log_.Contains({append.prev_index, append.prev_term})) {
    REACHED("raft: an append is rejected");
    const RaftLog::Position hint = log_.LargestAgreement({append.prev_index, append.prev_term});
    Send(envelope.from, AppendResponse{.rejected = true,
                                       .index = append.prev_index,
                                       .hint_index = hint.index,
                                       .hint_term = hint.term});
    return;
  }
  const Index last_new = append.prev_index + append.entries.size();
  AppendFromLeader(append.entries, append.prev_index);
  // Beyond last_new the log may still hold entries of an earlier leader.
  const Index known = MUTANT("commit-beyond-the-append") ? log_.last_index() : last_new;
  log_.CommitTo(std::min(append.commit, known));
  Acknowledge(envelope.from, last_new);
}

// Entries that are here already stay: the message may be an old one, and what came after it must
// not go. Only an entry of another term at the same index replaces the tail (thesis 3.5).
void RawNode::AppendFromLeader(std::vector<Entry>& entries, Index prev) {
  for (Entry& entry : entries) {
    ++prev;
    CONCLAVE_CHECK(entry.index == prev, "a gap in an append at ", prev.value());
    if (entry.index <= log_.last_index()) {
      if (*log_.TermAt(entry.index) == entry.term && !MUTANT("append-truncates-always")) continue;
      REACHED("raft: the tail of the log is replaced");
      TruncateFrom(entry.index);
    }
    const bool is_conf_change = entry.type == EntryType::kConfChange;
    log_.Append(std::move(entry));
    if (is_conf_change) confs_.Append(log_.At(prev));
  }
}

void RawNode::TruncateFrom(Index index) {
  log_.TruncateFrom(index);
  writes_.TruncateFrom(index);
  confs_.TruncateFrom(index);
}

// Says that all up to `index` is durable here, as soon as it is. Several appends of one turn are
// answered by one response.
void RawNode::Acknowledge(NodeId leader, Index index) {
  if (!messages_when_durable_.empty()) {
    Envelope& newest = messages_when_durable_.back();
    auto* response = std::get_if<AppendResponse>(&newest.message);
    if (response != nullptr && newest.to == leader && newest.term == term_) {
      response->index = std::max(response->index, index);
      return;
    }
  }
  std::vector<Envelope>& out =
      MUTANT("append-acknowledged-before-it-is-durable") ? messages_ : messages_when_durable_;
  out.push_back({config_.id, leader, term_, AppendResponse{.rejected = false, .index = index}});
}

// The response does not wait for the disk. It says "no newer term was here", which looks back: for
// a newer leader to have committed anything before the round was opened, a quorum must have had
// that term *durable* before, and one of them would be asked now and know.
void RawNode::Handle(const Envelope& envelope, Heartbeat& heartbeat) {
  Follow(envelope.from);
  log_.CommitTo(heartbeat.commit);
  Send(envelope.from, HeartbeatResponse{heartbeat.round});
}

void RawNode::Handle(const Envelope& envelope, ReadResponse& response) {
  auto* follower = std::get_if<Follower>(&role_);
  if (follower == nullptr || follower->leader != envelope.from) {
    ++counters_.messages_unexpected;
    return;
  }
  follower->reads.Answer(response.round, response.index, &reads_);
}

void RawNode::Handle(const Envelope&, ProposalsRefused& refused) {
  if (refused.id <= first_forward_ || refused.id > newest_forward_) {
    REACHED("raft: a refusal of what an earlier life has forwarded");
    ++counters_.messages_unexpected;
    return;
  }
  REACHED("raft: forwarded proposals are refused");
  dropped_proposals_.push_back({refused.id, refused.reason});
}

bool RawNode::CanInstallSnapshot(const SnapshotMeta& snapshot) const {
  return !is_leader() && (snapshot.index > log_.commit() || MUTANT("old-snapshot-installed")) &&
         !log_.Contains({snapshot.index, snapshot.term}) && IsPossible(snapshot);
}

bool RawNode::HasAllOf(const SnapshotMeta& snapshot) const {
  return snapshot.index <= log_.commit() || log_.Contains({snapshot.index, snapshot.term});
}

// A log that has the snapshot's entry needs no snapshot: all up to there is committed, and applied
// from the log. Any other log parts from the committed one at or before the snapshot, so nothing
// beyond the snapshot in it can ever be committed, acknowledged or not: it is void, and the log
// starts anew.
bool RawNode::InstallSnapshot(const SnapshotMeta& snapshot) {
  if (is_leader()) return false;
  // Who asks for votes has named the end of a log; if it is another now, the question is void.
  if (snapshot.term > term_ || std::holds_alternative<Candidate>(role_)) {
    REACHED("raft: a snapshot ends a candidacy, or a term");
    BecomeFollower(std::max(snapshot.term, term_), NodeId());
  }
  const RaftLog::Position position{snapshot.index, snapshot.term};
  const bool install = CanInstallSnapshot(snapshot);
  if (install) {
    reset_ = position;
    log_.ResetTo(position);
    writes_.TruncateFrom(snapshot.index + 1);
    confs_.ResetTo(snapshot.index, snapshot.conf);
  } else if (log_.Contains(position)) {
    REACHED("raft: the log was faster than the snapshot");
    log_.CommitTo(snapshot.index);
  }
  if (leader()) Acknowledge(leader(), log_.commit());
  return install;
}

}  // namespace conclave::raft
