// TreeIndex: filling an empty index at once, and looking at a whole one.

#include <vector>

#include "conclave/server/mvcc/tree_node.h"

namespace conclave::mvcc {
namespace {

// Room for some inserts before the leaves have to split.
constexpr size_t kBulkFill = 60;

// `total` things in as few groups of at most kBulkFill as possible, of equal size but for one.
std::vector<size_t> Groups(size_t total) {
  const size_t groups = (total + kBulkFill - 1) / kBulkFill;
  std::vector<size_t> sizes(groups, groups == 0 ? 0 : total / groups);
  for (size_t i = 0; i < total - (groups == 0 ? 0 : groups * (total / groups)); ++i) ++sizes[i];
  return sizes;
}

}  // namespace

void TreeIndex::BulkLoad(const std::vector<Slot>& slots) {
  CONCLAVE_CHECK(size_ == 0 && root_->leaf);
  if (slots.empty()) return;
  delete static_cast<Leaf*>(root_);
  size_ = slots.size();
  ++shape_;

  std::vector<size_t> groups = Groups(slots.size());
  // separators[i] stands between nodes[i] and nodes[i + 1] of the level that is being built.
  std::vector<Separator*> separators;
  size_t at = 0;
  for (size_t i = 0; i + 1 < groups.size(); ++i) {
    at += groups[i];
    separators.push_back(tree::SeparatorBetween(slots[at - 1].key(), slots[at].key()));
  }
  const auto fences = [&](size_t first, size_t last) {
    return Fences{.low = first > 0 ? separators[first - 1] : nullptr,
                  .high = last < separators.size() ? separators[last] : nullptr};
  };

  std::vector<Node*> nodes;
  at = 0;
  Leaf* previous = nullptr;
  for (size_t i = 0; i < groups.size(); ++i) {
    auto* leaf = new Leaf;
    leaf->count = static_cast<uint16_t>(groups[i]);
    std::copy_n(slots.begin() + static_cast<ptrdiff_t>(at), groups[i], leaf->slots);
    at += groups[i];
    tree::SetSkip(leaf, fences(i, i).Skip());
    if (previous != nullptr) previous->next = leaf;
    previous = leaf;
    nodes.push_back(leaf);
  }
  while (nodes.size() > 1) {
    groups = Groups(nodes.size());
    std::vector<Node*> parents;
    std::vector<Separator*> upper;
    at = 0;
    for (const size_t size : groups) {
      auto* inner = new Inner;
      inner->count = static_cast<uint16_t>(size);
      for (size_t i = 0; i < size; ++i) {
        inner->children[i] = nodes[at + i];
        inner->live[i] = tree::LiveBelow(nodes[at + i]);
        if (i + 1 < size) inner->separators[i] = separators[at + i];
      }
      tree::SetSkip(inner, fences(at, at + size - 1).Skip());
      at += size;
      if (at < nodes.size()) upper.push_back(separators[at - 1]);
      parents.push_back(inner);
    }
    nodes = std::move(parents);
    separators = std::move(upper);
  }
  root_ = nodes.front();
}

size_t TreeIndex::memory() const {
  const auto below = [](const auto& self, const Node* node) -> size_t {
    if (node->leaf) return sizeof(Leaf);
    const auto* inner = static_cast<const Inner*>(node);
    size_t bytes = sizeof(Inner);
    for (size_t i = 0; i < inner->count; ++i) bytes += self(self, inner->children[i]);
    for (size_t i = 0; i + 1 < inner->count; ++i) {
      bytes += offsetof(Separator, data) + inner->separators[i]->size;
    }
    return bytes;
  };
  return below(below, root_);
}

void TreeIndex::CheckInvariants() const {
  const Leaf* expected_leaf = nullptr;  // null until the first was seen
  bool first_leaf = true;
  size_t leaf_depth = 0;
  size_t keys = 0;
  std::string_view last_key;
  const auto check_leaf = [&](const Leaf* leaf, Fences fences, size_t depth) {
    CONCLAVE_CHECK(first_leaf || leaf == expected_leaf, "the chain of leaves is broken");
    CONCLAVE_CHECK(first_leaf || depth == leaf_depth, "leaves at different depths");
    CONCLAVE_CHECK(leaf->count > 0 || leaf == root_, "an empty leaf");
    for (size_t i = 0; i < leaf->count; ++i) {
      const Slot& slot = leaf->slots[i];
      const std::string_view key = slot.key();
      CONCLAVE_CHECK(keys == 0 || last_key < key, "keys out of order");
      CONCLAVE_CHECK(fences.low == nullptr || key >= fences.low->key(), "below the interval");
      CONCLAVE_CHECK(fences.high == nullptr || key < fences.high->key(), "above the interval");
      CONCLAVE_CHECK(leaf->hints[i] == tree::Hint(key, leaf->skip), "a wrong hint");
      CONCLAVE_CHECK(slot.live() != slot.head()->tombstone());
      for (uint32_t r = 0; r < slot.size(); ++r) {
        CONCLAVE_CHECK(slot.record(r)->key() == key);
        CONCLAVE_CHECK(r == 0 || slot.record(r - 1)->revision() < slot.record(r)->revision());
      }
      last_key = key;
      ++keys;
    }
    expected_leaf = leaf->next;
    leaf_depth = depth;
    first_leaf = false;
  };
  const auto check = [&](const auto& self, const Node* node, Fences fences, size_t depth) -> void {
    CONCLAVE_CHECK(node->skip == fences.Skip(), "a wrong skip");
    if (node->leaf) return check_leaf(static_cast<const Leaf*>(node), fences, depth);
    const auto* inner = static_cast<const Inner*>(node);
    CONCLAVE_CHECK(inner->count >= (node == root_ ? 2 : kInnerMin) &&
                   inner->count <= kInnerChildren);
    for (size_t i = 0; i < inner->count; ++i) {
      Fences below = fences;
      if (i > 0) below.low = inner->separators[i - 1];
      if (i + 1u < inner->count) below.high = inner->separators[i];
      CONCLAVE_CHECK(inner->live[i] == tree::LiveBelow(inner->children[i]), "a wrong live count");
      if (i + 1u < inner->count) {
        CONCLAVE_CHECK(inner->hints[i] == tree::Hint(inner->separators[i]->key(), inner->skip));
      }
      self(self, inner->children[i], below, depth + 1);
    }
  };
  check(check, root_, Fences{}, 0);
  CONCLAVE_CHECK(keys == size_ && expected_leaf == nullptr);
}

}  // namespace conclave::mvcc
