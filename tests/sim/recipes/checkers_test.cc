// The recipes' checkers must reject what is wrong: one good history, and what makes it bad.
#include "conclave/tests/sim/recipes/checkers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "conclave/tests/sim/recipes/truth_builder.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// ---- Locks and elections -----------------------------------------------------------------------

// Two processes, one after the other: a has the lock from 1.0 to 3.0 s, b waits from 2.0 s on, is
// told at 3.2 s, and gives it up at 4.0 s.
struct LockStory {
  Truth truth = Truth()
                    .Put(1000, "l/a", "", 7)     // revision 2
                    .Put(1100, "fenced/l", "2")  // 3
                    .Put(2000, "l/b", "", 8)     // 4
                    .Delete(3100, {"l/a"})       // 5
                    .Put(3300, "fenced/l", "4")  // 6
                    .Delete(4100, {"l/b"});      // 7
  RecipeHistory history = {.claims = {{.process = 1,
                                       .name = "l",
                                       .key = "l/a",
                                       .lease = 7,
                                       .asked = At(900),
                                       .answered = At(1050),
                                       .granted = true,
                                       .token = 2,
                                       .invalid = At(3000),
                                       .over = At(3150)},
                                      {.process = 2,
                                       .name = "l",
                                       .key = "l/b",
                                       .lease = 8,
                                       .asked = At(1900),
                                       .answered = At(3200),
                                       .granted = true,
                                       .token = 4,
                                       .invalid = At(4000),
                                       .over = At(4200)}},
                           .calm = At(-10000),
                           .end = At(20000)};
  ClaimTrace& a() { return history.claims[0]; }
  ClaimTrace& b() { return history.claims[1]; }
  Complaints Check() const { return CheckClaims(truth.history(), history); }
};

TEST(ClaimsCheckerTest, AcceptsOneHolderAfterTheOther) {
  EXPECT_THAT(LockStory().Check(), IsEmpty());
}

struct BadLock {
  std::string what;
  std::string law;
  std::function<void(LockStory&)> spoil;
};

class BadLockTest : public ::testing::TestWithParam<BadLock> {};

TEST_P(BadLockTest, IsRejected) {
  LockStory story;
  GetParam().spoil(story);
  EXPECT_THAT(story.Check(), Contains(HasSubstr(GetParam().law))) << GetParam().what;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLockTest,
    ::testing::Values(BadLock{"the handle outlives the next grant", "K3",
                              [](LockStory& s) { s.a().invalid = At(3250); }},
                      BadLock{"the handle never turns invalid", "K3",
                              [](LockStory& s) { s.a().invalid = kNever; }},
                      BadLock{"two are told at once", "K3",
                              [](LockStory& s) { s.b().answered = At(2100); }},
                      BadLock{"told before the key before it had gone", "K5",
                              [](LockStory& s) { s.b().answered = At(3050); }},
                      BadLock{"a key that never was", "K2", [](LockStory& s) { s.b().token = 6; }},
                      BadLock{"somebody else's key", "K2", [](LockStory& s) { s.b().key = "l/c"; }},
                      BadLock{"on another lease", "K2", [](LockStory& s) { s.b().lease = 9; }},
                      BadLock{"asked when its key had gone already", "K2",
                              [](LockStory& s) {
                                s.b().asked = At(4150);
                                s.b().answered = At(4300);
                              }},
                      BadLock{"tokens go back", "K1",
                              [](LockStory& s) {
                                s.a().answered = At(3300);
                                s.a().invalid = At(3400);
                              }},
                      BadLock{"the same token twice", "K1",
                              [](LockStory& s) {
                                s.b() = s.a();
                                s.b().process = 2;
                                s.b().answered = At(1060);
                              }},
                      BadLock{"the key stays after it was given up", "K6",
                              [](LockStory& s) { s.a().over = At(2000); }},
                      BadLock{"the key stays after a failed acquire", "K6",
                              [](LockStory& s) {
                                s.b().granted = false;
                                s.b().over = At(2500);
                              }},
                      BadLock{"a key is left in the end", "K6",
                              [](LockStory& s) { s.truth.Put(5000, "l/zombie", "", 9); }},
                      BadLock{"an older key is there to the end", "K5", [](LockStory& s) {
                                s.truth = Truth()
                                              .Put(1000, "l/a", "", 7)
                                              .Put(1100, "other")
                                              .Put(2000, "l/b", "", 8)
                                              .Delete(4100, {"l/b"});
                              }}));

// ---- Locks that are shared

// Readers a and b hold together from 1 s on; writer w waits from 1.3 s on, reader c behind it. b is
// the last to go, at 2.0 s; w writes until 3.0 s, becomes a reader at 3.1 s, which lets c in, and
// both go at 4.0 s.
struct SharedStory {
  Truth truth = Truth()
                    .Put(1000, "i/read/a", "", 1)   // 2
                    .Put(1100, "i/read/b", "", 2)   // 3
                    .Put(1300, "i/write/w", "", 3)  // 4
                    .Put(1400, "i/read/c", "", 4)   // 5
                    .Delete(1500, {"i/read/a"})     // 6
                    .Delete(2000, {"i/read/b"})     // 7
                    .Put(3100, "i/write/w", "", 3)  // 8
                    .Delete(4000, {"i/read/c"})     // 9
                    .Delete(4100, {"i/write/w"});   // 10
  static ClaimTrace Claim(const std::string& key, int64_t lease, bool write, int64_t token,
                          std::vector<int64_t> ms) {
    return {.process = static_cast<int>(lease),
            .name = "i",
            .kind = LockKind::kShared,
            .wanted = write ? kReadersMax : 1,
            .parts = kReadersMax,
            .key = key,
            .lease = lease,
            .asked = At(ms[0]),
            .answered = At(ms[1]),
            .granted = true,
            .token = token,
            .invalid = At(ms[2])};
  }
  RecipeHistory history = {.claims = {Claim("i/read/a", 1, false, 2, {900, 1050, 1400}),
                                      Claim("i/read/b", 2, false, 3, {1050, 1150, 1900}),
                                      Claim("i/write/w", 3, true, 4, {1200, 2100, 3000}),
                                      Claim("i/write/w", 3, false, 4, {3000, 3150, 4050}),
                                      Claim("i/read/c", 4, false, 5, {1350, 3200, 3900})},
                           .calm = At(-10000),
                           .end = At(20000)};
  SharedStory() {
    history.claims[3].downgraded = true;
    history.claims[4].over = At(4050);
  }
  ClaimTrace& b() { return history.claims[1]; }
  ClaimTrace& w() { return history.claims[2]; }
  ClaimTrace& downgraded() { return history.claims[3]; }
  ClaimTrace& c() { return history.claims[4]; }
  Complaints Check() const { return CheckClaims(truth.history(), history); }
};

TEST(SharedClaimsCheckerTest, AcceptsReadersTogetherAndWritersAlone) {
  EXPECT_THAT(SharedStory().Check(), IsEmpty());
}

TEST(SharedClaimsCheckerTest, RejectsEverythingElse) {
  struct Bad {
    std::string what;
    std::string law;
    std::function<void(SharedStory&)> spoil;
  };
  const std::vector<Bad> bad = {
      {"a reader still reads when the writer comes", "K3",
       [](SharedStory& s) { s.b().invalid = At(2200); }},
      {"the first of two readers still reads", "K3",
       [](SharedStory& s) { s.history.claims[0].invalid = kNever; }},
      {"the writer is told before the last reader has gone", "K5",
       [](SharedStory& s) { s.w().answered = At(1950); }},
      {"a reader ignores the writer before it", "K5",
       [](SharedStory& s) { s.c().answered = At(1450); }},
      {"a reader comes in while there is a writer", "K3",
       [](SharedStory& s) { s.c().answered = At(2900); }},
      {"a reader comes in before the writer becomes one", "K5",
       [](SharedStory& s) {
         s.w().invalid = At(2500);
         s.c().answered = At(2900);
       }},
      {"the writer writes on after he has let readers in", "K3",
       [](SharedStory& s) { s.w().invalid = At(3300); }},
      {"a reader by the key of a writer who never became one", "K2",
       [](SharedStory& s) {
         s.truth = Truth().Put(1000, "i/write/w", "", 3).Put(1100, "x").Delete(4000, {"i/write/w"});
         s.history.claims = {s.downgraded()};
         s.downgraded() = s.history.claims[0];
         s.history.claims[0].token = 2;
       }},
      {"a writer by a reader's key", "K2",
       [](SharedStory& s) {
         s.b().wanted = kReadersMax;
         s.b().answered = At(1600);
       }},
      {"a reader by a writer's key", "K2", [](SharedStory& s) { s.w().wanted = 1; }},
      {"a key that never was", "K2", [](SharedStory& s) { s.c().token = 6; }},
      {"on another lease", "K2", [](SharedStory& s) { s.c().lease = 9; }},
      {"a writer with an older token than the reader before it", "K1",
       [](SharedStory& s) {
         s.c().answered = At(1450);
         s.c().invalid = At(1460);
       }},
      {"two readers with one token", "K1",
       [](SharedStory& s) {
         s.b() = s.history.claims[0];
         s.b().answered = At(1200);
       }},
      {"a reader's key stays", "K6", [](SharedStory& s) { s.c().over = At(1400); }},
      {"a key is left in the end", "K6",
       [](SharedStory& s) { s.truth.Put(6000, "i/read/zombie", "", 9); }}};
  ASSERT_GE(bad.size(), 10u);
  for (const Bad& each : bad) {
    SharedStory story;
    each.spoil(story);
    EXPECT_THAT(story.Check(), Contains(HasSubstr(each.law))) << each.what;
  }
}

// ---- Semaphores

// Four permits: a has two, b one; c wants two and waits for a; d wants one and waits behind c.
struct PermitsStory {
  Truth truth = Truth()
                    .Put(900, "g/permits", "4")       // 2
                    .Put(1000, "g/queue/ax2", "", 1)  // 3
                    .Put(1100, "g/queue/bx1", "", 2)  // 4
                    .Put(1200, "g/queue/cx2", "", 3)  // 5
                    .Put(1300, "g/queue/dx1", "", 4)  // 6
                    .Delete(2000, {"g/queue/ax2"})    // 7
                    .Delete(3000, {"g/queue/bx1"})    // 8
                    .Delete(3100, {"g/queue/cx2"})    // 9
                    .Delete(3200, {"g/queue/dx1"});   // 10
  static ClaimTrace Claim(const std::string& key, int64_t lease, int64_t wanted, int64_t token,
                          std::vector<int64_t> ms) {
    ClaimTrace claim = SharedStory::Claim(key, lease, false, token, std::move(ms));
    claim.name = "g";
    claim.kind = LockKind::kPermits;
    claim.wanted = wanted;
    claim.parts = 4;
    return claim;
  }
  RecipeHistory history = {.claims = {Claim("g/queue/ax2", 1, 2, 3, {900, 1050, 1900}),
                                      Claim("g/queue/bx1", 2, 1, 4, {1000, 1150, 2900}),
                                      Claim("g/queue/cx2", 3, 2, 5, {1100, 2100, 3000}),
                                      Claim("g/queue/dx1", 4, 1, 6, {1250, 2050, 3100})},
                           .calm = At(-10000),
                           .end = At(20000)};
  ClaimTrace& a() { return history.claims[0]; }
  ClaimTrace& b() { return history.claims[1]; }
  ClaimTrace& c() { return history.claims[2]; }
  ClaimTrace& d() { return history.claims[3]; }
  Complaints Check() const { return CheckClaims(truth.history(), history); }
};

TEST(PermitsCheckerTest, AcceptsAsManyAsThereAre) {
  EXPECT_THAT(PermitsStory().Check(), IsEmpty());
}

TEST(PermitsCheckerTest, RejectsEverythingElse) {
  struct Bad {
    std::string what;
    std::string law;
    std::function<void(PermitsStory&)> spoil;
  };
  const std::vector<Bad> bad = {
      {"one permit too many", "K3", [](PermitsStory& s) { s.a().invalid = At(2150); }},
      {"a handle that never turns invalid", "K3",
       [](PermitsStory& s) { s.b().invalid = s.a().invalid = kNever; }},
      {"granted before there is room", "K5", [](PermitsStory& s) { s.c().answered = At(1950); }},
      {"a small one overtakes a great one", "K5",
       [](PermitsStory& s) { s.d().answered = At(1500); }},
      {"an older one is there to the end", "K5",
       [](PermitsStory& s) {
         s.truth = Truth()
                       .Put(900, "g/queue/zx4", "", 8)
                       .Put(1000, "g/queue/ax2", "", 1)
                       .Delete(2000, {"g/queue/ax2"});
         s.history.claims = {s.a()};
       }},
      {"more than its key says", "K2",
       [](PermitsStory& s) {
         s.c().wanted = 3;
         s.d().answered = At(3100);
       }},
      {"less than its key says", "K2", [](PermitsStory& s) { s.a().wanted = 1; }},
      {"a key that never was", "K2", [](PermitsStory& s) { s.d().token = 99; }},
      {"somebody else's key", "K2", [](PermitsStory& s) { s.d().key = "g/queue/bx1"; }},
      {"on another lease", "K2", [](PermitsStory& s) { s.d().lease = 7; }},
      {"asked when its key had gone", "K2",
       [](PermitsStory& s) {
         s.d().asked = At(3300);
         s.d().answered = At(3400);
         s.d().invalid = At(3500);
       }},
      {"an older token after one that excludes it", "K1",
       [](PermitsStory& s) {
         s.a().wanted = 3;
         s.a().answered = At(3000);
         s.a().invalid = At(3050);
       }},
      {"one token for two", "K1",
       [](PermitsStory& s) {
         s.b() = s.a();
         s.b().answered = At(1070);
       }},
      {"a key stays after it was given up", "K6", [](PermitsStory& s) { s.b().over = At(1500); }},
      {"a key stays after a failed acquire", "K6",
       [](PermitsStory& s) {
         s.d().granted = false;
         s.d().over = At(1500);
       }},
      {"a key is left in the end", "K6",
       [](PermitsStory& s) { s.truth.Put(6000, "g/queue/zombiex1", "", 9); }}};
  ASSERT_GE(bad.size(), 10u);
  for (const Bad& each : bad) {
    PermitsStory story;
    each.spoil(story);
    EXPECT_THAT(story.Check(), Contains(HasSubstr(each.law))) << each.what;
  }
}

// ---- Several locks at once

// x has m alone; y wants m and n at once, gets both at 2.1 s, and gives both up; z has n after it.
struct TogetherStory {
  Truth truth = Truth()
                    .Put(1000, "m/x", "", 1)                               // 2
                    .Put(1100, std::vector<std::string>{"m/y", "n/y"}, 2)  // 3
                    .Put(1200, "n/z", "", 3)                               // 4
                    .Delete(2000, {"m/x"})                                 // 5
                    .Delete(3000, {"m/y", "n/y"})                          // 6
                    .Delete(4000, {"n/z"});                                // 7
  static ClaimTrace Claim(const std::string& name, const std::string& key, int64_t lease,
                          int64_t token, std::vector<int64_t> ms, int together) {
    ClaimTrace claim = SharedStory::Claim(key, lease, false, token, std::move(ms));
    claim.name = name;
    claim.kind = LockKind::kAlone;
    claim.parts = 1;
    claim.together = together;
    return claim;
  }
  RecipeHistory history = {.claims = {Claim("m", "m/x", 1, 2, {900, 1050, 1900}, 0),
                                      Claim("m", "m/y", 2, 3, {1050, 2100, 2900}, 2),
                                      Claim("n", "n/y", 2, 3, {1050, 2100, 2900}, 2),
                                      Claim("n", "n/z", 3, 4, {1150, 3100, 3900}, 0)},
                           .calm = At(-10000),
                           .end = At(20000)};
  ClaimTrace& x() { return history.claims[0]; }
  ClaimTrace& m() { return history.claims[1]; }
  ClaimTrace& n() { return history.claims[2]; }
  ClaimTrace& z() { return history.claims[3]; }
  Complaints Check() const { return CheckClaims(truth.history(), history); }
};

TEST(TogetherCheckerTest, AcceptsAllNamesAtOnce) {
  EXPECT_THAT(TogetherStory().Check(), IsEmpty());
}

TEST(TogetherCheckerTest, RejectsEverythingElse) {
  struct Bad {
    std::string what;
    std::string law;
    std::function<void(TogetherStory&)> spoil;
  };
  const std::vector<Bad> bad = {
      {"one of two", "K2", [](TogetherStory& s) { s.n().granted = false; }},
      {"another token for one", "K2", [](TogetherStory& s) { s.n().token = 4; }},
      {"one handle lasts longer", "K2", [](TogetherStory& s) { s.n().invalid = At(2950); }},
      {"one of its keys never was", "K2",
       [](TogetherStory& s) {
         s.truth = Truth()
                       .Put(1000, "m/x", "", 1)
                       .Put(1100, "m/y", "", 2)
                       .Put(1200, "n/z", "", 3)
                       .Delete(2000, {"m/x"})
                       .Delete(3000, {"m/y"})
                       .Delete(4000, {"n/z"});
       }},
      {"one of its keys goes before it has the other name", "K2",
       [](TogetherStory& s) {
         s.truth = Truth()
                       .Put(1000, "m/x", "", 1)
                       .Put(1100, std::vector<std::string>{"m/y", "n/y"}, 2)
                       .Put(1200, "n/z", "", 3)
                       .Delete(1500, {"n/y"})
                       .Delete(2000, {"m/x"})
                       .Delete(3000, {"m/y"})
                       .Delete(4000, {"n/z"});
       }},
      {"granted while one name is held", "K5",
       [](TogetherStory& s) { s.m().answered = s.n().answered = At(1150); }},
      {"told while the holder of one name believes in it", "K3",
       [](TogetherStory& s) { s.x().invalid = At(2500); }},
      {"the next one of one name is told too early", "K3",
       [](TogetherStory& s) { s.z().answered = At(2500); }},
      {"does not roll back: one key stays", "K6",
       [](TogetherStory& s) {
         s.m().granted = s.n().granted = false;
         s.m().over = s.n().over = At(1500);
       }},
      {"one key is left in the end", "K6",
       [](TogetherStory& s) { s.truth.Put(5000, "n/y", "", 2); }},
      {"on another lease", "K2", [](TogetherStory& s) { s.n().lease = 3; }},
      {"somebody else's key", "K2", [](TogetherStory& s) { s.n().key = "n/z"; }},
  };
  ASSERT_GE(bad.size(), 10u);
  for (const Bad& each : bad) {
    TogetherStory story;
    each.spoil(story);
    EXPECT_THAT(story.Check(), Contains(HasSubstr(each.law))) << each.what;
  }
}

// ---- Fencing

TEST(FencingCheckerTest, AcceptsWritesUnderTheTokenThatHolds) {
  LockStory story;
  EXPECT_THAT(CheckFencing(story.truth.history(), story.history), IsEmpty());
}

TEST(FencingCheckerTest, RejectsWritesUnderTokensThatDoNot) {
  const LockStory good;
  const std::vector<std::pair<std::string, std::function<void(Truth&)>>> bad = {
      {"after its end", [](Truth& t) { t.Put(5000, "fenced/l", "4"); }},
      {"of the one before", [](Truth& t) { t.Put(5000, "fenced/l", "2"); }},
      {"of nobody", [](Truth& t) { t.Put(5000, "fenced/l", "99"); }},
      {"no number", [](Truth& t) { t.Put(5000, "fenced/l", "x"); }},
      {"an empty one", [](Truth& t) { t.Put(5000, "fenced/l", ""); }},
      {"a negative one", [](Truth& t) { t.Put(5000, "fenced/l", "-4"); }},
      {"to another name", [](Truth& t) { t.Put(5000, "fenced/m", "4"); }},
      {"the key is there again, with another token",
       [](Truth& t) { t.Put(5000, "l/b", "", 8).Put(5100, "fenced/l", "4"); }},
      {"zero", [](Truth& t) { t.Put(5000, "fenced/l", "0"); }},
      {"an old token after a newer one",
       [](Truth& t) {
         t = Truth()
                 .Put(1000, "l/a", "", 7)
                 .Put(1100, "x")
                 .Put(2000, "l/b", "", 8)
                 .Put(2100, "fenced/l", "4")
                 .Put(2200, "fenced/l", "2");
       }},
  };
  ASSERT_GE(bad.size(), 10u);
  for (const auto& [what, spoil] : bad) {
    LockStory story;
    spoil(story.truth);
    EXPECT_THAT(CheckFencing(story.truth.history(), story.history), Contains(HasSubstr("K4")))
        << what;
  }
}

// ---- Observers ---------------------------------------------------------------------------------

// Nobody, a leads with "1", proclaims "2", b waits; a goes, b leads; b goes.
struct ObserverStory {
  Truth truth = Truth()
                    .Put(1000, "x")            // 2
                    .Put(1000, "e/a", "1", 7)  // 3
                    .Put(1100, "e/a", "2", 7)  // 4
                    .Put(1200, "e/b", "b", 8)  // 5
                    .Delete(1300, {"e/a"})     // 6
                    .Delete(1400, {"e/b"});    // 7
  static LeaderSeen A(const std::string& proposal) { return {"e/a", proposal, 7, 3}; }
  static LeaderSeen B() { return {"e/b", "b", 8, 5}; }
  ObserverTrace trace = {.prefix = "e/",
                         .batches = {{2, true, {std::nullopt}},
                                     {4, false, {A("1"), A("2")}},
                                     {5, false, {}},
                                     {6, false, {B()}},
                                     {7, false, {std::nullopt}}},
                         .must_be_complete = true};
  Complaints Check() const { return CheckObserver(truth.history(), trace); }
};

TEST(ObserverCheckerTest, AcceptsWhatThereWas) { EXPECT_THAT(ObserverStory().Check(), IsEmpty()); }

TEST(ObserverCheckerTest, AcceptsAStateInPlaceOfCompactedChanges) {
  ObserverStory story;
  story.trace.batches = {
      {2, true, {std::nullopt}}, {6, true, {ObserverStory::B()}}, {7, false, {std::nullopt}}};
  EXPECT_THAT(story.Check(), IsEmpty());
}

TEST(ObserverCheckerTest, RejectsEverythingElse) {
  using Batches = std::vector<ObserverTrace::Batch>;
  const std::vector<std::pair<std::string, std::function<void(Batches&)>>> bad = {
      {"misses a proclamation", [](Batches& b) { b[1].changes.pop_back(); }},
      {"misses the first leader", [](Batches& b) { b[1].changes.erase(b[1].changes.begin()); }},
      {"hides nobody", [](Batches& b) { b.pop_back(); }},
      {"tells nobody in between",
       [](Batches& b) { b[3].changes.insert(b[3].changes.begin(), std::nullopt); }},
      {"tells twice", [](Batches& b) { b[3].changes.push_back(b[3].changes.front()); }},
      {"takes a waiting one for the leader",
       [](Batches& b) { b[2].changes.push_back(ObserverStory::B()); }},
      {"another term", [](Batches& b) { b[3].changes[0]->term = 4; }},
      {"another proposal", [](Batches& b) { b[3].changes[0]->proposal = "?"; }},
      {"another lease", [](Batches& b) { b[3].changes[0]->lease = 9; }},
      {"another key", [](Batches& b) { b[3].changes[0]->key = "e/c"; }},
      {"a wrong order", [](Batches& b) { std::swap(b[1].changes[0], b[1].changes[1]); }},
      {"goes back",
       [](Batches& b) {
         b.insert(b.begin() + 3, {3, false, {}});
       }},
      {"a wrong state at first", [](Batches& b) { b[0].changes[0] = ObserverStory::A("1"); }},
      {"a state that is not that of its revision",
       [](Batches& b) {
         b[2] = {5, true, {ObserverStory::B()}};
       }},
      {"nothing at all", [](Batches& b) { b.clear(); }},
  };
  ASSERT_GE(bad.size(), 10u);
  for (const auto& [what, spoil] : bad) {
    ObserverStory story;
    spoil(story.trace.batches);
    EXPECT_THAT(story.Check(), Contains(HasSubstr("K7"))) << what;
  }
}

// ---- Leases ------------------------------------------------------------------------------------

// Granted at 1 s for 5 s, renewed at 3 s and 5 s; the last renewal is not acknowledged; it runs
// out.
struct LeaseStory {
  Truth truth =
      Truth().Put(1100, "m/a", "", 7).Put(1100, "m/b", "", 7).Delete(11000, {"m/a", "m/b"});
  RecipeHistory history = {
      .leases = {{7, LeaseTrace{.id = 7,
                                .ttl = milliseconds(5000),
                                .granted = At(1000),
                                .renewals = {{At(3000), At(3100)}, {At(5000), At(5100)}},
                                .beliefs = {{At(1100), At(5900)}, {At(5100), At(9900)}},
                                .last_attempt = At(6000),
                                .marks = {"m/a", "m/b"}}}},
      .calm = At(2000),
      .end = At(30000)};
  LeaseTrace& lease() { return history.leases.at(7); }
  Complaints Check() const { return CheckLeases(truth.history(), history); }
  void EndAt(int64_t ms) {
    truth = Truth().Put(1100, "m/a", "", 7).Put(1100, "m/b", "", 7).Delete(ms, {"m/a", "m/b"});
  }
};

TEST(LeaseCheckerTest, AcceptsALeaseThatRunsOutInTime) {
  EXPECT_THAT(LeaseStory().Check(), IsEmpty());
}

TEST(LeaseCheckerTest, AcceptsARefusalBehindTheEnd) {
  LeaseStory story;
  story.lease().told_gone = At(11000);
  EXPECT_THAT(story.Check(), IsEmpty());
}

TEST(LeaseCheckerTest, AcceptsAnEarlierEndThatItsClientAskedFor) {
  LeaseStory story;
  story.EndAt(7000);
  story.lease().revoked = At(6900);
  EXPECT_THAT(story.Check(), IsEmpty());
}

struct BadLease {
  std::string what;
  std::string law;
  std::function<void(LeaseStory&)> spoil;
};

class BadLeaseTest : public ::testing::TestWithParam<BadLease> {};

TEST_P(BadLeaseTest, IsRejected) {
  LeaseStory story;
  GetParam().spoil(story);
  EXPECT_THAT(story.Check(), Contains(HasSubstr(GetParam().law))) << GetParam().what;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLeaseTest,
    ::testing::Values(
        BadLease{"a moment too early", "L1", [](LeaseStory& s) { s.EndAt(9980); }},
        BadLease{"by its grant alone", "L1",
                 [](LeaseStory& s) {
                   s.lease().renewals.clear();
                   s.EndAt(5900);
                 }},
        BadLease{"before its client asked for it", "L1",
                 [](LeaseStory& s) {
                   s.EndAt(7000);
                   s.lease().revoked = At(7001);
                 }},
        BadLease{"much too late", "L2", [](LeaseStory& s) { s.EndAt(16000); }},
        BadLease{"never", "L2",
                 [](LeaseStory& s) { s.truth = Truth().Put(1100, "m/a").Put(1100, "m/b"); }},
        BadLease{"late after everything was put right", "L2",
                 [](LeaseStory& s) {
                   s.history.calm = At(7400);
                   s.EndAt(16500);
                 }},
        BadLease{"in two revisions", "L3",
                 [](LeaseStory& s) {
                   s.truth = Truth()
                                 .Put(1100, "m/a", "", 7)
                                 .Put(1100, "m/b", "", 7)
                                 .Delete(11000, {"m/a"})
                                 .Delete(11000, {"m/b"});
                 }},
        BadLease{"renewed after its end", "L4",
                 [](LeaseStory& s) {
                   s.lease().renewals.push_back({At(11500), At(11600)});
                   s.lease().last_attempt = At(11500);
                 }},
        BadLease{"renewed after its end, with an early end", "L4",
                 [](LeaseStory& s) {
                   s.EndAt(4900);
                   s.lease().revoked = At(4800);
                 }},
        BadLease{"in an outage", "L5",
                 [](LeaseStory& s) {
                   s.history.outages = {{At(8000), At(12000)}};
                 }},
        BadLease{"in the second of two outages", "L5",
                 [](LeaseStory& s) {
                   s.history.outages = {{At(1000), At(2000)}, {At(9000), At(11001)}};
                 }},
        BadLease{"called gone before its end", "L7",
                 [](LeaseStory& s) { s.lease().told_gone = At(10900); }},
        BadLease{"called gone, and never ended", "L7",
                 [](LeaseStory& s) {
                   s.truth = Truth().Put(1100, "m/a").Put(1100, "m/b");
                   s.lease().told_gone = At(12000);
                 }},
        BadLease{"believed in from its answer on", "L6",
                 [](LeaseStory& s) {
                   s.lease().beliefs.push_back({At(5100), At(10050)});
                 }},
        BadLease{"believed in by a grant that was late, and renewed later", "L6",
                 [](LeaseStory& s) {
                   s.lease().beliefs.push_back({At(2000), At(6100)});
                 }},
        BadLease{"believed in before the renewal was acknowledged", "L6", [](LeaseStory& s) {
                   s.lease().beliefs.push_back({At(5050), At(9900)});
                 }}));

// ---- Discovery ---------------------------------------------------------------------------------

struct ViewStory {
  Truth truth = Truth()
                    .Put(1000, "svc/a")       // 2
                    .Put(1100, "svc/b")       // 3
                    .Put(1200, "other")       // 4
                    .Delete(2000, {"svc/a"})  // 5
                    .Put(3000, "svc/a");      // 6
  ViewTrace trace = {.prefix = "svc/",
                     .views = {{At(1050), 2, {"svc/a"}},
                               {At(1150), 3, {"svc/a", "svc/b"}},
                               {At(2100), 5, {"svc/b"}},
                               {At(3100), 6, {"svc/a", "svc/b"}}},
                     .attentive_from = At(500),
                     .must_be_complete = true};
  Complaints Check() const { return CheckView(truth.history(), trace, At(20000)); }
};

TEST(ViewCheckerTest, AcceptsAViewThatFollows) { EXPECT_THAT(ViewStory().Check(), IsEmpty()); }

TEST(ViewCheckerTest, AcceptsStepsTakenTogether) {
  ViewStory story;
  story.trace.views.erase(story.trace.views.begin());
  EXPECT_THAT(story.Check(), IsEmpty());
}

TEST(ViewCheckerTest, AcceptsThatNothingIsShownOfWhatIsUndone) {
  ViewStory story;
  story.truth.Put(5000, "svc/c").Delete(5500, {"svc/c"}).Put(9000, "svc/d");
  story.trace.views.push_back({At(9100), 9, {"svc/a", "svc/b", "svc/d"}});
  EXPECT_THAT(story.Check(), IsEmpty());
}

TEST(ViewCheckerTest, RejectsEverythingElse) {
  using Views = std::vector<ViewTrace::View>;
  const std::vector<std::pair<std::string, std::function<void(Views&)>>> bad = {
      {"emptied", [](Views& v) { v[2].keys.clear(); }},
      {"emptied in between",
       [](Views& v) {
         v.insert(v.begin() + 2, {At(1500), 4, {}});
       }},
      {"one too few", [](Views& v) { v[1].keys.pop_back(); }},
      {"one too many", [](Views& v) { v[2].keys.push_back("svc/c"); }},
      {"the dead one stays",
       [](Views& v) {
         v[2].keys = {"svc/a", "svc/b"};
       }},
      {"the wrong one goes", [](Views& v) { v[2].keys = {"svc/a"}; }},
      {"goes back", [](Views& v) { v[3].revision = 4; }},
      {"frozen", [](Views& v) { v.resize(2); }},
      {"late", [](Views& v) { v[2].at = At(3050); }},
      {"late in the end", [](Views& v) { v[3].at = At(4001); }},
      {"blind", [](Views& v) { v.clear(); }},
      {"another service's", [](Views& v) { v[1].keys.push_back("svd/a"); }},
  };
  ASSERT_GE(bad.size(), 10u);
  for (const auto& [what, spoil] : bad) {
    ViewStory story;
    spoil(story.trace.views);
    EXPECT_THAT(story.Check(), Contains(HasSubstr("D1"))) << what;
  }
}

// A healthy instance that stays, and one that is killed at 5 s and leaves with its lease of 4 s.
struct InstanceStory {
  Truth truth = Truth().Put(1000, "svc/well").Put(1100, "svc/dead").Delete(8500, {"svc/dead"});
  RecipeHistory history = {
      .instances = {{.key = "svc/well", .ttl = milliseconds(4000), .started = At(900)},
                    {.key = "svc/dead",
                     .ttl = milliseconds(4000),
                     .started = At(900),
                     .stopped = At(5000),
                     .disturbed = true}},
      .calm = At(2000),
      .end = At(60000)};
  InstanceTrace& well() { return history.instances[0]; }
  InstanceTrace& dead() { return history.instances[1]; }
  Complaints Check() const { return CheckInstances(truth.history(), history); }
};

TEST(InstanceCheckerTest, AcceptsTheHealthyThatStayAndTheDeadThatLeave) {
  EXPECT_THAT(InstanceStory().Check(), IsEmpty());
}

// What the one before at its address has sent may arrive late, and goes with its lease.
TEST(InstanceCheckerTest, AcceptsALateWriteOfAnEarlierInstance) {
  InstanceStory story;
  story.truth = Truth()
                    .Put(1000, "svc/well", "", 7)
                    .Delete(1200, {"svc/well"})
                    .Put(1300, "svc/well", "", 8)
                    .Put(1400, "svc/dead")
                    .Delete(8500, {"svc/dead"});
  for (const int64_t id : {7, 8}) {
    story.history.leases[id] = {
        .id = id, .ttl = milliseconds(4000), .granted = At(id == 7 ? 800 : 950)};
  }
  EXPECT_THAT(story.Check(), IsEmpty());
  story.history.leases[7].granted = At(950);
  EXPECT_THAT(story.Check(), Contains(HasSubstr("D2")));
}

TEST(InstanceCheckerTest, RejectsOneThatDoesNotComeBack) {
  InstanceStory story;
  story.well().disturbed = true;  // so it may lose its lease
  story.truth.Delete(3000, {"svc/well"});
  EXPECT_THAT(story.Check(), Contains(HasSubstr("D3")));
  story.truth.Put(7000, "svc/well");
  EXPECT_THAT(story.Check(), Contains(HasSubstr("D3"))) << "too late";
  story.history.calm = At(4000);
  EXPECT_THAT(story.Check(), IsEmpty());
  story.truth = InstanceStory().truth.Delete(3000, {"svc/well"});
  story.well().stopped = At(7000);
  EXPECT_THAT(story.Check(), IsEmpty()) << "it was stopped before";
}

TEST(InstanceCheckerTest, RejectsTheOppositeInAllItsForms) {
  const std::vector<std::pair<std::string, std::function<void(InstanceStory&)>>> bad = {
      {"the healthy one leaves", [](InstanceStory& s) { s.truth.Delete(9000, {"svc/well"}); }},
      {"for a moment",
       [](InstanceStory& s) { s.truth.Delete(9000, {"svc/well"}).Put(9001, "svc/well"); }},
      {"early",
       [](InstanceStory& s) {
         s.truth = Truth().Put(1000, "svc/well").Delete(1001, {"svc/well"}).Put(1002, "svc/well");
       }},
      {"twice",
       [](InstanceStory& s) {
         s.truth.Delete(9000, {"svc/well"}).Put(9100, "svc/well").Delete(9200, {"svc/well"});
       }},
      {"before it was stopped",
       [](InstanceStory& s) {
         s.truth.Delete(9000, {"svc/well"});
         s.well().stopped = At(9500);
       }},
      {"and the dead one was not disturbed",
       [](InstanceStory& s) {
         s.dead().disturbed = false;
         s.dead().stopped = At(9000);
       }},
      {"the dead one stays for ever",
       [](InstanceStory& s) { s.truth = Truth().Put(1000, "svc/well").Put(1100, "svc/dead"); }},
      {"the dead one stays too long",
       [](InstanceStory& s) {
         s.truth = Truth().Put(1000, "svc/well").Put(1100, "svc/dead").Delete(14000, {"svc/dead"});
       }},
      {"it comes back from the dead", [](InstanceStory& s) { s.truth.Put(9000, "svc/dead"); }},
      {"too long after calm",
       [](InstanceStory& s) {
         s.history.calm = At(10000);
         s.truth = Truth().Put(1000, "svc/well").Put(1100, "svc/dead").Delete(18001, {"svc/dead"});
       }},
      {"a stopped one stays", [](InstanceStory& s) { s.well().stopped = At(6000); }},
  };
  ASSERT_GE(bad.size(), 10u);
  for (const auto& [what, spoil] : bad) {
    InstanceStory story;
    spoil(story);
    EXPECT_THAT(story.Check(), Contains(HasSubstr("D2"))) << what;
  }
}

}  // namespace
}  // namespace conclave::sim
