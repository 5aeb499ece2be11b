#include "conclave/server/auth/key_set.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/base/prng.h"

namespace conclave::auth {
namespace {

const std::string kOpen(1, '\0');

TEST(KeySetTest, NothingIsInsideWhereNothingWasAdded) {
  const KeySet set;
  EXPECT_FALSE(set.Contains("a", ""));
  EXPECT_FALSE(set.Contains("a", "b"));
  EXPECT_FALSE(set.Contains(std::string(1, '\0'), kOpen));
}

TEST(KeySetTest, ASingleKeyIsThatKeyOnly) {
  KeySet set;
  set.Add("b", "");
  EXPECT_TRUE(set.Contains("b", ""));
  EXPECT_FALSE(set.Contains("a", ""));
  EXPECT_FALSE(set.Contains(std::string("b\0", 2), ""));
  EXPECT_FALSE(set.Contains("b", "c"));
  EXPECT_TRUE(set.Contains("b", std::string("b\0", 2)));  // the same key, said as a range
}

TEST(KeySetTest, RangesThatTouchCoverTogether) {
  KeySet set;
  set.Add("c", "d");
  set.Add("a", "b");
  EXPECT_FALSE(set.Contains("a", "d"));
  set.Add("b", "c");
  EXPECT_TRUE(set.Contains("a", "d"));
  EXPECT_TRUE(set.Contains("abc", "cz"));
  EXPECT_FALSE(set.Contains("a", "da"));
}

TEST(KeySetTest, AnOpenRangeIsCoveredByAnOpenOneOnly) {
  KeySet set;
  set.Add("b", "zzz");
  EXPECT_FALSE(set.Contains("c", kOpen));
  set.Add("m", kOpen);
  EXPECT_TRUE(set.Contains("c", kOpen));
  EXPECT_TRUE(set.Contains("zzzz", ""));
  EXPECT_FALSE(set.Contains("a", kOpen));
}

TEST(KeySetTest, AReversedRangeCountsAsItsFirstKey) {
  KeySet set;
  set.Add("b", "c");
  EXPECT_TRUE(set.Contains("b", "a"));
  EXPECT_FALSE(set.Contains("c", "a"));
}

// Against the definition, key by key, over a small alphabet.
TEST(KeySetTest, AgreesWithTheDefinition) {
  const std::vector<std::string> keys = {
      kOpen, "a", std::string("a\0", 2), "aa", "ab", "b", std::string("b\0", 2), "ba", "bb",
      "c",   "cc"};
  const auto covers = [](const std::string& key, const std::string& end, const std::string& probe) {
    if (end == kOpen) return probe >= key;
    if (end <= key) return probe == key;
    return probe >= key && probe < end;
  };
  Prng prng(3);
  for (int round = 0; round < 5000; ++round) {
    KeySet set;
    std::vector<std::pair<std::string, std::string>> added;
    for (uint64_t i = prng.Below(5); i > 0; --i) {
      const std::string& key = keys[prng.Below(keys.size())];
      std::string end = prng.Chance(1, 3) ? "" : keys[prng.Below(keys.size())];
      if (end != kOpen && end <= key) end.clear();
      set.Add(key, end);
      added.emplace_back(key, end);
    }
    const std::string& key = keys[prng.Below(keys.size())];
    std::string end = prng.Chance(1, 3) ? "" : keys[prng.Below(keys.size())];
    if (end != kOpen && end <= key) end.clear();
    // Between two neighbours of the alphabet lie keys that are not in it: one for each gap.
    bool whole = true;
    for (const std::string& letter : keys) {
      for (const std::string& probe : {letter, letter + '\0', letter + "\x01"}) {
        if (!covers(key, end, probe)) continue;
        bool inside = false;
        for (const auto& [k, e] : added) inside |= covers(k, e, probe);
        whole &= inside;
      }
    }
    if (end == kOpen) {
      bool open = false;
      for (const auto& [k, e] : added) open |= e == kOpen;
      whole &= open;
    }
    EXPECT_EQ(set.Contains(key, end), whole) << "round " << round;
  }
}

}  // namespace
}  // namespace conclave::auth
