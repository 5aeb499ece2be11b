#include <gtest/gtest.h>

#include <string>

#include "conclave/base/prng.h"
#include "conclave/server/mvcc/snapshot_cursor.h"

namespace conclave::mvcc {
namespace {

class SnapshotTest : public testing::Test {
 protected:
  SnapshotTest() {
    for (const char* key : {"a", "b", "c"}) Put(key, "1");
    Put("b", "2");
  }
  void Put(std::string_view key, std::string_view value) {
    WriteTxn txn = store_.Begin();
    txn.Put(key, value, 0);
    txn.Commit();
  }
  Store store_;
};

RecordFields FieldsOf(const Record& record) {
  return {.key = record.key(),
          .value = record.value(),
          .revision = record.revision(),
          .create_revision = record.create_revision(),
          .version = record.version(),
          .lease = record.lease(),
          .tombstone = record.tombstone()};
}

TEST_F(SnapshotTest, WritesAfterTheOpeningAreNotInIt) {
  SnapshotCursor cursor(&store_);
  Put("d", "1");
  int records = 0;
  while (const RecordRef record = cursor.Next()) {
    ++records;
    EXPECT_NE(record->key(), "d");
    Put("a", std::to_string(records));
  }
  EXPECT_EQ(records, 4);
  EXPECT_EQ(cursor.image().current_revision, 5);
}

TEST_F(SnapshotTest, AStreamThatMissesSomethingIsRefused) {
  SnapshotCursor cursor(&store_);
  StoreBuilder builder(cursor.image());
  const RecordRef first = cursor.Next();
  while (const RecordRef record = cursor.Next()) ASSERT_TRUE(builder.Add(FieldsOf(*record)).ok());
  EXPECT_EQ(builder.Add(FieldsOf(*first)).code(), absl::StatusCode::kDataLoss) << "out of order";
  EXPECT_EQ(builder.Finish().status().code(), absl::StatusCode::kDataLoss) << "the digest";
}

TEST_F(SnapshotTest, AStreamWithAChangedByteIsRefused) {
  SnapshotCursor cursor(&store_);
  StoreBuilder builder(cursor.image());
  while (const RecordRef record = cursor.Next()) {
    RecordFields fields = FieldsOf(*record);
    if (fields.key == "c") fields.value = "2";
    ASSERT_TRUE(builder.Add(fields).ok());
  }
  EXPECT_EQ(builder.Finish().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(SnapshotTest, RecordsThatContradictThemselvesAreRefused) {
  StoreImage image;
  image.current_revision = 10;
  const RecordFields good{
      .key = "a", .value = "v", .revision = {5, 0}, .create_revision = 5, .version = 1};
  const auto add = [&](auto&& change) {
    RecordFields fields = good;
    change(fields);
    return StoreBuilder(image).Add(fields).code();
  };
  EXPECT_EQ(add([](RecordFields&) {}), absl::StatusCode::kOk);
  for (const auto code : {add([](RecordFields& f) { f.revision.main = 11; }),
                          add([](RecordFields& f) { f.revision.main = 0; }),
                          add([](RecordFields& f) { f.revision.sub = -1; }),
                          add([](RecordFields& f) { f.version = 0; }),
                          add([](RecordFields& f) { f.create_revision = 6; }),
                          add([](RecordFields& f) { f.tombstone = true; })}) {
    EXPECT_EQ(code, absl::StatusCode::kDataLoss);
  }
}

TEST_F(SnapshotTest, DecodingNeverReadsBeyondItsInput) {
  std::string bytes;
  EncodeRecord(*store_.Get("b"), &bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut =
        bytes.substr(0, size);  // its own allocation, so that a sanitizer sees it
    std::string_view input = cut;
    RecordFields fields;
    EXPECT_FALSE(DecodeRecord(&input, &fields).ok()) << size;
  }
  Prng prng(1);
  for (int i = 0; i < 20000; ++i) {
    std::string noise(prng.Below(40), '\0');
    for (char& byte : noise) byte = static_cast<char>(prng.Next());
    std::string_view input = noise;
    RecordFields fields;
    if (DecodeRecord(&input, &fields).ok()) {
      EXPECT_LE(fields.key.size() + fields.value.size(), noise.size());
    }
  }
}

}  // namespace
}  // namespace conclave::mvcc
