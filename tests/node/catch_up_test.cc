// Members that were away for long, and get the state while clients go on writing: the transfer goes
// on where it broke off, sends nothing twice that is there, and comes to an end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/node/snapshot_transfer.h"
#include "conclave/tests/node/reply.h"
#include "conclave/tests/node/trio.h"

namespace conclave::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kWindowBytes = 1 * kMiB;
constexpr size_t kValueBytes = 64 << 10;

// A log window of 1 MiB, and a transfer of 4 MiB a second.
void Small(Options* options) {
  options->log_window_bytes = kWindowBytes;
  options->snapshot_bytes_per_second = 4 * kMiB;
}

std::string PutRequest(const std::string& key) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(std::string(kValueBytes, 'v'));
  return request.SerializeAsString();
}

// So many keys of 64 KiB each.
void Fill(Trio& trio, const std::string& prefix, int count) {
  for (int i = 0; i < count; ++i) {
    const Reply reply = trio.Call(trio.leader(), Method::kPut, PutRequest(absl::StrCat(prefix, i)));
    ASSERT_EQ(reply.error, nullptr);
  }
}

int Lines(const Trio& trio, const std::string& message) {
  int count = 0;
  for (size_t member = 0; member < trio.size(); ++member) {
    for (const LogLine& line : trio.log(member)) count += line.message == message ? 1 : 0;
  }
  return count;
}
int Begun(const Trio& trio) { return Lines(trio, "sending database snapshot"); }

// What the last transfer that came to its end has sent, and how much of a state that was.
struct Transferred {
  int64_t sent = 0;
  int64_t covered = 0;
};
Transferred LastOf(const Trio& trio, size_t sender) {
  Transferred last;
  for (const LogLine& line : trio.log(sender)) {
    if (line.message != "sent database snapshot") continue;
    for (const auto& [name, value] : line.numbers) {
      if (name == "sent-bytes") last.sent = value;
      if (name == "covered-bytes") last.covered = value;
    }
  }
  return last;
}

bool HasCaughtUp(Trio& trio, size_t member) {
  if (!trio.Leader().has_value()) return false;
  return trio.node(member).raft_status().applied == trio.node(trio.leader()).raft_status().applied;
}

void ExpectCatchesUp(Trio& trio, size_t member, Duration within = seconds(20)) {
  const Instant end = trio.now() + within;
  while (!HasCaughtUp(trio, member) && trio.now() < end) trio.Advance(milliseconds(50));
  ASSERT_TRUE(HasCaughtUp(trio, member));
  EXPECT_EQ(trio.StatsOf(member)->digest, trio.StatsOf(trio.leader())->digest);
  trio.node(member).state().CheckInvariants();
}

// Of a cluster with 8 MiB that are in nobody's log window: one that has nothing of it, a second or
// so after it has begun to get it.
struct HalfWay {
  HalfWay() {
    trio.CutOff(lagging);
    Fill(trio, "key-", 128);
    trio.Rejoin(lagging);
    for (int i = 0; i < 100 && Begun(trio) == 0; ++i) trio.Advance(milliseconds(50));
    EXPECT_EQ(Begun(trio), 1);
    trio.Advance(seconds(1));
    EXPECT_FALSE(HasCaughtUp(trio, lagging));
  }

  // It gets the whole state, and a good part of that without its being sent once more.
  void ExpectTheRestIsSent() {
    ExpectCatchesUp(trio, lagging);
    const Transferred last = LastOf(trio, trio.leader());
    EXPECT_GE(last.covered, static_cast<int64_t>(128 * kValueBytes));
    EXPECT_LT(last.sent, last.covered * 3 / 4);
  }

  Trio trio{3, Small};
  const size_t lagging = trio.follower();
};

TEST(CatchUpTest, ABrokenConnectionIsWaitedFor) {
  HalfWay half;
  Trio& trio = half.trio;
  trio.CutOff(half.lagging);
  trio.Advance(seconds(5));
  trio.Rejoin(half.lagging);
  ExpectCatchesUp(trio, half.lagging);
  EXPECT_EQ(Begun(trio), 1);
  EXPECT_GE(LastOf(trio, trio.leader()).covered, static_cast<int64_t>(128 * kValueBytes));
}

TEST(CatchUpTest, WhoNeverComesBackIsNotWaitedForForEver) {
  HalfWay half;
  half.trio.CutOff(half.lagging);
  half.trio.Advance(seconds(40));
  EXPECT_EQ(Lines(half.trio, "failed to send database snapshot"), 1);
}

TEST(CatchUpTest, AnotherLeaderGoesOnWhereTheFirstOneStopped) {
  HalfWay half;
  Trio& trio = half.trio;
  const size_t before = trio.leader();
  trio.Kill(before);
  for (int i = 0; i < 200 && !trio.Leader().has_value(); ++i) trio.Advance(milliseconds(50));
  ASSERT_TRUE(trio.Leader().has_value());
  half.ExpectTheRestIsSent();
}

// The word that a snapshot was installed can get lost. A leader that then heard of a refusal would
// send it for ever, for it no longer has the log that tells where its follower stands.
TEST(CatchUpTest, WhatIsHereAlreadyIsSaidToBe) {
  UnwrittenPieces unwritten;
  SnapshotReceiver receiver({}, &unwritten, nullptr, Instant());
  SnapshotChunk chunk;
  chunk.transfer = 7;
  chunk.term = raft::Term(3);
  chunk.meta.index = raft::Index(40);
  chunk.meta.term = raft::Term(2);
  Effects effects;
  const auto answer = [&](SnapshotReceiver::Use use) {
    return receiver.Take(raft::NodeId(2), chunk, use, nullptr, Instant(), &effects)->result;
  };
  EXPECT_EQ(answer(SnapshotReceiver::Use::kHeld), SnapshotAck::Result::kInstalled);
  EXPECT_EQ(answer(SnapshotReceiver::Use::kNone), SnapshotAck::Result::kRefused);
  EXPECT_FALSE(receiver.active());
  EXPECT_TRUE(effects.snapshot_pieces.empty());
}

// Its process ends; what was on the disk of the transfer is of use to the next one.
TEST(CatchUpTest, WhatHadComeBeforeARestartIsNotSentAgain) {
  HalfWay half;
  Trio& trio = half.trio;
  trio.Refill(half.lagging, /*with_unfinished=*/true);
  half.ExpectTheRestIsSent();
}

TEST(CatchUpTest, WithoutItAllIsSentAgain) {
  HalfWay half;
  Trio& trio = half.trio;
  trio.Refill(half.lagging);
  ExpectCatchesUp(trio, half.lagging);
  EXPECT_GE(LastOf(trio, trio.leader()).sent, static_cast<int64_t>(128 * kValueBytes));
}

// A disk that takes nothing for a while, in the midst of a state that is larger than what may wait
// for it.
TEST(CatchUpTest, ASlowDiskHoldsTheSenderUpAndCostsNoMemory) {
  constexpr int kKeys = 3 * UnwrittenPieces::kBytesMax / 2 / kValueBytes;
  Trio trio(3, [](Options* options) {
    Small(options);
    options->snapshot_bytes_per_second = 64 * kMiB;
  });
  const size_t lagging = trio.follower();
  trio.CutOff(lagging);
  Fill(trio, "key-", kKeys);
  trio.StallSnapshots(lagging);
  trio.Rejoin(lagging);
  uint64_t most = 0;
  for (int i = 0; i < 200; ++i) {
    trio.Advance(milliseconds(100));
    most = std::max(most, trio.unwritten_bytes(lagging));
  }
  EXPECT_GE(most, UnwrittenPieces::kBytesMax);
  EXPECT_LE(most, UnwrittenPieces::kBytesMax + kMiB);
  EXPECT_FALSE(HasCaughtUp(trio, lagging));
  trio.WriteSnapshots(lagging);
  ExpectCatchesUp(trio, lagging);
  EXPECT_EQ(Begun(trio), 1);
}

// If it takes nothing for good, it is given up: for a minute the receiver hopes for its disk.
TEST(CatchUpTest, ADiskThatStandsStillIsNotWaitedForForEver) {
  constexpr int kKeys = 3 * UnwrittenPieces::kBytesMax / 2 / kValueBytes;
  Trio trio(3, Small);
  const size_t lagging = trio.follower();
  trio.CutOff(lagging);
  Fill(trio, "key-", kKeys);
  trio.StallSnapshots(lagging);
  trio.Rejoin(lagging);
  trio.Advance(seconds(50));
  EXPECT_EQ(Lines(trio, "failed to send database snapshot"), 0);
  trio.Advance(seconds(30));
  EXPECT_GE(Lines(trio, "failed to send database snapshot"), 1);
  trio.WriteSnapshots(lagging);
  ExpectCatchesUp(trio, lagging);
}

// A follower writes a snapshot of its own that is larger than what may wait for its disk, which
// stands still.
struct Stalled {
  static constexpr int kKeys = 3 * UnwrittenPieces::kBytesMax / 2 / kValueBytes;

  Stalled() {
    trio.StallSnapshots(follower);
    Fill(trio, "key-", kKeys + 8);
    trio.Advance(seconds(5));
    EXPECT_GE(trio.unwritten_bytes(follower), UnwrittenPieces::kBytesMax);
  }

  Trio trio{3, [](Options* options) {
              Small(options);
              options->snapshot_bytes_per_second = 64 * kMiB;
              options->snapshot_log_bytes_min = kKeys * kValueBytes;
            }};
  const size_t follower = trio.follower();
};

// A member's own snapshot waits as well.
TEST(CatchUpTest, AnOwnSnapshotIsMadeAsFastAsTheDiskTakesIt) {
  Stalled at_rest;
  Trio& trio = at_rest.trio;
  const size_t stalled = at_rest.follower;
  EXPECT_LE(trio.unwritten_bytes(stalled), UnwrittenPieces::kBytesMax + kMiB);
  const uint64_t saved = trio.StatsOf(stalled)->snapshots_saved;
  trio.WriteSnapshots(stalled);
  trio.Advance(seconds(5));
  EXPECT_EQ(trio.StatsOf(stalled)->snapshots_saved, saved + 1);
  trio.node(stalled).state().CheckInvariants();
}

TEST(CatchUpTest, WhatAMemberHadIsNotSentAgain) {
  Trio trio(3, Small);
  Fill(trio, "old-", 64);
  const size_t lagging = trio.follower();
  trio.CutOff(lagging);
  Fill(trio, "new-", 32);
  trio.Rejoin(lagging);
  ExpectCatchesUp(trio, lagging);
  EXPECT_EQ(Begun(trio), 1);
  const Transferred last = LastOf(trio, trio.leader());
  EXPECT_GE(last.covered, static_cast<int64_t>(96 * kValueBytes));
  EXPECT_GE(last.sent, static_cast<int64_t>(32 * kValueBytes));
  EXPECT_LT(last.sent, static_cast<int64_t>(34 * kValueBytes));
}

// A bit of its memory has changed: what is made of it has not the digest that it must have.
TEST(CatchUpTest, WhatIsRottenIsSentAnew) {
  Trio trio(3, Small);
  Fill(trio, "old-", 64);
  const size_t lagging = trio.follower();
  trio.CutOff(lagging);
  Fill(trio, "new-", 32);
  const mvcc::Record* record = trio.node(lagging).state().store().Get("old-7");
  ASSERT_NE(record, nullptr);
  const_cast<char&>(record->value()[100]) ^= 1;
  trio.Rejoin(lagging);
  ExpectCatchesUp(trio, lagging);
  EXPECT_EQ(Lines(trio, "failed to send database snapshot"), 1);
  const Transferred last = LastOf(trio, trio.leader());
  EXPECT_GE(last.sent, static_cast<int64_t>(96 * kValueBytes));
  EXPECT_EQ(trio.node(lagging).state().store().Get("old-7")->value()[100], 'v');
}

// Three windows are written while it gets the state: they are kept for it.
TEST(CatchUpTest, OneSnapshotIsEnoughWhileWritesGoOn) {
  HalfWay half;
  Trio& trio = half.trio;
  for (int i = 0; i < 60; ++i) {
    Fill(trio, "more-", 1);
    trio.Advance(milliseconds(30));
  }
  ExpectCatchesUp(trio, half.lagging);
  EXPECT_EQ(Begun(trio), 1);
  // And let go of afterwards.
  Fill(trio, "rest-", 64);
  EXPECT_LE(trio.StatsOf(trio.leader())->log_window_bytes, 2 * kWindowBytes);
}

// Writes that are faster than the transfer: the bound of the memory holds, one more is needed,
// which sends what is new and no more.
TEST(CatchUpTest, MemoryIsBoundedWhileWritesAreFaster) {
  HalfWay half;
  Trio& trio = half.trio;
  uint64_t held_most = 0;
  for (int i = 0; i < 40; ++i) {
    Fill(trio, absl::StrCat("more-", i, "-"), 8);
    trio.Advance(milliseconds(20));
    held_most = std::max(held_most, trio.StatsOf(trio.leader())->log_window_bytes);
  }
  EXPECT_LE(held_most, 10 * kWindowBytes);
  ExpectCatchesUp(trio, half.lagging, seconds(60));
  EXPECT_LE(Begun(trio), 4);
}

// ---- What comes at the wrong time

std::string SmallPut(int key, const std::string& value) {
  etcdserverpb::PutRequest request;
  request.set_key(absl::StrCat("small-", key));
  request.set_value(value);
  return request.SerializeAsString();
}

// A receiver, and what it is sent: the first pieces of a state.
class ReceiverTest : public ::testing::Test {
 protected:
  SnapshotChunk Chunk(uint64_t transfer, uint64_t term) {
    SnapshotChunk chunk;
    chunk.transfer = transfer;
    chunk.term = raft::Term(term);
    chunk.meta.index = raft::Index(40);
    chunk.meta.term = raft::Term(2);
    return chunk;
  }
  std::optional<SnapshotAck> Take(raft::NodeId from, SnapshotChunk chunk) {
    return receiver_.Take(from, std::move(chunk), SnapshotReceiver::Use::kWanted, nullptr, now_,
                          &effects_);
  }

  const raft::NodeId leader_{2};
  apply::StateMachine state_{apply::StateMachineOptions()};
  apply::SnapshotTask task_{&state_};
  UnwrittenPieces unwritten_;
  Instant now_;
  SnapshotReceiver receiver_{{}, &unwritten_, nullptr, now_};
  Effects effects_;
};

// What comes late of a transfer that another one has taken the place of neither ends that one nor
// gets an answer, which its sender would take for one to the new transfer.
TEST_F(ReceiverTest, ALateChunkOfAnOlderTransferChangesNothing) {
  SnapshotChunk chunk = Chunk(/*transfer=*/7, /*term=*/3);
  chunk.data = task_.NextOfOpening(1 << 20);
  const uint64_t received = chunk.data.size();
  ASSERT_GT(received, 0u);
  auto ack = Take(leader_, chunk);
  ASSERT_TRUE(ack.has_value());
  EXPECT_EQ(ack->offset, received);

  EXPECT_FALSE(Take(leader_, Chunk(6, 3)).has_value());
  EXPECT_FALSE(Take(raft::NodeId(3), Chunk(9, 2)).has_value());
  EXPECT_TRUE(receiver_.active());

  chunk = Chunk(7, 3);
  chunk.offset = received;
  ack = Take(leader_, chunk);
  ASSERT_TRUE(ack.has_value());
  EXPECT_EQ(ack->result, SnapshotAck::Result::kReceived);
  EXPECT_EQ(ack->offset, received);
}

// A leader that has started again counts from one again. What it sends is not what it has sent
// before, though it be of the same state.
TEST_F(ReceiverTest, TheSameNumberInALaterTermIsAnotherTransfer) {
  SnapshotChunk chunk = Chunk(/*transfer=*/1, /*term=*/3);
  chunk.data = task_.NextOfOpening(1 << 20);
  const uint64_t received = chunk.data.size();
  ASSERT_TRUE(Take(leader_, chunk).has_value());

  SnapshotChunk again = chunk;
  again.term = raft::Term(4);
  again.data = chunk.data.Slice(chunk.data.view().substr(0, 1));
  const auto ack = Take(leader_, again);
  ASSERT_TRUE(ack.has_value());
  EXPECT_EQ(ack->result, SnapshotAck::Result::kReceived);
  EXPECT_EQ(ack->offset, 1u);
  EXPECT_LT(ack->offset, received);
}

// A sender that is gone is hoped for, but not for ever: neither memory nor the file that was begun
// outlasts it.
TEST_F(ReceiverTest, WhatNothingMoreComesOfIsGivenUp) {
  SnapshotChunk chunk = Chunk(7, 3);
  chunk.data = task_.NextOfOpening(1 << 20);
  ASSERT_TRUE(Take(leader_, chunk).has_value());
  ASSERT_FALSE(effects_.snapshot_pieces.empty());
  EXPECT_TRUE(effects_.snapshot_pieces.front().first);
  effects_.snapshot_pieces.clear();

  receiver_.Expire(now_ + SnapshotReceiver::kPatience - milliseconds(1), &effects_);
  EXPECT_TRUE(receiver_.active());
  receiver_.Expire(now_ + SnapshotReceiver::kPatience, &effects_);
  EXPECT_FALSE(receiver_.active());
  ASSERT_EQ(effects_.snapshot_pieces.size(), 1u);
  EXPECT_TRUE(effects_.snapshot_pieces.front().abandon);
  EXPECT_EQ(effects_.snapshot_pieces.front().meta, chunk.meta);
}

// The connection for messages is there before the one for snapshots.
TEST(CatchUpTest, ASnapshotWaitsForItsConnection) {
  Trio trio(3, Small);
  const size_t lagging = trio.follower();
  trio.CutOff(lagging);
  Fill(trio, "key-", 64);
  trio.Rejoin(lagging);
  const raft::NodeId id = trio.options(lagging).id;
  const size_t leader = trio.leader();
  trio.Put(leader, PeerConnection{id, PeerLane::kSnapshot, false});
  trio.Advance(seconds(3));
  ASSERT_EQ(trio.leader(), leader);
  EXPECT_EQ(Begun(trio), 0);
  EXPECT_FALSE(HasCaughtUp(trio, lagging));
  trio.Put(leader, PeerConnection{id, PeerLane::kSnapshot, true});
  ExpectCatchesUp(trio, lagging);
  EXPECT_EQ(Begun(trio), 1);
}

// Whatever asks for the next one: many entries, here.
TEST(CatchUpTest, OneOwnSnapshotAtATimeIsOnItsWayToTheDisk) {
  Trio trio(3, [](Options* options) { options->snapshot_entries = 10; });
  const size_t stalled = trio.follower();
  trio.StallSnapshots(stalled);
  Fill(trio, "key-", 100);
  trio.Advance(seconds(1));
  EXPECT_EQ(trio.unwritten_snapshots(stalled), 1u);
  const uint64_t saved = trio.StatsOf(stalled)->snapshots_saved;
  trio.WriteSnapshots(stalled);
  trio.Advance(seconds(1));
  EXPECT_EQ(trio.StatsOf(stalled)->snapshots_saved, saved + 2);  // and the next one, at once
}

// A member whose disk stood still while it wrote a snapshot of its own gets a newer one: its own is
// of no use any more, and is not finished.
TEST(CatchUpTest, AnOwnSnapshotGivesWayToOneThatComes) {
  Stalled at_rest;
  Trio& trio = at_rest.trio;
  const size_t stalled = at_rest.follower;
  const uint64_t saved = trio.StatsOf(stalled)->snapshots_saved;
  trio.CutOff(stalled);
  Fill(trio, "more-", 64);
  trio.Rejoin(stalled);
  for (int i = 0; i < 100 && Begun(trio) == 0; ++i) trio.Advance(milliseconds(50));
  ASSERT_EQ(Begun(trio), 1);
  trio.Advance(milliseconds(100));
  trio.WriteSnapshots(stalled);
  ExpectCatchesUp(trio, stalled);
  EXPECT_EQ(trio.StatsOf(stalled)->snapshots_received, 1u);
  EXPECT_EQ(trio.StatsOf(stalled)->snapshots_saved, saved + 1);
}

// Of a cluster in which only member 2 keeps the log: member 1 has all of a snapshot that member 0
// sends, and waits for its disk.
struct Unsaved {
  static constexpr int kKeys = 1500;

  Unsaved() {
    if (trio.leader() != 0) {
      etcdserverpb::MoveLeaderRequest request;
      request.set_targetid(trio.options(0).id.value());
      EXPECT_EQ(trio.Call(trio.leader(), Method::kMoveLeader, request.SerializeAsString()).error,
                nullptr);
      trio.Advance(seconds(1));
    }
    CONCLAVE_CHECK(trio.leader() == 0);
    for (int i = 0; i < kKeys; ++i) {
      EXPECT_EQ(trio.Call(0, Method::kPut, SmallPut(i, "old")).error, nullptr);
    }
    trio.CutOff(kLagging);
    Fill(trio, "key-", 64);
    for (int i = 0; i < kKeys; ++i) {
      EXPECT_EQ(trio.Call(0, Method::kPut, SmallPut(i, "new")).error, nullptr);
    }
    trio.StallSnapshots(kLagging);
    trio.Rejoin(kLagging);
    uint64_t before = 0;
    for (int i = 0; i < 100 && (before == 0 || trio.unwritten_bytes(kLagging) > before); ++i) {
      before = trio.unwritten_bytes(kLagging);
      trio.Advance(milliseconds(200));
    }
    EXPECT_GT(before, 64 * kValueBytes);
    EXPECT_FALSE(HasCaughtUp(trio, kLagging));
  }

  static constexpr size_t kLagging = 1;
  Trio trio{3, [](Options* options) {
              Small(options);
              if (options->name == "m2") options->log_window_bytes = 64 * kMiB;
            }};
};

// While a snapshot waits for the disk another leader sends what is missing from its log: what was
// saved for nothing takes nothing back.
TEST(CatchUpTest, TheLogMayBeFasterThanASnapshotThatIsSaved) {
  Unsaved unsaved;
  Trio& trio = unsaved.trio;
  trio.Kill(0);
  for (int i = 0; i < 200 && !HasCaughtUp(trio, Unsaved::kLagging); ++i) {
    trio.Advance(milliseconds(50));
  }
  ASSERT_TRUE(HasCaughtUp(trio, Unsaved::kLagging));
  Fill(trio, "later-", 1);
  trio.Advance(seconds(1));
  const raft::Index applied = trio.node(Unsaved::kLagging).raft_status().applied;
  trio.WriteSnapshots(Unsaved::kLagging);
  trio.Settle();
  EXPECT_EQ(trio.node(Unsaved::kLagging).raft_status().applied, applied);
  EXPECT_NE(trio.node(Unsaved::kLagging).state().store().Get("later-0"), nullptr);
  EXPECT_EQ(trio.StatsOf(Unsaved::kLagging)->snapshots_received, 0u);
  Fill(trio, "last-", 1);
  ExpectCatchesUp(trio, Unsaved::kLagging);
}

// A long read is under way when the state is replaced: it begins again, and its answer is of the
// new state altogether.
TEST(CatchUpTest, ALongReadBeginsAgainInTheNewState) {
  Unsaved unsaved;
  Trio& trio = unsaved.trio;
  etcdserverpb::RangeRequest request;
  request.set_key("small-");
  request.set_range_end("small.");
  request.set_serializable(true);
  // Both come in the same turn.
  const uint64_t call = trio.Send(Unsaved::kLagging, Method::kRange, request.SerializeAsString());
  trio.WriteSnapshots(Unsaved::kLagging);
  trio.Settle();
  EXPECT_EQ(trio.StatsOf(Unsaved::kLagging)->snapshots_received, 1u);
  const std::optional<Reply> reply = trio.Take(call);
  ASSERT_TRUE(reply.has_value());
  const auto response = Parsed<etcdserverpb::RangeResponse>(*reply);
  EXPECT_EQ(response.header().revision(), 1 + 2 * Unsaved::kKeys + 64);
  ASSERT_EQ(response.kvs_size(), Unsaved::kKeys);
  for (const auto& kv : response.kvs()) EXPECT_EQ(kv.value(), "new") << kv.key();
}

}  // namespace
}  // namespace conclave::node
