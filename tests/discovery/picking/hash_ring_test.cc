// Consistency, balance and fall-back of the hash ring.
#include "conclave/discovery/picking/hash_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "conclave/discovery/stable_hash.h"

namespace conclave::picking {
namespace {

constexpr int kKeys = 20'000;

std::vector<HashRing::Member> Members(int count, double weight = 100) {
  std::vector<HashRing::Member> members;
  for (int i = 0; i < count; ++i) {
    members.push_back(
        {.name = "10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ":8080",
         .weight = weight});
  }
  return members;
}

const auto kAll = [](uint32_t) { return true; };

std::vector<std::string> Owners(const std::vector<HashRing::Member>& members) {
  const HashRing ring(members);
  std::vector<std::string> owners;
  for (int key = 0; key < kKeys; ++key) {
    owners.push_back(members[ring.Find(StableHash("user-" + std::to_string(key)), kAll)].name);
  }
  return owners;
}

double Moved(const std::vector<std::string>& before, const std::vector<std::string>& after) {
  int moved = 0;
  for (int key = 0; key < kKeys; ++key) moved += before[key] != after[key] ? 1 : 0;
  return moved / static_cast<double>(kKeys);
}

TEST(HashRingTest, OnlyTheKeysOfWhoLeavesMove) {
  for (const int count : {3, 10, 100, 1'000}) {
    std::vector<HashRing::Member> members = Members(count);
    const std::vector<std::string> before = Owners(members);
    const std::string gone = members[count / 2].name;
    members.erase(members.begin() + count / 2);
    const std::vector<std::string> after = Owners(members);
    const double moved = Moved(before, after);
    std::cout << count << " members, one leaves: " << 100 * moved << " % of the keys move ("
              << 100.0 / count << " % is the least)\n";
    for (int key = 0; key < kKeys; ++key) {
      if (before[key] != gone) {
        ASSERT_EQ(before[key], after[key]) << "the others' keys stay";
      }
    }
    EXPECT_LT(moved, 1.6 / count + 0.002);
  }
}

TEST(HashRingTest, WhoJoinsTakesItsShareOnly) {
  for (const int count : {3, 10, 100}) {
    std::vector<HashRing::Member> members = Members(count);
    const std::vector<std::string> before = Owners(members);
    members.push_back({.name = "10.9.9.9:8080", .weight = 100});
    const std::vector<std::string> after = Owners(members);
    for (int key = 0; key < kKeys; ++key) {
      if (before[key] != after[key]) {
        ASSERT_EQ(after[key], "10.9.9.9:8080");
      }
    }
    EXPECT_NEAR(Moved(before, after), 1.0 / (count + 1), 0.5 / (count + 1));
  }
}

TEST(HashRingTest, TheOrderOfMembersDoesNotMatter) {
  std::vector<HashRing::Member> members = Members(20);
  const std::vector<std::string> before = Owners(members);
  std::reverse(members.begin(), members.end());
  EXPECT_EQ(Moved(before, Owners(members)), 0);
}

TEST(HashRingTest, KeysSpreadByWeight) {
  std::vector<HashRing::Member> members = Members(10);
  members[3].weight = 300;
  members[4].weight = 0;
  std::map<std::string, int> keys;
  for (const std::string& owner : Owners(members)) ++keys[owner];
  EXPECT_EQ(keys.count(members[4].name), 0u);
  const double share = kKeys / 11.0;
  for (const HashRing::Member& member : members) {
    if (member.weight == 0) continue;
    EXPECT_NEAR(keys[member.name], share * member.weight / 100, 0.35 * share * member.weight / 100);
  }
}

TEST(HashRingTest, KeysOfAMemberThatIsOutSpreadOverTheOthersAndComeBack) {
  const std::vector<HashRing::Member> members = Members(10);
  const HashRing ring(members);
  std::map<uint32_t, int> heirs;
  for (int key = 0; key < kKeys; ++key) {
    const uint64_t hash = StableHash(std::to_string(key));
    const uint32_t owner = ring.Find(hash, kAll);
    const uint32_t without = ring.Find(hash, [](uint32_t member) { return member != 5; });
    if (owner == 5) {
      EXPECT_NE(without, 5u);
      ++heirs[without];
    } else {
      EXPECT_EQ(without, owner);
    }
  }
  EXPECT_EQ(heirs.size(), 9u);
}

TEST(HashRingTest, FindsTheFirstPointAtOrAfterTheHash) {
  const std::vector<HashRing::Member> members = Members(50);
  const HashRing ring(members);
  // Against the plain definition, at the ends of the ring and at random.
  std::vector<std::pair<uint64_t, uint32_t>> seen;
  uint64_t hash = 1;
  for (int i = 0; i < 5'000; ++i) {
    hash = i == 0 ? 0 : i == 1 ? UINT64_MAX : MixBits(hash + static_cast<uint64_t>(i));
    seen.emplace_back(hash, ring.Find(hash, kAll));
  }
  // Between two hashes of the same owner with no other's point between them, there is one owner:
  // so sorted hashes change owners at most once per point.
  std::sort(seen.begin(), seen.end());
  size_t changes = 0;
  for (size_t i = 1; i < seen.size(); ++i) changes += seen[i].second != seen[i - 1].second ? 1 : 0;
  EXPECT_LE(changes, ring.points());
  EXPECT_EQ(ring.Find(UINT64_MAX, kAll), ring.Find(0, kAll)) << "beyond the last point it is round";
}

TEST(HashRingTest, StaysBounded) {
  EXPECT_LE(HashRing(Members(10'000)).points(), HashRing::kPointsMax + 10'000);
  std::vector<HashRing::Member> skewed = Members(1'000, 1);
  skewed[0].weight = 1e6;
  EXPECT_LE(HashRing(skewed).points(), HashRing::kPointsMax + 1'000);
  EXPECT_EQ(HashRing(std::vector<HashRing::Member>{}).Find(1, kAll), HashRing::kNone);
  EXPECT_EQ(HashRing(Members(3, 0)).Find(1, kAll), HashRing::kNone);
  EXPECT_EQ(HashRing(Members(3)).Find(1, [](uint32_t) { return false; }), HashRing::kNone);
}

}  // namespace
}  // namespace conclave::picking
