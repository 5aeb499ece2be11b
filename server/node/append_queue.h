// AppendQueue: what waits for the log. Raft's AppendRequests go out as LogAppends, and the messages
// that must not leave before them are kept until the LogSynced.
//
// Also bounds the log in memory: it knows how many bytes the entries have that were appended, and
// says up to which index they may be dropped so that about a window of so many bytes is left.
//
// Thread: the node's.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "conclave/server/node/io.h"
#include "conclave/server/raft/ready.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

class AppendQueue {
 public:
  // The entries of a log that was recovered.
  void Recovered(const std::vector<raft::Entry>& entries);

  // The log starts anew behind `snapshot`: Raft says so in its next request, by an entry at its
  // index.
  void ResetAt(const raft::SnapshotMeta& snapshot) { reset_ = snapshot; }

  // Takes a request. Gives the LogAppend, if there is something to write.
  std::optional<LogAppend> Push(raft::AppendRequest request);

  // Frees what has nothing to write and waits for nothing before it. To be called after Push.
  void ReleaseUnwritten(std::vector<raft::Envelope>* messages);

  // All up to `batch` is durable. Appends to *messages what may leave now.
  void Synced(uint64_t batch, std::vector<raft::Envelope>* messages);

  // The newest request that is durable, with all before it, if it is news.
  std::optional<raft::AppendId> TakeDurable();

  // Entries up to there may leave the memory, so that the rest has about `window_bytes`; 0: none.
  raft::Index WindowBegin(uint64_t window_bytes) const;
  // They have left it.
  void Dropped(raft::Index up_to);

  // Bytes of entries in memory, and of all entries since the member started.
  uint64_t window_bytes() const { return bytes_end_ - bytes_begin_; }
  uint64_t total_bytes() const { return bytes_end_; }

 private:
  // Entries are counted in groups, so that small ones cost nothing: a group is closed when it has
  // kGroupBytes.
  static constexpr uint64_t kGroupBytes = 64 << 10;
  static constexpr uint64_t kEntryOverhead = 64;

  struct Waiting {
    raft::AppendId id;
    bool written = false;  // a LogAppend was made of it
    std::vector<raft::Envelope> messages;
  };
  struct Group {
    raft::Index last;
    uint64_t bytes_end = 0;
  };

  void Count(const std::vector<raft::Entry>& entries);

  std::optional<raft::SnapshotMeta> reset_;
  std::deque<Waiting> waiting_;
  raft::AppendId durable_;
  bool durable_is_news_ = false;
  std::deque<Group> groups_;
  uint64_t bytes_begin_ = 0;
  uint64_t bytes_end_ = 0;
};

}  // namespace conclave::node
