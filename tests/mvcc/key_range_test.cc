#include "conclave/server/mvcc/key_range.h"

#include <gtest/gtest.h>

namespace conclave::mvcc {
namespace {

using namespace std::string_view_literals;

TEST(KeyRange, HasTheMeaningsOfRequests) {
  const KeyRange single = KeyRange::FromRequest("b", "");
  EXPECT_TRUE(single.single());
  EXPECT_TRUE(single.Contains("b"));
  EXPECT_FALSE(single.Contains("b\0"sv));
  EXPECT_TRUE(single.EndsBefore("ba"));

  const KeyRange open = KeyRange::FromRequest("b", "\0"sv);
  EXPECT_TRUE(open.open_ended());
  EXPECT_FALSE(open.Contains("a"));
  EXPECT_TRUE(open.Contains("b"));
  EXPECT_TRUE(open.Contains("\xff\xff"));
  EXPECT_FALSE(open.EndsBefore("\xff\xff"));

  const KeyRange closed = KeyRange::FromRequest("b", "d");
  EXPECT_TRUE(closed.Contains("b"));
  EXPECT_TRUE(closed.Contains("c\xff"));
  EXPECT_FALSE(closed.Contains("d"));
  EXPECT_TRUE(closed.EndsBefore("d"));

  for (const std::string_view end : {"b"sv, "a"sv}) {
    const KeyRange empty = KeyRange::FromRequest("b", end);
    EXPECT_TRUE(empty.empty());
    EXPECT_FALSE(empty.Contains("b"));
  }
  EXPECT_TRUE(KeyRange::FromRequest("\0"sv, "\0"sv).Contains("\0"sv));
  EXPECT_TRUE(KeyRange::All().Contains(""));
  EXPECT_TRUE(KeyRange().empty());
}

TEST(KeyRange, PrefixEndIsTheFirstKeyWithoutThePrefix) {
  EXPECT_EQ(PrefixEnd("foo"), "fop");
  EXPECT_EQ(PrefixEnd("a\xff\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff\xff"), "\0"sv);
  EXPECT_EQ(PrefixEnd(""), "\0"sv);
}

}  // namespace
}  // namespace conclave::mvcc
