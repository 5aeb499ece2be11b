#include "conclave/server/watch/interval_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/watch/watch_group.h"

namespace conclave::watch {
namespace {

std::string RandomKey(Prng* prng) {
  std::string key;
  for (uint64_t n = prng->Between(1, 4); n > 0; --n) key += static_cast<char>('a' + prng->Below(4));
  return key;
}

TEST(IntervalTree, FindsWhatALinearSearchFinds) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Prng prng(seed);
    IntervalTree tree;
    std::vector<std::unique_ptr<WatchGroup>> groups;
    uint64_t next_id = 1;
    for (int step = 0; step < 600; ++step) {
      if (prng.Chance(step < 400 ? 2 : 1, 3) || groups.empty()) {
        const std::string begin = RandomKey(&prng);
        const std::string end = prng.Chance(1, 6) ? std::string(1, '\0') : RandomKey(&prng);
        if (mvcc::KeyRange::FromRequest(begin, end).empty()) continue;
        groups.push_back(
            std::make_unique<WatchGroup>(next_id++, begin, end, false, false, false, ""));
        tree.Insert(groups.back().get());
      } else {
        const size_t victim = prng.Below(groups.size());
        tree.Erase(groups[victim].get());
        groups.erase(groups.begin() + static_cast<ptrdiff_t>(victim));
      }
      if (step % 20 == 0) tree.CheckInvariants();
      ASSERT_EQ(tree.size(), groups.size());
      const std::string key = RandomKey(&prng);
      std::vector<WatchGroup*> expected;
      for (const auto& group : groups) {
        if (group->range().Contains(key)) expected.push_back(group.get());
      }
      std::vector<WatchGroup*> found;
      tree.ForEachHolding(key, [&](WatchGroup* group) { found.push_back(group); });
      EXPECT_TRUE(std::is_sorted(found.begin(), found.end(), [](WatchGroup* a, WatchGroup* b) {
        return std::pair(a->key(), a->id()) < std::pair(b->key(), b->id());
      }));
      std::sort(found.begin(), found.end());
      std::sort(expected.begin(), expected.end());
      ASSERT_EQ(found, expected);
    }
  }
}

}  // namespace
}  // namespace conclave::watch
