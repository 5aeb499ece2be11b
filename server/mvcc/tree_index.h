// TreeIndex: a B+tree from key to Slot (the key's revisions).
//
// The keys themselves stand only in the records. To find its way without looking at records (a
// cache miss each), a node keeps four bytes of every key beside the slots, a *hint*: the bytes
// behind `skip`, the length of the prefix that all keys of the node's interval share. The interval
// is what the separators above allow, [low, high), so a key that is searched for in the node has
// the prefix too and need not be compared with it:
//
//     separators ... | /registry/p | /registry/s | ...        skip = 10: "/registry/"
//     leaf between:    /registry/pods/a  /registry/pods/b  ...  hints "pods" "pods" ...
//
// Inner nodes hold separators of their own, as short as they can be, so that no record is kept
// alive by them; and the number of live keys below each child, so that counting and ranking are
// O(log n).
//
// `shape` changes whenever keys come or go (not when they get new revisions); a Position is good as
// long as it stays the same.
//
// Fill: nodes are at least a quarter full (but a leaf that was split off by ascending inserts,
// until it grows). Owner's thread only. Limits: 2^32 keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/server/mvcc/key_index.h"
#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/record.h"

namespace conclave::mvcc {

struct Separator;

class TreeIndex {
 public:
  struct Node;
  struct Leaf;
  struct Inner;
  // The way to a key, for a write that follows the look-up at once.
  struct Path;
  struct Fences;
  // A slot, or the end of the tree (leaf null).
  struct Position {
    Leaf* leaf = nullptr;
    size_t slot = 0;
    explicit operator bool() const { return leaf != nullptr; }
    friend bool operator==(const Position&, const Position&) = default;
  };

  TreeIndex();
  ~TreeIndex();
  TreeIndex(const TreeIndex&) = delete;
  TreeIndex& operator=(const TreeIndex&) = delete;

  // Null if the key is not in the index; its head may be a tombstone.
  const Slot* Find(std::string_view key) const;

  // Makes a record the head of its key; `make` gets the old head (null if there is none) and gives
  // the new record, whose reference the index shares. One descent for both.
  void Put(std::string_view key, absl::FunctionRef<const Record*(const Record* head)> make);

  // Slot::DropOlder of a key, and removes the key with its last record. Nothing if the key is not
  // there.
  void DropOlder(std::string_view key, int64_t revision,
                 absl::FunctionRef<void(const Record&)> dropping);

  // The first position with key >= (or >) `key`.
  Position Seek(std::string_view key) const;
  Position SeekBehind(std::string_view key) const;
  Position Next(Position position) const;
  static const Slot& At(Position position);

  // Visits the slots of a range in ascending order until `visit` gives false.
  void ForEach(const KeyRange& range, absl::FunctionRef<bool(const Slot&)> visit) const;

  // Live keys in the range. O(log n).
  int64_t CountLive(const KeyRange& range) const;

  // Fills an empty index; slots ascending by key, each taken over.
  void BulkLoad(const std::vector<Slot>& slots);

  uint64_t shape() const { return shape_; }
  size_t size() const { return size_; }
  // Bytes of nodes and separators (without KeyIndexes).
  size_t memory() const;
  void CheckInvariants() const;

 private:
  class Rebalancer;

  // Live keys < `key`.
  int64_t Rank(std::string_view key) const;
  void Descend(std::string_view key, Path* path) const;
  void InsertSlot(Path* path, std::string_view key, Slot slot);
  void SplitLeaf(Path* path, std::string_view key);
  void InsertChild(Path* path, size_t depth, Node* right, Separator* separator);
  void EraseSlot(Path* path);
  void FixUnderflow(Path* path);

  Node* root_;
  size_t size_ = 0;
  uint64_t shape_ = 0;
};

}  // namespace conclave::mvcc
