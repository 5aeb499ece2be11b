// DigestLog: what the state's digest was at recent indices, to be compared with what other members
// say.
//
// Every kStride-th index is kept, the last kKept of them, and the last kMomentsKept others at which
// somebody looked. Of each member that is ahead, one word is remembered until this member gets to
// that index: the oldest, so that one that is behind for long compares too.
//
// Thread: the node's.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/container/btree_map.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

class DigestLog {
 public:
  static constexpr uint64_t kStride = 16;
  static constexpr size_t kKept = 1024;
  static constexpr size_t kMomentsKept = 64;

  struct Entry {
    raft::Index index;
    uint64_t digest = 0;
  };
  enum class Verdict : uint8_t { kUnknown, kEqual, kDifferent };
  struct Outcome {
    raft::NodeId member;
    raft::Index index;
    Verdict verdict = Verdict::kUnknown;
  };

  // Whether the digest at this index is to be recorded when the state stands there.
  bool Wants(raft::Index index) const {
    return index.value() % kStride == 0 || index == next_expected_;
  }
  void Record(raft::Index index, uint64_t digest) {
    if (index.value() % kStride == 0) {
      slots_[(index.value() / kStride) % kKept] = {index, digest};
    } else {
      moments_[next_moment_++ % kMomentsKept] = {index, digest};
    }
    if (index > newest_.index) newest_ = {index, digest};
    if (index >= next_expected_) FindNextExpected();
  }
  // After the state was replaced: what is known of before does not count.
  void Clear() {
    slots_.fill({});
    moments_.fill({});
    newest_ = {};
    expected_.clear();
    next_expected_ = kNever;
  }

  // Index 0: nothing yet.
  const Entry& newest() const { return newest_; }

  // What is known here of another's word.
  Verdict Compare(const Entry& theirs) const {
    const Entry& slot = slots_[(theirs.index.value() / kStride) % kKept];
    const Entry* mine = slot.index == theirs.index ? &slot : nullptr;
    for (const Entry& moment : moments_) {
      if (moment.index == theirs.index) mine = &moment;
    }
    if (mine == nullptr || !theirs.index) return Verdict::kUnknown;
    return mine->digest == theirs.digest ? Verdict::kEqual : Verdict::kDifferent;
  }

  // What `member` says of an index beyond ours.
  void Expect(raft::NodeId member, Entry entry) {
    expected_.emplace(member, entry);
    FindNextExpected();
  }
  // What has come of a word that was kept by Expect; it is forgotten thereby.
  std::optional<Outcome> TakeOutcome() {
    for (auto it = expected_.begin(); it != expected_.end(); ++it) {
      if (it->second.index > newest_.index) continue;
      const Outcome outcome{it->first, it->second.index, Compare(it->second)};
      expected_.erase(it);
      return outcome;
    }
    return std::nullopt;
  }
  bool expects_anything() const { return !expected_.empty(); }

 private:
  static constexpr raft::Index kNever{std::numeric_limits<uint64_t>::max()};

  void FindNextExpected() {
    next_expected_ = kNever;
    for (const auto& [member, entry] : expected_) {
      if (entry.index > newest_.index) next_expected_ = std::min(next_expected_, entry.index);
    }
  }

  std::array<Entry, kKept> slots_{};
  std::array<Entry, kMomentsKept> moments_{};
  size_t next_moment_ = 0;
  Entry newest_;
  absl::btree_map<raft::NodeId, Entry> expected_;
  raft::Index next_expected_ = kNever;
};

}  // namespace conclave::node
