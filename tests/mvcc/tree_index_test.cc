// The tree against std::map, through growth and shrinkage, with keys that are hard on hints and
// separators.

#include "conclave/server/mvcc/tree_index.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "conclave/base/prng.h"

namespace conclave::mvcc {
namespace {

class TreeModel {
 public:
  void Put(const std::string& key, bool tombstone) {
    const int64_t main = ++revision_;
    index.Put(key, [&](const Record* head) {
      const auto known = model.find(key);
      EXPECT_EQ(head != nullptr, known != model.end());
      made_ = MakeRecord({.key = key,
                          .value = {},
                          .revision = {main, 0},
                          .create_revision = main,
                          .version = 1,
                          .tombstone = tombstone});
      return made_.get();
    });
    made_ = RecordRef();
    model[key] = !tombstone;
  }
  // Removes the key for good.
  void Erase(const std::string& key) {
    if (!model.contains(key)) return;
    Put(key, true);
    index.DropOlder(key, revision_ + 1, [](const Record&) {});
    model.erase(key);
  }

  void Compare(Prng* prng) {
    index.CheckInvariants();
    ASSERT_EQ(index.size(), model.size());
    std::vector<std::string> expected;
    for (const auto& [key, live] : model) expected.push_back(key);
    std::vector<std::string> found;
    index.ForEach(KeyRange::All(), [&](const Slot& slot) {
      found.emplace_back(slot.key());
      return true;
    });
    ASSERT_EQ(found, expected);
    for (int i = 0; i < 20 && !expected.empty(); ++i) {
      const std::string a = expected[prng->Below(expected.size())];
      const std::string b = expected[prng->Below(expected.size())] + (i % 2 == 0 ? "x" : "");
      const KeyRange range = i % 5 == 0 ? KeyRange::From(a) : KeyRange::Between(a, b);
      int64_t live = 0;
      for (const auto& [key, is_live] : model) live += is_live && range.Contains(key) ? 1 : 0;
      ASSERT_EQ(index.CountLive(range), live);
      const TreeIndex::Position position = index.Seek(b);
      const auto at = model.lower_bound(b);
      ASSERT_EQ(static_cast<bool>(position), at != model.end());
      if (position) {
        ASSERT_EQ(TreeIndex::At(position).key(), at->first);
      }
    }
  }

  TreeIndex index;
  std::map<std::string, bool> model;  // -> live

 private:
  int64_t revision_ = 0;
  RecordRef made_;
};

std::string HardKey(Prng* prng) {
  std::string key = prng->Chance(1, 2) ? "/registry/services/endpoints/default/" : "";
  for (uint64_t n = prng->Below(8); n > 0; --n) key += static_cast<char>(prng->Below(3) * 100);
  if (prng->Chance(1, 3)) key += std::to_string(prng->Below(5000));
  return key;
}

TEST(TreeIndex, AgreesWithAMapThroughGrowthAndShrinkage) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Prng prng(seed);
    TreeModel tree;
    for (int phase = 0; phase < 6; ++phase) {
      const bool growing = phase % 2 == 0;
      for (int i = 0; i < 3000; ++i) {
        const bool erase = prng.Chance(growing ? 1 : 9, 10);
        if (erase && !tree.model.empty()) {
          auto victim = tree.model.lower_bound(HardKey(&prng));
          if (victim == tree.model.end()) victim = tree.model.begin();
          tree.Erase(std::string(victim->first));
        } else {
          tree.Put(HardKey(&prng), prng.Chance(1, 5));
        }
      }
      tree.Compare(&prng);
      if (HasFatalFailure()) return;
    }
    while (!tree.model.empty()) tree.Erase(std::string(tree.model.begin()->first));
    tree.Compare(&prng);
  }
}

TEST(TreeIndex, AscendingAndDescendingKeysKeepItsShape) {
  Prng prng(1);
  TreeModel tree;
  const auto key = [](int i) { return "key" + std::to_string(1000000 + i); };
  for (int i = 0; i < 20000; ++i) tree.Put(key(i), false);
  tree.Compare(&prng);
  const size_t full = tree.index.memory();
  EXPECT_LT(full, 20000u * 16) << "ascending keys fill the leaves";
  for (int i = 0; i < 20000; ++i) tree.Put(key(-i), false);
  tree.Compare(&prng);
  for (int i = 0; i < 20000; i += 2) tree.Erase(key(i));
  tree.Compare(&prng);
  for (int i = -20000; i < 20000; ++i) tree.Erase(key(i));
  tree.Compare(&prng);
  EXPECT_TRUE(tree.model.empty());
  EXPECT_LT(tree.index.memory(), 2000u);
}

TEST(TreeIndex, BulkLoadMakesTheTreeThatInsertsWouldUse) {
  for (const size_t count : {0u, 1u, 60u, 61u, 119u, 3600u, 3601u, 30000u}) {
    SCOPED_TRACE(count);
    Prng prng(count + 1);
    TreeModel tree;
    for (size_t i = 0; i < count; ++i)
      tree.model["/some/prefix/" + std::to_string(i * 7919)] = true;
    std::vector<Slot> slots;
    for (const auto& [key, live] : tree.model) {
      slots.push_back(Slot::Of(
          MakeRecord({.key = key, .value = {}, .revision = {0, 0}, .version = 1}).Release()));
    }
    tree.index.BulkLoad(slots);
    tree.Compare(&prng);
    for (int i = 0; i < 2000; ++i) {
      const std::string key = "/some/prefix/" + std::to_string(prng.Below(40000) * 7919);
      if (prng.Chance(1, 2)) {
        tree.Put(key, false);
      } else {
        tree.Erase(key);
      }
    }
    tree.Compare(&prng);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace conclave::mvcc
