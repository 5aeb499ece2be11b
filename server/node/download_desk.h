// DownloadDesk: the calls of this member's clients that are answered by a stream: RangeStream and
// Snapshot.
//
// A download is opened, gets its one request, may wait for a read round, and then runs: its task is
// given a share of every turn, and rests while more than unsent_bytes_max of its messages have not
// left this process (the transport says by StreamSent what has).
//
// Thread: the node's. Limits: kRunningMax tasks, each of which holds compaction back at its
// revision; how many may be open is the node's business (size()).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/apply/stream_task.h"
#include "conclave/server/node/io.h"

namespace conclave::node {

class DownloadDesk {
 public:
  static constexpr size_t kRunningMax = 256;
  // Of all downloads: copying and hashing them takes about half a millisecond.
  static constexpr uint64_t kBytesPerTurn = 256 << 10;

  explicit DownloadDesk(uint64_t unsent_bytes_max) : unsent_bytes_max_(unsent_bytes_max) {}

  void Open(CallId call, StreamKind kind, CredentialsRef credentials);
  bool Contains(CallId call) const { return ids_.contains(call); }
  // Forgets the download without a word. False if there is none.
  bool Close(CallId call);

  struct Request {
    StreamKind kind = StreamKind::kSnapshot;
    CredentialsRef credentials;
    bool first = false;  // the only one that counts
  };
  // A request has come for a download, which must exist.
  Request TakeRequest(CallId call);
  // It begins. False if too many run already.
  [[nodiscard]] bool Start(CallId call, std::unique_ptr<apply::StreamTask> task);
  void Sent(CallId call, uint64_t bytes);

  // Runs what may run, looking at about `budget` records in all. True if there is more to do now.
  bool Work(size_t budget, Effects* effects);

  // Ends all downloads, or those that run (their state is about to go), with an error.
  void EndAll(const wire::Error& error, Effects* effects);
  void EndRunning(const wire::Error& error, Effects* effects);

  size_t size() const { return downloads_.size(); }

 private:
  struct Download {
    CallId call;
    StreamKind kind = StreamKind::kSnapshot;
    CredentialsRef credentials;
    bool asked = false;
    std::unique_ptr<apply::StreamTask> task;
    uint64_t unsent_bytes = 0;
  };

  Download& Find(CallId call) { return downloads_.at(ids_.at(call)); }
  // True if it has more to do now; false: it waits, or *ended.
  bool RunOne(Download& download, size_t budget, bool* ended, Effects* effects);
  void End(bool only_running, const wire::Error& error, Effects* effects);

  const uint64_t unsent_bytes_max_;
  absl::flat_hash_map<CallId, uint64_t> ids_;  // looked up, never walked
  absl::btree_map<uint64_t, Download> downloads_;
  uint64_t last_id_ = 0;
  size_t running_ = 0;
};

}  // namespace conclave::node
