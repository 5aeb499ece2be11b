// What no correct member can have sent is refused with a reason, and leaves no trace.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conclave/server/raft/raw_node.h"

namespace conclave::raft::test {
namespace {

constexpr uint64_t kTerm = 5;

// Member 1 of three, with entries 1 to 3 of terms 1, 1 and 2, of which the first is committed.
std::unique_ptr<RawNode> NewMember() {
  Config config;
  config.id = NodeId(1);
  config.seed = 3;
  RestoredState restored;
  restored.hard_state = {.term = Term(kTerm), .vote = {}, .commit = Index(1)};
  for (uint64_t id = 1; id <= 3; ++id) restored.snapshot.conf.voters.push_back(NodeId(id));
  for (uint64_t at = 1; at <= 3; ++at) {
    restored.entries.push_back({.term = Term(at < 3 ? 1 : 2),
                                .index = Index(at),
                                .type = EntryType::kCommand,
                                .payload = Bytes::Copy("old")});
  }
  return std::make_unique<RawNode>(config, std::move(restored));
}

std::unique_ptr<RawNode> NewFollower() {
  auto member = NewMember();
  EXPECT_EQ(member->Step(Envelope{NodeId(2), NodeId(1), Term(kTerm), Heartbeat{}}), nullptr);
  EXPECT_EQ(member->leader(), NodeId(2));
  return member;
}

std::unique_ptr<RawNode> NewLeader() {
  auto member = NewMember();
  member->Campaign();
  for (int i = 0; i < 100 && !member->is_leader(); ++i) {
    while (member->HasReady()) {
      Ready ready = member->TakeReady();
      std::vector<Envelope> out = std::move(ready.messages);
      if (ready.append.has_value()) {
        out.insert(out.end(), ready.append->messages.begin(), ready.append->messages.end());
        member->Step(StorageAppended{ready.append->id});
      }
      for (const Envelope& sent : out) {
        const auto* request = std::get_if<VoteRequest>(&sent.message);
        if (request == nullptr) continue;
        member->Step(
            Envelope{sent.to, NodeId(1), sent.term, VoteResponse{request->pre_vote, true}});
      }
    }
  }
  EXPECT_TRUE(member->is_leader());
  return member;
}

Entry EntryAt(uint64_t term, uint64_t index, EntryType type = EntryType::kCommand,
              Bytes payload = Bytes::Copy("new")) {
  return {.term = Term(term), .index = Index(index), .type = type, .payload = std::move(payload)};
}

AppendEntries Append(uint64_t prev_index, uint64_t prev_term, std::vector<Entry> entries) {
  return {.prev_index = Index(prev_index),
          .prev_term = Term(prev_term),
          .commit = Index(0),
          .entries = std::move(entries)};
}

void ExpectRefused(RawNode& member, uint64_t from, uint64_t term, Message message) {
  const Status before = member.status();
  const char* reason =
      member.Step(Envelope{NodeId(from), NodeId(1), Term(term), std::move(message)});
  EXPECT_NE(reason, nullptr);
  const Status after = member.status();
  EXPECT_EQ(after.counters.messages_impossible, before.counters.messages_impossible + 1);
  EXPECT_EQ(after.term, before.term);
  EXPECT_EQ(after.role, before.role);
  EXPECT_EQ(after.leader, before.leader);
  EXPECT_EQ(after.commit, before.commit);
  EXPECT_EQ(after.last_index, before.last_index);
}

TEST(Sanity, TermsBeyondAllCountingAreNotBelieved) {
  auto member = NewFollower();
  ExpectRefused(*member, 2, UINT64_MAX, Heartbeat{});
  ExpectRefused(*member, 2, (uint64_t{1} << 62) + 1, VoteRequest{});
  ExpectRefused(*member, 3, UINT64_MAX, VoteResponse{});
}

TEST(Sanity, AnotherLeaderOfTheSameTermIsRefused) {
  auto follower = NewFollower();
  ExpectRefused(*follower, 3, kTerm, Heartbeat{});
  ExpectRefused(*follower, 3, kTerm, Append(3, 2, {EntryAt(kTerm, 4)}));
  auto leader = NewLeader();
  ExpectRefused(*leader, 2, leader->term().value(), Heartbeat{});
  ExpectRefused(*leader, 2, leader->term().value(), Append(3, 2, {}));
}

TEST(Sanity, AppendsThatCannotBeALogAreRefused) {
  auto member = NewFollower();
  ExpectRefused(*member, 2, kTerm, Append(3, 2, {EntryAt(kTerm, 5)}));
  ExpectRefused(*member, 2, kTerm, Append(3, 2, {EntryAt(kTerm, 4), EntryAt(kTerm, 6)}));
  ExpectRefused(*member, 2, kTerm, Append(3, 2, {EntryAt(kTerm, 4), EntryAt(kTerm - 1, 5)}));
  ExpectRefused(*member, 2, kTerm, Append(3, 2, {EntryAt(1, 4)}));
  ExpectRefused(*member, 2, kTerm, Append(3, 2, {EntryAt(kTerm + 1, 4)}));
  ExpectRefused(*member, 2, kTerm, Append(UINT64_MAX, 2, {}));
  // The same from the leader of a later term: that is not believed either.
  ExpectRefused(*member, 3, kTerm + 1, Append(3, 2, {EntryAt(kTerm, 5)}));
  EXPECT_EQ(member->Step(Envelope{NodeId(2), NodeId(1), Term(kTerm),
                                  Append(3, 2, {EntryAt(kTerm, 4), EntryAt(kTerm, 5)})}),
            nullptr);
  EXPECT_EQ(member->last_index(), Index(5));
}

TEST(Sanity, ChangesOfMembershipThatMakeNoSenseAreRefused) {
  const auto change_of = [](ConfChangeType type, std::vector<uint64_t> nodes) {
    ConfChange change;
    for (const uint64_t node : nodes) change.steps.push_back({type, NodeId(node)});
    return EncodeConfChange(change);
  };
  auto member = NewFollower();
  const auto append = [](Bytes payload) {
    return Append(3, 2, {EntryAt(kTerm, 4, EntryType::kConfChange, std::move(payload))});
  };
  ExpectRefused(*member, 2, kTerm, append(Bytes::Copy("no change at all")));
  ExpectRefused(*member, 2, kTerm, append(change_of(ConfChangeType::kRemove, {1, 2, 3})));
  ConfChange leave;
  leave.kind = ConfChangeKind::kLeaveJoint;
  ExpectRefused(*member, 2, kTerm, append(EncodeConfChange(leave)));
  // Two that follow each other: the second one must fit to what the first one makes.
  AppendEntries two = append(change_of(ConfChangeType::kRemove, {2}));
  two.entries.push_back(
      EntryAt(kTerm, 5, EntryType::kConfChange, change_of(ConfChangeType::kRemove, {1, 3})));
  ExpectRefused(*member, 2, kTerm, two);
  EXPECT_EQ(member->Step(Envelope{NodeId(2), NodeId(1), Term(kTerm),
                                  append(change_of(ConfChangeType::kAddLearner, {9}))}),
            nullptr);
  EXPECT_EQ(member->conf().learners, std::vector<NodeId>{NodeId(9)});
}

TEST(Sanity, ACommitOfWhatThisMemberNeverHadIsRefused) {
  auto member = NewFollower();
  ExpectRefused(*member, 2, kTerm, Heartbeat{Index(4), ReadRound(0)});
  EXPECT_EQ(
      member->Step(Envelope{NodeId(2), NodeId(1), Term(kTerm), Heartbeat{Index(3), ReadRound(0)}}),
      nullptr);
  EXPECT_EQ(member->commit(), Index(3));
}

TEST(Sanity, AnswersToWhatALeaderNeverSaidAreRefused) {
  auto leader = NewLeader();
  const uint64_t term = leader->term().value();
  ExpectRefused(*leader, 2, term, AppendResponse{.rejected = false, .index = Index(5)});
  ExpectRefused(*leader, 2, term, HeartbeatResponse{ReadRound(1)});
  EXPECT_EQ(leader->Step(Envelope{NodeId(2), NodeId(1), Term(term),
                                  AppendResponse{.rejected = false, .index = Index(4)}}),
            nullptr);
}

TEST(Sanity, ForwardedProposalsOfNoKindAreRefused) {
  auto leader = NewLeader();
  const uint64_t term = leader->term().value();
  ForwardedProposals forwarded{ProposalId(7), EntryType::kCommand, {}};
  forwarded.payloads.push_back(Bytes());
  ExpectRefused(*leader, 2, term, forwarded);
  forwarded.payloads = {Bytes::Copy("command")};
  forwarded.type = static_cast<EntryType>(77);
  ExpectRefused(*leader, 2, term, forwarded);
}

TEST(Sanity, ASnapshotOfNoPossibleClusterIsNotInstalled) {
  auto member = NewFollower();
  SnapshotMeta meta{.index = Index(100), .term = Term(kTerm), .conf = {}};
  meta.conf.voters = {NodeId(1), NodeId(2), NodeId(3)};
  EXPECT_TRUE(member->CanInstallSnapshot(meta));
  SnapshotMeta both = meta;
  both.conf.learners = {NodeId(1)};
  EXPECT_FALSE(member->CanInstallSnapshot(both));
  SnapshotMeta far = meta;
  far.index = Index(UINT64_MAX);
  EXPECT_FALSE(member->CanInstallSnapshot(far));
  far = meta;
  far.term = Term(UINT64_MAX);
  EXPECT_FALSE(member->CanInstallSnapshot(far));
}

}  // namespace
}  // namespace conclave::raft::test
