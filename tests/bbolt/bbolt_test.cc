// Files that are written are read back the same, as bbolt has them; files that are broken are
// refused, whatever the damage.
#include <map>
#include <string>

#include "conclave/base/prng.h"
#include "conclave/server/bbolt/reader.h"
#include "conclave/server/bbolt/writer.h"
#include "conclave/tests/bbolt/memory_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace conclave::bbolt {
namespace {

using Pairs = std::map<std::string, std::string>;
using Content = std::map<std::string, Pairs>;

Layout Measure(const Content& content) {
  Writer writer;
  for (const auto& [name, pairs] : content) {
    writer.BeginBucket(name);
    for (const auto& [key, value] : pairs) {
      writer.Add(key, value.size(), [](char*) { FAIL() << "asked for a value while measuring"; });
    }
  }
  const Layout layout = writer.Finish();
  EXPECT_EQ(writer.output_size(), 0u);
  return layout;
}

std::string Write(const Content& content) {
  const Layout layout = Measure(content);
  Writer writer(layout);
  std::string file;
  for (const auto& [name, pairs] : content) {
    writer.BeginBucket(name);
    for (const auto& [key, value] : pairs) {
      writer.Add(key, value);
      file += writer.TakeOutput();
    }
  }
  writer.Finish();
  file += writer.TakeOutput();
  EXPECT_EQ(file.size(), layout.bytes());
  return file;
}

// OK only if everything could be read.
absl::Status Read(Source* source, Content* content) {
  absl::StatusOr<Database> database = Database::Open(source);
  if (!database.ok()) return database.status();
  const auto buckets = database->Buckets();
  if (!buckets.ok()) return buckets.status();
  for (const std::string& bucket : *buckets) {
    Pairs& pairs = (*content)[bucket];
    const absl::Status read =
        database->ForEach(bucket, [&](std::string_view key, std::string_view value) {
          pairs.emplace(key, value);
          return absl::OkStatus();
        });
    if (!read.ok()) return read;
  }
  return database->Check();
}

Content Read(const std::string& file) {
  MemorySource source(file);
  Content content;
  const absl::Status read = Read(&source, &content);
  EXPECT_TRUE(read.ok()) << read;
  return content;
}

Pairs Numbered(int count, size_t value_size) {
  Pairs pairs;
  for (int i = 0; i < count; ++i) {
    const std::string key = std::to_string(100'000'000 + i);
    pairs[key] = key + std::string(value_size, static_cast<char>('a' + i % 26));
  }
  return pairs;
}

TEST(Bbolt, GivesBackWhatWasWritten) {
  for (const Content& content : {
           Content{},
           Content{{"empty", {}}},
           Content{{"one", {{"k", "v"}}}},
           Content{{"a", {{"k", ""}}}, {"b", {}}, {"c", Numbered(10, 10)}},
           Content{{"pages", Numbered(1000, 20)}},
           Content{{"levels", Numbered(60'000, 40)}, {"more", Numbered(5000, 500)}},
       }) {
    EXPECT_EQ(Read(Write(content)), content);
  }
}

TEST(Bbolt, SpreadsWhatIsLargerThanAPage) {
  Content content{{"large", {}}};
  for (const size_t size : {4000, 4064, 4065, 5000, 100'000, 3'000'000}) {
    content["large"][std::to_string(1'000'000'000 + size)] = std::string(size, 'x');
  }
  content["large"][std::string(40'000, 'k')] = "a long key";
  content["large"][std::string(39'999, 'k')] = "another one";
  EXPECT_EQ(Read(Write(content)), content);
}

TEST(Bbolt, IsAsLongAsItSays) {
  const std::string file = Write({{"b", Numbered(500, 100)}});
  EXPECT_EQ(file.size() % kPageSize, 0u);
  MemorySource source(file + std::string(32, 'x'));  // as a snapshot has its hash behind it
  const auto database = Database::Open(&source);
  ASSERT_TRUE(database.ok()) << database.status();
  EXPECT_EQ(database->size_bytes(), file.size());
}

TEST(Bbolt, ReadsTheNewerMetaAndDoesWithoutTheOther) {
  const Content content{{"b", Numbered(100, 10)}};
  const std::string file = Write(content);
  for (const size_t page : {0, 1}) {
    std::string damaged = file;
    damaged[page * kPageSize + kPageHeaderBytes + 20] ^= 1;
    EXPECT_EQ(Read(damaged), content) << page;
  }
  std::string both = file;
  both[kPageHeaderBytes + 20] ^= 1;
  both[kPageSize + kPageHeaderBytes + 20] ^= 1;
  MemorySource source(both);
  EXPECT_TRUE(absl::IsDataLoss(Database::Open(&source).status()));
}

// A bucket in its parent's leaf, as bbolt keeps small ones.
TEST(Bbolt, ReadsInlineBuckets) {
  std::string page;
  AppendPageHeader({.id = 0, .flags = kLeaf, .count = 1}, &page);
  for (const uint32_t number : {0, 16, 3, 5}) AppendU32(number, &page);
  page += "keyvalue";
  std::string bucket;
  AppendU64(0, &bucket);
  AppendU64(7, &bucket);
  bucket += page;

  std::string root;
  AppendPageHeader({.id = 3, .flags = kLeaf, .count = 1}, &root);
  for (const uint32_t number : {kElementIsBucket, 16u, 4u, static_cast<uint32_t>(bucket.size())}) {
    AppendU32(number, &root);
  }
  root += "name" + bucket;
  root.resize(kPageSize);
  Writer writer(Layout{.root = 3, .pages = 4});
  EXPECT_EQ(Read(writer.TakeOutput() + root), (Content{{"name", {{"key", "value"}}}}));
}

TEST(Bbolt, RefusesCutFiles) {
  const std::string file = Write({{"b", Numbered(2000, 50)}});
  for (size_t size = 0; size < file.size(); size += 97) {
    MemorySource source(file.substr(0, size));
    Content content;
    EXPECT_TRUE(absl::IsDataLoss(Read(&source, &content))) << size;
  }
}

TEST(Bbolt, RefusesCyclesAndPagesInUseTwice) {
  const Content content{{"b", Numbered(2000, 50)}};
  const std::string file = Write(content);
  int branches = 0;
  for (size_t at = 3 * kPageSize; at < file.size(); at += kPageSize) {
    const PageHeader header = ReadPageHeader(std::string_view(file).substr(at));
    if (header.flags != kBranch) continue;
    ++branches;
    // Its last child is the branch itself, or its first child again.
    const size_t child = at + kPageHeaderBytes + size_t{header.count - 1u} * kElementBytes + 8;
    for (const uint64_t id : {header.id, uint64_t{3}, uint64_t{1}, uint64_t{1} << 60}) {
      std::string number;
      AppendU64(id, &number);
      MemorySource source(std::string(file).replace(child, 8, number));
      Content read;
      EXPECT_TRUE(absl::IsDataLoss(Read(&source, &read))) << id;
    }
  }
  EXPECT_GT(branches, 0);
}

// Bits and words of the structure are changed at random; what is still accepted can be walked.
TEST(Bbolt, SurvivesFlips) {
  const std::string file =
      Write({{"a", {}}, {"b", Numbered(2000, 30)}, {"c", {{"k", std::string(20'000, 'v')}}}});
  Prng prng(7);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = file;
    const size_t pages = file.size() / kPageSize;
    for (uint64_t flips = prng.Next() % 4; flips < 4; ++flips) {
      // Most of what leads somewhere stands at the beginning of a page.
      const size_t page = prng.Next() % pages * kPageSize;
      const size_t at = page + prng.Next() % (prng.Next() % 2 == 0 ? 64 : kPageSize);
      damaged[at] =
          static_cast<char>(prng.Next() % 3 == 0 ? 0xff : damaged[at] ^ 1 << prng.Next() % 8);
    }
    MemorySource source(damaged);
    Content content;
    const absl::Status read = Read(&source, &content);
    if (!read.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(read)) << read;
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(Bbolt, ComputesFnv1a) {
  EXPECT_EQ(Fnv1a(""), 0xcbf29ce484222325u);
  EXPECT_EQ(Fnv1a("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(Fnv1a("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace conclave::bbolt
