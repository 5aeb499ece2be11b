// DigestLog: what the state's digest was at recent indices, to be compared with what other members
// say.
//
// Every kStride-th index is kept, the last kKept of them. A member that is behind remembers what
// others said until it gets there.
//
// Thread: the node's.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "absl/container/btree_map.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

class DigestLog {
 public:
  static constexpr uint64_t kStride = 16;
  static constexpr size_t kKept = 1024;

  static bool Keeps(raft::Index index) { return index.value() % kStride == 0; }

  void Record(raft::Index index, uint64_t digest) {
    slots_[(index.value() / kStride) % kKept] = {index, digest};
    if (index > newest_.index) newest_ = {index, digest};
  }
  // After the state was replaced: what is known of before does not count.
  void Clear() {
    slots_.fill({});
    newest_ = {};
    expected_.clear();
  }

  struct Entry {
    raft::Index index;
    uint64_t digest = 0;
  };
  // Index 0: nothing yet.
  const Entry& newest() const { return newest_; }

  // False if the digest at `index` is known here, and another one.
  bool Agrees(raft::Index index, uint64_t digest) const {
    const Entry& slot = slots_[(index.value() / kStride) % kKept];
    return slot.index != index || slot.digest == digest;
  }

  // What `member` says of an index beyond ours: kept until this member gets there (the newest per
  // member).
  void Expect(raft::NodeId member, Entry entry) { expected_[member] = entry; }
  // The member whose word, kept by Expect, is contradicted by what is known now; it is forgotten
  // thereby.
  std::optional<raft::NodeId> TakeContradiction() {
    for (auto it = expected_.begin(); it != expected_.end();) {
      if (it->second.index > newest_.index) {
        ++it;
        continue;
      }
      const raft::NodeId member = it->first;
      const bool agrees = Agrees(it->second.index, it->second.digest);
      it = expected_.erase(it);
      if (!agrees) return member;
    }
    return std::nullopt;
  }
  bool expects_anything() const { return !expected_.empty(); }

 private:
  std::array<Entry, kKept> slots_{};
  Entry newest_;
  absl::btree_map<raft::NodeId, Entry> expected_;
};

}  // namespace conclave::node
