// Member: the production server without its threads: a Node, its log, its snapshots and its
// recovery, on a disk in memory. For a cluster of one.
//
// Thread: one, which passes the time in. The disk answers at once, so that everything a request
// needs happens in one call of Work; only timers (leases, elections) wait for time to pass.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "conclave/base/prng.h"
#include "conclave/base/time.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/node.h"
#include "conclave/server/snapshot/writer.h"
#include "conclave/server/wal/log.h"

namespace conclave::testing {

class Member {
 public:
  struct Settings {
    uint64_t seed = 0;
    int64_t quota_bytes = 0;
  };
  // Called from within Work.
  struct Sinks {
    std::function<void(node::Reply)> reply;
    std::function<void(node::StreamEffect)> stream;
  };

  Member(const Settings& settings, Sinks sinks);
  ~Member();

  // Recovers from the disk.
  absl::Status Start(Instant now);
  // The process dies, the disk keeps what was written. Calls and streams are forgotten: whoever
  // waits for them must be told by the caller.
  void Kill();
  bool up() const { return node_ != nullptr; }
  // Leads and serves.
  bool ready() const { return up() && node_->raft_status().is_leader && node_ready_; }

  void Put(node::Input input);
  // Turns until nothing is left to do at `now`. True if there was anything to do.
  bool Work(Instant now);
  // Null while it is down.
  const apply::StateMachine* state() const { return up() ? &node_->state() : nullptr; }
  Instant NextDeadline() const { return up() ? node_->NextDeadline() : kNever; }

 private:
  void Turn(Instant now);
  void Write(node::LogAppend append);
  void Save(node::SnapshotPiece piece);

  node::Options options_;
  const Sinks sinks_;
  node::InitialCluster cluster_;
  env::MemoryDisk disk_;
  Prng prng_;
  uint64_t starts_ = 0;
  bool node_ready_ = false;
  std::unique_ptr<wal::Log> log_;
  std::unique_ptr<snapshot::Saver> saver_;
  std::unique_ptr<node::Node> node_;
  std::vector<node::Input> inbox_;
  node::Effects effects_;
};

}  // namespace conclave::testing
