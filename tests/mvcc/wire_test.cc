#include "conclave/server/mvcc/wire.h"

#include <gtest/gtest.h>

#include <string>

namespace conclave::mvcc {
namespace {

using namespace std::string_literals;

std::string Encode(const Record& record, ValueField value = ValueField::kInclude) {
  std::string bytes(KeyValueSize(record, value), '\0');
  EXPECT_EQ(WriteKeyValue(record, bytes.data(), value), bytes.data() + bytes.size());
  return bytes;
}

TEST(KeyValueWire, WritesFieldsInOrderAndLeavesZeroesOut) {
  const RecordRef record = MakeRecord({.key = "key",
                                       .value = "value",
                                       .revision = {300, 1},
                                       .create_revision = 2,
                                       .version = 3,
                                       .lease = -1});
  const std::string lease = "\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s;
  EXPECT_EQ(Encode(*record), "\x0a\x03key\x10\x02\x18\xac\x02\x20\x03\x2a\x05value"s + lease);
  EXPECT_EQ(Encode(*record, ValueField::kOmit), "\x0a\x03key\x10\x02\x18\xac\x02\x20\x03"s + lease);
  const RecordRef tombstone =
      MakeRecord({.key = "key", .value = {}, .revision = {7, 0}, .tombstone = true});
  EXPECT_EQ(Encode(*tombstone), "\x0a\x03key\x18\x07"s);
}

TEST(KeyValueWire, HeadValueAndTailMakeTheWhole) {
  for (const std::string& value : {""s, "v"s, std::string(300, 'x')}) {
    const RecordRef record = MakeRecord({.key = "k",
                                         .value = value,
                                         .revision = {5, 0},
                                         .create_revision = 5,
                                         .version = 1,
                                         .lease = 9});
    char head[64 + 1];
    char tail[16];
    std::string parts(head, WriteKeyValueHead(*record, head));
    parts += value;
    parts.append(tail, WriteKeyValueTail(*record, tail));
    EXPECT_EQ(parts, Encode(*record));
  }
}

TEST(Varint, SizesAreThoseWritten) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const uint64_t number : {uint64_t{1} << bit, (uint64_t{1} << bit) - 1}) {
      char bytes[10];
      EXPECT_EQ(WriteVarint(number, bytes), bytes + VarintSize(number)) << number;
    }
  }
}

}  // namespace
}  // namespace conclave::mvcc
