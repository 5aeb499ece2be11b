// A member whose disk has lost a part of its log: it votes as if it had all of it, does not lead,
// and is an ordinary member again once it has been filled up.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "conclave/server/raft/raw_node.h"

namespace conclave::raft::test {
namespace {

constexpr uint64_t kTerm = 4;  // of everything that was lost; it has started in the one after it

Entry EntryAt(uint64_t term, uint64_t index) {
  return {.term = Term(term),
          .index = Index(index),
          .type = EntryType::kCommand,
          .payload = Bytes::Copy("entry")};
}

// Member 1 of three: it has entries 1 to 3, and had them up to 9.
class LostLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Config config;
    config.id = NodeId(1);
    config.seed = 3;
    RestoredState restored;
    restored.hard_state = {.term = Term(kTerm + 1), .vote = {}, .commit = Index(2)};
    for (uint64_t id = 1; id <= 3; ++id) restored.snapshot.conf.voters.push_back(NodeId(id));
    for (uint64_t at = 1; at <= 3; ++at) restored.entries.push_back(EntryAt(kTerm, at));
    restored.lost_index = Index(9);
    restored.lost_term = Term(kTerm);
    member_ = std::make_unique<RawNode>(config, std::move(restored));
  }

  // What it says, all of its writes being durable at once.
  std::vector<Envelope> Take() {
    std::vector<Envelope> out;
    while (member_->HasReady()) {
      Ready ready = member_->TakeReady();
      out.insert(out.end(), ready.messages.begin(), ready.messages.end());
      if (!ready.append.has_value()) continue;
      out.insert(out.end(), ready.append->messages.begin(), ready.append->messages.end());
      member_->Step(StorageAppended{ready.append->id});
    }
    return out;
  }

  bool Votes(uint64_t term, uint64_t last_index, uint64_t last_term, bool pre_vote = false) {
    EXPECT_EQ(member_->Step(Envelope{NodeId(2), NodeId(1), Term(term),
                                     VoteRequest{.pre_vote = pre_vote,
                                                 .leadership_transfer = false,
                                                 .last_index = Index(last_index),
                                                 .last_term = Term(last_term)}}),
              nullptr);
    for (const Envelope& sent : Take()) {
      if (const auto* response = std::get_if<VoteResponse>(&sent.message)) return response->granted;
    }
    ADD_FAILURE() << "no answer";
    return false;
  }

  // The leader of `term` sends its entries from .. to.
  AppendResponse Fill(uint64_t term, uint64_t prev, std::vector<Entry> entries,
                      uint64_t prev_term = kTerm) {
    EXPECT_EQ(member_->Step(Envelope{NodeId(2), NodeId(1), Term(term),
                                     AppendEntries{.prev_index = Index(prev),
                                                   .prev_term = Term(prev_term),
                                                   .commit = Index(0),
                                                   .entries = std::move(entries)}}),
              nullptr);
    for (const Envelope& sent : Take()) {
      if (const auto* response = std::get_if<AppendResponse>(&sent.message)) return *response;
    }
    ADD_FAILURE() << "no answer";
    return {};
  }

  // Long enough for every election timeout.
  std::vector<Envelope> Wait() {
    for (int i = 0; i < 100; ++i) member_->Tick();
    return Take();
  }

  std::unique_ptr<RawNode> member_;
};

TEST_F(LostLogTest, ItVotesOnlyForThoseWhoHaveWhatItHad) {
  EXPECT_FALSE(Votes(6, 3, kTerm, /*pre_vote=*/true));
  EXPECT_FALSE(Votes(6, 8, kTerm));
  EXPECT_FALSE(Votes(7, 100, kTerm - 1));
  EXPECT_TRUE(Votes(8, 9, kTerm));
}

TEST_F(LostLogTest, ALaterTermHasWhatItHad) { EXPECT_TRUE(Votes(7, 4, kTerm + 1)); }

TEST_F(LostLogTest, ItDoesNotStandForElection) {
  EXPECT_TRUE(Wait().empty());
  member_->Campaign();
  EXPECT_TRUE(Take().empty());
  EXPECT_EQ(member_->Step(Envelope{NodeId(2), NodeId(1), Term(6), TimeoutNow{}}), nullptr);
  EXPECT_TRUE(Take().empty());
  EXPECT_TRUE(member_->log_is_short());
}

// Its leader of the term before counts on what is lost here, so it must be one no more.
TEST_F(LostLogTest, TheLeaderThatKnewItsLogIsToldOfALaterTerm) {
  ASSERT_EQ(member_->Step(Envelope{NodeId(2), NodeId(1), Term(kTerm), Heartbeat{}}), nullptr);
  const std::vector<Envelope> sent = Take();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].term, Term(kTerm + 1));
}

TEST_F(LostLogTest, ItAcknowledgesWhatItHasAgain) {
  const AppendResponse rejected = Fill(6, 9, {EntryAt(6, 10)});
  EXPECT_TRUE(rejected.rejected);
  EXPECT_EQ(rejected.hint_index, Index(3));
  EXPECT_EQ(Fill(6, 3, {EntryAt(kTerm, 4), EntryAt(kTerm, 5)}).index, Index(5));
  EXPECT_TRUE(member_->log_is_short());
}

TEST_F(LostLogTest, FilledUpToWhereItWasItIsAMemberAsAnyOther) {
  std::vector<Entry> entries;
  for (uint64_t at = 4; at <= 9; ++at) entries.push_back(EntryAt(kTerm, at));
  Fill(6, 3, std::move(entries));
  EXPECT_FALSE(member_->log_is_short());
  bool asks = false;
  for (const Envelope& sent : Wait()) asks = asks || std::get_if<VoteRequest>(&sent.message);
  EXPECT_TRUE(asks);
}

// The leader has another history: what was lost here was never committed.
TEST_F(LostLogTest, AnEntryOfALaterTermMakesUpForWhatWasLost) {
  Fill(6, 3, {EntryAt(6, 4)});
  EXPECT_FALSE(member_->log_is_short());
  Wait();  // as long as it hears of a leader it votes for nobody
  EXPECT_FALSE(Votes(8, 9, kTerm));
  EXPECT_TRUE(Votes(9, 4, 6));
}

// And the end of the log is compared, not the snapshot that it begins with.
TEST_F(LostLogTest, ASnapshotThatDoesNotReachThereIsNotEnough) {
  SnapshotMeta snapshot{.index = Index(7), .term = Term(kTerm), .conf = member_->conf()};
  ASSERT_TRUE(member_->InstallSnapshot(snapshot));
  EXPECT_TRUE(member_->log_is_short());
  Take();
  Fill(6, 7, {EntryAt(kTerm, 8), EntryAt(6, 9)});
  EXPECT_FALSE(member_->log_is_short());
}

}  // namespace
}  // namespace conclave::raft::test
