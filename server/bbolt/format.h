// The bytes of a bbolt file: the store of etcd's backend, and of its snapshots.
//
// A file is an array of pages. Integers are little-endian.
//
//   page      id u64, flags u16, count u16, overflow u32; then `count` elements, then their data.
//             A page whose content is larger has `overflow` pages more behind it: a run.
//   leaf      element: flags u32 (1: the value is a bucket), position u32 (of the key, counted from
//             the element's own beginning), key size u32, value size u32; the value stands behind
//             the key
//   branch    element: position u32, key size u32, child page u64
//   meta      pages 0 and 1, the one with the higher transaction number counts: magic u32, version
//             u32, page size u32, flags u32, root bucket (root page u64, sequence u64), page of the
//             freelist u64, number of pages u64, transaction u64, FNV-1a of all of that u64
//   freelist  ids of free pages, u64 each; a count of 0xffff says that the first one is the count
//   bucket    root page u64, sequence u64; a root of 0 says that its only page, a leaf, follows at
//             once: an inline bucket
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace conclave::bbolt {

inline constexpr size_t kPageHeaderBytes = 16;
inline constexpr size_t kElementBytes = 16;  // of a leaf's and a branch's
inline constexpr size_t kBucketBytes = 16;
inline constexpr size_t kMetaBytes = 64;
inline constexpr uint32_t kMagic = 0xED0CDAED;
inline constexpr uint32_t kVersion = 2;
inline constexpr uint64_t kNoFreelist = UINT64_MAX;  // it is not kept in the file
inline constexpr uint16_t kCountElsewhere = 0xFFFF;

enum PageFlags : uint16_t { kBranch = 0x01, kLeaf = 0x02, kMeta = 0x04, kFreelist = 0x10 };
inline constexpr uint32_t kElementIsBucket = 1;

struct PageHeader {
  uint64_t id = 0;
  uint16_t flags = 0;
  uint16_t count = 0;
  uint32_t overflow = 0;
};
void AppendPageHeader(const PageHeader& header, std::string* out);
// `bytes` has kPageHeaderBytes at least.
[[nodiscard]] PageHeader ReadPageHeader(std::string_view bytes);

struct Meta {
  uint32_t page_size = 0;
  uint64_t root = 0;  // page of the bucket that holds the buckets
  uint64_t freelist = 0;
  uint64_t pages = 0;  // the file's, from 0
  uint64_t transaction = 0;
};
void AppendMeta(const Meta& meta, std::string* out);
// None if magic, version or checksum are wrong, or there are too few bytes.
[[nodiscard]] std::optional<Meta> ReadMeta(std::string_view bytes);

[[nodiscard]] uint64_t Fnv1a(std::string_view bytes);

void AppendU16(uint16_t number, std::string* out);
void AppendU32(uint32_t number, std::string* out);
void AppendU64(uint64_t number, std::string* out);
// The first bytes of `bytes`, which holds as many.
[[nodiscard]] uint16_t ReadU16(std::string_view bytes);
[[nodiscard]] uint32_t ReadU32(std::string_view bytes);
[[nodiscard]] uint64_t ReadU64(std::string_view bytes);

}  // namespace conclave::bbolt
