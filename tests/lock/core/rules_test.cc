// The rules of all kinds of locks against a model: random members join, leave, give up, downgrade
// and hear of things late; nobody is ever inside who must not be, nobody who may come in is left
// asleep, and a leave wakes only whom it concerns.
#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/client/core/turn_rule.h"
#include "conclave/lock/core/rw_rule.h"
#include "conclave/lock/core/semaphore_rule.h"
#include "conclave/tests/lock/core/model_store.h"

namespace conclave {
namespace {

using testing::ModelStore;
using testing::Pointers;

struct Member {
  std::vector<std::string> keys;
  std::shared_ptr<TurnRule> rule;
  int64_t token = 0;
  bool inside = false;
  bool awake = false;  // will look
  Turn turn{};         // what it waits for, if it sleeps
  // Of its kind:
  bool writer = false;
  int64_t permits = 0;
  std::vector<std::string> names;
};

// One random history of one kind of lock.
class World {
 public:
  enum class Kind { kMutex, kMulti, kReadWrite, kSemaphore };
  World(Kind kind, int seed) : kind_(kind), random_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      Step();
      Check();
    }
    // And now everybody gets his turn.
    for (int i = 0; !members_.empty(); ++i) {
      ASSERT_LT(i, 10'000) << "somebody waits for ever";
      if (Member* member = Any([](const Member& m) { return m.awake; })) {
        Look(*member);
      } else if (Member* holder = Any([](const Member& m) { return m.inside; })) {
        Leave(*holder);
      } else {
        FAIL() << "nobody holds it, nobody looks, and " << members_.size() << " wait";
      }
      Check();
    }
    EXPECT_TRUE(store_.keys().empty());
  }
  int looks() const { return looks_; }
  int useless_looks() const { return useless_looks_; }
  int entered() const { return entered_; }

 private:
  static constexpr int64_t kPermits = 4;
  static constexpr size_t kMembersMax = 12;

  uint64_t Random(uint64_t below) { return random_() % below; }

  template <typename Predicate>
  Member* Any(Predicate predicate) {
    std::vector<Member*> fit;
    for (auto& member : members_) {
      if (predicate(*member)) fit.push_back(member.get());
    }
    return fit.empty() ? nullptr : fit[Random(fit.size())];
  }

  void Step() {
    const uint64_t dice = Random(10);
    if (dice < 3 && members_.size() < kMembersMax) {
      Join();
    } else if (dice < 6) {
      if (Member* member = Any([](const Member& m) { return m.awake; })) Look(*member);
    } else if (dice < 8) {
      if (Member* member = Any([](const Member& m) { return m.inside; })) Leave(*member);
    } else if (dice < 9) {
      if (Member* member = Any([](const Member& m) { return !m.inside; })) Leave(*member);
    } else if (kind_ == Kind::kReadWrite) {
      Member* writer = Any([](const Member& m) { return m.inside && m.writer; });
      if (writer == nullptr) return;
      writer->writer = false;
      Tell(store_.Put(writer->keys.front(), ""));
    }
  }

  void Join() {
    auto member = std::make_unique<Member>();
    const int id = next_id_++;
    switch (kind_) {
      case Kind::kMutex:
        member->names = {"m"};
        break;
      case Kind::kMulti:
        for (const char* name : {"m", "n", "o"}) {
          if (Random(2) == 0) member->names.push_back(name);
        }
        if (member->names.empty()) member->names = {"o"};
        break;
      case Kind::kReadWrite:
        member->writer = Random(3) == 0;
        member->keys = {absl::StrCat(member->writer ? WritePrefix("m") : ReadPrefix("m"), id)};
        if (member->writer) {
          member->rule = std::make_shared<WriteRule>("m");
        } else {
          member->rule = std::make_shared<ReadRule>("m");
        }
        break;
      case Kind::kSemaphore:
        member->permits = 1 + static_cast<int64_t>(Random(kPermits));
        member->keys = {absl::StrCat(QueuePrefix("m"), id, "-1", PermitsSuffix(member->permits))};
        member->rule = std::make_shared<SemaphoreRule>("m", kPermits, member->permits);
        break;
    }
    if (member->rule == nullptr) {
      member->rule = std::make_shared<OneAtATime>(OneAtATime::Options{.names = member->names});
      for (const std::string& name : member->names) {
        member->keys.push_back(absl::StrCat(name, "/", id));
      }
    }
    store_.PutTogether(member->keys);
    member->token = store_.revision();
    const std::vector<RangeResult> answers = store_.Read(member->rule->Reads(0));
    Act(*member, member->rule->Decide(Pointers(answers), member->token));
    members_.push_back(std::move(member));
  }

  void Look(Member& member) {
    ++looks_;
    const std::vector<RangeResult> answers = store_.Read(member.rule->Reads(member.token));
    Act(member, member.rule->Decide(Pointers(answers), member.token));
    if (!member.inside) ++useless_looks_;
  }

  void Act(Member& member, Turn turn) {
    member.awake = false;
    member.turn = std::move(turn);
    ASSERT_NE(member.turn.kind, Turn::Kind::kRefused);
    if (member.turn.kind != Turn::Kind::kOurs) return;
    ++entered_;
    member.inside = true;
    if (member.turn.announce) Tell(store_.Put(member.keys.front(), ""));
  }

  void Leave(Member& member) {
    const std::vector<std::string> keys = member.keys;
    std::erase_if(members_, [&member](const auto& each) { return each.get() == &member; });
    for (const std::string& key : keys) Tell(store_.Delete(key));
  }

  void Tell(const WatchEvent& event) {
    for (auto& member : members_) {
      if (member->inside || member->awake) continue;
      if (!member->turn.watch.Contains(event.kv.key)) continue;
      if (event.type == WatchEvent::Type::kPut && !member->turn.puts) continue;
      member->awake = member->turn.wakes == nullptr || member->turn.wakes(event);
    }
  }

  // Who is inside, and whether those outside had to be let in by somebody who slept.
  void Check() {
    int writers = 0, readers = 0;
    int64_t permits = 0;
    std::multiset<std::string> names;
    for (auto& member : members_) {
      if (!member->inside) continue;
      (member->writer ? writers : readers) += 1;
      permits += member->permits;
      names.insert(member->names.begin(), member->names.end());
    }
    if (kind_ == Kind::kReadWrite) {
      ASSERT_LE(writers, 1);
      ASSERT_TRUE(writers == 0 || readers == 0);
    }
    if (kind_ == Kind::kSemaphore) {
      ASSERT_LE(permits, kPermits);
    }
    for (const std::string& name : names) ASSERT_EQ(names.count(name), 1u);
    // Order of arrival, and nobody asleep: the oldest who waits is let in or will look as soon as
    // those before it allow it.
    for (size_t i = 0; i < members_.size(); ++i) {
      const Member& member = *members_[i];
      if (member.inside || member.awake || !MayEnter(i)) continue;
      // The one exception: in a semaphore, behind a waiter whose own turn has just come.
      const bool passed_on = kind_ == Kind::kSemaphore && i > 0 && members_[i - 1]->awake;
      ASSERT_TRUE(passed_on || SomebodyBeforeWillLook(i)) << "asleep, though it is its turn";
    }
  }

  bool SomebodyBeforeWillLook(size_t i) const {
    for (size_t k = 0; k < i; ++k) {
      if (kind_ == Kind::kSemaphore && members_[k]->awake) return true;
    }
    return false;
  }

  // By the model: given who came before (members_ is in order of arrival) and is still there.
  bool MayEnter(size_t i) const {
    const Member& member = *members_[i];
    int64_t sum = member.permits;
    for (size_t k = 0; k < i; ++k) {
      const Member& before = *members_[k];
      sum += before.permits;
      if (kind_ == Kind::kReadWrite && (member.writer || before.writer)) return false;
      for (const std::string& name : member.names) {
        if (std::count(before.names.begin(), before.names.end(), name) != 0) return false;
      }
    }
    return sum <= kPermits;
  }

  const Kind kind_;
  std::mt19937_64 random_;
  ModelStore store_;
  std::deque<std::unique_ptr<Member>> members_;  // by arrival
  int next_id_ = 1000;
  int looks_ = 0, useless_looks_ = 0, entered_ = 0;
};

class RulesTest : public ::testing::TestWithParam<World::Kind> {};

TEST_P(RulesTest, NobodyIsInsideWhoMustNotBeAndNobodySleepsWhoMayComeIn) {
  for (int seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    World world(GetParam(), seed);
    world.Run(300);
    if (::testing::Test::HasFatalFailure()) return;
    EXPECT_GT(world.entered(), 10);
    // Useless looks come of waiters that give up, of several names and of readers that leave one by
    // one before a writer; never a herd.
    EXPECT_LE(world.useless_looks(), 2 * world.entered());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RulesTest,
                         ::testing::Values(World::Kind::kMutex, World::Kind::kMulti,
                                           World::Kind::kReadWrite, World::Kind::kSemaphore));

// ---- What a release costs, with a hundred who wait.

TEST(RulesTest, OfAHundredWaitersAReleaseWakesOne) {
  ModelStore store;
  std::vector<std::unique_ptr<OneAtATime>> rules;
  std::vector<Turn> turns;
  std::vector<std::string> keys;
  for (int i = 0; i < 101; ++i) {
    keys.push_back(absl::StrCat("m/", i));
    store.PutTogether({keys.back()});
    rules.push_back(
        std::make_unique<OneAtATime>(OneAtATime::Options{.names = {"m"}, .heed_hold = true}));
    const std::vector<RangeResult> answers = store.Read(rules.back()->Reads(0));
    turns.push_back(rules.back()->Decide(Pointers(answers), store.revision()));
  }
  EXPECT_EQ(turns[0].kind, Turn::Kind::kOurs);
  for (int i = 0; i < 100; ++i) {
    const WatchEvent event = store.Delete(keys[i]);
    int woken = 0;
    for (int k = i + 1; k < 101; ++k) woken += turns[k].watch.Contains(event.kv.key) ? 1 : 0;
    EXPECT_EQ(woken, 1);
  }
}

// A reader who only tries is refused by a writer, and not by one who has become a reader: he asks
// again, under the condition that no other writer has come behind that one.
TEST(RulesTest, AReaderTriesAgainBehindAWriterWhoBecameOne) {
  ModelStore store;
  const std::string writer = WritePrefix("m") + "1";
  store.PutTogether({writer});
  const int64_t created = store.revision();
  ReadRule rule("m");
  const std::vector<Compare> first = rule.Conditions(true);
  absl::Status why;
  std::vector<RangeResult> answers = store.Read(rule.Reads(0));
  EXPECT_EQ(rule.OnMissed(Pointers(answers), true, why), TurnRule::Missed::kOccupied);
  store.Put(writer, "");
  answers = store.Read(rule.Reads(0));
  EXPECT_EQ(rule.OnMissed(Pointers(answers), true, why), TurnRule::Missed::kJoinAgain);
  const std::vector<Compare> again = rule.Conditions(true);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_FALSE(again == first);
  EXPECT_EQ(again[0], CreateRevision(Prefix(WritePrefix("m"))) < created + 1);
}

// ---- Names in keys that others may have put.

TEST(RulesTest, AKeyThatSaysNothingOfPermitsHasThemAll) {
  EXPECT_EQ(PermitsOf("s/queue/2a-1x3", 4), 3);
  EXPECT_EQ(PermitsOf("s/queue/2a-1x4", 4), 4);
  for (const char* bad : {"s/queue/2a", "s/queue/x", "s/queue/2a-1x0", "s/queue/2a-1x-1",
                          "s/queue/2a-1x5", "s/queue/2a-1x3 ", "s/queue/1x99999999999999999999"}) {
    EXPECT_EQ(PermitsOf(bad, 4), 4) << bad;
  }
}

TEST(RulesTest, AHoldOfSomebodyElseIsWaitedForAndOurOwnIsNot) {
  ModelStore store;
  store.Put("m~hold", "them");
  store.PutTogether({"m/1"});
  OneAtATime theirs({.names = {"m"}, .heed_hold = true, .holder = "them"});
  OneAtATime ours({.names = {"m"}, .heed_hold = true, .holder = "us"});
  const std::vector<RangeResult> answers = store.Read(ours.Reads(store.revision()));
  EXPECT_EQ(theirs.Decide(Pointers(answers), store.revision()).kind, Turn::Kind::kOurs);
  Turn turn = ours.Decide(Pointers(answers), store.revision());
  EXPECT_EQ(turn.kind, Turn::Kind::kWait);
  EXPECT_EQ(turn.watch.key, "m~hold");
  // A try: refused; and for the same holder a second attempt, under the condition that it is so.
  store.Delete("m/1");
  const std::vector<RangeResult> tried = store.Read(ours.Reads(0));
  absl::Status why;
  EXPECT_EQ(ours.OnMissed(Pointers(tried), true, why), TurnRule::Missed::kOccupied);
  EXPECT_EQ(theirs.OnMissed(Pointers(tried), true, why), TurnRule::Missed::kJoinAgain);
  EXPECT_EQ(theirs.Conditions(true).back(), Value("m~hold") == "them");
}

}  // namespace
}  // namespace conclave
