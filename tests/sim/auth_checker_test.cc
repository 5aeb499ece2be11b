// What the oracle of authentication lets pass, and a row of bad histories that it must not.
#include "conclave/tests/sim/auth_checker.h"

#include <gtest/gtest.h>

namespace conclave::sim {
namespace {

using std::chrono::seconds;

const std::string kOpen(1, '\0');

Instant At(int64_t second) { return Instant(seconds(second)); }
KeyPermission Read(const std::string& key, const std::string& end = "") {
  return {.reads = true, .key = key, .range_end = end};
}
KeyPermission Write(const std::string& key, const std::string& end = "") {
  return {.writes = true, .key = key, .range_end = end};
}

// From second 10 on: ann reads [a, c) and [c, f), and writes c; bob has no role; root is root.
// From 20 on ann has lost the role. From 30 on it is all off.
AuthHistory History() {
  AuthMoment on{.from = At(10), .enabled = true};
  on.roles_of = {{"ann", {"reader"}}, {"bob", {}}, {"root", {"root"}}};
  on.permissions_of = {{"reader", {Read("a", "c"), Read("c", "f"), Write("c")}}};
  AuthMoment lost = on;
  lost.from = At(20);
  lost.roles_of["ann"].clear();
  AuthMoment off = lost;
  off.from = At(30);
  off.enabled = false;
  return {on, lost, off};
}

Complaints Check(const std::string& user, int64_t begin, int64_t end,
                 const std::vector<KeyPermission>& needs) {
  return CheckAuth(History(), {{user, "did it", At(begin), At(end), needs}});
}

TEST(AuthChecker, WhatWasAllowedPasses) {
  EXPECT_TRUE(Check("ann", 11, 12, {Read("a")}).empty());
  EXPECT_TRUE(Check("ann", 11, 12, {Read("a", "f")}).empty());  // by two permissions together
  EXPECT_TRUE(Check("ann", 11, 12, {Read("b"), Write("c")}).empty());
  EXPECT_TRUE(Check("ann", 19, 25, {Read("a")}).empty());  // while it was taken away
  EXPECT_TRUE(Check("root", 21, 22, {Write("x", kOpen)}).empty());
  EXPECT_TRUE(Check("bob", 5, 6, {Write("x")}).empty());    // before it was on
  EXPECT_TRUE(Check("bob", 31, 32, {Write("x")}).empty());  // when it was off again
  EXPECT_TRUE(Check("bob", 25, 35, {Write("x")}).empty());
  EXPECT_TRUE(Check("bob", 11, 12, {}).empty());  // what needs nothing
  EXPECT_TRUE(CheckAuth({}, {{"bob", "did it", At(1), At(2), {Read("a")}}}).empty());
}

TEST(AuthChecker, WhatWasNotAllowedIsNoticed) {
  EXPECT_EQ(Check("bob", 11, 12, {Read("a")}).size(), 1u);              // 1: no role
  EXPECT_EQ(Check("eve", 11, 12, {Read("a")}).size(), 1u);              // 2: no such user
  EXPECT_EQ(Check("", 11, 12, {Read("a")}).size(), 1u);                 // 3: nobody
  EXPECT_EQ(Check("ann", 11, 12, {Read("f")}).size(), 1u);              // 4: behind the end
  EXPECT_EQ(Check("ann", 11, 12, {Read("a", "g")}).size(), 1u);         // 5: more than both
  EXPECT_EQ(Check("ann", 11, 12, {Read("a", kOpen)}).size(), 1u);       // 6: all from there
  EXPECT_EQ(Check("ann", 11, 12, {Write("a")}).size(), 1u);             // 7: read is not write
  EXPECT_EQ(Check("ann", 21, 22, {Read("a")}).size(), 1u);              // 8: taken away
  EXPECT_EQ(Check("ann", 11, 12, {Read("a"), Write("b")}).size(), 1u);  // 9: one of two
  EXPECT_EQ(Check("ann", 11, 12, {Read("`", "b")}).size(), 1u);         // 10: begins too early
  EXPECT_EQ(Check("ann", 11, 12, {Write("c", "e")}).size(), 1u);        // 11: a key is no range
  EXPECT_EQ(Check("eve", 11, 12, {}).size(), 1u);                       // 12: nobody at all
}

TEST(AuthChecker, AGapBetweenPermissionsIsAGap) {
  AuthMoment moment{.from = At(0), .enabled = true};
  moment.roles_of = {{"ann", {"one", "two"}}};
  moment.permissions_of = {{"one", {Read("a", "c")}}, {"two", {Read("d", "f")}}};
  EXPECT_TRUE(Allows(moment, "ann", {Read("a", "c"), Read("d", "e")}));
  EXPECT_FALSE(Allows(moment, "ann", {Read("b", "e")}));
  moment.permissions_of["two"] = {Read("c", kOpen)};
  EXPECT_TRUE(Allows(moment, "ann", {Read("b", "e")}));
  EXPECT_TRUE(Allows(moment, "ann", {Read("b", kOpen)}));
}

}  // namespace
}  // namespace conclave::sim
