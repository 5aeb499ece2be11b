#include "conclave/server/raft/tracker/inflights.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"

namespace conclave::raft {

void Inflights::Add(Index last, uint64_t bytes) {
  CONCLAVE_CHECK(!Full(), "an append beyond the limit of what may be in flight");
  if (count_ == ring_.size()) Grow();
  if (count_ > 0) {
    const Append& newest = ring_[(start_ + count_ - 1) % ring_.size()];
    CONCLAVE_CHECK(newest.last < last, "appends in flight must grow");
  }
  ring_[(start_ + count_) % ring_.size()] = {last, bytes};
  ++count_;
  bytes_ += bytes;
}

void Inflights::FreeTo(Index index) {
  while (count_ > 0 && ring_[start_].last <= index && !MUTANT("inflight-appends-leak")) {
    bytes_ -= ring_[start_].bytes;
    start_ = (start_ + 1) % static_cast<uint32_t>(ring_.size());
    --count_;
  }
}

void Inflights::Reset() {
  start_ = 0;
  count_ = 0;
  bytes_ = 0;
}

void Inflights::Grow() {
  constexpr size_t kFirstSize = 8;
  std::vector<Append> larger(
      std::min<size_t>(max_messages_, std::max(kFirstSize, ring_.size() * 2)));
  for (uint32_t i = 0; i < count_; ++i) larger[i] = ring_[(start_ + i) % ring_.size()];
  ring_ = std::move(larger);
  start_ = 0;
}

}  // namespace conclave::raft
