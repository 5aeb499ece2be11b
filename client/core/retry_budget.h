// RetryBudget: how many attempts beyond the first ones a client makes, so that an outage is not
// amplified by those who suffer from it.
//
// A bucket of tokens, one a retry. Every new call adds a tenth of a token and every second adds ten
// (the options' defaults), up to the burst. A retry that finds no token waits for one; it does not
// fail. A retry that succeeds adds two: so the end of an outage is not delayed, but the waiting
// come back in doubling steps.
#pragma once

#include <algorithm>

#include "conclave/base/time.h"

namespace conclave {

struct RetryBudgetOptions {
  double per_call = 0.1;
  double per_second = 10;  // > 0
  double burst = 50;       // >= 1; also what there is at first
};

class RetryBudget {
 public:
  explicit RetryBudget(const RetryBudgetOptions& options)
      : options_(options), tokens_(options.burst) {}

  void OnCalls(double count) { Add(options_.per_call * count); }
  void OnRetrySucceeded() { Add(kPerSuccess); }

  bool Take(Instant now) {
    Fill(now);
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

  // When there is a token even if nothing else happens.
  Instant NextAt(Instant now) {
    Fill(now);
    if (tokens_ >= 1) return now;
    const double seconds = (1 - tokens_) / options_.per_second;
    return now + std::max(kStepMin, Duration(static_cast<int64_t>(seconds * 1e9)));
  }

 private:
  static constexpr double kPerSuccess = 2;
  static constexpr Duration kStepMin = std::chrono::milliseconds(1);

  void Add(double tokens) { tokens_ = std::min(options_.burst, tokens_ + tokens); }
  void Fill(Instant now) {
    if (filled_at_ != Instant{}) {
      Add(options_.per_second * std::chrono::duration<double>(now - filled_at_).count());
    }
    filled_at_ = now;
  }

  const RetryBudgetOptions options_;
  double tokens_;
  Instant filled_at_{};
};

}  // namespace conclave
