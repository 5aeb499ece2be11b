// Each checker against histories that it must reject, and the good ones next to them.
#include "conclave/tests/sim/checkers.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace conclave::sim {
namespace {

using Kind = KvOperation::Kind;

Instant At(int64_t seconds) { return Instant(std::chrono::seconds(seconds)); }

Write PutOf(std::string key, std::string value, int64_t create, int64_t version) {
  return {std::move(key), std::move(value), create, version, 0, false};
}
Write DeleteOf(std::string key) { return {std::move(key), "", 0, 0, 0, true}; }

// Revision 2: a = v1. 3: b = v2. 4: a = v3, c = v3. 5: a deleted.
TrueHistory Truth() {
  return {{2, {PutOf("a", "v1", 2, 1)}, At(2)},
          {3, {PutOf("b", "v2", 3, 1)}, At(3)},
          {4, {PutOf("a", "v3", 2, 2), PutOf("c", "v3", 4, 1)}, At(4)},
          {5, {DeleteOf("a")}, At(5)}};
}

KvOperation Operation(Kind kind, std::string key, int64_t invoked, int64_t returned,
                      int64_t revision) {
  KvOperation op;
  op.kind = kind;
  op.key = std::move(key);
  op.invoked = At(invoked);
  op.returned = At(returned);
  op.revision = revision;
  op.outcome = Outcome::kDone;
  return op;
}
KvOperation Put(std::string key, std::string value, int64_t invoked, int64_t returned,
                int64_t revision) {
  KvOperation op = Operation(Kind::kPut, std::move(key), invoked, returned, revision);
  op.value = std::move(value);
  return op;
}
KvOperation Range(std::string key, int64_t invoked, int64_t returned, int64_t revision,
                  std::vector<SeenKey> keys) {
  KvOperation op = Operation(Kind::kRange, std::move(key), invoked, returned, revision);
  op.keys = std::move(keys);
  return op;
}
KvOperation Swap(int64_t expected, bool succeeded, int64_t revision) {
  KvOperation op = Operation(Kind::kSwap, "a", 3, 5, revision);
  op.second_key = "c";
  op.value = "v3";
  op.expected_mod = expected;
  op.succeeded = succeeded;
  return op;
}
KvOperation Delete(std::string key, int64_t deleted, int64_t revision) {
  KvOperation op = Operation(Kind::kDelete, std::move(key), 4, 6, revision);
  op.deleted = deleted;
  return op;
}

bool Accepts(const std::vector<KvOperation>& operations) {
  return CheckKv(Truth(), operations).empty();
}

const SeenKey kA1{"a", "v1", 2, 2, 1};
const SeenKey kA3{"a", "v3", 2, 4, 2};

TEST(KvChecker, AcceptsWhatHappened) {
  EXPECT_TRUE(Accepts({Put("a", "v1", 1, 2, 2), Put("b", "v2", 2, 3, 3), Swap(2, true, 4),
                       Delete("a", 1, 5), Range("a", 2, 3, 3, {kA1}), Range("a", 6, 7, 5, {})}));
}
TEST(KvChecker, RejectsALostWrite) { EXPECT_FALSE(Accepts({Put("a", "lost", 1, 2, 2)})); }
TEST(KvChecker, RejectsAWriteAtAnotherRevision) {
  EXPECT_FALSE(Accepts({Put("a", "v1", 1, 2, 3)}));
}
TEST(KvChecker, RejectsAWriteThatTookEffectTwice) {
  TrueHistory truth = Truth();
  truth.push_back({6, {PutOf("b", "v2", 3, 2)}, At(6)});
  EXPECT_FALSE(CheckKv(truth, {Put("b", "v2", 2, 3, 3)}).empty());
  KvOperation unknown = Put("b", "v2", 2, 3, 3);
  unknown.outcome = Outcome::kUnknown;
  EXPECT_FALSE(CheckKv(truth, {unknown}).empty());
  EXPECT_TRUE(CheckKv(Truth(), {unknown}).empty());
}
TEST(KvChecker, RejectsARefusedWriteThatTookEffect) {
  KvOperation refused = Put("a", "v1", 1, 2, 0);
  refused.outcome = Outcome::kRefused;
  EXPECT_FALSE(Accepts({refused}));
}
TEST(KvChecker, RejectsARevisionThatNeverWas) { EXPECT_FALSE(Accepts({Range("a", 6, 7, 9, {})})); }
TEST(KvChecker, RejectsAReadOfAnotherState) {
  EXPECT_FALSE(Accepts({Range("a", 2, 3, 3, {})}));
  EXPECT_FALSE(Accepts({Range("a", 2, 3, 3, {kA3})}));
  EXPECT_FALSE(Accepts({Range("a", 6, 7, 5, {kA3})}));
}
TEST(KvChecker, RejectsAReadOfAWrongVersion) {
  SeenKey wrong = kA1;
  wrong.version = 2;
  EXPECT_FALSE(Accepts({Range("a", 2, 3, 3, {wrong})}));
}
TEST(KvChecker, RejectsAStaleRead) {
  EXPECT_FALSE(Accepts({Put("b", "v2", 2, 3, 3), Range("a", 4, 5, 2, {kA1})}));
  // A serializable one may be stale.
  KvOperation stale = Range("a", 4, 5, 2, {kA1});
  stale.serializable = true;
  EXPECT_TRUE(Accepts({Put("b", "v2", 2, 3, 3), stale}));
}
TEST(KvChecker, RejectsReadsThatGoBack) {
  EXPECT_FALSE(Accepts({Range("a", 1, 2, 4, {kA3}), Range("a", 3, 4, 3, {kA1})}));
}
TEST(KvChecker, RejectsAWriteThatSlipsBehindALaterOne) {
  EXPECT_FALSE(Accepts({Put("b", "v2", 1, 2, 3), Put("a", "v1", 3, 4, 2)}));
}
TEST(KvChecker, RejectsAnUnknownWriteThatTookEffectBeforeItBegan) {
  KvOperation unknown = Put("a", "v1", 9, 9, 0);
  unknown.outcome = Outcome::kUnknown;
  EXPECT_FALSE(Accepts({Range("a", 1, 2, 3, {kA1}), unknown}));
}
TEST(KvChecker, RejectsASwapThatComparedWithAnotherState) {
  EXPECT_FALSE(Accepts({Swap(3, true, 4)}));
  EXPECT_FALSE(Accepts({Swap(0, true, 4)}));
}
TEST(KvChecker, RejectsHalfASwap) {
  TrueHistory truth = Truth();
  truth[2].writes.pop_back();
  EXPECT_FALSE(CheckKv(truth, {Swap(2, true, 4)}).empty());
}
TEST(KvChecker, RejectsADeleteOfNothing) {
  EXPECT_FALSE(Accepts({Delete("b", 1, 5)}));
  EXPECT_FALSE(Accepts({Delete("b", 0, 5)}));
  EXPECT_TRUE(Accepts({Delete("z", 0, 5)}));
}

TEST(KvChecker, RejectsAWriteToAnotherKey) {
  EXPECT_FALSE(Accepts({Put("c", "v1", 1, 2, 2)}));
  KvOperation unknown = Put("c", "v1", 1, 2, 0);
  unknown.outcome = Outcome::kUnknown;
  EXPECT_FALSE(Accepts({unknown}));
  EXPECT_FALSE(Accepts({Put("a", "v3", 3, 4, 4)}));  // what a swap has written
}
TEST(KvChecker, RejectsTwoWhoDidTheSame) {
  EXPECT_FALSE(Accepts({Delete("a", 1, 5), Delete("a", 1, 5)}));
}

// ---- Watch --------------------------------------------------------------------------------------

WatchHistory::Note Event(int64_t revision, Write write) {
  return {.kind = WatchHistory::Note::Kind::kEvent,
          .heard = {revision, std::move(write)},
          .revision = 0};
}
WatchHistory::Note Progress(int64_t revision) {
  return {.kind = WatchHistory::Note::Kind::kProgress, .heard = {}, .revision = revision};
}
WatchHistory::Note Compacted(int64_t revision) {
  return {.kind = WatchHistory::Note::Kind::kCompacted, .heard = {}, .revision = revision};
}
bool AcceptsWatch(std::vector<WatchHistory::Note> notes, bool complete = false) {
  WatchHistory watch;
  watch.key = "a";
  watch.range_end = "d";
  watch.start_revision = 2;
  watch.notes = std::move(notes);
  watch.must_be_complete = complete;
  return CheckWatch(Truth(), watch).empty();
}
const auto kE2 = Event(2, PutOf("a", "v1", 2, 1));
const auto kE3 = Event(3, PutOf("b", "v2", 3, 1));
const auto kE4a = Event(4, PutOf("a", "v3", 2, 2));
const auto kE4c = Event(4, PutOf("c", "v3", 4, 1));
const auto kE5 = Event(5, DeleteOf("a"));

TEST(WatchChecker, AcceptsWhatHappened) {
  EXPECT_TRUE(AcceptsWatch({kE2, Progress(2), kE3, kE4a, kE4c, kE5, Progress(9)}, true));
  EXPECT_TRUE(AcceptsWatch({kE2, kE3}));
}
TEST(WatchChecker, RejectsAGap) { EXPECT_FALSE(AcceptsWatch({kE2, kE4a})); }
TEST(WatchChecker, RejectsAGapWithinARevision) {
  EXPECT_FALSE(AcceptsWatch({kE2, kE3, kE4a, kE5}));
}
TEST(WatchChecker, RejectsARepetition) { EXPECT_FALSE(AcceptsWatch({kE2, kE2})); }
TEST(WatchChecker, RejectsDisorder) {
  EXPECT_FALSE(AcceptsWatch({kE3, kE2}));
  EXPECT_FALSE(AcceptsWatch({kE2, kE3, kE4c, kE4a}));
}
TEST(WatchChecker, RejectsAnEventThatNeverWas) {
  EXPECT_FALSE(AcceptsWatch({kE2, Event(3, PutOf("b", "other", 3, 1))}));
  EXPECT_FALSE(AcceptsWatch({kE2, kE3, kE4a, kE4c, kE5, Event(6, DeleteOf("b"))}));
}
TEST(WatchChecker, RejectsADeleteSoldAsAPut) {
  EXPECT_FALSE(AcceptsWatch({kE2, kE3, kE4a, kE4c, Event(5, PutOf("a", "", 0, 0))}));
}
TEST(WatchChecker, RejectsProgressThatOvertakesEvents) {
  EXPECT_FALSE(AcceptsWatch({kE2, Progress(3), kE3}));
}
TEST(WatchChecker, RejectsAWatchThatFellSilent) {
  EXPECT_FALSE(AcceptsWatch({kE2, kE3, kE4a, kE4c}, true));
  EXPECT_FALSE(AcceptsWatch({}, true));
}
TEST(WatchChecker, ACompactionExcusesWhatLiesBeforeIt) {
  EXPECT_TRUE(AcceptsWatch({kE2, Compacted(4), kE4a, kE4c, kE5}, true));
  EXPECT_FALSE(AcceptsWatch({kE2, Compacted(3), kE4a}));
}

// ---- The past, what cannot be, and what a key was before ----------------------------------------

KvOperation Past(int64_t revision, std::vector<SeenKey> keys) {
  KvOperation op = Operation(Kind::kPast, "a", 5, 6, 5);
  op.expected_mod = revision;
  op.keys = std::move(keys);
  return op;
}
TEST(KvChecker, AcceptsThePast) {
  EXPECT_TRUE(Accepts({Past(2, {kA1}), Past(3, {kA1}), Past(4, {kA3}), Past(5, {})}));
}
TEST(KvChecker, RejectsAnotherPast) {
  EXPECT_FALSE(Accepts({Past(2, {kA3})}));
  EXPECT_FALSE(Accepts({Past(2, {})}));
  EXPECT_FALSE(Accepts({Past(4, {kA1})}));
  EXPECT_FALSE(Accepts({Past(5, {kA3})}));
}

TEST(KvChecker, RejectsAWriteAlongWithThePastThatDidNotCount) {
  KvOperation op = Past(2, {});
  op.key = "b";
  op.value = "v2";
  op.revision = 3;
  op.invoked = At(2);
  EXPECT_TRUE(Accepts({op}));
  op.value = "lost";
  EXPECT_FALSE(Accepts({op}));
  op.value = "v2";
  op.outcome = Outcome::kRefused;  // and there
  EXPECT_FALSE(Accepts({op}));
  op.outcome = Outcome::kDone;
  op.invoked = At(6);  // behind what had been seen before
  EXPECT_FALSE(Accepts({op, Range("a", 4, 5, 5, {})}));
}

KvOperation Doomed(std::string value, Outcome outcome) {
  KvOperation op = Operation(Kind::kDoomed, "a", 1, 2, 2);
  op.value = std::move(value);
  op.outcome = outcome;
  return op;
}
TEST(KvChecker, RejectsWhatCannotBe) {
  EXPECT_TRUE(Accepts({Doomed("v9", Outcome::kRefused), Doomed("v8", Outcome::kUnknown)}));
  EXPECT_FALSE(Accepts({Doomed("v9", Outcome::kDone)}));     // acknowledged
  EXPECT_FALSE(Accepts({Doomed("v1", Outcome::kRefused)}));  // and there, in part
  EXPECT_FALSE(Accepts({Doomed("v2", Outcome::kUnknown)}));
}

bool AcceptsPrevious(int64_t mod, const std::string& value) {
  WatchHistory watch;
  watch.key = "a";
  watch.start_revision = 4;
  WatchHistory::Note note;
  note.heard.revision = 4;
  note.heard.write = PutOf("a", "v3", 2, 2);
  note.heard.previous_mod = mod;
  note.heard.previous_value = value;
  watch.notes.push_back(note);
  return CheckWatch(Truth(), watch).empty();
}
TEST(WatchChecker, RejectsAWrongPreviousVersion) {
  EXPECT_TRUE(AcceptsPrevious(2, "v1"));
  EXPECT_TRUE(AcceptsPrevious(0, ""));  // not told
  EXPECT_FALSE(AcceptsPrevious(2, "v2"));
  EXPECT_FALSE(AcceptsPrevious(3, "v1"));
  EXPECT_FALSE(AcceptsPrevious(4, "v3"));
}

// ---- Leases -------------------------------------------------------------------------------------

TrueHistory LeaseTruth(int64_t ended) {
  TrueHistory truth = {{2, {PutOf("lease/1", "x", 2, 1)}, At(1)}};
  if (ended > 0) truth.push_back({3, {DeleteOf("lease/1")}, At(ended)});
  return truth;
}
LeaseHistory Lease() {
  LeaseHistory lease;
  lease.id = 1;
  lease.key = "lease/1";
  lease.ttl = std::chrono::seconds(5);
  lease.granted = At(0);
  lease.key_written = true;
  return lease;
}

TEST(LeaseChecker, AcceptsALeaseThatEndsInTime) {
  EXPECT_TRUE(CheckLease(LeaseTruth(5), Lease()).empty());
  EXPECT_TRUE(CheckLease(LeaseTruth(9), Lease()).empty());
}
TEST(LeaseChecker, RejectsALeaseThatEndsEarly) {
  EXPECT_FALSE(CheckLease(LeaseTruth(4), Lease()).empty());
}
TEST(LeaseChecker, RejectsARenewalThatDidNotCount) {
  LeaseHistory lease = Lease();
  lease.renewed = {At(3)};
  EXPECT_FALSE(CheckLease(LeaseTruth(7), lease).empty());
  EXPECT_TRUE(CheckLease(LeaseTruth(8), lease).empty());
}
TEST(LeaseChecker, RejectsALeaseThatEndsAsIfOnlyOneRenewalHadCounted) {
  LeaseHistory lease = Lease();
  lease.renewed = {At(2), At(4)};
  EXPECT_FALSE(CheckLease(LeaseTruth(7), lease).empty());
  EXPECT_FALSE(CheckLease(LeaseTruth(8), lease).empty());
  EXPECT_TRUE(CheckLease(LeaseTruth(9), lease).empty());
}
TEST(LeaseChecker, RejectsARenewalOfALeaseThatWasGone) {
  LeaseHistory lease = Lease();
  lease.renewed = {At(6)};
  EXPECT_FALSE(CheckLease(LeaseTruth(5), lease).empty());
}
TEST(LeaseChecker, RejectsALeaseThatIsCalledGoneWhileItLives) {
  LeaseHistory lease = Lease();
  lease.told_gone = At(6);
  EXPECT_TRUE(CheckLease(LeaseTruth(6), lease).empty());
  EXPECT_FALSE(CheckLease(LeaseTruth(7), lease).empty());
  EXPECT_FALSE(CheckLease(LeaseTruth(0), lease).empty());
  lease.key_written = false;  // it may have gone before
  EXPECT_TRUE(CheckLease(LeaseTruth(0), lease).empty());
}
TEST(LeaseChecker, RejectsALeaseThatNeverEnds) {
  LeaseHistory lease = Lease();
  EXPECT_TRUE(CheckLease(LeaseTruth(0), lease).empty());
  lease.must_be_gone = true;
  EXPECT_FALSE(CheckLease(LeaseTruth(0), lease).empty());
}
TEST(LeaseChecker, RejectsALeaseThatOutlivesItsTime) {
  LeaseHistory lease = Lease();
  EXPECT_TRUE(CheckLease(LeaseTruth(90), lease).empty());  // while things go wrong
  lease.calm = At(20);
  EXPECT_TRUE(CheckLease(LeaseTruth(31), lease).empty());
  EXPECT_FALSE(CheckLease(LeaseTruth(32), lease).empty());
  lease.last_attempt = At(30);  // may have been taken
  EXPECT_TRUE(CheckLease(LeaseTruth(41), lease).empty());
  EXPECT_FALSE(CheckLease(LeaseTruth(42), lease).empty());
}
TEST(LeaseChecker, RejectsALostKey) { EXPECT_FALSE(CheckLease({}, Lease()).empty()); }

// ---- Elections ----------------------------------------------------------------------------------

TEST(Elections, AcceptOneLeaderATerm) {
  Elections elections;
  EXPECT_EQ(elections.Take(2, 0, 1), "");
  EXPECT_EQ(elections.Take(3, 1, 1), "");
  EXPECT_EQ(elections.Take(3, 1, 1), "");  // still
  EXPECT_EQ(elections.Take(4, 1, 2), "");
}

struct Win {
  uint64_t term = 0;
  size_t member = 0;
  uint64_t life = 1;
};
// All but the last are to be accepted.
const std::vector<Win> kBadElections[] = {
    {{2, 0}, {2, 1}},
    {{2, 1}, {2, 0}},
    {{2, 0}, {2, 0}, {2, 2}},
    {{2, 0}, {3, 0}, {3, 1}},
    {{2, 0}, {3, 1}, {2, 1}},           // an old term again, by who won a later one
    {{2, 0}, {3, 1}, {4, 2}, {3, 0}},   // by who won an earlier one
    {{5, 0}, {3, 1}, {5, 1}},           // the earlier term was won later
    {{2, 0, 1}, {2, 0, 2}},             // it has forgotten that it was one
    {{2, 0, 1}, {3, 1, 1}, {2, 0, 2}},  // and others led since
    {{2, 0, 1}, {3, 0, 2}, {3, 0, 1}},  // a life that was over
    {{2, 0, 1}, {3, 0, 2}, {2, 0, 1}, {2, 0, 3}},
    {{1, 4}, {1, 3}},
};
TEST(Elections, RejectASecondLeader) {
  for (const auto& history : kBadElections) {
    Elections elections;
    std::string wrong;
    for (const Win& win : history) {
      EXPECT_EQ(wrong, "");
      wrong = elections.Take(win.term, win.member, win.life);
    }
    EXPECT_NE(wrong, "") << "history " << &history - kBadElections;
  }
}

// ---- States -------------------------------------------------------------------------------------

struct MemberLook {
  size_t member = 0;  // kRestart: the one before has started again
  EqualStates::Look look;
};
constexpr size_t kRestart = 99;
EqualStates::Look StateAt(uint64_t applied, uint64_t low, uint64_t high = 0, uint64_t conf = 7) {
  return {.applied = applied, .state = {.low = low, .high = high}, .conf = conf};
}
std::string WrongAtLast(const std::vector<MemberLook>& looks) {
  EqualStates states;
  std::string wrong;
  for (size_t i = 0; i < looks.size(); ++i) {
    EXPECT_EQ(wrong, "");
    if (looks[i].member == kRestart) {
      states.Restarted(looks[i - 1].member);
    } else {
      wrong = states.Take(looks[i].member, looks[i].look);
    }
  }
  return wrong;
}
TEST(EqualStates, AcceptMembersThatGoTheSameWay) {
  EXPECT_EQ(WrongAtLast({{0, StateAt(1, 5)},
                         {1, StateAt(1, 5)},
                         {0, StateAt(3, 6)},
                         {2, StateAt(2, 9)},  // at an index where nobody was looked at
                         {1, StateAt(3, 6)},
                         {kRestart, {}},
                         {1, StateAt(2, 9)},
                         {1, StateAt(3, 6)}}),
            "");
}
const std::vector<MemberLook> kUnequalStates[] = {
    {{0, StateAt(1, 5)}, {1, StateAt(1, 6)}},
    {{0, StateAt(1, 5, 1)}, {1, StateAt(1, 5, 2)}},                // in its other half
    {{0, StateAt(1, 5)}, {1, StateAt(1, 5, 0, 8)}},                // its configuration
    {{0, StateAt(1, 5)}, {0, StateAt(2, 6)}, {1, StateAt(2, 5)}},  // an entry left out
    {{0, StateAt(1, 5)}, {0, StateAt(2, 6)}, {1, StateAt(1, 6)}},  // one too early
    {{0, StateAt(1, 5)}, {1, StateAt(1, 5)}, {2, StateAt(1, 4)}},  // the third
    {{0, StateAt(1, 5)}, {0, StateAt(9, 6)}, {1, StateAt(9, 7)}},  // behind a snapshot
    {{0, StateAt(2, 5)}, {0, StateAt(1, 4)}},                      // backwards
    {{1, StateAt(8, 5)}, {0, StateAt(7, 4)}, {1, StateAt(7, 4)}},  // to an equal state
    {{0, StateAt(2, 5)}, {kRestart, {}}, {0, StateAt(2, 6)}},      // from its disk
    {{0, StateAt(2, 5)}, {kRestart, {}}, {0, StateAt(1, 4)}, {1, StateAt(1, 5)}},
    {{0, StateAt(1, 5, 0, 7)}, {0, StateAt(2, 5, 0, 8)}, {1, StateAt(2, 5, 0, 7)}},
};
TEST(EqualStates, RejectThoseThatDoNot) {
  for (const auto& history : kUnequalStates) {
    EXPECT_NE(WrongAtLast(history), "") << "history " << &history - kUnequalStates;
  }
}

// ---- Leaders ------------------------------------------------------------------------------------

// What is wrong with the last of these looks; nothing is with those before.
std::string WrongAtLast(const std::vector<LeaderRules::Look>& looks) {
  LeaderRules rules;
  std::string wrong;
  for (const LeaderRules::Look& look : looks) {
    EXPECT_EQ(wrong, "");
    wrong = rules.Take(look);
  }
  return wrong;
}

TEST(LeaderRules, AcceptsALeaderThatCommitsItsOwn) {
  EXPECT_EQ(WrongAtLast({{.term = 1, .commit = 5, .conf_entry = 3},
                         {.term = 2, .commit = 5, .first_own = 9, .conf_entry = 3},
                         {.term = 2, .commit = 9, .first_own = 9, .conf_entry = 3},
                         {.term = 2, .commit = 10, .first_own = 9, .conf_entry = 11},
                         {.term = 2, .commit = 11, .first_own = 9, .conf_entry = 12},
                         {.term = 3, .commit = 12, .conf_entry = 12}}),
            "");
}
TEST(LeaderRules, AcceptsWhatAFollowerHearsIsCommitted) {
  EXPECT_EQ(WrongAtLast({{.term = 2, .commit = 5}, {.term = 2, .commit = 7}}), "");
}
TEST(LeaderRules, AcceptsAChangeThatWasThereBefore) {
  EXPECT_EQ(WrongAtLast({{.term = 1, .commit = 5, .conf_entry = 8},
                         {.term = 2, .commit = 5, .first_own = 9, .conf_entry = 8}}),
            "");
}
TEST(LeaderRules, RejectsACommitOfAnEarlierTermByCounting) {
  EXPECT_NE(WrongAtLast({{.term = 2, .commit = 5, .first_own = 9},
                         {.term = 2, .commit = 7, .first_own = 9}}),
            "");
}
TEST(LeaderRules, RejectsItInTheNextTermToo) {
  EXPECT_NE(WrongAtLast({{.term = 2, .commit = 9, .first_own = 9},
                         {.term = 3, .commit = 9, .first_own = 12},
                         {.term = 3, .commit = 10, .first_own = 12}}),
            "");
}
TEST(LeaderRules, RejectsAChangeBeforeTheFirstCommit) {
  EXPECT_NE(WrongAtLast({{.term = 2, .commit = 5, .first_own = 9, .conf_entry = 3},
                         {.term = 2, .commit = 5, .first_own = 9, .conf_entry = 10}}),
            "");
  EXPECT_NE(WrongAtLast({{.term = 2, .commit = 5, .first_own = 9, .conf_entry = 10}}), "");
}
TEST(LeaderRules, RejectsItWhateverWentBefore) {
  const std::vector<LeaderRules::Look> histories[] = {
      // It commits an entry of an earlier term by counting: before its own, by one,
      {{.term = 2, .commit = 7, .first_own = 9}, {.term = 2, .commit = 8, .first_own = 9}},
      // after a while as a follower in the same term,
      {{.term = 2, .commit = 5},
       {.term = 2, .commit = 6},
       {.term = 2, .commit = 6, .first_own = 9},
       {.term = 2, .commit = 7, .first_own = 9}},
      // when it leads once more.
      {{.term = 2, .commit = 9, .first_own = 9},
       {.term = 3, .commit = 9},
       {.term = 4, .commit = 9, .first_own = 15},
       {.term = 4, .commit = 12, .first_own = 15}},
      // It changes the membership before it has committed in its term: at once,
      {{.term = 1, .commit = 8}, {.term = 2, .commit = 8, .first_own = 9, .conf_entry = 12}},
      // in its second term,
      {{.term = 2, .commit = 10, .first_own = 9, .conf_entry = 10},
       {.term = 3, .commit = 10, .first_own = 12, .conf_entry = 10},
       {.term = 3, .commit = 11, .first_own = 12, .conf_entry = 13}},
      // It changes it twice: in a row, and when one was committed.
      {{.term = 2, .commit = 9, .first_own = 9, .conf_entry = 3},
       {.term = 2, .commit = 9, .first_own = 9, .conf_entry = 10},
       {.term = 2, .commit = 9, .first_own = 9, .conf_entry = 12}},
      {{.term = 2, .commit = 10, .first_own = 9, .conf_entry = 10},
       {.term = 2, .commit = 10, .first_own = 9, .conf_entry = 11},
       {.term = 2, .commit = 10, .first_own = 9, .conf_entry = 12}},
  };
  for (const auto& history : histories) {
    EXPECT_NE(WrongAtLast(history), "") << "history " << &history - histories;
  }
}
TEST(LeaderRules, RejectsTwoChangesAtOnce) {
  EXPECT_NE(WrongAtLast({{.term = 2, .commit = 9, .first_own = 9, .conf_entry = 10},
                         {.term = 2, .commit = 9, .first_own = 9, .conf_entry = 11}}),
            "");
}

TEST(CheckRecovery, AcceptsAnUnfinishedWrite) {
  EXPECT_EQ(CheckRecovery({}, false), "");
  EXPECT_EQ(CheckRecovery({"cut 512 bytes of an unfinished write off the end of the log"}, false),
            "");
}
TEST(CheckRecovery, AcceptsDamageWhereSomethingHasRotted) {
  EXPECT_EQ(CheckRecovery({"the log is damaged at byte 4096"}, true), "");
}
TEST(CheckRecovery, RejectsAllElse) {
  for (const char* note : {
           "the log in wal/ starts behind a snapshot at index 251",
           "wal/1.log is damaged at byte 8136 (the next segment does not continue it)",
           "wal/1.log is damaged at byte 5640 (no crash leaves a record like that)",
           "wal/1.log is damaged at byte 4096 (a record's checksum is wrong)",
           "wal/1.log is damaged at byte 9000 (a batch written later stands intact at byte 9512)",
           "wal/1.log is damaged at byte 4096 (it is cut off)",
           "wal/1.log is damaged at byte 0 (its name is not the one it was given)",
           "wal/1.log is damaged at byte 4096 (a file behind it is missing)",
           "wal/1.log is damaged at byte 4096 (it had been synced up to byte 5000)",
           "the snapshot is damaged; started from the one before it",
           "",
       }) {
    EXPECT_NE(CheckRecovery({note}, false), "") << note;
  }
}
TEST(CheckRecovery, RejectsDamageBesideAnUnfinishedWrite) {
  EXPECT_NE(CheckRecovery({"cut 512 bytes of an unfinished write off the end of the log",
                           "the snapshot is damaged; started from the one before it"},
                          false),
            "");
}

}  // namespace
}  // namespace conclave::sim
