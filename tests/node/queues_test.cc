// The node's waiting rooms, each by itself.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/base/little_endian.h"
#include "conclave/server/apply/member_change.h"
#include "conclave/server/node/append_queue.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/digest_log.h"
#include "conclave/server/node/member_desk.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/server/node/proposal_table.h"
#include "conclave/server/node/read_queue.h"

namespace conclave::node {
namespace {

Instant At(int64_t seconds) { return Instant(std::chrono::seconds(seconds)); }

class ProposalTableTest : public ::testing::Test {
 protected:
  uint64_t Add(int64_t arrived) {
    const uint64_t sequence = table_.next_sequence();
    Waiter waiter;
    waiter.call = CallId(sequence);
    waiter.arrived = At(arrived);
    table_.Add(waiter, Bytes::Copy("payload"));
    return sequence;
  }
  std::vector<uint64_t> Unsent() {
    std::vector<Bytes> payloads;
    std::vector<uint64_t> sequences;
    table_.TakeUnsent(1 << 20, &payloads, &sequences);
    EXPECT_EQ(payloads.size(), sequences.size());
    return sequences;
  }
  std::vector<uint64_t> HandAll(uint64_t term, uint64_t forwarded = 0) {
    const std::vector<uint64_t> sequences = Unsent();
    table_.Handed(sequences, raft::Term(term), raft::ProposalId(forwarded));
    return sequences;
  }
  bool Take(uint64_t sequence) {
    Waiter waiter;
    return table_.Take(sequence, &waiter);
  }

  // So near to the end that sequences wrap.
  ProposalTable table_{UINT64_MAX - 1};
};

TEST_F(ProposalTableTest, EachIsTakenOnce) {
  const uint64_t first = Add(1);
  const uint64_t second = Add(1);
  HandAll(1);
  EXPECT_TRUE(Take(second));
  EXPECT_FALSE(Take(second));
  EXPECT_TRUE(Take(first));
  EXPECT_FALSE(Take(first));
  EXPECT_FALSE(Take(second + 1));
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_EQ(table_.bytes(), 0u);
}

TEST_F(ProposalTableTest, WhatIsLostWithItsTermIsHandedOverAgain) {
  const uint64_t lost = Add(1);
  HandAll(1);
  const uint64_t later = Add(2);
  HandAll(2);
  table_.TermApplied(raft::Term(1));
  EXPECT_FALSE(table_.has_unsent());
  table_.TermApplied(raft::Term(2));
  EXPECT_EQ(HandAll(2), std::vector<uint64_t>{lost});
  table_.TermApplied(raft::Term(3));
  EXPECT_EQ(Unsent(), (std::vector<uint64_t>{lost, later}));
}

TEST_F(ProposalTableTest, ARefusedBatchIsHandedOverAgainAndNoOther) {
  const uint64_t first = Add(1);
  HandAll(1, 10);
  Add(1);
  HandAll(1, 11);
  table_.Refused(raft::ProposalId(10));
  EXPECT_EQ(Unsent(), std::vector<uint64_t>{first});
}

TEST_F(ProposalTableTest, ABatchIsLimitedByBytesButNeverEmpty) {
  for (int i = 0; i < 5; ++i) Add(1);
  std::vector<Bytes> payloads;
  std::vector<uint64_t> sequences;
  table_.TakeUnsent(15, &payloads, &sequences);
  EXPECT_EQ(sequences.size(), 2u);
  table_.NotHanded(sequences);
  table_.TakeUnsent(1, &payloads, &sequences);
  EXPECT_EQ(sequences.size(), 1u);
}

TEST_F(ProposalTableTest, TheOldestExpireFirst) {
  const uint64_t first = Add(1);
  Add(2);
  const uint64_t third = Add(3);
  HandAll(1);
  EXPECT_EQ(table_.oldest(), At(1));
  std::vector<uint64_t> ended;
  table_.Expire(At(2), [&](uint64_t sequence, const Waiter&) { ended.push_back(sequence); });
  EXPECT_EQ(ended, (std::vector<uint64_t>{first, first + 1}));
  EXPECT_TRUE(Take(third));
  EXPECT_EQ(table_.oldest(), kNever);
}

TEST_F(ProposalTableTest, GrowsAroundWhatWaits) {
  const uint64_t first = Add(1);
  HandAll(1);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t sequence = Add(2);
    HandAll(1);
    ASSERT_TRUE(Take(sequence));
  }
  EXPECT_TRUE(Take(first));
  EXPECT_EQ(table_.size(), 0u);
}

ReadQueue::Read ReadOf(uint64_t call, int64_t arrived) {
  return {CallId(call), Method::kRange, 0, {}, At(arrived)};
}
std::vector<uint64_t> Served(ReadQueue& queue, uint64_t applied) {
  std::vector<uint64_t> calls;
  queue.Serve(raft::Index(applied),
              [&](ReadQueue::Read& read, Instant) { calls.push_back(read.call.value()); });
  return calls;
}

TEST(ReadQueueTest, ServesWhatIsConfirmedAndApplied) {
  ReadQueue queue;
  queue.Add(ReadOf(1, 1));
  queue.Add(ReadOf(2, 1));
  queue.Asked(raft::ReadId(1), At(1));
  EXPECT_TRUE(Served(queue, 100).empty());
  queue.Confirmed(raft::ReadId(1), raft::Index(5));
  EXPECT_TRUE(Served(queue, 4).empty());
  EXPECT_EQ(Served(queue, 5), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(queue.size(), 0u);
}

TEST(ReadQueueTest, AReadThatFailedIsAskedAnewUnderAnotherId) {
  ReadQueue queue;
  queue.Add(ReadOf(1, 1));
  queue.Asked(raft::ReadId(1), At(1));
  queue.Add(ReadOf(2, 2));
  queue.Failed(raft::ReadId(1));
  EXPECT_TRUE(queue.wants_round());
  queue.Asked(raft::ReadId(2), At(2));
  queue.Confirmed(raft::ReadId(1), raft::Index(1));  // too late: nobody waits for that one
  EXPECT_TRUE(Served(queue, 10).empty());
  queue.Confirmed(raft::ReadId(2), raft::Index(2));
  EXPECT_EQ(Served(queue, 10), (std::vector<uint64_t>{1, 2}));
}

TEST(ReadQueueTest, AnyOfTheBatchesMayFailAtAnyTime) {
  ReadQueue queue;
  uint64_t id = 0;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 3; ++i) {
      queue.Add(ReadOf(++id, 1));
      queue.Asked(raft::ReadId(id), At(1));
    }
    queue.Failed(raft::ReadId(id - round % 3));
    queue.Asked(raft::ReadId(++id), At(1));
    for (uint64_t i = id - 3; i <= id; ++i) queue.Confirmed(raft::ReadId(i), raft::Index(1));
    ASSERT_EQ(Served(queue, 1).size(), 3u);
    ASSERT_EQ(queue.size(), 0u);
  }
}

TEST(ReadQueueTest, KeepsToItsRoundsInFlight) {
  ReadQueue queue;
  for (uint64_t i = 1; i <= ReadQueue::kRoundsInFlightMax; ++i) {
    queue.Add(ReadOf(i, 1));
    ASSERT_TRUE(queue.wants_round());
    queue.Asked(raft::ReadId(i), At(1));
  }
  queue.Add(ReadOf(100, 1));
  EXPECT_FALSE(queue.wants_round());
  queue.Confirmed(raft::ReadId(1), raft::Index(1));
  EXPECT_TRUE(queue.wants_round());
}

TEST(ReadQueueTest, ExpiresWhatIsOldWhereverItWaits) {
  ReadQueue queue;
  queue.Add(ReadOf(1, 1));
  queue.Asked(raft::ReadId(1), At(1));
  queue.Add(ReadOf(2, 2));
  queue.Add(ReadOf(3, 3));
  std::vector<uint64_t> ended;
  queue.Expire(At(2), [&](const ReadQueue::Read& read) { ended.push_back(read.call.value()); });
  EXPECT_EQ(ended, (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(queue.oldest(), At(3));
  EXPECT_TRUE(queue.wants_round());
}

raft::AppendRequest RequestOf(uint64_t id, uint64_t first_index, size_t entries, size_t bytes) {
  raft::AppendRequest request;
  request.id = raft::AppendId(id);
  for (size_t i = 0; i < entries; ++i) {
    request.entries.push_back({raft::Term(1), raft::Index(first_index + i),
                               raft::EntryType::kCommand, Bytes::Copy(std::string(bytes, 'x'))});
  }
  request.messages.push_back({raft::NodeId(1), raft::NodeId(2), raft::Term(id), {}});
  return request;
}

TEST(AppendQueueTest, MessagesWaitForTheirWriteAndForThoseBefore) {
  AppendQueue queue;
  std::vector<raft::Envelope> messages;
  EXPECT_TRUE(queue.Push(RequestOf(1, 1, 1, 10)).has_value());
  EXPECT_FALSE(queue.Push(RequestOf(2, 0, 0, 0)).has_value());  // only a message
  EXPECT_TRUE(queue.Push(RequestOf(3, 2, 1, 10)).has_value());
  queue.ReleaseUnwritten(&messages);
  EXPECT_TRUE(messages.empty());
  queue.Synced(1, &messages);
  EXPECT_EQ(messages.size(), 2u);
  EXPECT_EQ(queue.TakeDurable(), raft::AppendId(2));
  EXPECT_EQ(queue.TakeDurable(), std::nullopt);
  queue.Synced(3, &messages);
  EXPECT_EQ(messages.size(), 3u);
}

TEST(AppendQueueTest, SaysWhatMayLeaveTheMemory) {
  AppendQueue queue;
  EXPECT_EQ(queue.WindowBegin(1 << 20), raft::Index(0));
  ASSERT_TRUE(queue.Push(RequestOf(1, 1, 40, 100'000)).has_value());
  const raft::Index begin = queue.WindowBegin(1 << 20);
  EXPECT_NEAR(static_cast<double>(begin.value()), 29, 2);
  queue.Dropped(begin);
  EXPECT_NEAR(static_cast<double>(queue.window_bytes()), 1 << 20, 200'000);
}

TEST(DigestLogTest, FindsAContradictionNowAndLater) {
  DigestLog log;
  log.Record(raft::Index(16), 111);
  using Verdict = DigestLog::Verdict;
  EXPECT_EQ(log.Compare({raft::Index(16), 111}), Verdict::kEqual);
  EXPECT_EQ(log.Compare({raft::Index(16), 222}), Verdict::kDifferent);
  EXPECT_EQ(log.Compare({raft::Index(32), 5}), Verdict::kUnknown);
  log.Expect(raft::NodeId(2), {raft::Index(35), 333});
  log.Expect(raft::NodeId(3), {raft::Index(37), 555});
  log.Expect(raft::NodeId(3), {raft::Index(99), 1});  // the older word waits
  EXPECT_FALSE(log.TakeOutcome().has_value());
  for (uint64_t index = 17; index <= 40; ++index) {
    EXPECT_EQ(log.Wants(raft::Index(index)), index == 32 || index == 35 || index == 37) << index;
    if (log.Wants(raft::Index(index))) log.Record(raft::Index(index), index == 37 ? 555 : 444);
  }
  const auto second = log.TakeOutcome();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->member, raft::NodeId(2));
  EXPECT_EQ(second->verdict, Verdict::kDifferent);
  EXPECT_EQ(log.TakeOutcome()->verdict, Verdict::kEqual);
  EXPECT_FALSE(log.TakeOutcome().has_value());
}

// A change is good in the term that it was handed over in: in any other its sender may have handed
// it over again, and it would be made twice.
TEST(MemberDeskTest, AChangeIsLedOnceAndInItsOwnTerm) {
  const raft::NodeId asked(2);
  constexpr uint64_t kTerm = 3;
  constexpr uint64_t kSequence = 7;
  const apply::MemberChange change{.method = wire::Method::kMemberRemove, .id = 9};
  ForwardedRequest request;
  request.id = kSequence | MemberDesk::kForwardedBit;
  request.kind = ForwardedRequest::Kind::kMemberChange;
  std::string body(sizeof(kTerm), '\0');
  StoreLittle(body.data(), kTerm);
  body += apply::EncodeMemberChange(asked.value(), kSequence, change).view();
  request.body = Bytes::Copy(body);

  MemberDesk desk(raft::NodeId(1), 1);
  EXPECT_TRUE(desk.Take(asked, request, raft::Term(kTerm + 1), At(1)));
  EXPECT_TRUE(desk.Take(asked, request, raft::Term(kTerm - 1), At(1)));
  EXPECT_FALSE(desk.has_queued());
  EXPECT_TRUE(desk.Take(asked, request, raft::Term(kTerm), At(1)));
  ASSERT_TRUE(desk.has_queued());
  EXPECT_EQ(desk.front().from, asked);
  EXPECT_EQ(desk.front().command.change, change);
  desk.Pop();
  EXPECT_TRUE(desk.Take(asked, request, raft::Term(kTerm), At(2)));
  EXPECT_FALSE(desk.has_queued());
  // Nor is it taken from another than who was asked.
  EXPECT_FALSE(desk.Take(raft::NodeId(3), request, raft::Term(kTerm), At(2)));
}

TEST(Bootstrap, IdsFollowFromTheFlagsInAnyOrder) {
  const FoundingMember a{"a", {"http://127.0.0.1:2380", "http://127.0.0.1:7001"}};
  const FoundingMember b{"b", {"http://127.0.0.1:2480"}};
  const FoundingMember turned{"a", {"http://127.0.0.1:7001", "http://127.0.0.1:2380"}};
  const std::vector<FoundingMember> one = {a, b};
  const std::vector<FoundingMember> other = {b, turned};
  const InitialCluster first = *FoundCluster(one, "token");
  const InitialCluster second = *FoundCluster(other, "token");
  EXPECT_EQ(first.cluster_id, second.cluster_id);
  EXPECT_EQ(first.Find("a")->id, second.Find("a")->id);
  EXPECT_NE(first.cluster_id, FoundCluster(one, "another token")->cluster_id);
}

TEST(Bootstrap, TheDefaultMemberHasEtcdsIds) {
  // What etcd without flags calls itself: 8e9e05c52164694d in cluster cdf818194e3a8c32.
  const FoundingMember founder{"default", {"http://localhost:2380"}};
  const InitialCluster cluster = *FoundCluster({&founder, 1}, "etcd-cluster");
  EXPECT_EQ(cluster.members[0].id, raft::NodeId(0x8e9e05c52164694d));
  EXPECT_EQ(cluster.cluster_id, 0xcdf818194e3a8c32u);
}

TEST(Bootstrap, RefusesWhatMakesNoCluster) {
  const std::vector<FoundingMember> none;
  const std::vector<FoundingMember> twice = {{"a", {"http://x:1"}}, {"a", {"http://y:1"}}};
  const std::vector<FoundingMember> same_url = {{"a", {"http://x:1"}}, {"b", {"http://x:1"}}};
  const std::vector<FoundingMember> no_url = {{"a", {}}};
  for (const auto& founders : {none, twice, same_url, no_url}) {
    EXPECT_FALSE(FoundCluster(founders, "token").ok());
  }
}

}  // namespace
}  // namespace conclave::node
