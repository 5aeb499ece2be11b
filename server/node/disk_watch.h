// DiskWatch: whether this member's disk is so slow that another one should lead.
//
// Time goes in windows of kWindow. One is bad if, in half of it or more, syncs were under way that
// took `slow` or longer each; a sync that has not come to its end yet counts as it is. One bad
// window and the disk is called slow, for kRemembered: no leadership is handed to it. Two in a row,
// and it is time to go: by then others, if the trouble is everybody's, have said that they are slow
// too.
//
// Thread: the node's. It costs a few additions for each write.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "conclave/base/time.h"

namespace conclave::node {

class DiskWatch {
 public:
  static constexpr Duration kWindow = std::chrono::seconds(3);
  static constexpr Duration kRemembered = std::chrono::seconds(15);

  DiskWatch(Duration slow, Instant now) : slow_(slow), window_begin_(now) {}

  void Written(uint64_t batch, Instant now) {
    if (!waiting_since_.has_value()) waiting_since_ = now;
    last_written_ = batch;
  }
  // All up to `batch` is durable; the last sync took so long.
  void Synced(uint64_t batch, Duration took, Instant now) {
    if (took >= slow_) bad_ += took;
    waiting_since_.reset();
    if (batch < last_written_) waiting_since_ = now;
  }
  // To be called often.
  void Look(Instant now) {
    if (now - window_begin_ < kWindow) return;
    const Duration pending = waiting_since_.has_value() ? now - *waiting_since_ : Duration::zero();
    const bool is_bad = bad_ + (pending >= slow_ ? pending : Duration::zero()) >= kWindow / 2;
    bad_windows_ = is_bad ? bad_windows_ + 1 : 0;
    if (is_bad) slow_until_ = now + kRemembered;
    bad_ = Duration::zero();
    window_begin_ = now;
  }

  bool is_slow(Instant now) const { return now < slow_until_; }
  bool should_not_lead() const { return bad_windows_ >= 2; }

 private:
  const Duration slow_;
  Instant window_begin_;
  Duration bad_{};
  uint32_t bad_windows_ = 0;
  Instant slow_until_ = Instant::min();
  uint64_t last_written_ = 0;
  std::optional<Instant> waiting_since_;  // a write, for its sync
};

}  // namespace conclave::node
