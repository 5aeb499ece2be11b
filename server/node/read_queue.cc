#include "conclave/server/node/read_queue.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::node {

void ReadQueue::Asked(raft::ReadId id, Instant now) {
  CONCLAVE_CHECK(batches_.empty() || batches_.back().id < id, "read ids grow");
  std::vector<Read> fresh;
  if (!spare_.empty()) {
    fresh = std::move(spare_.back());
    spare_.pop_back();
  }
  batches_.push_back({id, raft::Index(), now, std::exchange(open_, std::move(fresh))});
  ++unconfirmed_;
}

void ReadQueue::NotAsked() {
  CONCLAVE_CHECK(!batches_.empty() && open_.empty());
  Recycle(std::exchange(open_, std::move(batches_.back().reads)));
  batches_.pop_back();
  --unconfirmed_;
}

std::deque<ReadQueue::Batch>::iterator ReadQueue::Find(raft::ReadId id) {
  const auto found =
      std::lower_bound(batches_.begin(), batches_.end(), id,
                       [](const Batch& batch, raft::ReadId wanted) { return batch.id < wanted; });
  return found != batches_.end() && found->id == id ? found : batches_.end();
}

void ReadQueue::Confirmed(raft::ReadId id, raft::Index index) {
  const auto batch = Find(id);
  if (batch == batches_.end() || batch->index) return;
  batch->index = std::max(index, raft::Index(1));
  --unconfirmed_;
}

void ReadQueue::Failed(raft::ReadId id) {
  const auto batch = Find(id);
  if (batch == batches_.end() || batch->index) return;
  REACHED("node: a round of reads fails");
  std::vector<Read> reads = std::move(batch->reads);
  batches_.erase(batch);
  --unconfirmed_;
  // Batches fail oldest first, each in front of what is open: `open_` would be sorted by arrival
  // only if the newest came first. Merging keeps it sorted whatever the order.
  std::vector<Read> merged;
  merged.reserve(reads.size() + open_.size());
  std::merge(std::make_move_iterator(reads.begin()), std::make_move_iterator(reads.end()),
             std::make_move_iterator(open_.begin()), std::make_move_iterator(open_.end()),
             std::back_inserter(merged),
             [](const Read& a, const Read& b) { return a.arrived < b.arrived; });
  open_ = std::move(merged);
}

void ReadQueue::Recycle(std::vector<Read> reads) {
  constexpr size_t kCapacityMax = 4096;  // a burst's memory is not kept for ever
  if (spare_.size() >= kRoundsInFlightMax || reads.capacity() > kCapacityMax) return;
  reads.clear();
  spare_.push_back(std::move(reads));
}

void ReadQueue::Serve(raft::Index applied, absl::FunctionRef<void(Read&, Instant asked)> serve) {
  // One quorum answers all earlier reads, so batches are confirmed oldest first but for those that
  // failed.
  while (!batches_.empty()) {
    Batch& batch = batches_.front();
    if (!batch.index || (batch.index > applied && !MUTANT("read-before-it-is-applied"))) break;
    for (Read& read : batch.reads) serve(read, batch.asked);
    Recycle(std::move(batch.reads));
    batches_.pop_front();
  }
}

void ReadQueue::Expire(Instant latest, absl::FunctionRef<void(const Read&)> ended) {
  const auto expire = [&](std::vector<Read>& reads) {
    const auto first_kept = std::find_if(reads.begin(), reads.end(),
                                         [&](const Read& read) { return read.arrived > latest; });
    std::for_each(reads.begin(), first_kept, ended);
    reads.erase(reads.begin(), first_kept);
  };
  for (auto batch = batches_.begin(); batch != batches_.end();) {
    expire(batch->reads);
    if (batch->reads.empty()) {
      if (!batch->index) --unconfirmed_;
      batch = batches_.erase(batch);
    } else {
      ++batch;
    }
  }
  expire(open_);
}

size_t ReadQueue::size() const {
  size_t size = open_.size();
  for (const Batch& batch : batches_) size += batch.reads.size();
  return size;
}

Instant ReadQueue::oldest() const {
  Instant oldest = kNever;
  for (const Batch& batch : batches_) oldest = std::min(oldest, batch.reads.front().arrived);
  if (!open_.empty()) oldest = std::min(oldest, open_.front().arrived);
  return oldest;
}

}  // namespace conclave::node
