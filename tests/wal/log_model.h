// What the tests of the log share: entries by the dozen, a log opened in one line, and the model of
// a log: a vector.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/prng.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {

inline constexpr uint64_t kCluster = 0xc1;
inline constexpr raft::NodeId kMember{0xa1};

inline Options SmallSegments(uint64_t bytes = 16 << 10) {
  return {.cluster_id = kCluster, .member_id = kMember, .segment_bytes = bytes};
}

inline raft::Entry MakeEntry(uint64_t index, uint64_t term, size_t bytes = 20) {
  std::string payload = Concat("entry ", index, " of term ", term, " ");
  while (payload.size() < bytes) payload += static_cast<char>('a' + payload.size() % 26);
  payload.resize(bytes);
  return {.term = raft::Term(term),
          .index = raft::Index(index),
          .type = index % 7 == 0 ? raft::EntryType::kConfChange : raft::EntryType::kCommand,
          .payload = Bytes::Copy(payload)};
}

// Entries [first, last].
inline std::vector<raft::Entry> MakeEntries(uint64_t first, uint64_t last, uint64_t term,
                                            size_t bytes = 20) {
  std::vector<raft::Entry> entries;
  for (uint64_t index = first; index <= last; ++index) {
    entries.push_back(MakeEntry(index, term, bytes));
  }
  return entries;
}

inline raft::HardState MakeHardState(uint64_t term, uint64_t vote, uint64_t commit) {
  return {.term = raft::Term(term), .vote = raft::NodeId(vote), .commit = raft::Index(commit)};
}

inline Position At(uint64_t index, uint64_t term) {
  return {.index = raft::Index(index), .term = raft::Term(term)};
}

inline LogBatch Batch(std::span<const raft::Entry> entries) {
  return {.reset = {}, .hard_state = {}, .entries = entries};
}
inline LogBatch Batch(std::span<const raft::Entry> entries, const raft::HardState& state) {
  return {.reset = {}, .hard_state = state, .entries = entries};
}

// Opens the log, which must succeed.
inline Recovered Open(env::Disk& disk, Position snapshot = {},
                      const Options& options = SmallSegments()) {
  auto recovered = Log::Recover(disk, options, snapshot);
  EXPECT_TRUE(recovered.ok()) << recovered.status();
  CONCLAVE_CHECK(recovered.ok(), recovered.status().ToString());
  return *std::move(recovered);
}

inline void AppendAndSync(Log& log, const LogBatch& batch) {
  ASSERT_TRUE(log.Append(batch).ok());
  ASSERT_TRUE(log.Sync().ok());
}

// What a log must hold after a sequence of batches.
struct Model {
  raft::HardState hard_state;
  std::vector<raft::Entry> entries;  // from base + 1 on
  raft::Index base;

  void Apply(const LogBatch& batch) {
    if (batch.reset.has_value()) {
      entries.clear();
      base = batch.reset->index;
    }
    if (batch.hard_state.has_value()) hard_state = *batch.hard_state;
    if (batch.entries.empty()) return;
    entries.resize(batch.entries.front().index - base - 1);
    entries.insert(entries.end(), batch.entries.begin(), batch.entries.end());
  }

  friend bool operator==(const Model&, const Model&) = default;
};

inline Model ModelOf(const Recovered& recovered, raft::Index base = raft::Index()) {
  return {.hard_state = recovered.hard_state, .entries = recovered.entries, .base = base};
}

}  // namespace conclave::wal
