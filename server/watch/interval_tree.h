// IntervalTree: ranges of keys, and which of them hold a key.
//
// A treap ordered by (begin, id), each node with the greatest end below it, so that a search leaves
// out every part of the tree that ends at or before the key. Priorities are a hash of the id: the
// same tree in every run. O(log n) to change, O(log n + matches) to search. Owner's thread only;
// recursion as deep as the tree (some 3 log2 n).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace conclave::watch {

class WatchGroup;

class IntervalTree {
 public:
  IntervalTree();
  ~IntervalTree();
  IntervalTree(const IntervalTree&) = delete;
  IntervalTree& operator=(const IntervalTree&) = delete;

  // The group's range (not a single key, not empty) must stay as it is while it is in the tree.
  void Insert(WatchGroup* group);
  // The group is in the tree (checked).
  void Erase(WatchGroup* group);

  // Visits all groups whose range holds `key`, by (begin, id).
  void ForEachHolding(std::string_view key, absl::FunctionRef<void(WatchGroup*)> visit) const;

  bool empty() const { return root_ == nullptr; }
  size_t size() const { return size_; }
  void CheckInvariants() const;

 private:
  struct Node;
  using Link = std::unique_ptr<Node>;

  static bool Before(const WatchGroup& a, const WatchGroup& b);
  static void InsertAt(Link* link, Link node);
  static void EraseAt(Link* link, const WatchGroup& group);
  static void RotateRight(Link* link);
  static void RotateLeft(Link* link);
  static void Visit(const Node* node, std::string_view key,
                    absl::FunctionRef<void(WatchGroup*)> visit);

  Link root_;
  size_t size_ = 0;
};

}  // namespace conclave::watch
