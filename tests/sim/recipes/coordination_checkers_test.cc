// The checkers of coordination/ must reject what is wrong: one good history of each recipe, and
// what makes it bad.
#include "conclave/tests/sim/recipes/coordination_checkers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/tests/sim/recipes/truth_builder.h"

namespace conclave::sim {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

CallTrace Call(int64_t asked_ms, int64_t answered_ms, Outcome outcome = Outcome::kDone) {
  return {.asked = At(asked_ms), .answered = At(answered_ms), .outcome = outcome};
}
CallTrace Unknown(int64_t asked_ms) { return {.asked = At(asked_ms)}; }

struct Story {
  Truth truth;
  CoordinationHistory history;
  Complaints Check() const { return CheckCoordination(truth.history(), history); }
};

struct Bad {
  std::string what;
  std::string law;
  std::function<void(Story&)> spoil;
};

void ExpectAllRejected(const std::function<Story()>& good, const std::vector<Bad>& bad) {
  EXPECT_THAT(good().Check(), IsEmpty());
  EXPECT_GE(bad.size(), 10u);
  for (const Bad& each : bad) {
    Story story = good();
    each.spoil(story);
    EXPECT_THAT(story.Check(), Contains(HasSubstr(each.law))) << each.what;
  }
}

// ---- Counter and ids

// 1 and -2 are added, 3 by one who gave up before, 4 is refused, of 5 nothing is known or seen.
Story CounterStory() {
  return {.truth = Truth()
                       .Put(1000, kCounterName, "1")
                       .Put(2000, kCounterName, "-1")
                       .Put(3000, kCounterName, "2"),
          .history = {.adds = {{Call(900, 1100), 1, 1},
                               {Call(1900, 2100), -2, -1},
                               {Call(2500, 2900, Outcome::kUnknown), 3, 0},
                               {Call(2600, 2700, Outcome::kRefused), 4, 0},
                               {Unknown(2800), 5, 0}}}};
}

TEST(CounterCheckerTest, RejectsWhatDoesNotAddUp) {
  ExpectAllRejected(
      CounterStory,
      {{"an acknowledged addition is missing", "N1",
        [](Story& s) {
          s.history.adds.push_back({Call(4000, 4100), 7, 9});
        }},
       {"one of unknown outcome counts twice", "N1",
        [](Story& s) { s.truth.Put(4000, kCounterName, "5"); }},
       {"an acknowledged one counts twice", "N1",
        [](Story& s) { s.truth.Put(4000, kCounterName, "3"); }},
       {"a refused one counts", "N1", [](Story& s) { s.truth.Put(4000, kCounterName, "6"); }},
       {"what nobody added", "N1", [](Story& s) { s.truth.Put(4000, kCounterName, "102"); }},
       {"a write without a change", "N1", [](Story& s) { s.truth.Put(4000, kCounterName, "2"); }},
       {"it is forgotten", "N1", [](Story& s) { s.truth.Delete(4000, {kCounterName}); }},
       {"no number", "N1", [](Story& s) { s.truth.Put(4000, kCounterName, "x"); }},
       {"another answer", "N1", [](Story& s) { s.history.adds[0].value = 2; }},
       {"it counts before it is asked", "N1",
        [](Story& s) { s.history.adds[0].call.asked = At(1050); }},
       {"it counts after the answer", "N1",
        [](Story& s) { s.history.adds[1].call.answered = At(1950); }},
       {"of unknown outcome, and before it is asked", "N1",
        [](Story& s) { s.history.adds[2].call.asked = At(3100); }},
       {"two at once, one lost", "N1", [](Story& s) {
          s.truth = Truth().Put(1000, kCounterName, "1").Put(2000, kCounterName, "4");
        }}});
}

Story IdsStory() {
  return {
      .history = {.ids = {{1, 1, 2}, {1, 2, 3}, {2, 4, 5}, {3, 7, 10}, {1, 3, 4}, {2, 10, 11}}}};
}

TEST(IdsCheckerTest, RejectsWhatIsGivenTwice) {
  const auto add = [](IdsTrace ids) { return [ids](Story& s) { s.history.ids.push_back(ids); }; };
  ExpectAllRejected(IdsStory, {{"the same id", "N2", add({4, 1, 2})},
                               {"the last of a range", "N2", add({4, 9, 10})},
                               {"the first of a range", "N2", add({4, 7, 8})},
                               {"a range around another one", "N2", add({4, 6, 12})},
                               {"a range that ends in another one", "N2", add({4, 6, 8})},
                               {"a range that begins in another one", "N2", add({4, 9, 12})},
                               {"the same range", "N2", add({4, 7, 10})},
                               {"to the same one, twice", "N2", add({3, 7, 10})},
                               {"an empty range", "N2", add({4, 20, 20})},
                               {"a range that is upside down", "N2", add({4, 21, 20})},
                               {"before the first one", "N2", add({4, 0, 1})},
                               {"a smaller one after a greater one", "N2", add({2, 5, 6})}});
}

// ---- Queue

std::string Item(const std::string& id) { return std::string(kQueueName) + "/item/" + id; }
std::string Mark(const std::string& id) { return std::string(kQueueName) + "/item-taken/" + id; }

// a, b, c are pushed, and d of a higher priority by one who never hears of it. d is popped; a is
// taken, given back, and popped; b is taken and acknowledged; c stays.
Story QueueStory() {
  using Settling = SeizeTrace::Settling;
  return {.truth = Truth()
                       .Put(1000, Item("9/1"), "a")    // 2
                       .Put(1100, Item("9/2"), "b")    // 3
                       .Put(1200, Item("9/3"), "c")    // 4
                       .Put(1300, Item("8/4"), "d")    // 5
                       .Delete(2000, {Item("8/4")})    // 6
                       .Put(2100, Mark("9/1"), "", 7)  // 7
                       .Put(2200, Mark("9/2"), "", 8)  // 8
                       .Delete(3000, {Mark("9/1")})    // 9
                       .Delete(3500, {Item("9/1")})    // 10
                       .Delete(4000, {Item("9/2"), Mark("9/2")}),
          .history = {.pushes = {{Call(900, 1050), "a", 0, "9/1"},
                                 {Call(1060, 1150), "b", 0, "9/2"},
                                 {Call(1160, 1250), "c", 0, "9/3"},
                                 {Unknown(1260), "d", 1, ""}},
                      .seizes = {{Call(1900, 2050), false, 6, "8/4", "d"},
                                 {Call(2050, 2150), true, 7, "9/1", "a", At(2900),
                                  Settling::kGiveBack, Call(2950, 3050)},
                                 {Call(2150, 2250), true, 8, "9/2", "b", At(3900), Settling::kAck,
                                  Call(3950, 4050)},
                                 {Call(3400, 3550), false, 6, "9/1", "a"}}}};
}

TEST(QueueCheckerTest, RejectsItemsThatAreLostOrDoubled) {
  ExpectAllRejected(
      QueueStory,
      {{"an acknowledged item is not there", "Q1",
        [](Story& s) {
          s.history.pushes.push_back({Call(4500, 4600), "e", 0, "9/9"});
        }},
       {"under another id", "Q1", [](Story& s) { s.history.pushes[2].id = "9/7"; }},
       {"with another value", "Q1", [](Story& s) { s.history.pushes[2].value = "z"; }},
       {"after the answer", "Q1", [](Story& s) { s.history.pushes[2].call.answered = At(1190); }},
       {"what nobody pushed", "Q1", [](Story& s) { s.truth.Put(5000, Item("9/9"), "z"); }},
       {"what was refused", "Q1",
        [](Story& s) { s.history.pushes[3].call.outcome = Outcome::kRefused; }},
       {"twice", "Q1", [](Story& s) { s.truth.Put(5000, Item("9/9"), "d"); }},
       {"it goes, and nobody has it", "Q1", [](Story& s) { s.truth.Delete(5000, {Item("9/3")}); }},
       {"it goes by a refused pop", "Q1",
        [](Story& s) {
          s.truth.Delete(5000, {Item("9/3")});
          s.history.seizes.push_back({Call(4900, 5100, Outcome::kRefused), false, 6});
        }},
       {"one lost answer, two items", "Q1",
        [](Story& s) {
          s.truth.Put(4900, Item("9/9"), "e")
              .Delete(5000, {Item("9/3")})
              .Delete(5100, {Item("9/9")});
          s.history.pushes.push_back({Call(4800, 4950), "e", 0, "9/9"});
          s.history.seizes.push_back({Unknown(4900), false, 6});
        }},
       {"popped by one who asked later", "Q1",
        [](Story& s) {
          s.truth.Delete(5000, {Item("9/3")});
          s.history.seizes.push_back({Unknown(5100), false, 6});
        }},
       {"acknowledged, and it stays", "Q1", [](Story& s) {
          s.history.seizes.push_back({Call(5000, 5100), true, 9, "9/3", "c", At(5100),
                                      SeizeTrace::Settling::kAck, Call(5200, 5300)});
        }}});
}

TEST(QueueCheckerTest, RejectsItemsThatAreGotTwiceOrOutOfTurn) {
  ExpectAllRejected(
      QueueStory,
      {{"popped twice", "Q2",
        [](Story& s) { s.history.seizes.push_back(s.history.seizes.back()); }},
       {"popped and acknowledged", "Q2",
        [](Story& s) {
          s.history.seizes[1].settling = SeizeTrace::Settling::kAck;
          s.history.seizes[1].settle = Call(3400, 3600);
        }},
       {"popped while another one has it", "Q2",
        [](Story& s) { s.history.seizes[1].last_ours = At(3600); }},
       {"taken while another one has it", "Q2",
        [](Story& s) {
          s.truth = Truth()
                        .Put(1000, Item("9/1"), "a")
                        .Put(2100, Mark("9/1"), "", 7)
                        .Delete(2200, {Mark("9/1")})
                        .Put(2300, Mark("9/1"), "", 8);
          s.history.pushes = {s.history.pushes[0]};
          s.history.seizes = {{Call(2050, 2150), true, 7, "9/1", "a", At(2900)},
                              {Call(2250, 2350), true, 8, "9/1", "a", At(2900)}};
        }},
       {"taken by another lease", "Q2", [](Story& s) { s.history.seizes[1].lease = 99; }},
       {"taken without a mark", "Q2",
        [](Story& s) {
          s.history.seizes.push_back({Call(4500, 4600), true, 9, "9/3", "c", At(4600)});
        }},
       {"the value of another one", "Q2", [](Story& s) { s.history.seizes[0].value = "a"; }},
       {"what never was", "Q2",
        [](Story& s) {
          s.history.seizes.push_back({Call(4500, 4600), false, 9, "9/8", "z"});
        }},
       {"marked after the answer", "Q2",
        [](Story& s) { s.history.seizes[1].call.answered = At(2090); }},
       {"the second though the first was free", "Q3",
        [](Story& s) {
          s.truth = Truth()
                        .Put(1000, Item("9/1"), "a")
                        .Put(1100, Item("9/2"), "b")
                        .Delete(2000, {Item("9/2")});
          s.history.pushes.resize(2);
          s.history.seizes = {{Call(1900, 2050), false, 6, "9/2", "b"}};
        }},
       {"the lower priority first", "Q3",
        [](Story& s) {
          s.truth = Truth()
                        .Put(1000, Item("9/1"), "a")
                        .Put(1300, Item("8/4"), "d")
                        .Put(2100, Mark("9/1"), "", 7);
          s.history.pushes = {s.history.pushes[0], s.history.pushes[3]};
          s.history.seizes = {{Call(2050, 2150), true, 7, "9/1", "a", At(2100)}};
        }},
       {"the later one stands before the earlier one", "Q3", [](Story& s) {
          s.truth = Truth().Put(1000, Item("9/5"), "a").Put(1100, Item("9/2"), "b");
          s.history.pushes.resize(2);
          s.history.pushes[0].id = "9/5";
          s.history.seizes.clear();
        }}});
}

// ---- Barriers

// Held from 1 s to 2 s and from 3 s on; one waits through the first time, one passes between.
Story BarrierStory() {
  using Kind = BarrierTrace::Kind;
  return {
      .truth = Truth().Put(1000, kBarrierName).Delete(2000, {kBarrierName}).Put(3000, kBarrierName),
      .history = {.barriers = {{Kind::kHold, Call(900, 1100)},
                               {Kind::kWait, Call(1500, 2100)},
                               {Kind::kRelease, Call(1900, 2050)},
                               {Kind::kWait, Call(2500, 2600)},
                               {Kind::kHold, Call(2900, 3100)}}}};
}

TEST(BarrierCheckerTest, RejectsWhoPassesOneThatIsHeld) {
  using Kind = BarrierTrace::Kind;
  const auto add = [](Kind kind, CallTrace call) {
    return [kind, call](Story& s) { s.history.barriers.push_back({kind, call}); };
  };
  ExpectAllRejected(BarrierStory,
                    {{"passes while it is held", "B1", add(Kind::kWait, Call(1200, 1300))},
                     {"passes just before it is opened", "B1", add(Kind::kWait, Call(1200, 1990))},
                     {"passes one that stays", "B1", add(Kind::kWait, Call(3200, 9000))},
                     {"asks just when it is held", "B1", add(Kind::kWait, Call(1000, 1500))},
                     {"released, and it stays", "B1", add(Kind::kRelease, Call(3200, 3300))},
                     {"released before it goes", "B1", add(Kind::kRelease, Call(1100, 1200))},
                     {"held twice", "B1", add(Kind::kHold, Call(900, 1100))},
                     {"held by one who came too late", "B1", add(Kind::kHold, Call(1200, 1300))},
                     {"held, and there is nothing", "B1", add(Kind::kHold, Call(2200, 2300))},
                     {"held before it was asked", "B1",
                      [](Story& s) { s.history.barriers[0].call.asked = At(1050); }},
                     {"held after the answer", "B1",
                      [](Story& s) { s.history.barriers[4].call.answered = At(2950); }}});
}

// a, b, c (leases 10, 11, 12) enter; a and b leave in order, c dies inside.
Story RoundStory() {
  const std::string name = kDoubleBarrierName;
  return {.truth = Truth()
                       .Put(1000, name + "/waiters/a", "3", 10)  // 2
                       .Put(1100, name + "/waiters/b", "3", 11)  // 3
                       .Put(1200, name + "/waiters/c", "3", 12)  // 4
                       .Put(1300, name + "/ready", "a,b,c")      // 5
                       .Delete(2000, {name + "/waiters/a"})      // 6
                       .Put(2001, name + "/left/a", "5")         // 7
                       .Delete(2100, {name + "/waiters/c"})      // 8
                       .Delete(2200, {name + "/waiters/b"})      // 9
                       .Put(2201, name + "/left/b", "5")         // 10
                       .Delete(2300, {name + "/ready", name + "/left/a", name + "/left/b"}),
          .history = {.rounds = {{10, Call(900, 1400), Call(1900, 2400), 5, {{"c"}}},
                                 {11, Call(1050, 1350), Call(2150, 2350), 5, {{"c"}}},
                                 {12, Call(1150, 1400), Unknown(1500)}}}};
}

TEST(DoubleBarrierCheckerTest, RejectsWhoEntersOrLeavesAlone) {
  const std::string name = kDoubleBarrierName;
  ExpectAllRejected(
      RoundStory,
      {{"before it is open", "B2", [](Story& s) { s.history.rounds[0].enter.answered = At(1250); }},
       {"after it is over", "B2", [](Story& s) { s.history.rounds[0].enter = Call(2350, 2400); }},
       {"one who is not in the round", "B2", [](Story& s) { s.history.rounds[0].lease = 13; }},
       {"a round of two", "B2",
        [name](Story& s) {
          s.truth = Truth()
                        .Put(1000, name + "/waiters/a", "3", 10)
                        .Put(1100, name + "/waiters/b", "3", 11)
                        .Put(1300, name + "/ready", "a,b");
          s.history.rounds = {{10, Call(900, 1400)}};
        }},
       {"one of them had gone", "B2",
        [name](Story& s) {
          s.truth = Truth()
                        .Put(1000, name + "/waiters/a", "3", 10)
                        .Put(1100, name + "/waiters/b", "3", 11)
                        .Put(1200, name + "/waiters/c", "3", 12)
                        .Delete(1250, {name + "/waiters/b"})
                        .Put(1300, name + "/ready", "a,b,c");
          s.history.rounds = {{10, Call(900, 1400)}};
        }},
       {"one of them never came", "B2",
        [name](Story& s) {
          s.truth = Truth()
                        .Put(1000, name + "/waiters/a", "3", 10)
                        .Put(1100, name + "/waiters/b", "3", 11)
                        .Put(1300, name + "/ready", "a,b,c");
          s.history.rounds = {{10, Call(900, 1400)}};
        }},
       {"leaves before the last one", "B3",
        [](Story& s) { s.history.rounds[0].leave.answered = At(2050); }},
       {"leaves before the end", "B3",
        [](Story& s) { s.history.rounds[1].leave.answered = At(2250); }},
       {"leaves another round", "B3", [](Story& s) { s.history.rounds[0].round = 4; }},
       {"is not told who died", "B3", [](Story& s) { s.history.rounds[0].lost.emplace(); }},
       {"is told that one died who left", "B3",
        [](Story& s) {
          s.history.rounds[0].lost = {"b", "c"};
        }},
       {"is told of another one", "B3", [](Story& s) { s.history.rounds[1].lost = {"a"}; }},
       {"it ends while one is inside", "B3", [name](Story& s) {
          s.truth = Truth()
                        .Put(1000, name + "/waiters/a", "3", 10)
                        .Put(1100, name + "/waiters/b", "3", 11)
                        .Put(1200, name + "/waiters/c", "3", 12)
                        .Put(1300, name + "/ready", "a,b,c")
                        .Delete(2000, {name + "/waiters/a"})
                        .Delete(2300, {name + "/ready"});
        }}});
}

// ---- Groups

Story GroupStory() {
  return {.truth = Truth()
                       .Put(1000, "group/0/m0", "data", 7)
                       .Put(1100, "group/0/m1", "data", 8)
                       .Delete(2000, {"group/0/m0"})
                       .Put(3000, "group/0/m0", "data", 9),
          .history = {.members = {{Call(900, 1050), "m0", 7, 2, At(1900)},
                                  {Call(1060, 1150), "m1", 8, 3, At(4000)},
                                  {Call(1200, 1300, Outcome::kRefused), "m0", 9},
                                  {Call(2900, 3100), "m0", 9, 5, At(4000)}}}};
}

// Its lease ends as soon as it has joined, the next one joins, and hears of that first.
TEST(GroupCheckerTest, AcceptsAnAnswerThatComesAfterThatOfTheNextOne) {
  Story story;
  story.truth = Truth()
                    .Put(1000, "group/0/m0", "data", 7)
                    .Delete(1001, {"group/0/m0"})
                    .Put(1002, "group/0/m0", "data", 8);
  story.history.members = {{Call(900, 1020), "m0", 7, 2}, {Call(950, 1010), "m0", 8, 4, At(3000)}};
  EXPECT_THAT(story.Check(), IsEmpty());
  story.history.members[0].last_alive = At(1500);
  EXPECT_THAT(story.Check(), Contains(HasSubstr("G1")));
}

TEST(GroupCheckerTest, RejectsMembersThatAreNone) {
  ExpectAllRejected(
      GroupStory,
      {{"no key", "G1", [](Story& s) { s.history.members[1].revision = 9; }},
       {"of another one", "G1", [](Story& s) { s.history.members[1].id = "m0"; }},
       {"on another lease", "G1", [](Story& s) { s.history.members[1].lease = 9; }},
       {"the key of an earlier one", "G1", [](Story& s) { s.history.members[3].revision = 2; }},
       {"joined before the key", "G1",
        [](Story& s) { s.history.members[3].join.answered = At(2950); }},
       {"joined after the end of the key", "G1",
        [](Story& s) { s.history.members[0].join = Call(2100, 2200); }},
       {"the same member twice", "G1",
        [](Story& s) { s.history.members[0].last_alive = At(3200); }},
       {"the same member twice for long", "G1",
        [](Story& s) { s.history.members[0].last_alive = kNever; }},
       {"refused, and it is said to be a member", "G1",
        [](Story& s) { s.history.members[2].join.outcome = Outcome::kDone; }},
       {"of a group that is none", "G1", [](Story& s) { s.truth = Truth(); }},
       {"a key on no lease", "G1", [](Story& s) {
          s.truth = Truth().Put(1000, "group/0/m0", "data", 7).Put(1100, "group/0/m1", "data");
        }}});
}

// ---- Cron

std::string Record(int second, int64_t term) {
  return absl::StrCat("1970-01-01T01:00:0", second, "+00:00 ", term);
}

// Term 2 settles the ticks of 1 s and 2 s, and runs the second; term 5 runs that of 4 s.
Story CronStory() {
  const std::string election = "cron/0/election/", last = "cron/0/last";
  return {.truth = Truth()
                       .Put(900, election + "a", "", 7)   // 2
                       .Put(1000, last, Record(1, 2))     // 3
                       .Put(2000, last, Record(2, 2))     // 4
                       .Put(2500, election + "b", "", 8)  // 5
                       .Delete(3000, {election + "a"})    // 6
                       .Put(4000, last, Record(4, 5)),    // 7
          .history = {.jobs = {{Record(2, 2), 2, At(2100)}, {Record(4, 5), 5, At(4100)}}}};
}

TEST(CronCheckerTest, RejectsTicksThatRunTwiceOrUnsettled) {
  const auto run = [](std::string record, int64_t term, int64_t ms) {
    return [=](Story& s) { s.history.jobs.push_back({record, term, At(ms)}); };
  };
  ExpectAllRejected(
      CronStory, {{"twice", "T1", run(Record(2, 2), 2, 2200)},
                  {"by the next term as well", "T1", run(Record(2, 5), 5, 4200)},
                  {"by another one at once", "T1", run(Record(4, 2), 2, 4050)},
                  {"the same tick is settled again", "T1",
                   [](Story& s) { s.truth.Put(5000, "cron/0/last", Record(4, 5)); }},
                  {"an earlier tick is settled", "T1",
                   [](Story& s) { s.truth.Put(5000, "cron/0/last", Record(3, 5)); }},
                  {"never settled", "T2", run(Record(5, 5), 5, 5100)},
                  {"settled by another term", "T2", run(Record(1, 5), 5, 4200)},
                  {"before it is settled", "T2", [](Story& s) { s.history.jobs[1].at = At(3900); }},
                  {"another term than it says", "T2", [](Story& s) { s.history.jobs[1].term = 2; }},
                  {"of a term that never was", "T2",
                   [](Story& s) {
                     s.truth.Put(5000, "cron/0/last", Record(6, 9));
                     s.history.jobs.push_back({Record(6, 9), 9, At(5100)});
                   }},
                  {"of a term that had ended", "T2", [](Story& s) {
                     s.truth.Put(5000, "cron/0/last", Record(6, 2));
                     s.history.jobs.push_back({Record(6, 2), 2, At(5100)});
                   }}});
}

}  // namespace
}  // namespace conclave::sim
