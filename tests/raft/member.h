// Member: a RawNode with the least world that it needs: a disk that remembers only completed
// writes, and a state machine that is nothing but the index it stands at.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "conclave/server/raft/raw_node.h"

namespace conclave::raft::test {

// What survives a crash.
class Disk {
 public:
  explicit Disk(SnapshotMeta snapshot) : snapshot_(std::move(snapshot)) {}

  void Write(const AppendRequest& append);
  // A snapshot becomes durable; the log's prefix below `keep_from` is dropped.
  void SaveSnapshot(const SnapshotMeta& snapshot, Index keep_from);
  RestoredState Recover();
  const SnapshotMeta& snapshot() const { return snapshot_; }

 private:
  SnapshotMeta snapshot_;
  HardState hard_state_;
  std::vector<Entry> log_;
};

class Member {
 public:
  Member(Config config, SnapshotMeta snapshot) : config_(config), disk_(std::move(snapshot)) {}

  bool running() const { return node_ != nullptr; }
  RawNode& node() { return *node_; }
  const RawNode& node() const { return *node_; }
  const Config& config() const { return config_; }
  Disk& disk() { return disk_; }

  void Start(uint64_t seed);
  // The first `completed` of the writes in flight reach the disk, though nobody hears of it.
  void Crash(size_t completed);

  // Takes a Ready; its append joins the writes in flight.
  Ready TakeReady();
  size_t writes_in_flight() const { return writes_.size(); }
  const std::deque<AppendRequest>& writes() const { return writes_; }
  // The oldest `count` writes become durable together; gives the messages that waited for them.
  std::vector<Envelope> CompleteWrites(size_t count);

  void SaveSnapshot(Index index, Index compact_to);
  // True if it was taken.
  bool InstallSnapshot(const SnapshotMeta& snapshot);
  Index state() const { return state_; }

 private:
  Config config_;
  Disk disk_;
  std::unique_ptr<RawNode> node_;
  std::deque<AppendRequest> writes_;
  Index state_;  // what the state machine has applied
};

}  // namespace conclave::raft::test
