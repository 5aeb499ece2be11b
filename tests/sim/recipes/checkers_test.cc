// The recipes' checkers must reject what is wrong: one good history, and what makes it bad.
#include "conclave/tests/sim/recipes/checkers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Instant At(int64_t ms) { return Instant(milliseconds(ms)); }

// The truth as a list of what was written when; revisions 2, 3, ...
class Truth {
 public:
  Truth& Put(int64_t ms, const std::string& key, const std::string& value = "", int64_t lease = 0) {
    const int64_t revision = Begin(ms);
    const bool fresh = created_.try_emplace(key, revision).second;
    history_.back().writes.push_back(
        {key, value, created_[key], fresh ? 1 : 2, lease, /*tombstone=*/false});
    return *this;
  }
  Truth& Delete(int64_t ms, const std::vector<std::string>& keys) {
    Begin(ms);
    for (const std::string& key : keys) {
      created_.erase(key);
      history_.back().writes.push_back({.key = key, .tombstone = true});
    }
    return *this;
  }
  const TrueHistory& history() const { return history_; }

 private:
  int64_t Begin(int64_t ms) {
    history_.push_back({.revision = static_cast<int64_t>(history_.size()) + 2, .applied = At(ms)});
    return history_.back().revision;
  }
  TrueHistory history_;
  std::map<std::string, int64_t> created_;
};

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
    ::testing::Values(BadLease{"a moment too early", "L1", [](LeaseStory& s) { s.EndAt(9999); }},
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
                               [](LeaseStory& s) {
                                 s.truth = Truth().Put(1100, "m/a").Put(1100, "m/b");
                               }},
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
                      BadLease{"in the second of two outages", "L5", [](LeaseStory& s) {
                                 s.history.outages = {{At(1000), At(2000)}, {At(9000), At(11001)}};
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
