// A log-linear histogram of durations: 64 steps per power of two, so a quantile is right within 1.6
// %.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace conclave::bench {

class Histogram {
 public:
  void Record(int64_t nanoseconds) {
    const uint64_t value = static_cast<uint64_t>(std::max<int64_t>(nanoseconds, 0));
    ++counts_[BucketOf(value)];
    ++count_;
    max_ = std::max(max_, value);
  }

  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }

  // The upper edge of the bucket that holds the quantile, in nanoseconds; 0 when nothing was
  // recorded.
  uint64_t Quantile(double quantile) const {
    const uint64_t rank = static_cast<uint64_t>(quantile * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      seen += counts_[bucket];
      if (seen > rank) return std::min(UpperEdge(bucket), max_);
    }
    return max_;
  }

 private:
  static constexpr int kStepBits = 6;
  static constexpr uint64_t kSteps = 1u << kStepBits;

  static size_t BucketOf(uint64_t value) {
    if (value < kSteps) return value;
    const int shift = std::bit_width(value) - 1 - kStepBits;
    return (static_cast<size_t>(shift) + 1) * kSteps + ((value >> shift) - kSteps);
  }
  static uint64_t UpperEdge(size_t bucket) {
    if (bucket < kSteps) return bucket;
    const size_t shift = bucket / kSteps - 1;
    return ((bucket % kSteps + kSteps + 1) << shift) - 1;
  }

  std::array<uint64_t, (64 - kStepBits + 1) * kSteps> counts_{};
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

}  // namespace conclave::bench
