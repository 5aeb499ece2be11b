// One test per sentence of the Raft paper (Ongaro and Ousterhout, "In Search of an Understandable
// Consensus Algorithm", extended version). One member stands alone among messages that the test
// writes.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/raft/raw_node.h"
#include "conclave/tests/raft/describe.h"

namespace conclave::raft::test {
namespace {

constexpr uint32_t kElectionTicks = 10;

// A member 1 of `voters` whose log has entries of the given terms, from index 1 on.
class Alone {
 public:
  explicit Alone(uint64_t voters, std::vector<uint64_t> log_terms = {}, uint64_t term = 0,
                 uint64_t seed = 1) {
    Config config;
    config.id = NodeId(1);
    config.seed = seed;
    config.election_ticks = kElectionTicks;
    RestoredState restored;
    for (uint64_t id = 1; id <= voters; ++id) restored.snapshot.conf.voters.push_back(NodeId(id));
    for (uint64_t at = 0; at < log_terms.size(); ++at) {
      restored.entries.push_back({.term = Term(log_terms[at]),
                                  .index = Index(at + 1),
                                  .payload = Bytes::Copy("restored")});
      term = std::max(term, log_terms[at]);
    }
    restored.hard_state.term = Term(term);
    node_.emplace(config, std::move(restored));
    (void)Out();
  }

  RawNode& node() { return *node_; }

  // Everything that leaves until all that was given to the disk is durable.
  std::vector<Envelope> Out() {
    std::vector<Envelope> out;
    while (node_->HasReady()) {
      Ready ready = node_->TakeReady();
      out.insert(out.end(), ready.messages.begin(), ready.messages.end());
      applied_.insert(applied_.end(), ready.committed.begin(), ready.committed.end());
      if (ready.append.has_value()) {
        out.insert(out.end(), ready.append->messages.begin(), ready.append->messages.end());
        node_->Step(StorageAppended{ready.append->id});
      }
    }
    return out;
  }

  std::vector<Envelope> In(uint64_t from, uint64_t term, Message message) {
    node_->Step(Envelope{NodeId(from), NodeId(1), Term(term), std::move(message)});
    return Out();
  }

  // Wins an election with the votes of all others.
  void BecomeLeader() {
    node_->Campaign();
    for (bool pre_vote : {true, false}) {
      for (const Envelope& request : Out()) {
        node_->Step(Envelope{request.to, request.from, request.term,
                             VoteResponse{.pre_vote = pre_vote, .granted = true}});
      }
    }
    ASSERT_TRUE(node_->is_leader());
  }

  std::vector<uint64_t> LogTerms() const {
    std::vector<uint64_t> terms;
    for (Index at = node_->first_index(); at <= node_->last_index(); ++at) {
      terms.push_back(node_->TermAt(at)->value());
    }
    return terms;
  }
  const std::vector<Entry>& applied() const { return applied_; }

 private:
  std::optional<RawNode> node_;
  std::vector<Entry> applied_;
};

AppendEntries Append(uint64_t prev_index, uint64_t prev_term, std::vector<uint64_t> terms,
                     uint64_t commit = 0) {
  AppendEntries append{.prev_index = Index(prev_index),
                       .prev_term = Term(prev_term),
                       .commit = Index(commit),
                       .entries = {}};
  for (uint64_t term : terms) {
    append.entries.push_back(
        {.term = Term(term), .index = Index(++prev_index), .payload = Bytes::Copy("sent")});
  }
  return append;
}

template <typename M>
std::vector<Envelope> Only(const std::vector<Envelope>& messages) {
  std::vector<Envelope> chosen;
  for (const Envelope& envelope : messages) {
    if (std::holds_alternative<M>(envelope.message)) chosen.push_back(envelope);
  }
  return chosen;
}

// 5.1: "If one server's current term is smaller than the other's, then it updates its current term
// to the larger value. If a candidate or leader discovers that its term is out of date, it
// immediately reverts to follower state."
TEST(Paper, LaterTermMakesAFollower) {
  for (const Role role : {Role::kFollower, Role::kPreCandidate, Role::kLeader}) {
    Alone member(3);
    if (role == Role::kPreCandidate) member.node().Campaign();
    if (role == Role::kLeader) member.BecomeLeader();
    ASSERT_EQ(member.node().role(), role);
    member.In(2, 9, Append(0, 0, {}));
    EXPECT_EQ(member.node().role(), Role::kFollower);
    EXPECT_EQ(member.node().term(), Term(9));
    EXPECT_EQ(member.node().leader(), NodeId(2));
  }
}

// 5.1: "If a server receives a request with a stale term number, it rejects the request."
TEST(Paper, EarlierTermIsRejected) {
  Alone member(3, {1, 2}, 5);
  const std::vector<Envelope> out = member.In(2, 4, Append(2, 2, {4}));
  EXPECT_EQ(member.LogTerms(), (std::vector<uint64_t>{1, 2}));
  // The answer tells the sender the newer term, and nothing else.
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].term, Term(5));
  EXPECT_TRUE(Only<AppendResponse>(out).empty());
  EXPECT_EQ(member.node().counters().messages_old_term, 1u);
}

// 5.2: "When servers start up, they begin as followers."
TEST(Paper, StartsAsFollower) { EXPECT_EQ(Alone(3).node().role(), Role::kFollower); }

// 5.2: "Leaders send periodic heartbeats ... to all followers in order to maintain their
// authority."
TEST(Paper, LeaderSendsHeartbeats) {
  Alone member(3);
  member.BecomeLeader();
  (void)member.Out();
  member.node().Tick();
  const std::vector<Envelope> beats = Only<Heartbeat>(member.Out());
  ASSERT_EQ(beats.size(), 2u);
  EXPECT_EQ(beats[0].to, NodeId(2));
  EXPECT_EQ(beats[1].to, NodeId(3));
}

// 5.2: "If a follower receives no communication over a period of time called the election timeout,
// then it
// ... begins an election", and 9.3: "election timeouts are chosen randomly from a fixed interval".
TEST(Paper, ElectionTimeoutIsRandomInItsInterval) {
  std::set<uint32_t> timeouts;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Alone member(3, {}, 0, seed);
    uint32_t ticks = 0;
    while (member.node().role() == Role::kFollower) {
      member.node().Tick();
      ++ticks;
    }
    timeouts.insert(ticks);
  }
  EXPECT_EQ(*timeouts.begin(), kElectionTicks);
  EXPECT_EQ(*timeouts.rbegin(), 2 * kElectionTicks - 1);
  EXPECT_EQ(timeouts.size(), kElectionTicks);
}

// 5.2: "To begin an election, a follower increments its current term and transitions to candidate
// state. It then votes for itself and issues RequestVote RPCs in parallel to each of the other
// servers." (After the pre-vote of thesis 9.6.)
TEST(Paper, CandidateAsksAllOthersInTheNextTerm) {
  Alone member(5, {1, 1}, 3);
  member.node().Campaign();
  std::vector<Envelope> asked = Only<VoteRequest>(member.Out());
  ASSERT_EQ(asked.size(), 4u);
  EXPECT_EQ(member.node().term(), Term(3)) << "a pre-vote enters no term";
  member.In(2, 4, VoteResponse{.pre_vote = true, .granted = true});
  member.node().Step(
      Envelope{NodeId(3), NodeId(1), Term(4), VoteResponse{.pre_vote = true, .granted = true}});
  asked = Only<VoteRequest>(member.Out());
  ASSERT_EQ(asked.size(), 4u);
  for (const Envelope& request : asked) {
    EXPECT_EQ(request.term, Term(4));
    EXPECT_EQ(std::get<VoteRequest>(request.message),
              (VoteRequest{.last_index = Index(2), .last_term = Term(1)}));
  }
  EXPECT_EQ(member.node().role(), Role::kCandidate);
}

// 5.2: "A candidate wins an election if it receives votes from a majority of the servers in the
// full cluster for the same term."
TEST(Paper, MajorityWins) {
  struct Case {
    uint64_t voters;
    int granted;
    int rejected;
    Role role;
  };
  // The member itself has one vote, and so do those that granted the pre-vote.
  for (const Case& c : {Case{1, 0, 0, Role::kLeader}, Case{2, 1, 0, Role::kLeader},
                        Case{2, 0, 1, Role::kFollower}, Case{3, 1, 0, Role::kLeader},
                        Case{3, 0, 1, Role::kCandidate}, Case{3, 0, 2, Role::kFollower},
                        Case{5, 2, 0, Role::kLeader}, Case{5, 1, 2, Role::kCandidate},
                        Case{5, 1, 3, Role::kFollower}, Case{5, 2, 2, Role::kLeader}}) {
    Alone member(c.voters);
    member.node().Campaign();
    for (uint64_t id = 2; id <= c.voters / 2 + 1; ++id) {
      member.In(id, 1, VoteResponse{.pre_vote = true, .granted = true});
    }
    (void)member.Out();
    uint64_t voter = 2;
    for (int i = 0; i < c.rejected; ++i) member.In(voter++, 1, VoteResponse{.granted = false});
    for (int i = 0; i < c.granted; ++i) member.In(voter++, 1, VoteResponse{.granted = true});
    EXPECT_EQ(Name(member.node().role()), Name(c.role))
        << c.voters << " voters, " << c.granted << " for, " << c.rejected << " against";
  }
}

// 5.2: "Each server will vote for at most one candidate in a given term, on a
// first-come-first-served basis."
TEST(Paper, OneVotePerTerm) {
  Alone member(3);
  const VoteRequest request{};
  EXPECT_TRUE(std::get<VoteResponse>(member.In(2, 1, request)[0].message).granted);
  EXPECT_FALSE(std::get<VoteResponse>(member.In(3, 1, request)[0].message).granted);
  EXPECT_TRUE(std::get<VoteResponse>(member.In(2, 1, request)[0].message).granted) << "asked again";
  EXPECT_TRUE(std::get<VoteResponse>(member.In(3, 2, request)[0].message).granted) << "a new term";
}

// Its vote survives a crash: it is in the hard state before the answer leaves.
TEST(Paper, VoteIsDurableBeforeItIsGiven) {
  Config config{.id = NodeId(1)};
  RawNode node(config, {.snapshot = FoundingSnapshot({NodeId(1), NodeId(2), NodeId(3)})});
  (void)node.TakeReady();
  node.Step(Envelope{NodeId(2), NodeId(1), Term(2),
                     VoteRequest{.last_index = Index(1), .last_term = Term(1)}});
  const Ready ready = node.TakeReady();
  EXPECT_TRUE(ready.messages.empty());
  ASSERT_TRUE(ready.append.has_value());
  ASSERT_EQ(ready.append->messages.size(), 1u);
  EXPECT_EQ(ready.append->hard_state->vote, NodeId(2));
  EXPECT_EQ(ready.append->hard_state->term, Term(2));
}

// So does its own: a member alone leads when its vote is durable, and not before.
TEST(Paper, OwnVoteCountsWhenItIsDurable) {
  RawNode node({.id = NodeId(1)}, {.snapshot = FoundingSnapshot({NodeId(1)})});
  node.Campaign();
  const Ready ready = node.TakeReady();
  EXPECT_EQ(node.role(), Role::kCandidate);
  ASSERT_TRUE(ready.append.has_value());
  EXPECT_EQ(ready.append->hard_state->vote, NodeId(1));
  node.Step(StorageAppended{ready.append->id});
  EXPECT_EQ(node.role(), Role::kLeader);
}

// 5.2: "If the leader's term is at least as large as the candidate's current term, then the
// candidate recognizes the leader as legitimate and returns to follower state."
TEST(Paper, CandidateRecognisesTheLeaderOfItsTerm) {
  Alone member(3);
  member.node().Campaign();
  member.In(3, 1, VoteResponse{.pre_vote = true, .granted = true});
  ASSERT_EQ(member.node().role(), Role::kCandidate);
  member.In(2, 1, Append(0, 0, {1}));
  EXPECT_EQ(member.node().role(), Role::kFollower);
  EXPECT_EQ(member.node().leader(), NodeId(2));
}

// 5.3: "If the follower does not find an entry in its log with the same index and term, then it
// refuses the new entries."
TEST(Paper, ConsistencyCheck) {
  struct Case {
    uint64_t prev_index;
    uint64_t prev_term;
    bool accepted;
  };
  for (const Case& c : {Case{0, 0, true}, Case{1, 1, true}, Case{2, 2, true}, Case{1, 2, false},
                        Case{2, 1, false}, Case{3, 3, false}}) {
    Alone member(3, {1, 2}, 2);
    const std::vector<Envelope> out = member.In(2, 3, Append(c.prev_index, c.prev_term, {3}));
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(!std::get<AppendResponse>(out[0].message).rejected, c.accepted)
        << c.prev_index << "/t" << c.prev_term;
  }
}

// 5.3: "To bring a follower's log into consistency with its own, the leader must find the latest
// log entry where the two logs agree, delete any entries in the follower's log after that point."
// Figure 7: a leader of term 8 whose log is 1 1 1 4 4 5 5 6 6 6 against followers (a) to (f).
TEST(Paper, Figure7) {
  const std::vector<uint64_t> leaders = {1, 1, 1, 4, 4, 5, 5, 6, 6, 6};
  for (const std::vector<uint64_t>& log : {std::vector<uint64_t>{1, 1, 1, 4, 4, 5, 5, 6, 6},
                                           {1, 1, 1, 4},
                                           {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},
                                           {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7},
                                           {1, 1, 1, 4, 4, 4, 4},
                                           {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}}) {
    Alone leader(3, leaders, 7);
    leader.BecomeLeader();
    Alone follower(3, log, 7);
    // Member 1 leads, and speaks to the other as to its member 2; the follower hears it as its
    // own 2.
    int exchanges = 0;
    std::vector<Envelope> to_follower = leader.Out();
    while (!to_follower.empty() && exchanges < 10) {
      ++exchanges;
      std::vector<Envelope> answers;
      for (const Envelope& envelope : to_follower) {
        if (envelope.to != NodeId(2)) continue;
        for (Envelope& answer : follower.In(2, envelope.term.value(), envelope.message)) {
          answers.push_back(std::move(answer));
        }
      }
      for (const Envelope& answer : answers) {
        leader.node().Step(Envelope{NodeId(2), NodeId(1), answer.term, answer.message});
      }
      to_follower = leader.Out();
    }
    EXPECT_EQ(follower.LogTerms(), leader.LogTerms());
    EXPECT_LE(exchanges, 5) << "each rejection skips a whole term";
  }
}

// 5.3: "A leader never overwrites or deletes entries in its own log; it only appends new entries."
TEST(Paper, LeaderAppendsOnly) {
  Alone member(3, {1, 2, 2}, 4);
  member.BecomeLeader();
  EXPECT_EQ(member.LogTerms(), (std::vector<uint64_t>{1, 2, 2, 5}));
}

// 5.4.1: "The voter denies its vote if its own log is more up-to-date than that of the candidate.
// ... If the logs have last entries with different terms, then the log with the later term is more
// up-to-date. If the logs end with the same term, then whichever log is longer is more up-to-date."
TEST(Paper, VoteOnlyForAnUpToDateLog) {
  struct Case {
    uint64_t last_index;
    uint64_t last_term;
    bool granted;
  };
  for (const Case& c : {Case{2, 2, true}, Case{3, 2, true}, Case{1, 3, true}, Case{1, 2, false},
                        Case{9, 1, false}, Case{0, 0, false}}) {
    for (const bool pre_vote : {false, true}) {
      Alone member(3, {1, 2}, 2);
      const VoteRequest request{
          .pre_vote = pre_vote, .last_index = Index(c.last_index), .last_term = Term(c.last_term)};
      const std::vector<Envelope> out = member.In(2, 5, request);
      ASSERT_EQ(out.size(), 1u);
      EXPECT_EQ(std::get<VoteResponse>(out[0].message).granted, c.granted)
          << c.last_index << "/t" << c.last_term << (pre_vote ? " pre-vote" : "");
    }
  }
}

// 5.4.2: "Only log entries from the leader's current term are committed by counting replicas; once
// an entry from the current term has been committed in this way, then all prior entries are
// committed indirectly." Figure 8, (c) and (e).
TEST(Paper, Figure8) {
  Alone member(5, {1, 2}, 3);
  member.BecomeLeader();  // of term 4: its log is 1 2 4
  (void)member.Out();
  ASSERT_EQ(member.LogTerms(), (std::vector<uint64_t>{1, 2, 4}));
  // (c): the entry of term 2 is on a majority, and not committed.
  member.In(2, 4, AppendResponse{.index = Index(2)});
  member.In(3, 4, AppendResponse{.index = Index(2)});
  member.In(4, 4, AppendResponse{.index = Index(2)});
  EXPECT_EQ(member.node().commit(), Index(0));
  // (e): the entry of term 4 is on a majority, and all before is committed with it.
  member.In(2, 4, AppendResponse{.index = Index(3)});
  member.In(3, 4, AppendResponse{.index = Index(3)});
  EXPECT_EQ(member.node().commit(), Index(3));
  EXPECT_EQ(member.applied().size(), 3u);
}

// Figure 2: "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new
// entry)."
TEST(Paper, CommitIsBoundedByTheLastNewEntry) {
  Alone member(3, {1, 1, 1}, 1);
  // The entries 2 and 3 are of a leader of term 1; nobody has said that the new leader has them.
  member.In(2, 2, Append(1, 1, {}, /*commit=*/3));
  EXPECT_EQ(member.node().commit(), Index(1));
  member.In(2, 2, Append(1, 1, {1, 2}, /*commit=*/3));
  EXPECT_EQ(member.node().commit(), Index(3));
  EXPECT_EQ(member.LogTerms(), (std::vector<uint64_t>{1, 1, 2}));
}

// Figure 2: "If an existing entry conflicts with a new one, delete the existing entry and all that
// follow it" - and only then: an old message must not cut off what came after it.
TEST(Paper, OnlyAConflictCutsTheTail) {
  Alone member(3, {1, 1, 1}, 1);
  member.In(2, 1, Append(0, 0, {1}));
  EXPECT_EQ(member.LogTerms(), (std::vector<uint64_t>{1, 1, 1}));
  member.In(2, 2, Append(1, 1, {2}));
  EXPECT_EQ(member.LogTerms(), (std::vector<uint64_t>{1, 2}));
}

// 6: "Servers disregard RequestVote RPCs when they believe a current leader exists ... within the
// minimum election timeout of hearing from a current leader."
TEST(Paper, StickyVotes) {
  Alone member(3);
  member.In(2, 1, Append(0, 0, {1}));
  const VoteRequest request{.last_index = Index(9), .last_term = Term(9)};
  EXPECT_TRUE(member.In(3, 5, request).empty());
  EXPECT_EQ(member.node().term(), Term(1));
  EXPECT_EQ(member.node().counters().votes_withheld, 1u);
  for (uint32_t i = 0; i + 1 < kElectionTicks; ++i) member.node().Tick();
  EXPECT_TRUE(member.In(3, 5, request).empty());
  member.node().Tick();
  EXPECT_FALSE(member.In(3, 5, request).empty());
  EXPECT_EQ(member.node().term(), Term(5));
}

// 6: a learner takes no part in elections, but gives its vote if asked: it may have been promoted
// by an entry that it does not have yet.
// Followers suspect a silent leader sooner than a leader gives up a silent quorum.
TEST(Paper, SuspicionComesBeforeTheLeadersOwnDoubts) {
  constexpr uint32_t kSuspectTicks = 4;
  std::set<uint32_t> asked_after;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Config config;
    config.id = NodeId(1);
    config.seed = seed;
    config.election_ticks = kElectionTicks;
    config.suspect_ticks = kSuspectTicks;
    RawNode node(config,
                 RestoredState{.snapshot = FoundingSnapshot({NodeId(1), NodeId(2), NodeId(3)})});
    uint32_t ticks = 0;
    while (node.role() == Role::kFollower && ticks < kElectionTicks) {
      node.Tick();
      ++ticks;
    }
    asked_after.insert(ticks);
  }
  EXPECT_EQ(*asked_after.begin(), kSuspectTicks);
  EXPECT_EQ(*asked_after.rbegin(), 2 * kSuspectTicks - 1);
}

TEST(Paper, LearnerVotesWhenAsked) {
  Config config{.id = NodeId(4)};
  SnapshotMeta snapshot = FoundingSnapshot({NodeId(1), NodeId(2), NodeId(3)});
  snapshot.conf.learners = {NodeId(4)};
  RawNode node(config, {.snapshot = snapshot});
  for (int i = 0; i < 100; ++i) node.Tick();
  EXPECT_EQ(node.role(), Role::kFollower);
  node.Step(Envelope{NodeId(2), NodeId(4), Term(2),
                     VoteRequest{.last_index = Index(1), .last_term = Term(1)}});
  const Ready ready = node.TakeReady();
  EXPECT_TRUE(std::get<VoteResponse>(ready.append->messages.at(0).message).granted);
}

// Messages that make no sense change nothing, and are counted.
TEST(Stray, IsIgnoredAndCounted) {
  Alone member(3);
  member.BecomeLeader();
  (void)member.Out();
  const Status before = member.node().status();
  member.node().Step(Envelope{NodeId(2), NodeId(9), Term(7), TimeoutNow{}});
  member.node().Step(Envelope{NodeId(1), NodeId(1), Term(7), TimeoutNow{}});
  EXPECT_EQ(member.node().counters().messages_wrong_address, 2u);
  member.In(9, 1, AppendResponse{.index = Index(1)});
  EXPECT_EQ(member.node().counters().messages_unknown_peer, 1u);
  const uint64_t unexpected = member.node().counters().messages_unexpected;
  member.In(2, 1, VoteResponse{.granted = true});
  member.In(2, 1, ReadResponse{});
  EXPECT_EQ(member.node().counters().messages_unexpected, unexpected + 2);
  const Status after = member.node().status();
  EXPECT_EQ(after.term, before.term);
  EXPECT_EQ(after.role, before.role);
  EXPECT_EQ(after.commit, before.commit);
}

}  // namespace
}  // namespace conclave::raft::test
