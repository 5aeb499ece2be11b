#include "conclave/server/bbolt/writer.h"

#include <cstring>

#include "conclave/base/check.h"

namespace conclave::bbolt {
namespace {

constexpr uint64_t kFreelistPage = 2;

}  // namespace

Writer::Writer(const Layout& layout) : layout_(layout) {
  // As bbolt leaves them: of two transactions, the older one in the second page.
  for (uint64_t page : {0, 1}) {
    AppendPageHeader({.id = page, .flags = kMeta}, &output_);
    AppendMeta({.page_size = kPageSize,
                .root = layout.root,
                .freelist = kFreelistPage,
                .pages = layout.pages,
                .transaction = 2 - page},
               &output_);
    output_.resize((page + 1) * kPageSize);
  }
  AppendPageHeader({.id = kFreelistPage, .flags = kFreelist}, &output_);
  output_.resize((kFreelistPage + 1) * kPageSize);
}

void Writer::BeginBucket(std::string_view name) {
  EndBucket();
  CONCLAVE_CHECK(buckets_.empty() || buckets_.back().first < name, "buckets out of order");
  bucket_ = std::string(name);
}

void Writer::Add(std::string_view key, std::string_view value) {
  Add(key, value.size(), [value](char* at) {
    if (!value.empty()) std::memcpy(at, value.data(), value.size());
  });
}

void Writer::Add(std::string_view key, size_t value_size, absl::FunctionRef<void(char* at)> fill) {
  CONCLAVE_CHECK(bucket_.has_value(), "a pair outside of a bucket");
  AddToLeaf(key, value_size, 0, fill);
}

void Writer::AddToLeaf(std::string_view key, size_t value_size, uint32_t flags,
                       absl::FunctionRef<void(char* at)> fill) {
  CONCLAVE_CHECK(key > last_key_ && key.size() <= INT32_MAX, "keys out of order, or too long");
  CONCLAVE_CHECK(value_size <= INT32_MAX);
  last_key_.assign(key);
  const size_t size = key.size() + value_size;
  if (!leaf_.elements.empty() && leaf_.size() + kElementBytes + size > kPageSize) FlushLeaf();
  if (measuring()) {
    if (leaf_.elements.empty()) leaf_.data.assign(key);
  } else {
    leaf_.data.append(key);
    leaf_.data.resize(leaf_.data.size() + value_size);
    fill(leaf_.data.data() + leaf_.data.size() - value_size);
  }
  leaf_.data_size += size;
  leaf_.elements.push_back({.flags = flags,
                            .key_size = static_cast<uint32_t>(key.size()),
                            .value_size = static_cast<uint32_t>(value_size)});
}

void Writer::AddToBranch(size_t level, std::string_view key, uint64_t child) {
  if (level == branches_.size()) branches_.emplace_back();
  const Page& page = branches_[level];
  // Two children at least, however long their keys are: else the tree would not come to an end.
  if (page.elements.size() >= 2 && page.size() + kElementBytes + key.size() > kPageSize) {
    FlushBranch(level);
  }
  Page& open = branches_[level];
  open.data.append(key);
  open.data_size += key.size();
  open.elements.push_back({.key_size = static_cast<uint32_t>(key.size()), .child = child});
}

uint64_t Writer::Emit(Page* page, uint16_t flags) {
  const uint64_t id = next_page_;
  const uint64_t run = (page->size() + kPageSize - 1) / kPageSize;
  next_page_ += run;
  if (!measuring()) {
    const size_t end = output_.size() + run * kPageSize;
    output_.reserve(end);
    AppendPageHeader({.id = id,
                      .flags = flags,
                      .count = static_cast<uint16_t>(page->elements.size()),
                      .overflow = static_cast<uint32_t>(run - 1)},
                     &output_);
    uint64_t position = page->elements.size() * kElementBytes;
    for (const Element& element : page->elements) {
      if (flags == kLeaf) AppendU32(element.flags, &output_);
      AppendU32(static_cast<uint32_t>(position), &output_);
      AppendU32(element.key_size, &output_);
      if (flags == kLeaf) {
        AppendU32(element.value_size, &output_);
      } else {
        AppendU64(element.child, &output_);
      }
      position += uint64_t{element.key_size} + element.value_size - kElementBytes;
    }
    output_.append(page->data);
    output_.resize(end);
  }
  page->elements.clear();
  page->data.clear();
  page->data_size = 0;
  return id;
}

void Writer::FlushLeaf() {
  const std::string first(leaf_.elements.empty() ? std::string_view() : leaf_.first_key());
  const uint64_t id = Emit(&leaf_, kLeaf);
  AddToBranch(0, first, id);
}

void Writer::FlushBranch(size_t level) {
  const std::string first(branches_[level].first_key());
  const uint64_t id = Emit(&branches_[level], kBranch);
  AddToBranch(level + 1, first, id);
}

uint64_t Writer::FinishTree() {
  // An empty tree is one empty leaf.
  if (!leaf_.elements.empty() || branches_.empty()) FlushLeaf();
  // A level that came to a single child needs no page: the child is the root.
  size_t level = 0;
  while (level + 1 < branches_.size() || branches_[level].elements.size() > 1) {
    if (!branches_[level].elements.empty()) FlushBranch(level);
    ++level;
  }
  const uint64_t root = branches_[level].elements.front().child;
  branches_.clear();
  last_key_.clear();
  return root;
}

void Writer::EndBucket() {
  if (!bucket_.has_value()) return;
  buckets_.emplace_back(*std::move(bucket_), FinishTree());
  bucket_.reset();
}

Layout Writer::Finish() {
  EndBucket();
  for (const auto& [name, root] : buckets_) {
    AddToLeaf(name, kBucketBytes, kElementIsBucket, [root = root](char* at) {
      std::string header;
      AppendU64(root, &header);
      AppendU64(0, &header);
      std::memcpy(at, header.data(), header.size());
    });
  }
  const uint64_t root = FinishTree();
  const Layout layout{.root = root, .pages = next_page_};
  CONCLAVE_CHECK(measuring() || layout == *layout_, "the passes of a bbolt file differ");
  return layout;
}

}  // namespace conclave::bbolt
