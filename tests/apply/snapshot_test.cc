#include "conclave/server/apply/snapshot.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/base/status.h"
#include "conclave/tests/apply/machine.h"
#include "conclave/tests/apply/request_generator.h"

namespace conclave::apply {
namespace {

StateMachineOptions Options() {
  StateMachineOptions options;
  options.member_id = Machine::kMemberId;
  return options;
}

std::string Snapshot(StateMachine* state, size_t piece_bytes = 256) {
  SnapshotTask task(state);
  std::string stream;
  while (true) {
    const Bytes piece = task.Next(piece_bytes);
    if (piece.empty()) return stream;
    stream.append(piece.view());
  }
}

absl::StatusOr<std::unique_ptr<StateMachine>> Restore(std::string_view stream,
                                                      size_t piece_bytes = 100) {
  RestoreTask task(Options());
  while (!stream.empty()) {
    const absl::Status fed = task.Feed(stream.substr(0, piece_bytes));
    if (!fed.ok()) return fed;
    stream.remove_prefix(std::min(piece_bytes, stream.size()));
  }
  return task.Finish();
}

// Some random life, writes only.
void Live(Machine* machine, uint64_t seed, int requests) {
  RequestGenerator generator(seed, {});
  for (int i = 0; i < requests; ++i) {
    const int64_t revision = machine->state().store().current_revision();
    generator.set_revision(revision);
    switch (generator.prng().Below(12)) {
      case 0:
        (void)machine->Grant(generator.Lease(), 100);
        break;
      case 1:
        if (generator.prng().Chance(1, 5)) (void)machine->Revoke(generator.Lease());
        break;
      case 2:
        (void)machine->Compact(revision - 20);
        break;
      case 3:
        (void)machine->Delete(generator.DeleteRange());
        break;
      case 4:
      case 5:
        (void)machine->Txn(generator.Txn());
        break;
      default:
        (void)machine->Put(generator.Put());
    }
  }
}

void PublishSomething(Machine* machine) {
  (void)machine->ApplyPayload(EncodeMemberAttributes(
      Machine::kMemberId, 1, {Machine::kMemberId, "one", {"http://127.0.0.1:2379"}}));
  (void)machine->ApplyPayload(EncodeClusterVersion(Machine::kMemberId, 2, "3.5.0"));
}

TEST(Snapshot, RestoresEverything) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Machine machine;
    PublishSomething(&machine);
    Live(&machine, seed, 500);
    pb::AlarmRequest alarm;
    alarm.set_action(pb::AlarmRequest::ACTIVATE);
    alarm.set_memberid(5);
    alarm.set_alarm(pb::CORRUPT);
    ASSERT_TRUE(machine.Call<pb::AlarmResponse>(wire::Method::kAlarm, alarm).ok());
    (void)machine.ApplyPayload(EncodeRefill(Machine::kMemberId, 3, {7, true}));

    auto restored = Restore(Snapshot(&machine.state()));
    ASSERT_TRUE(restored.ok()) << restored.status().ToString();
    StateMachine& copy = **restored;
    copy.CheckInvariants();
    EXPECT_EQ(copy.digest(), machine.state().digest());
    EXPECT_EQ(copy.applied_index(), machine.state().applied_index());
    EXPECT_EQ(copy.applied_term(), machine.state().applied_term());
    EXPECT_EQ(copy.cluster_version(), "3.5.0");
    EXPECT_EQ(copy.membership().members(), machine.state().membership().members());
    EXPECT_EQ(copy.Alarms(), machine.state().Alarms());
    EXPECT_EQ(copy.refills(), machine.state().refills());
    EXPECT_EQ(copy.refills().size(), 1u);
    EXPECT_EQ(copy.store().current_revision(), machine.state().store().current_revision());
    EXPECT_EQ(copy.store().compact_revision(), machine.state().store().compact_revision());
  }
}

// What a reader that has `own`, or what an unfinished task had, makes of the state. *sent: how much
// of the stream it needed.
absl::StatusOr<std::unique_ptr<StateMachine>> Hand(StateMachine* state, const mvcc::Store* own,
                                                   std::unique_ptr<RestoreTask> unfinished,
                                                   size_t* sent, std::string* whole) {
  SnapshotTask task(state);
  RestoreTask restore(Options());
  if (own != nullptr) restore.Reuse(own);
  if (unfinished != nullptr) restore.Reuse(std::move(unfinished));
  *sent = 0;
  const auto feed = [&](const Bytes& piece) {
    *sent += piece.size();
    return restore.Feed(piece.view(), whole);
  };
  for (Bytes piece = task.NextOfOpening(256); !piece.empty(); piece = task.NextOfOpening(256)) {
    CONCLAVE_RETURN_IF_ERROR(feed(piece));
  }
  task.ReaderHas(restore.reusable());
  for (Bytes piece = task.Next(256); !piece.empty(); piece = task.Next(256)) {
    CONCLAVE_RETURN_IF_ERROR(feed(piece));
  }
  EXPECT_TRUE(task.done());
  EXPECT_GE(task.covered_bytes(), *sent);
  return restore.Finish();
}

void ExpectEqual(StateMachine* copy, StateMachine* state) {
  copy->CheckInvariants();
  EXPECT_EQ(copy->digest(), state->digest());
  EXPECT_EQ(Snapshot(copy), Snapshot(state));  // history too
}

// Deletes and compactions of the time in between take their toll of what the reader has.
TEST(Snapshot, WhatTheReaderHasIsOnlyNamed) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Machine machine;
    Live(&machine, seed, 300);
    auto old = Restore(Snapshot(&machine.state()));
    ASSERT_TRUE(old.ok());
    Live(&machine, 100 + seed, 30);
    size_t sent = 0;
    std::string whole;
    auto made = Hand(&machine.state(), &(*old)->store(), nullptr, &sent, &whole);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    (*old).reset();  // records that are shared outlive it
    ExpectEqual(made->get(), &machine.state());
    EXPECT_LT(sent, whole.size());
    auto again = Restore(whole);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    ExpectEqual(again->get(), &machine.state());
  }
}

TEST(Snapshot, AStreamThatBrokeOffIsGoneOnWithByAnother) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Machine machine;
    Live(&machine, seed, 300);
    std::unique_ptr<RestoreTask> unfinished;
    // Breaks off several times, at another place each time.
    for (int part = 1; part <= 3; ++part) {
      SnapshotTask task(&machine.state());
      auto restore = std::make_unique<RestoreTask>(Options());
      if (unfinished != nullptr) restore->Reuse(std::move(unfinished));
      for (Bytes piece = task.NextOfOpening(256); !piece.empty(); piece = task.NextOfOpening(256)) {
        ASSERT_TRUE(restore->Feed(piece.view()).ok());
      }
      task.ReaderHas(restore->reusable());
      for (int i = 0; i < 10 * part; ++i) {
        ASSERT_TRUE(restore->Feed(task.Next(100).view()).ok());
      }
      unfinished = std::move(restore);
      Live(&machine, 100 * seed + part, 20);
    }
    size_t sent = 0;
    std::string whole;
    auto made = Hand(&machine.state(), nullptr, std::move(unfinished), &sent, &whole);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    ExpectEqual(made->get(), &machine.state());
    EXPECT_LT(sent, whole.size());
  }
}

TEST(Snapshot, NamesMeanNothingWithoutTheRecords) {
  Machine machine;
  Live(&machine, 1, 100);
  SnapshotTask task(&machine.state());
  task.ReaderHas({.main = 50, .sub = 0});
  std::string stream;
  for (Bytes piece = task.Next(256); !piece.empty(); piece = task.Next(256)) {
    stream.append(piece.view());
  }
  const auto alone = Restore(stream);
  EXPECT_TRUE(absl::IsDataLoss(alone.status())) << alone.status().ToString();
  // Nor with those of another history.
  Machine other;
  Live(&other, 2, 90);
  RestoreTask restore(Options());
  restore.Reuse(&other.state().store());
  absl::Status outcome = restore.Feed(stream);
  if (outcome.ok()) outcome = restore.Finish().status();
  EXPECT_TRUE(absl::IsDataLoss(outcome)) << outcome.ToString();
}

// History too, not only the heads: reads at old revisions, hashes and leases answer the same.
TEST(Snapshot, ARestoredStateAnswersAsTheOld) {
  Machine machine;
  Live(&machine, 3, 400);
  auto restored = Restore(Snapshot(&machine.state()));
  ASSERT_TRUE(restored.ok());
  Machine copy(*std::move(restored));
  const int64_t current = machine.state().store().current_revision();
  for (int64_t revision = current - 30; revision <= current + 1; ++revision) {
    const auto theirs = machine.Get("a", OpenEnd(), revision);
    const auto ours = copy.Get("a", OpenEnd(), revision);
    EXPECT_EQ(ours.error, theirs.error);
    EXPECT_EQ(ours.message.DebugString(), theirs.message.DebugString());
    EXPECT_EQ(copy.HashKv(revision)->DebugString(), machine.HashKv(revision)->DebugString());
  }
  for (int64_t lease = 1; lease <= 6; ++lease) {
    EXPECT_EQ(copy.TimeToLive(lease, true)->DebugString(),
              machine.TimeToLive(lease, true)->DebugString());
  }
}

TEST(Snapshot, ShowsTheMomentOfItsBeginning) {
  Machine machine;
  Live(&machine, 4, 300);
  const std::string before = Snapshot(&machine.state());
  SnapshotTask task(&machine.state());
  std::string stream;
  for (uint64_t seed = 100; true; ++seed) {
    const Bytes piece = task.Next(200);
    if (piece.empty()) break;
    stream.append(piece.view());
    Live(&machine, seed, 5);  // writes and compactions go on meanwhile
    machine.state().CompactSlice(100);
  }
  const auto first = Restore(before);
  const auto second = Restore(stream);
  ASSERT_TRUE(first.ok() && second.ok()) << second.status().ToString();
  EXPECT_EQ((*first)->digest(), (*second)->digest());
}

// What compaction has freed so far does not show.
TEST(Snapshot, IsTheSameOnMembersThatCompactedAtAnotherPace) {
  Machine eager;
  Live(&eager, 5, 500);
  Machine lazy;
  for (const Bytes& entry : eager.entries()) (void)lazy.ApplyPayload(entry, false);
  while (eager.state().CompactSlice(1000)) {
  }
  EXPECT_EQ(Snapshot(&eager.state()), Snapshot(&lazy.state()));
}

TEST(Snapshot, MayBeCutAnywhere) {
  Machine machine;
  Live(&machine, 6, 100);
  const std::string stream = Snapshot(&machine.state());
  for (size_t piece = 1; piece < 40; ++piece) {
    const auto restored = Restore(stream, piece);
    ASSERT_TRUE(restored.ok()) << piece;
    EXPECT_EQ((*restored)->digest(), machine.state().digest());
  }
}

TEST(Snapshot, APartOfOneIsRefused) {
  Machine machine;
  Live(&machine, 7, 60);
  const std::string stream = Snapshot(&machine.state());
  for (size_t size = 0; size < stream.size(); ++size) {
    const auto restored = Restore(std::string_view(stream).substr(0, size));
    ASSERT_EQ(restored.status().code(), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_FALSE(Restore(stream + "x").ok());
}

// Damaged bytes end with a Status, or with a state that is sound in itself.
TEST(Snapshot, SurvivesHostileBytes) {
  Machine machine;
  Live(&machine, 8, 120);
  const std::string stream = Snapshot(&machine.state());
  Prng prng(9);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = stream;
    for (uint64_t edits = prng.Below(3) + 1; edits > 0; --edits) {
      const size_t at = prng.Below(damaged.size());
      if (prng.Chance(1, 2)) {
        damaged[at] = static_cast<char>(prng.Next());
      } else if (prng.Chance(1, 2)) {
        damaged.erase(at, prng.Below(20));
      } else {
        damaged.insert(at, damaged.substr(prng.Below(damaged.size()), prng.Below(20)));
      }
      if (damaged.empty()) break;
    }
    const auto restored = Restore(damaged, 1 + prng.Below(500));
    if (!restored.ok()) {
      ++refused;
      continue;
    }
    (*restored)->CheckInvariants();
  }
  EXPECT_GT(refused, 2000);
}

// ---- Determinism --------------------------------------------------------------------------------

TEST(Determinism, TwoMembersWithTheSameEntriesAgree) {
  for (uint64_t seed = 20; seed < 30; ++seed) {
    Machine one;
    PublishSomething(&one);
    Live(&one, seed, 500);
    StateMachineOptions other_settings;
    other_settings.quota_bytes = 1;
    other_settings.lease_ttl_min_s = 1000;
    other_settings.limits.txn_ops_max = 1;
    Machine two(other_settings);
    two.state().Demote();
    for (const Bytes& entry : one.entries()) {
      two.Wait(std::chrono::seconds(3));
      (void)two.ApplyPayload(entry, /*want_response=*/false);
      two.state().CompactSlice(3);
    }
    EXPECT_EQ(two.state().digest(), one.state().digest());
    EXPECT_EQ(two.state().applied_index(), one.state().applied_index());
  }
}

TEST(Determinism, AMemberThatJoinsBySnapshotAgrees) {
  Machine one;
  Live(&one, 31, 300);
  auto restored = Restore(Snapshot(&one.state()));
  ASSERT_TRUE(restored.ok());
  Machine two(*std::move(restored));
  const size_t known = one.entries().size();
  Live(&one, 32, 300);
  for (size_t i = known; i < one.entries().size(); ++i) {
    (void)two.ApplyPayload(one.entries()[i], false);
  }
  EXPECT_EQ(two.state().digest(), one.state().digest());
  EXPECT_EQ(Snapshot(&one.state()), Snapshot(&two.state()));
}

TEST(Determinism, EveryEntryMovesTheAppliedIndex) {
  Machine machine;
  const uint64_t start = machine.state().applied_index();
  (void)machine.ApplyPayload(Bytes());  // the first one of a leader
  EXPECT_EQ(machine.state().applied_index(), start + 1);
  ASSERT_FALSE(machine.Put("k", "v", /*lease=*/404).ok());  // refused when applied
  EXPECT_EQ(machine.state().applied_index(), start + 2);
  machine.state().Advance(start + 3, Machine::kTerm);
  EXPECT_EQ(machine.state().applied_index(), start + 3);
}

TEST(Determinism, AnyChangeOfTheStateChangesTheDigest) {
  Machine machine;
  mvcc::Digest last = machine.state().digest();
  const auto changed = [&] {
    const mvcc::Digest now = machine.state().digest();
    const bool differs = !(now == last);
    last = now;
    return differs;
  };
  ASSERT_TRUE(machine.Put("k", "v").ok());
  EXPECT_TRUE(changed());
  ASSERT_TRUE(machine.Put("k", "v").ok());
  EXPECT_TRUE(changed());
  ASSERT_TRUE(machine.Grant(7, 100).ok());
  EXPECT_TRUE(changed());
  ASSERT_TRUE(machine.Compact(2).ok());
  EXPECT_TRUE(changed());
  PublishSomething(&machine);
  EXPECT_TRUE(changed());
  ASSERT_TRUE(machine.Delete("k").ok());
  EXPECT_TRUE(changed());
  ASSERT_TRUE(machine.Get("k").ok());
  EXPECT_FALSE(changed());
}

}  // namespace
}  // namespace conclave::apply
