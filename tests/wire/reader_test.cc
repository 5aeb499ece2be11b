#include "conclave/api/wire/reader.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/api/wire/writer.h"

namespace conclave::wire {
namespace {

using namespace std::string_view_literals;

// Walks all fields as unknown ones.
bool Skips(std::string_view bytes) {
  Reader reader(bytes);
  while (reader.Next()) reader.Skip();
  return reader.ok();
}

TEST(Reader, AnEmptyMessageHasNoFields) {
  Reader reader("");
  EXPECT_FALSE(reader.Next());
  EXPECT_TRUE(reader.ok());
}

TEST(Reader, ReadsVarintsOfEveryLength) {
  for (int bits = 0; bits < 64; ++bits) {
    for (const uint64_t value : {uint64_t{1} << bits, (uint64_t{1} << bits) - 1}) {
      char bytes[11] = {8};
      const char* const end = WriteVarint(bytes + 1, value);
      EXPECT_EQ(static_cast<size_t>(end - bytes - 1), VarintSize(value));
      Reader reader(std::string_view(bytes, static_cast<size_t>(end - bytes)));
      ASSERT_TRUE(reader.Next());
      EXPECT_EQ(reader.Varint(), value);
      EXPECT_FALSE(reader.Next());
      EXPECT_TRUE(reader.ok());
    }
  }
}

TEST(Reader, RefusesAVarintOfElevenBytes) {
  EXPECT_TRUE(Skips("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"sv));
  EXPECT_FALSE(Skips("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"sv));
}

TEST(Reader, RefusesEveryTruncation) {
  const std::string whole =
      "\x08\x96\x01\x12\x03"
      "abc"
      "\x19"
      "12345678"
      "\x25"
      "1234";
  EXPECT_TRUE(Skips(whole));
  for (const size_t size : {1u, 2u, 4u, 5u, 6u, 7u, 9u, 12u, 16u, 18u, 20u}) {
    EXPECT_FALSE(Skips(std::string_view(whole).substr(0, size))) << size;
  }
}

TEST(Reader, RefusesALengthBeyondTheEnd) {
  EXPECT_FALSE(
      Skips("\x0a\x05"
            "abc"sv));
  EXPECT_FALSE(
      Skips("\x0a\xff\xff\xff\xff\x0f"
            "abc"sv));
}

TEST(Reader, RefusesFieldZero) {
  EXPECT_FALSE(Skips("\x00\x00"sv));
  EXPECT_FALSE(Skips("\x02\x00"sv));
}

TEST(Reader, SkipsGroupsAndRefusesOpenOrCrossedOnes) {
  EXPECT_TRUE(Skips("\x0b\x10\x01\x0c"sv));  // 1 { 2: 1 }
  EXPECT_TRUE(Skips("\x0b\x13\x14\x0c"sv));  // 1 { 2 {} }
  EXPECT_FALSE(Skips("\x0b\x10\x01"sv));     // not closed
  EXPECT_FALSE(Skips("\x0b\x14"sv));         // closed by another
  EXPECT_FALSE(Skips("\x0c"sv));             // closed, never opened
  EXPECT_FALSE(Skips("\x0f"sv));             // no wire type
}

TEST(Reader, BoundsTheDepthOfGroups) {
  EXPECT_TRUE(Skips(std::string(kMaxDepth, '\x0b') + std::string(kMaxDepth, '\x0c')));
  EXPECT_FALSE(Skips(std::string(kMaxDepth + 1, '\x0b') + std::string(kMaxDepth + 1, '\x0c')));
  EXPECT_FALSE(Skips(std::string(1 << 20, '\x0b')));
}

TEST(Builder, ClosesSubmessagesOfAnySize) {
  for (const size_t size : {0u, 1u, 127u, 128u, 16383u, 16384u, 100000u}) {
    Builder builder;
    builder.AppendNumber(1, uint64_t{7});
    const size_t begin = builder.BeginMessage(2);
    builder.AppendRaw(std::string(size, 'x'));
    builder.EndMessage(begin);
    builder.AppendNumber(3, uint64_t{9});
    const Bytes bytes = builder.Take();
    EXPECT_EQ(builder.size(), 0u);

    Reader reader(bytes.view());
    ASSERT_TRUE(reader.Next());
    EXPECT_EQ(reader.Varint(), 7u);
    ASSERT_TRUE(reader.Next());
    EXPECT_EQ(reader.Bytes(), std::string(size, 'x'));
    ASSERT_TRUE(reader.Next());
    EXPECT_EQ(reader.Varint(), 9u);
    EXPECT_FALSE(reader.Next());
    EXPECT_TRUE(reader.ok());
  }
}

TEST(Builder, StaysUsableAfterGivingItsBufferAway) {
  Builder builder;
  builder.AppendRaw(std::string(1 << 20, 'a'));
  const Bytes large = builder.Take();
  builder.AppendRaw("small");
  const Bytes small = builder.Take();
  EXPECT_EQ(large.size(), size_t{1} << 20);
  EXPECT_EQ(large.view().back(), 'a');
  EXPECT_EQ(small.view(), "small");
}

}  // namespace
}  // namespace conclave::wire
