#include "conclave/base/utf8.h"

#include <gtest/gtest.h>

namespace conclave {
namespace {

TEST(Utf8, TellsTheWellFormedFromTheRest) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("plain"));
  EXPECT_TRUE(IsUtf8("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));
  EXPECT_FALSE(IsUtf8("\x80"));
  EXPECT_FALSE(IsUtf8("\xc3"));
  EXPECT_FALSE(IsUtf8("\xc0\x80"));          // overlong
  EXPECT_FALSE(IsUtf8("\xe0\x80\x80"));      // overlong
  EXPECT_FALSE(IsUtf8("\xed\xa0\x80"));      // a surrogate
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));  // beyond U+10FFFF
}

TEST(Utf8, TheFrontOfATextIsOneCodePoint) {
  uint32_t point = 0;
  EXPECT_EQ(Utf8Sequence("a\xc3", &point), 1u);
  EXPECT_EQ(point, 'a');
  EXPECT_EQ(Utf8Sequence("\xe2\x82\xac!", &point), 3u);
  EXPECT_EQ(point, 0x20acu);
  EXPECT_EQ(Utf8Sequence("\xf0\x9f\x98\x80", &point), 4u);
  EXPECT_EQ(point, 0x1f600u);
  EXPECT_EQ(Utf8Sequence("\xe2\x82", &point), 0u);
}

}  // namespace
}  // namespace conclave
