// GroupTable: who joined, left and changed, from batches of a watch.
#include "conclave/coordination/group_table.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

KeyValue Kv(const std::string& id, int64_t create, int64_t mod, const std::string& data) {
  return {.key = "g/" + id, .value = data, .create_revision = create, .mod_revision = mod};
}
WatchEvent Put(const std::string& id, int64_t create, int64_t mod, const std::string& data) {
  return {.kv = Kv(id, create, mod, data)};
}
WatchEvent Delete(const std::string& id, int64_t mod) {
  return {.type = WatchEvent::Type::kDelete, .kv = {.key = "g/" + id, .mod_revision = mod}};
}
// "+a=1 -b=2 ~c=3 | a,c"
std::string Text(const GroupChange& change) {
  std::string text;
  const auto add = [&text](char sign, const std::vector<GroupMember>& members) {
    for (const GroupMember& member : members) {
      absl::StrAppend(&text, std::string(1, sign), member.id, "=", member.data, " ");
    }
  };
  add('+', change.joined);
  add('-', change.left);
  add('~', change.updated);
  std::vector<std::string> ids;
  for (const GroupMember& member : change.members) ids.push_back(member.id);
  return text + "| " + absl::StrJoin(ids, ",");
}

class GroupTableTest : public ::testing::Test {
 protected:
  std::string Apply(std::vector<WatchEvent> events) {
    return Text(table_.Apply({.events = std::move(events)}));
  }
  std::string Resync(std::vector<KeyValue> state) {
    return Text(table_.Apply({.resynced = true, .state = std::move(state)}));
  }
  GroupTable table_{"g/"};
};

TEST_F(GroupTableTest, JoinsLeavesAndUpdates) {
  EXPECT_EQ(Resync({Kv("b", 2, 2, "1"), Kv("a", 3, 3, "2")}), "+b=1 +a=2 | a,b");
  EXPECT_EQ(Apply({Put("a", 3, 4, "3")}), "~a=3 | a,b");
  EXPECT_EQ(Apply({Put("a", 3, 5, "3")}), "| a,b");
  EXPECT_EQ(Apply({Delete("b", 6), Put("c", 7, 7, "")}), "+c= -b=1 | a,c");
  EXPECT_EQ(Apply({Delete("nobody", 8)}), "| a,c");
}

TEST_F(GroupTableTest, OneThatComesAgainIsAnotherMember) {
  Resync({Kv("a", 2, 2, "1")});
  EXPECT_EQ(Apply({Delete("a", 3), Put("a", 4, 4, "1")}), "+a=1 -a=1 | a");
  // The delete was compacted away, or came with the put.
  EXPECT_EQ(Apply({Put("a", 5, 5, "2")}), "+a=2 -a=1 | a");
}

TEST_F(GroupTableTest, WhatComesAndGoesInOneBatchWasNeverThere) {
  Resync({});
  EXPECT_EQ(Apply({Put("a", 2, 2, "1"), Delete("a", 3)}), "| ");
  EXPECT_EQ(Apply({Put("a", 4, 4, "1"), Put("a", 4, 5, "2")}), "+a=2 | a");
}

TEST_F(GroupTableTest, ANewListTellsTheDifference) {
  Resync({Kv("a", 2, 2, "1"), Kv("b", 3, 3, "1"), Kv("c", 4, 4, "1")});
  EXPECT_EQ(Resync({Kv("a", 2, 2, "1"), Kv("b", 3, 9, "2"), Kv("d", 8, 8, "1")}),
            "+d=1 -c=1 ~b=2 | a,b,d");
}

}  // namespace
}  // namespace conclave
