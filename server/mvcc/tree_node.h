// The nodes of TreeIndex, and how a key is found in one. Internal to tree_index.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "conclave/base/check.h"
#include "conclave/server/mvcc/tree_index.h"

namespace conclave::mvcc {

inline constexpr size_t kLeafSlots = 64;
inline constexpr size_t kInnerChildren = 64;
inline constexpr size_t kLeafMin = kLeafSlots / 4;
inline constexpr size_t kInnerMin = kInnerChildren / 4;
// 16^16 keys and more.
inline constexpr size_t kDepthMax = 16;

// A key that stands between two children, in an allocation of its own.
struct Separator {
  uint32_t size;
  char data[1];

  static Separator* New(std::string_view key) {
    auto* separator = static_cast<Separator*>(std::malloc(offsetof(Separator, data) + key.size()));
    CONCLAVE_CHECK(separator != nullptr, "out of memory for a separator");
    separator->size = static_cast<uint32_t>(key.size());
    if (!key.empty()) std::memcpy(separator->data, key.data(), key.size());
    return separator;
  }
  std::string_view key() const { return {data, size}; }
};

struct TreeIndex::Node {
  explicit Node(bool is_leaf) : leaf(is_leaf) {}
  const bool leaf;
  uint16_t count = 0;  // slots of a leaf, children of an inner node
  uint32_t skip = 0;   // every key of the node's interval agrees in so many first bytes
};

struct TreeIndex::Leaf : Node {
  Leaf() : Node(true) {}
  Leaf* next = nullptr;
  uint32_t hints[kLeafSlots];
  Slot slots[kLeafSlots];
};

struct TreeIndex::Inner : Node {
  Inner() : Node(false) {}
  // hints[i] and separators[i] stand between children[i] (keys < it) and children[i + 1] (keys >=
  // it).
  uint32_t hints[kInnerChildren - 1];
  Separator* separators[kInnerChildren - 1];
  Node* children[kInnerChildren];
  uint32_t live[kInnerChildren];
};

struct TreeIndex::Path {
  Inner* inner[kDepthMax];
  uint16_t child[kDepthMax];
  size_t depth = 0;
  Leaf* leaf = nullptr;
  size_t slot = 0;
  bool found = false;
};

// The bounds of a node's interval; null: none.
struct TreeIndex::Fences {
  const Separator* low = nullptr;
  const Separator* high = nullptr;

  static size_t CommonPrefix(std::string_view a, std::string_view b) {
    const size_t size = std::min(a.size(), b.size());
    size_t same = 0;
    while (same < size && a[same] == b[same]) ++same;
    return same;
  }
  uint32_t Skip() const {
    if (low == nullptr || high == nullptr) return 0;
    return static_cast<uint32_t>(CommonPrefix(low->key(), high->key()));
  }
};

namespace tree {

// Four bytes behind the skipped prefix, so that hints order as keys do (where they differ).
inline uint32_t Hint(std::string_view key, size_t skip) {
  uint32_t word = 0;
  if (key.size() >= skip + sizeof(word)) [[likely]] {
    std::memcpy(&word, key.data() + skip, sizeof(word));
  } else if (key.size() > skip) {
    std::memcpy(&word, key.data() + skip, key.size() - skip);
  }
  if constexpr (std::endian::native == std::endian::little) word = __builtin_bswap32(word);
  return word;
}

// The number of hints < hint. Without branches that a processor could guess wrong.
inline size_t CountLess(const uint32_t* hints, size_t count, uint32_t hint) {
  const uint32_t* base = hints;
  while (count > 1) {
    const size_t half = count / 2;
    base += base[half - 1] < hint ? half : 0;
    count -= half;
  }
  return static_cast<size_t>(base - hints) + (count == 1 && *base < hint ? 1 : 0);
}

// The first of [low, high) whose key is >= `key`; `key_of(i)` gives the i-th.
template <typename KeyOf>
size_t LowerBound(size_t low, size_t high, std::string_view key, KeyOf&& key_of) {
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (key_of(middle) < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Where the hints equal to `hint` end, from where they begin.
inline size_t EndOfEqual(const uint32_t* hints, size_t from, size_t count, uint32_t hint) {
  size_t end = from;
  while (end < count && hints[end] == hint) ++end;
  return end;
}

// The first slot with a key >= `key`, and whether it is that key.
inline size_t FindSlot(const TreeIndex::Leaf& leaf, std::string_view key, bool* found) {
  const uint32_t hint = Hint(key, leaf.skip);
  const size_t first = CountLess(leaf.hints, leaf.count, hint);
  const size_t end = EndOfEqual(leaf.hints, first, leaf.count, hint);
  *found = false;
  if (first == end) return first;
  if (end - first == 1) [[likely]] {
    const int order = leaf.slots[first].key().compare(key);
    *found = order == 0;
    return order < 0 ? end : first;
  }
  const size_t slot = LowerBound(first, end, key, [&](size_t i) { return leaf.slots[i].key(); });
  *found = slot < end && leaf.slots[slot].key() == key;
  return slot;
}

// The child whose interval holds `key`: the number of separators <= key.
inline size_t FindChild(const TreeIndex::Inner& inner, std::string_view key) {
  const size_t count = inner.count - 1u;
  const uint32_t hint = Hint(key, inner.skip);
  const size_t first = CountLess(inner.hints, count, hint);
  const size_t end = EndOfEqual(inner.hints, first, count, hint);
  if (first == end) return first;
  const auto key_of = [&](size_t i) { return inner.separators[i]->key(); };
  const size_t child = LowerBound(first, end, key, key_of);
  return child < end && key_of(child) == key ? child + 1 : child;
}

inline uint32_t CountLiveSlots(const TreeIndex::Leaf& leaf, size_t from, size_t end) {
  uint32_t live = 0;
  for (size_t i = from; i < end; ++i) live += leaf.slots[i].live() ? 1 : 0;
  return live;
}

inline uint32_t LiveBelow(const TreeIndex::Node* node) {
  if (node->leaf) {
    return CountLiveSlots(*static_cast<const TreeIndex::Leaf*>(node), 0, node->count);
  }
  const auto* inner = static_cast<const TreeIndex::Inner*>(node);
  uint32_t live = 0;
  for (size_t i = 0; i < inner->count; ++i) live += inner->live[i];
  return live;
}

inline void SetSkip(TreeIndex::Leaf* leaf, uint32_t skip) {
  leaf->skip = skip;
  for (size_t i = 0; i < leaf->count; ++i) leaf->hints[i] = Hint(leaf->slots[i].key(), skip);
}

inline void SetSkip(TreeIndex::Inner* inner, uint32_t skip) {
  inner->skip = skip;
  for (size_t i = 0; i + 1 < inner->count; ++i) {
    inner->hints[i] = Hint(inner->separators[i]->key(), skip);
  }
}

// The shortest key that is > left and <= right.
inline Separator* SeparatorBetween(std::string_view left, std::string_view right) {
  return Separator::New(right.substr(0, TreeIndex::Fences::CommonPrefix(left, right) + 1));
}

}  // namespace tree
}  // namespace conclave::mvcc
