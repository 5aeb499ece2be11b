#include "conclave/server/bbolt/reader.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"

namespace conclave::bbolt {
namespace {

constexpr uint64_t kMetaPages = 2;

template <typename... Parts>
absl::Status Damaged(const Parts&... parts) {
  return absl::DataLossError(absl::StrCat("bbolt file: ", parts...));
}

bool IsPageSize(uint64_t size) {
  return size >= kPageSizeMin && size <= kPageSizeMax && (size & (size - 1)) == 0;
}

absl::StatusOr<std::optional<Meta>> MetaAt(Source* source, uint64_t offset) {
  constexpr size_t kBytes = kPageHeaderBytes + kMetaBytes;
  if (offset + kBytes > source->size()) return std::nullopt;
  char bytes[kBytes];
  CONCLAVE_RETURN_IF_ERROR(source->Read(offset, bytes));
  const std::string_view page(bytes, kBytes);
  if ((ReadPageHeader(page).flags & kMeta) == 0) return std::nullopt;
  std::optional<Meta> meta = ReadMeta(page.substr(kPageHeaderBytes));
  if (meta.has_value() && !IsPageSize(meta->page_size)) meta.reset();
  return meta;
}

}  // namespace

absl::StatusOr<Database> Database::Open(Source* source) {
  CONCLAVE_ASSIGN_OR_RETURN(std::optional<Meta> newest, MetaAt(source, 0));
  // The second one stands behind the first, whose size is unknown if it cannot be read.
  for (uint32_t size = kPageSizeMin; size <= kPageSizeMax; size *= 2) {
    if (newest.has_value() && newest->page_size != size) continue;
    CONCLAVE_ASSIGN_OR_RETURN(const std::optional<Meta> second, MetaAt(source, size));
    if (!second.has_value() || second->page_size != size) continue;
    if (!newest.has_value() || second->transaction > newest->transaction) newest = second;
    break;
  }
  if (!newest.has_value()) return Damaged("neither of its meta pages can be read: is it one?");
  if (newest->pages <= kMetaPages || newest->pages > source->size() / newest->page_size) {
    return Damaged("it should have ", newest->pages, " pages of ", newest->page_size,
                   " bytes, but is ", source->size(), " bytes long: it was cut off");
  }
  return Database(source, *newest);
}

absl::Status Database::ReadRun(uint64_t id, std::string* run, PageHeader* header) {
  if (id < kMetaPages || id >= meta_.pages) {
    return Damaged("a reference to page ", id, " of ", meta_.pages);
  }
  run->resize(kPageHeaderBytes);
  CONCLAVE_RETURN_IF_ERROR(source_->Read(id * meta_.page_size, *run));
  *header = ReadPageHeader(*run);
  if (header->id != id) return Damaged("page ", id, " says that it is page ", header->id);
  if (header->overflow >= meta_.pages - id) return Damaged("page ", id, " goes on past the end");
  const uint64_t bytes = (uint64_t{header->overflow} + 1) * meta_.page_size;
  if (bytes > kRunBytesMax) return Damaged("page ", id, " is larger than any may be");
  for (uint64_t page = id; page <= id + header->overflow; ++page) {
    if (seen_[page]) return Damaged("page ", page, " is in use twice");
    seen_[page] = true;
  }
  run->resize(bytes);
  return source_->Read(id * meta_.page_size, *run);
}

absl::Status Database::WalkLeaf(std::string_view run, const PageHeader& header, std::string* last,
                                VisitElement visit) {
  if (kPageHeaderBytes + uint64_t{header.count} * kElementBytes > run.size()) {
    return Damaged("page ", header.id, " has no room for its elements");
  }
  for (size_t i = 0; i < header.count; ++i) {
    const size_t at = kPageHeaderBytes + i * kElementBytes;
    const std::string_view element = run.substr(at);
    const uint32_t flags = ReadU32(element);
    const uint64_t position = ReadU32(element.substr(4));
    const uint64_t key_size = ReadU32(element.substr(8));
    const uint64_t value_size = ReadU32(element.substr(12));
    if (position + key_size + value_size > element.size()) {
      return Damaged("page ", header.id, ": element ", i, " lies outside of it");
    }
    const std::string_view key = element.substr(position, key_size);
    // bbolt has no empty keys, so the first one is above "nothing yet" too.
    if (key <= *last) return Damaged("page ", header.id, ": keys out of order");
    last->assign(key);
    CONCLAVE_RETURN_IF_ERROR(visit(key, element.substr(position + key_size, value_size),
                                   (flags & kElementIsBucket) != 0));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<uint64_t>> Database::Children(std::string_view run,
                                                         const PageHeader& header) {
  if (header.count == 0 || kPageHeaderBytes + uint64_t{header.count} * kElementBytes > run.size()) {
    return Damaged("page ", header.id, " has no children, or no room for them");
  }
  std::vector<uint64_t> children;
  children.reserve(header.count);
  for (size_t i = 0; i < header.count; ++i) {
    children.push_back(ReadU64(run.substr(kPageHeaderBytes + i * kElementBytes + 8)));
  }
  return children;
}

absl::Status Database::Walk(uint64_t id, int depth, std::string* last, VisitElement visit) {
  if (depth > kDepthMax) return Damaged("its tree is too deep at page ", id);
  std::string run;
  PageHeader header;
  CONCLAVE_RETURN_IF_ERROR(ReadRun(id, &run, &header));
  if (header.flags == kLeaf) return WalkLeaf(run, header, last, visit);
  if (header.flags != kBranch) return Damaged("page ", id, " is neither a leaf nor a branch");
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<uint64_t> children, Children(run, header));
  run = std::string();
  for (const uint64_t child : children) {
    CONCLAVE_RETURN_IF_ERROR(Walk(child, depth + 1, last, visit));
  }
  return absl::OkStatus();
}

absl::Status Database::WalkBucket(std::string_view value, VisitElement visit) {
  if (value.size() < kBucketBytes) return Damaged("a bucket without a header");
  std::string last;
  if (const uint64_t root = ReadU64(value); root != 0) return Walk(root, 0, &last, visit);
  const std::string_view page = value.substr(kBucketBytes);
  if (page.size() < kPageHeaderBytes) return Damaged("an inline bucket without a page");
  const PageHeader header = ReadPageHeader(page);
  if (header.flags != kLeaf) return Damaged("an inline bucket whose page is no leaf");
  return WalkLeaf(page, header, &last, visit);
}

absl::StatusOr<std::vector<std::string>> Database::Buckets() {
  BeginWalk();
  std::vector<std::string> names;
  std::string last;
  CONCLAVE_RETURN_IF_ERROR(
      Walk(meta_.root, 0, &last, [&](std::string_view key, std::string_view, bool is_bucket) {
        if (!is_bucket) return Damaged("an element beside the buckets");
        names.emplace_back(key);
        return absl::OkStatus();
      }));
  return names;
}

absl::Status Database::ForEach(std::string_view bucket, Visit visit) {
  BeginWalk();
  std::optional<std::string> found;
  std::string last;
  CONCLAVE_RETURN_IF_ERROR(
      Walk(meta_.root, 0, &last, [&](std::string_view key, std::string_view value, bool is_bucket) {
        if (key == bucket && is_bucket) found = std::string(value);
        return absl::OkStatus();
      }));
  if (!found.has_value()) {
    return absl::NotFoundError(absl::StrCat("bbolt file: no bucket ", std::string(bucket)));
  }
  return WalkBucket(*found, [&](std::string_view key, std::string_view value, bool is_bucket) {
    return visit(key, is_bucket ? std::string_view() : value);
  });
}

// ---- Check --------------------------------------------------------------------------------------

absl::Status Database::CheckTree(std::string_view bucket_value, int depth) {
  if (depth > kDepthMax) return Damaged("its buckets are nested too deep");
  return WalkBucket(bucket_value, [&](std::string_view, std::string_view value, bool is_bucket) {
    return is_bucket ? CheckTree(value, depth + 1) : absl::OkStatus();
  });
}

absl::Status Database::CheckFreelist() {
  if (meta_.freelist == kNoFreelist) return absl::OkStatus();
  std::string run;
  PageHeader header;
  CONCLAVE_RETURN_IF_ERROR(ReadRun(meta_.freelist, &run, &header));
  if (header.flags != kFreelist) return Damaged("page ", header.id, " is no freelist");
  std::string_view ids = std::string_view(run).substr(kPageHeaderBytes);
  uint64_t count = header.count;
  if (header.count == kCountElsewhere) {
    count = ReadU64(ids);
    ids.remove_prefix(8);
  }
  if (count > ids.size() / 8) return Damaged("the freelist is longer than its page");
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t id = ReadU64(ids.substr(i * 8));
    if (id < kMetaPages || id >= meta_.pages) return Damaged("free page ", id, " does not exist");
    if (seen_[id]) return Damaged("page ", id, " is free and in use");
    seen_[id] = true;
  }
  return absl::OkStatus();
}

absl::Status Database::Check() {
  BeginWalk();
  std::string root;
  AppendU64(meta_.root, &root);
  AppendU64(0, &root);
  CONCLAVE_RETURN_IF_ERROR(CheckTree(root, 0));
  CONCLAVE_RETURN_IF_ERROR(CheckFreelist());
  if (meta_.freelist == kNoFreelist) return absl::OkStatus();  // nobody knows what is free
  for (uint64_t id = kMetaPages; id < meta_.pages; ++id) {
    if (!seen_[id]) return Damaged("page ", id, " is neither free nor in use");
  }
  return absl::OkStatus();
}

}  // namespace conclave::bbolt
