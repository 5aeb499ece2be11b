#include "conclave/server/mvcc/tree_index.h"

#include <utility>

#include "conclave/server/mvcc/tree_node.h"

namespace conclave::mvcc {
namespace {

// The bounds of the node at `depth` of a path: the nearest separators on either side above it.
template <typename Path, typename Fences>
Fences FencesAt(const Path& path, size_t depth) {
  Fences fences;
  for (size_t level = depth; level-- > 0 && (fences.low == nullptr || fences.high == nullptr);) {
    const auto* inner = path.inner[level];
    const size_t child = path.child[level];
    if (fences.low == nullptr && child > 0) fences.low = inner->separators[child - 1];
    if (fences.high == nullptr && child + 1u < inner->count) {
      fences.high = inner->separators[child];
    }
  }
  return fences;
}

}  // namespace

TreeIndex::TreeIndex() : root_(new Leaf) {}

TreeIndex::~TreeIndex() {
  const auto destroy = [](const auto& self, Node* node) -> void {
    if (node->leaf) {
      auto* leaf = static_cast<Leaf*>(node);
      for (size_t i = 0; i < leaf->count; ++i) leaf->slots[i].Clear();
      delete leaf;
      return;
    }
    auto* inner = static_cast<Inner*>(node);
    for (size_t i = 0; i < inner->count; ++i) self(self, inner->children[i]);
    for (size_t i = 0; i + 1 < inner->count; ++i) std::free(inner->separators[i]);
    delete inner;
  };
  destroy(destroy, root_);
}

const Slot* TreeIndex::Find(std::string_view key) const {
  const Node* node = root_;
  while (!node->leaf) {
    const auto* inner = static_cast<const Inner*>(node);
    node = inner->children[tree::FindChild(*inner, key)];
  }
  const auto* leaf = static_cast<const Leaf*>(node);
  bool found;
  const size_t slot = tree::FindSlot(*leaf, key, &found);
  return found ? &leaf->slots[slot] : nullptr;
}

void TreeIndex::Descend(std::string_view key, Path* path) const {
  path->depth = 0;
  Node* node = root_;
  while (!node->leaf) {
    auto* inner = static_cast<Inner*>(node);
    const size_t child = tree::FindChild(*inner, key);
    CONCLAVE_CHECK(path->depth < kDepthMax);
    path->inner[path->depth] = inner;
    path->child[path->depth] = static_cast<uint16_t>(child);
    ++path->depth;
    node = inner->children[child];
  }
  path->leaf = static_cast<Leaf*>(node);
  path->slot = tree::FindSlot(*path->leaf, key, &path->found);
}

void TreeIndex::Put(std::string_view key,
                    absl::FunctionRef<const Record*(const Record* head)> make) {
  Path path;
  Descend(key, &path);
  if (!path.found) {
    const Record* record = RecordRef(make(nullptr)).Release();
    InsertSlot(&path, record->key(), Slot::Of(record));
    return;
  }
  Slot& slot = path.leaf->slots[path.slot];
  const bool was_live = slot.live();
  slot.Push(RecordRef(make(slot.head())).Release());
  if (slot.live() == was_live) return;
  for (size_t level = 0; level < path.depth; ++level) {
    uint32_t& live = path.inner[level]->live[path.child[level]];
    live = was_live ? live - 1 : live + 1;
  }
}

void TreeIndex::InsertSlot(Path* path, std::string_view key, Slot slot) {
  ++shape_;
  ++size_;
  CONCLAVE_CHECK(size_ < UINT32_MAX);
  if (path->leaf->count == kLeafSlots) {
    SplitLeaf(path, key);
    Descend(key, path);
  }
  Leaf* leaf = path->leaf;
  const size_t at = path->slot;
  const size_t behind = leaf->count - at;
  std::memmove(leaf->slots + at + 1, leaf->slots + at, behind * sizeof(Slot));
  std::memmove(leaf->hints + at + 1, leaf->hints + at, behind * sizeof(uint32_t));
  leaf->slots[at] = slot;
  leaf->hints[at] = tree::Hint(key, leaf->skip);
  ++leaf->count;
  if (!slot.live()) return;
  for (size_t level = 0; level < path->depth; ++level) {
    ++path->inner[level]->live[path->child[level]];
  }
}

// Halves a full leaf; but where the new key comes behind all others, the leaf stays full and the
// right one begins empty, so that keys that come in ascending order fill their leaves.
void TreeIndex::SplitLeaf(Path* path, std::string_view key) {
  Leaf* left = path->leaf;
  Leaf* right = new Leaf;
  const size_t keep = path->slot == kLeafSlots ? kLeafSlots : kLeafSlots / 2;
  const std::string_view right_first = keep == kLeafSlots ? key : left->slots[keep].key();
  Separator* separator = tree::SeparatorBetween(left->slots[keep - 1].key(), right_first);
  right->count = static_cast<uint16_t>(kLeafSlots - keep);
  std::memcpy(right->slots, left->slots + keep, right->count * sizeof(Slot));
  std::memcpy(right->hints, left->hints + keep, right->count * sizeof(uint32_t));
  right->skip = left->skip;
  left->count = static_cast<uint16_t>(keep);
  right->next = left->next;
  left->next = right;

  const auto fences = FencesAt<Path, Fences>(*path, path->depth);
  const uint32_t left_skip = Fences{.low = fences.low, .high = separator}.Skip();
  const uint32_t right_skip = Fences{.low = separator, .high = fences.high}.Skip();
  if (left_skip != left->skip) tree::SetSkip(left, left_skip);
  if (right_skip != right->skip) tree::SetSkip(right, right_skip);
  InsertChild(path, path->depth, right, separator);
}

// Puts `right` behind the child of the path at `depth` (whose parent stands at depth - 1),
// splitting parents as needed. The path is of no use afterwards. Takes the separator.
void TreeIndex::InsertChild(Path* path, size_t depth, Node* right, Separator* separator) {
  if (depth == 0) {
    auto* root = new Inner;
    root->count = 2;
    root->children[0] = root_;
    root->children[1] = right;
    root->separators[0] = separator;
    root->live[0] = tree::LiveBelow(root_);
    root->live[1] = tree::LiveBelow(right);
    tree::SetSkip(root, 0);
    root_ = root;
    return;
  }
  Inner* parent = path->inner[depth - 1];
  size_t at = path->child[depth - 1];
  Inner* upper = nullptr;
  Separator* middle = nullptr;
  if (parent->count == kInnerChildren) {
    constexpr size_t kKeep = kInnerChildren / 2;
    const auto fences = FencesAt<Path, Fences>(*path, depth - 1);
    upper = new Inner;
    upper->count = kInnerChildren - kKeep;
    middle = parent->separators[kKeep - 1];
    std::copy_n(parent->children + kKeep, upper->count, upper->children);
    std::copy_n(parent->live + kKeep, upper->count, upper->live);
    std::copy_n(parent->separators + kKeep, upper->count - 1, upper->separators);
    parent->count = kKeep;
    tree::SetSkip(parent, Fences{.low = fences.low, .high = middle}.Skip());
    tree::SetSkip(upper, Fences{.low = middle, .high = fences.high}.Skip());
  }
  Inner* into = parent;
  if (upper != nullptr && at >= parent->count) {
    into = upper;
    at -= parent->count;
  }
  const size_t behind = into->count - at - 1;  // children behind the new one
  std::memmove(into->children + at + 2, into->children + at + 1, behind * sizeof(Node*));
  std::memmove(into->live + at + 2, into->live + at + 1, behind * sizeof(uint32_t));
  std::memmove(into->separators + at + 1, into->separators + at, behind * sizeof(Separator*));
  std::memmove(into->hints + at + 1, into->hints + at, behind * sizeof(uint32_t));
  into->children[at + 1] = right;
  into->live[at] = tree::LiveBelow(into->children[at]);
  into->live[at + 1] = tree::LiveBelow(right);
  into->separators[at] = separator;
  into->hints[at] = tree::Hint(separator->key(), into->skip);
  ++into->count;
  if (upper != nullptr) InsertChild(path, depth - 1, upper, middle);
}

void TreeIndex::DropOlder(std::string_view key, int64_t revision,
                          absl::FunctionRef<void(const Record&)> dropping) {
  Path path;
  Descend(key, &path);
  if (!path.found) return;
  Slot& slot = path.leaf->slots[path.slot];
  slot.DropOlder(revision, dropping);
  if (slot.empty()) EraseSlot(&path);
}

// Only keys whose head was a tombstone go, so live counts stay.
void TreeIndex::EraseSlot(Path* path) {
  ++shape_;
  --size_;
  Leaf* leaf = path->leaf;
  const size_t behind = leaf->count - path->slot - 1;
  std::memmove(leaf->slots + path->slot, leaf->slots + path->slot + 1, behind * sizeof(Slot));
  std::memmove(leaf->hints + path->slot, leaf->hints + path->slot + 1, behind * sizeof(uint32_t));
  --leaf->count;
  if (leaf->count < kLeafMin) FixUnderflow(path);
}

// Joins two neighbouring children of a node, or shares their content evenly if it is too much for
// one.
class TreeIndex::Rebalancer {
 public:
  // Children `left` and left + 1 of `parent`; `fences` are the parent's own.
  Rebalancer(Inner* parent, size_t left, Fences fences)
      : parent_(parent), left_(left), low_(fences.low), high_(fences.high) {
    if (left > 0) low_ = parent->separators[left - 1];
    if (left + 2u < parent->count) high_ = parent->separators[left + 1];
  }

  // True if they were joined: the parent has lost a child.
  bool Run() {
    Node* left = parent_->children[left_];
    Node* right = parent_->children[left_ + 1];
    return left->leaf ? RunLeaves(static_cast<Leaf*>(left), static_cast<Leaf*>(right))
                      : RunInner(static_cast<Inner*>(left), static_cast<Inner*>(right));
  }

 private:
  bool RunLeaves(Leaf* left, Leaf* right) {
    const size_t total = left->count + right->count;
    if (total <= kLeafSlots * 3 / 4) {
      std::copy_n(right->slots, right->count, left->slots + left->count);
      left->count = static_cast<uint16_t>(total);
      left->next = right->next;
      delete right;
      std::free(RemoveRight());
      tree::SetSkip(left, Fences{.low = low_, .high = high_}.Skip());
      return true;
    }
    Slot all[2 * kLeafSlots];
    std::copy_n(left->slots, left->count, all);
    std::copy_n(right->slots, right->count, all + left->count);
    left->count = static_cast<uint16_t>(total / 2);
    right->count = static_cast<uint16_t>(total - left->count);
    std::copy_n(all, left->count, left->slots);
    std::copy_n(all + left->count, right->count, right->slots);
    Separator* separator =
        tree::SeparatorBetween(left->slots[left->count - 1].key(), right->slots[0].key());
    std::free(ReplaceSeparator(separator));
    tree::SetSkip(left, Fences{.low = low_, .high = separator}.Skip());
    tree::SetSkip(right, Fences{.low = separator, .high = high_}.Skip());
    CountBoth();
    return false;
  }

  bool RunInner(Inner* left, Inner* right) {
    const size_t total = left->count + right->count;
    Node* children[2 * kInnerChildren];
    uint32_t live[2 * kInnerChildren];
    Separator* separators[2 * kInnerChildren];
    std::copy_n(left->children, left->count, children);
    std::copy_n(right->children, right->count, children + left->count);
    std::copy_n(left->live, left->count, live);
    std::copy_n(right->live, right->count, live + left->count);
    std::copy_n(left->separators, left->count - 1, separators);
    separators[left->count - 1] = parent_->separators[left_];
    std::copy_n(right->separators, right->count - 1, separators + left->count);
    const bool join = total <= kInnerChildren * 3 / 4;
    const auto fill = [&](Inner* inner, size_t from, size_t count) {
      inner->count = static_cast<uint16_t>(count);
      std::copy_n(children + from, count, inner->children);
      std::copy_n(live + from, count, inner->live);
      std::copy_n(separators + from, count - 1, inner->separators);
    };
    if (join) {
      fill(left, 0, total);
      delete right;
      (void)RemoveRight();  // its separator has come down
      tree::SetSkip(left, Fences{.low = low_, .high = high_}.Skip());
      return true;
    }
    const size_t keep = total / 2;
    fill(left, 0, keep);
    fill(right, keep, total - keep);
    Separator* separator = separators[keep - 1];
    (void)ReplaceSeparator(separator);
    tree::SetSkip(left, Fences{.low = low_, .high = separator}.Skip());
    tree::SetSkip(right, Fences{.low = separator, .high = high_}.Skip());
    CountBoth();
    return false;
  }

  Separator* ReplaceSeparator(Separator* separator) {
    parent_->hints[left_] = tree::Hint(separator->key(), parent_->skip);
    return std::exchange(parent_->separators[left_], separator);
  }

  // Takes the right child out of the parent; gives back the separator that stood before it.
  Separator* RemoveRight() {
    Separator* separator = parent_->separators[left_];
    const size_t behind = parent_->count - left_ - 2;
    parent_->live[left_] += parent_->live[left_ + 1];
    std::memmove(parent_->children + left_ + 1, parent_->children + left_ + 2,
                 behind * sizeof(Node*));
    std::memmove(parent_->live + left_ + 1, parent_->live + left_ + 2, behind * sizeof(uint32_t));
    std::memmove(parent_->separators + left_, parent_->separators + left_ + 1,
                 behind * sizeof(Separator*));
    std::memmove(parent_->hints + left_, parent_->hints + left_ + 1, behind * sizeof(uint32_t));
    --parent_->count;
    return separator;
  }

  void CountBoth() {
    parent_->live[left_] = tree::LiveBelow(parent_->children[left_]);
    parent_->live[left_ + 1] = tree::LiveBelow(parent_->children[left_ + 1]);
  }

  Inner* parent_;
  size_t left_;
  const Separator* low_;   // of the left child
  const Separator* high_;  // of the right child
};

void TreeIndex::FixUnderflow(Path* path) {
  for (size_t depth = path->depth; depth > 0; --depth) {
    Inner* parent = path->inner[depth - 1];
    const size_t child = path->child[depth - 1];
    const Node* node = parent->children[child];
    if (node->count >= (node->leaf ? kLeafMin : kInnerMin)) break;
    const size_t left = child > 0 ? child - 1 : child;
    Rebalancer rebalancer(parent, left, FencesAt<Path, Fences>(*path, depth - 1));
    if (!rebalancer.Run()) break;
  }
  while (!root_->leaf && root_->count == 1) {
    auto* old = static_cast<Inner*>(root_);
    root_ = old->children[0];
    delete old;
  }
}

TreeIndex::Position TreeIndex::Seek(std::string_view key) const {
  Path path;
  Descend(key, &path);
  if (path.slot == path.leaf->count) return {.leaf = path.leaf->next, .slot = 0};
  return {.leaf = path.leaf, .slot = path.slot};
}

TreeIndex::Position TreeIndex::SeekBehind(std::string_view key) const {
  const Position position = Seek(key);
  return position && At(position).key() == key ? Next(position) : position;
}

TreeIndex::Position TreeIndex::Next(Position position) const {
  if (position.slot + 1 < position.leaf->count) {
    return {.leaf = position.leaf, .slot = position.slot + 1};
  }
  return {.leaf = position.leaf->next, .slot = 0};
}

const Slot& TreeIndex::At(Position position) { return position.leaf->slots[position.slot]; }

void TreeIndex::ForEach(const KeyRange& range, absl::FunctionRef<bool(const Slot&)> visit) const {
  if (range.empty()) return;
  if (range.single()) {
    const Slot* slot = Find(range.begin());
    if (slot != nullptr) visit(*slot);
    return;
  }
  constexpr size_t kPrefetch = 6;
  const Position end = range.open_ended() ? Position{} : Seek(range.end());
  for (Position at = Seek(range.begin()); at.leaf != nullptr; at = {at.leaf->next, 0}) {
    const bool last = at.leaf == end.leaf;
    const size_t count = last ? end.slot : at.leaf->count;
    for (size_t slot = at.slot; slot < count; ++slot) {
      if (slot + kPrefetch < count) at.leaf->slots[slot + kPrefetch].Prefetch();
      if (!visit(at.leaf->slots[slot])) return;
    }
    if (last) return;
  }
}

int64_t TreeIndex::Rank(std::string_view key) const {
  int64_t rank = 0;
  const Node* node = root_;
  while (!node->leaf) {
    const auto* inner = static_cast<const Inner*>(node);
    const size_t child = tree::FindChild(*inner, key);
    for (size_t i = 0; i < child; ++i) rank += inner->live[i];
    node = inner->children[child];
  }
  const auto* leaf = static_cast<const Leaf*>(node);
  bool found;
  return rank + tree::CountLiveSlots(*leaf, 0, tree::FindSlot(*leaf, key, &found));
}

int64_t TreeIndex::CountLive(const KeyRange& range) const {
  if (range.empty()) return 0;
  if (range.single()) {
    const Slot* slot = Find(range.begin());
    return slot != nullptr && slot->live() ? 1 : 0;
  }
  const int64_t below = range.begin().empty() ? 0 : Rank(range.begin());
  return (range.open_ended() ? int64_t{tree::LiveBelow(root_)} : Rank(range.end())) - below;
}

}  // namespace conclave::mvcc
