// The parts below RawNode, each for itself: log, pending writes, history of configurations,
// progress, reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/raft/conf_history.h"
#include "conclave/server/raft/confchange/confchange.h"
#include "conclave/server/raft/log.h"
#include "conclave/server/raft/pending_writes.h"
#include "conclave/server/raft/reads.h"
#include "conclave/server/raft/tracker/tracker.h"

namespace conclave::raft {
namespace {

std::vector<Entry> Entries(uint64_t first, const std::vector<uint64_t>& terms) {
  std::vector<Entry> entries;
  for (uint64_t term : terms) {
    entries.push_back(
        {.term = Term(term), .index = Index(first++), .payload = Bytes::Copy("1234")});
  }
  return entries;
}

RaftLog LogOf(const std::vector<uint64_t>& terms) { return RaftLog({}, Entries(1, terms)); }

// ---- RaftLog ----

TEST(RaftLog, KnowsTermsFromItsBaseOn) {
  RaftLog log({Index(5), Term(2)}, Entries(6, {2, 3}));
  EXPECT_FALSE(log.TermAt(Index(4)).has_value());
  EXPECT_EQ(log.TermAt(Index(5)), Term(2));
  EXPECT_EQ(log.TermAt(Index(7)), Term(3));
  EXPECT_FALSE(log.TermAt(Index(8)).has_value());
}

TEST(RaftLog, LargestAgreementSkipsWholeTerms) {
  const RaftLog log = LogOf({1, 1, 1, 2, 2, 2, 3});
  const auto agreement = [&](uint64_t index, uint64_t term) {
    return log.LargestAgreement({Index(index), Term(term)}).index.value();
  };
  EXPECT_EQ(agreement(7, 2), 6u);
  EXPECT_EQ(agreement(9, 3), 7u);
  EXPECT_EQ(agreement(6, 1), 3u);
  EXPECT_EQ(agreement(2, 9), 2u);
  EXPECT_EQ(agreement(5, 0), 0u);
}

TEST(RaftLog, CompactionKeepsTheTermOfItsEnd) {
  RaftLog log = LogOf({1, 1, 2, 2, 3});
  log.CommitTo(Index(5));
  log.HandOutTo(Index(5));
  for (uint64_t to = 1; to <= 5; ++to) {
    log.CompactTo(Index(to));
    EXPECT_EQ(log.first_index(), Index(to + 1));
    EXPECT_EQ(log.last_index(), Index(5));
    EXPECT_TRUE(log.TermAt(Index(to)).has_value());
    EXPECT_FALSE(log.TermAt(Index(to - 1)).has_value());
    for (uint64_t at = to + 1; at <= 5; ++at) EXPECT_EQ(log.At(Index(at)).index, Index(at));
  }
  log.Append({.term = Term(3), .index = Index(6)});
  EXPECT_EQ(log.At(Index(6)).index, Index(6));
}

TEST(RaftLog, LimitsBytesButGivesOneEntryAtLeast) {
  const RaftLog log = LogOf({1, 1, 1, 1});  // four bytes each
  EXPECT_EQ(log.Limited(Index(1), Index(4), 0).entries.size(), 1u);
  EXPECT_EQ(log.Limited(Index(1), Index(4), 8).entries.size(), 2u);
  EXPECT_EQ(log.Limited(Index(1), Index(4), 11).entries.size(), 2u);
  EXPECT_EQ(log.Limited(Index(3), Index(4), 99).bytes, 8u);
  EXPECT_EQ(log.Limited(Index(5), Index(4), 99).entries.size(), 0u);
}

TEST(RaftLogDeathTest, NeverDropsWhatIsCommitted) {
  RaftLog log = LogOf({1, 1, 1});
  log.CommitTo(Index(2));
  EXPECT_DEATH(log.TruncateFrom(Index(2)), "committed entries");
  EXPECT_DEATH(log.CommitTo(Index(4)), "has this member lost its log");
}

// ---- PendingWrites ----

TEST(PendingWrites, AcknowledgementOfReplacedEntriesCountsForTheRest) {
  PendingWrites writes;
  const AppendId first = writes.Begin(Index(5), Term(2));  // .. 4 5(t2)
  writes.TruncateFrom(Index(5));
  const AppendId second = writes.Begin(Index(5), Term(3));  // 5(t3)
  writes.TruncateFrom(Index(5));
  const AppendId third = writes.Begin(Index(5), Term(4));  // 5(t2) again
  EXPECT_EQ(writes.Complete(first).stable, Index(4));
  EXPECT_EQ(writes.Complete(second).stable, Index(4));
  EXPECT_EQ(writes.Complete(third).stable, Index(5));
  EXPECT_TRUE(writes.empty());
}

TEST(PendingWrites, OneAcknowledgementStandsForAllBefore) {
  PendingWrites writes;
  (void)writes.Begin(Index(2), Term(1));
  const AppendId newest = writes.Begin(Index(7), Term(2));
  const PendingWrites::Completed completed = writes.Complete(newest);
  EXPECT_EQ(completed.stable, Index(7));
  EXPECT_EQ(completed.term, Term(2));
  EXPECT_EQ(writes.Complete(newest).stable, Index(0)) << "said again, it says nothing";
}

// Against a model that keeps the whole disk: what is called stable is on the disk whenever it is
// cut off.
TEST(PendingWrites, StableIsAlwaysOnTheDisk) {
  Prng prng(7);
  for (int run = 0; run < 300; ++run) {
    PendingWrites writes;
    std::vector<uint64_t> log;  // a value per entry
    std::vector<uint64_t> disk;
    struct Write {
      size_t first;
      std::vector<uint64_t> values;
      AppendId id;
    };
    std::deque<Write> in_flight;
    size_t written = 0;
    size_t stable = 0;
    uint64_t next_value = 0;
    for (int step = 0; step < 60; ++step) {
      const uint64_t dice = prng.Below(4);
      if (dice == 0 && !log.empty()) {
        const size_t keep = prng.Below(log.size());
        log.resize(keep);
        written = std::min(written, keep);
        stable = std::min(stable, keep);
        writes.TruncateFrom(Index(keep + 1));
      } else if (dice == 1) {
        log.push_back(++next_value);
      } else if (dice == 2) {
        in_flight.push_back({written,
                             {log.begin() + static_cast<ptrdiff_t>(written), log.end()},
                             writes.Begin(Index(log.size()), Term(1))});
        written = log.size();
      } else if (!in_flight.empty()) {
        const Write& write = in_flight.front();
        if (!write.values.empty()) {
          disk.resize(write.first);
          disk.insert(disk.end(), write.values.begin(), write.values.end());
        }
        stable = std::max<size_t>(stable, writes.Complete(write.id).stable.value());
        in_flight.pop_front();
      }
      ASSERT_LE(stable, log.size());
      // Whatever of the writes in flight still happens before a crash, the stable prefix is there.
      std::vector<uint64_t> after = disk;
      for (size_t done = 0; done <= in_flight.size(); ++done) {
        ASSERT_GE(after.size(), stable);
        for (size_t at = 0; at < stable; ++at) ASSERT_EQ(after[at], log[at]);
        if (done < in_flight.size() && !in_flight[done].values.empty()) {
          after.resize(in_flight[done].first);
          after.insert(after.end(), in_flight[done].values.begin(), in_flight[done].values.end());
        }
      }
    }
  }
}

// ---- ConfHistory ----

Entry ConfEntry(uint64_t index, ConfChangeType type, uint64_t node) {
  return {.term = Term(1),
          .index = Index(index),
          .type = EntryType::kConfChange,
          .payload = EncodeConfChange({.steps = {{type, NodeId(node)}}})};
}

TEST(ConfHistory, FollowsTheLog) {
  ConfHistory history(Index(1), {.voters = {NodeId(1)}});
  history.Append(ConfEntry(3, ConfChangeType::kAddVoter, 2));
  history.Append(ConfEntry(7, ConfChangeType::kAddVoter, 3));
  EXPECT_EQ(history.conf().voters.size(), 3u);
  EXPECT_EQ(history.At(Index(6)).voters.size(), 2u);
  EXPECT_EQ(history.At(Index(2)).voters.size(), 1u);
  history.TruncateFrom(Index(7));
  EXPECT_EQ(history.conf().voters.size(), 2u);
  EXPECT_EQ(history.entry(), Index(3));
  history.Append(ConfEntry(9, ConfChangeType::kRemove, 1));
  EXPECT_FALSE(history.IsVoter(NodeId(1)));
  EXPECT_TRUE(history.IsVoterSince(Index(8), NodeId(1)));
  EXPECT_FALSE(history.IsVoterSince(Index(9), NodeId(1)));
  history.CompactTo(Index(5));
  EXPECT_EQ(history.At(Index(5)).voters.size(), 2u);
  EXPECT_EQ(history.conf().voters.size(), 1u);
}

// ---- Inflights, against a plain list ----

TEST(Inflights, EqualsAPlainList) {
  Prng prng(3);
  for (int run = 0; run < 200; ++run) {
    const auto max_messages = static_cast<uint32_t>(1 + prng.Below(40));
    const uint64_t max_bytes = 1 + prng.Below(200);
    Inflights inflights(max_messages, max_bytes);
    std::deque<std::pair<uint64_t, uint64_t>> model;
    uint64_t last = 0;
    for (int step = 0; step < 300; ++step) {
      uint64_t bytes = 0;
      for (const auto& item : model) bytes += item.second;
      ASSERT_EQ(inflights.count(), model.size());
      ASSERT_EQ(inflights.bytes(), bytes);
      ASSERT_EQ(inflights.Full(), model.size() >= max_messages || bytes >= max_bytes);
      if (prng.Chance(1, 100)) {
        inflights.Reset();
        model.clear();
      } else if (!inflights.Full() && prng.Chance(2, 3)) {
        last += 1 + prng.Below(5);
        model.emplace_back(last, prng.Below(30));
        inflights.Add(Index(last), model.back().second);
      } else {
        const uint64_t to = last - std::min(last, prng.Below(20));
        inflights.FreeTo(Index(to));
        while (!model.empty() && model.front().first <= to) model.pop_front();
      }
    }
  }
}

// ---- Progress ----

TEST(Progress, OldRejectionsAreIgnored) {
  Progress progress(Index(10), 4, 100);
  EXPECT_FALSE(progress.Reject(Index(7), Index(3))) << "the open question is about 9";
  EXPECT_TRUE(progress.Reject(Index(9), Index(3)));
  EXPECT_EQ(progress.next(), Index(4));
  progress.Acknowledge(Index(5));
  progress.BecomeReplicate();
  EXPECT_FALSE(progress.Reject(Index(5), Index(0)));
  progress.Sent(Index(8), 10);
  EXPECT_TRUE(progress.Reject(Index(8), Index(2)));
  EXPECT_EQ(progress.next(), Index(6)) << "never below what is acknowledged";
}

TEST(Progress, ProbesOnceUntilItHears) {
  Progress progress(Index(1), 4, 100);
  EXPECT_FALSE(progress.Paused());
  progress.Sent(Index(3), 10);
  EXPECT_TRUE(progress.Paused());
  EXPECT_EQ(progress.next(), Index(1));
  progress.Resume();
  EXPECT_FALSE(progress.Paused());
}

TEST(Tracker, RemovedMemberIsToldBeforeItIsForgotten) {
  ProgressTracker tracker(
      NodeId(1), {.max_inflight_messages = 1, .max_inflight_bytes = 1, .departure_ticks = 3});
  tracker.SetConf({.voters = {NodeId(1), NodeId(2)}}, Index(1), Index(2));
  tracker.SetConf({.voters = {NodeId(1)}}, Index(5), Index(6));
  ASSERT_NE(tracker.Find(NodeId(2)), nullptr);
  tracker.Find(NodeId(2))->sent_commit = Index(4);
  tracker.DropDeparted();
  ASSERT_NE(tracker.Find(NodeId(2)), nullptr);
  tracker.Find(NodeId(2))->sent_commit = Index(5);
  tracker.DropDeparted();
  EXPECT_EQ(tracker.Find(NodeId(2)), nullptr);

  tracker.SetConf({.voters = {NodeId(1), NodeId(3)}}, Index(6), Index(7));
  tracker.SetConf({.voters = {NodeId(1)}}, Index(7), Index(8));
  for (int i = 0; i < 3; ++i) {
    EXPECT_NE(tracker.Find(NodeId(3)), nullptr);
    tracker.TickDepartures();
  }
  EXPECT_EQ(tracker.Find(NodeId(3)), nullptr);
}

// ---- Reads ----

TEST(LeaderReads, OneRoundAnswersAllBefore) {
  LeaderReads reads;
  reads.Add(ReadId(1));
  reads.AddPeer({NodeId(2), ReadRound(70)});
  reads.AddPeer({NodeId(2), ReadRound(71)});
  reads.OpenRound(Index(5));
  reads.Add(ReadId(2));
  reads.OpenRound(Index(6));
  reads.Add(ReadId(3));
  EXPECT_EQ(reads.local_count(), 3u);
  LeaderReads::Confirmed confirmed;
  reads.Confirm(ReadRound(0), &confirmed);
  EXPECT_TRUE(confirmed.local.empty());
  reads.Confirm(ReadRound(2), &confirmed);
  EXPECT_EQ(confirmed.local,
            (std::vector<ReadState>{{ReadId(1), Index(5)}, {ReadId(2), Index(6)}}));
  ASSERT_EQ(confirmed.peers.size(), 1u) << "the newest request of a peer stands for all before";
  EXPECT_EQ(confirmed.peers[0].first.round, ReadRound(71));
  std::vector<ReadId> rest;
  reads.TakeLocal(&rest);
  EXPECT_EQ(rest, std::vector<ReadId>{ReadId(3)});
}

TEST(FollowerReads, AnAnswerCountsForItsRoundAndBefore) {
  FollowerReads reads;
  reads.Add(ReadId(1));
  reads.Ask(ReadRound(100));
  reads.Add(ReadId(2));
  reads.Ask(ReadRound(101));
  std::vector<ReadState> answers;
  reads.Answer(ReadRound(99), Index(5), &answers);
  reads.Answer(ReadRound(102), Index(5), &answers);
  EXPECT_TRUE(answers.empty()) << "answers of another life";
  reads.Answer(ReadRound(100), Index(5), &answers);
  EXPECT_EQ(answers, (std::vector<ReadState>{{ReadId(1), Index(5)}}));
  EXPECT_EQ(reads.count(), 1u);
}

TEST(FollowerReads, AsksAgainUnderANewRoundAndTakesEitherAnswer) {
  FollowerReads reads;
  reads.Add(ReadId(1));
  reads.Ask(ReadRound(100));
  for (uint64_t round = 101; round < 105; ++round) {
    EXPECT_FALSE(reads.WantsRound());
    reads.Tick(2);
    reads.Tick(2);
    ASSERT_TRUE(reads.WantsRound());
    reads.Ask(ReadRound(round));
  }
  std::vector<ReadState> answers;
  reads.Answer(ReadRound(102), Index(7), &answers);
  EXPECT_EQ(answers, (std::vector<ReadState>{{ReadId(1), Index(7)}}));
  EXPECT_EQ(reads.count(), 0u);
}

}  // namespace
}  // namespace conclave::raft
