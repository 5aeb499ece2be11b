#include "conclave/tests/raft/member.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"

namespace conclave::raft::test {

void Disk::Write(const AppendRequest& append) {
  if (append.hard_state.has_value()) hard_state_ = *append.hard_state;
  if (append.entries.empty()) return;
  const Index first = append.entries.front().index;
  if (!log_.empty()) {
    if (first > log_.back().index + 1 || first <= log_.front().index) {
      log_.clear();
    } else {
      log_.resize(first - log_.front().index);
    }
  }
  log_.insert(log_.end(), append.entries.begin(), append.entries.end());
}

void Disk::SaveSnapshot(const SnapshotMeta& snapshot, Index keep_from) {
  CONCLAVE_CHECK(snapshot.index > snapshot_.index);
  snapshot_ = snapshot;
  std::erase_if(log_, [&](const Entry& entry) { return entry.index < keep_from; });
}

// A log whose entry at the snapshot's index is another parts from it. It is voided for good: the
// entries that come next continue the snapshot, and one crash later nobody could tell them from
// these.
RestoredState Disk::Recover() {
  RestoredState restored{.hard_state = hard_state_, .snapshot = snapshot_, .entries = {}};
  for (const Entry& entry : log_) {
    if (entry.index == snapshot_.index && entry.term != snapshot_.term) {
      log_.clear();
      break;
    }
    if (entry.index > snapshot_.index) restored.entries.push_back(entry);
  }
  return restored;
}

void Member::Start(uint64_t seed) {
  config_.seed = seed;
  RestoredState restored = disk_.Recover();
  state_ = restored.snapshot.index;
  node_ = std::make_unique<RawNode>(config_, std::move(restored));
}

void Member::Crash(size_t completed) {
  for (size_t i = 0; i < std::min(completed, writes_.size()); ++i) disk_.Write(writes_[i]);
  writes_.clear();
  node_.reset();
}

Ready Member::TakeReady() {
  Ready ready = node_->TakeReady();
  if (ready.append.has_value()) writes_.push_back(*ready.append);
  for (const Entry& entry : ready.committed) {
    CONCLAVE_CHECK(entry.index == state_ + 1, "committed entries skip or repeat");
    state_ = entry.index;
  }
  node_->Applied(state_);
  return ready;
}

std::vector<Envelope> Member::CompleteWrites(size_t count) {
  std::vector<Envelope> released;
  AppendId newest;
  for (; count > 0 && !writes_.empty(); --count) {
    AppendRequest& append = writes_.front();
    disk_.Write(append);
    newest = append.id;
    std::move(append.messages.begin(), append.messages.end(), std::back_inserter(released));
    writes_.pop_front();
  }
  if (newest) node_->Step(StorageAppended{newest});
  return released;
}

void Member::SaveSnapshot(Index index, Index compact_to) {
  disk_.SaveSnapshot({index, *node_->TermAt(index), node_->ConfStateAt(index)}, compact_to + 1);
  node_->CompactLog(compact_to);
}

bool Member::InstallSnapshot(const SnapshotMeta& snapshot) {
  if (!node_->CanInstallSnapshot(snapshot)) return node_->InstallSnapshot(snapshot);
  disk_.SaveSnapshot(snapshot, Index(0));
  CONCLAVE_CHECK(node_->InstallSnapshot(snapshot));
  state_ = snapshot.index;
  return true;
}

}  // namespace conclave::raft::test
