// The hash that all clients have in common, and the subsets that are chosen by it.
#include "conclave/discovery/subset.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/discovery/stable_hash.h"

namespace conclave {
namespace {

TEST(StableHashTest, IsTheSameInEveryVersion) {
  EXPECT_EQ(StableHash(""), 0x9998a0e9639c88f6u);
  EXPECT_EQ(StableHash("a"), 0xcc5e8b813d1b9279u);
  EXPECT_EQ(StableHash("user-7"), 0xee5ef82b19d367c2u);
  EXPECT_EQ(StableHash("10.0.0.1:80"), 0xd4dfbe5ebba8107eu);
  EXPECT_EQ(StableHash("10.0.0.1:80", 1), 0xb8cb04ac8bdaafb3u);
}

TEST(StableHashTest, EveryByteAndTheLengthCount) {
  std::set<uint64_t> seen;
  size_t texts = 0;
  for (size_t size = 0; size <= 40; ++size) {
    const std::string zeros(size, '\0');
    seen.insert(StableHash(zeros));
    ++texts;
    for (size_t i = 0; i < size; ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string text = zeros;
        text[i] = static_cast<char>(1 << bit);
        seen.insert(StableHash(text));
        ++texts;
      }
    }
  }
  EXPECT_EQ(seen.size(), texts);
}

// Numbers in text are what keys are most of the time: no bit of the hash may follow them.
TEST(StableHashTest, EachBitIsSetForHalfOfAllKeys) {
  constexpr int kKeys = 20'000;
  std::vector<int> set(64);
  for (int key = 0; key < kKeys; ++key) {
    const uint64_t hash = StableHash("user-" + std::to_string(key));
    for (int bit = 0; bit < 64; ++bit) set[bit] += static_cast<int>(hash >> bit & 1);
  }
  for (int bit = 0; bit < 64; ++bit) EXPECT_NEAR(set[bit], kKeys / 2, 400) << bit;
}

std::vector<std::string> Names(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back("10.0.0." + std::to_string(i) + ":8080");
  return names;
}

std::vector<std::string_view> Views(const std::vector<std::string>& names) {
  return {names.begin(), names.end()};
}

TEST(SubsetTest, IsTheSameForTheSameKeyAndFairOverKeys) {
  const std::vector<std::string> names = Names(100);
  std::vector<int> chosen(100);
  constexpr int kClients = 1'000;
  for (int client = 0; client < kClients; ++client) {
    const std::string key = "client-" + std::to_string(client);
    const std::vector<size_t> subset = RendezvousSubset(key, Views(names), 20);
    ASSERT_EQ(subset.size(), 20u);
    ASSERT_EQ(subset, RendezvousSubset(key, Views(names), 20));
    for (const size_t i : subset) ++chosen[i];
  }
  for (const int clients : chosen) EXPECT_NEAR(clients, 200, 60);
}

TEST(SubsetTest, OneThatLeavesChangesOnePlaceAtMost) {
  const std::vector<std::string> names = Names(100);
  std::set<std::string_view> before;
  for (const size_t i : RendezvousSubset("me", Views(names), 20)) before.insert(names[i]);
  for (int gone = 0; gone < 100; ++gone) {
    std::vector<std::string_view> rest = Views(names);
    rest.erase(rest.begin() + gone);
    size_t kept = 0;
    for (const size_t i : RendezvousSubset("me", rest, 20)) kept += before.count(rest[i]);
    EXPECT_GE(kept, before.contains(names[gone]) ? 19u : 20u);
  }
}

TEST(SubsetTest, FewerThanAskedForAreAll) {
  const std::vector<std::string_view> names = {"a", "b"};
  EXPECT_EQ(RendezvousSubset("me", names, 20), (std::vector<size_t>{0, 1}));
  EXPECT_TRUE(RendezvousSubset("me", {}, 20).empty());
}

}  // namespace
}  // namespace conclave
