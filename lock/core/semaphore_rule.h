// The rule of Semaphore. Keys: "<name>/queue/<lease>-<number>x<k>", k permits each; and
// "<name>/permits", how many there are in all.
//
// It is our turn when what those before us have or want, and what we want, fit together: the sum of
// all k up to ours is at most n. That is strict order of arrival, so a great request is not starved
// by small ones.
//
// The first who waits watches those before it, who all hold; releases that free too little for it
// do not wake it. Everybody else watches only the waiter before him, who writes his key once more
// when his turn has come. So a release wakes the first waiter, who wakes the next one.
//
// Reads are bounded: each key has at least one permit, so the n + 1 oldest ones tell the holders.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/client/core/turn_rule.h"

namespace conclave {

std::string QueuePrefix(const std::string& name);
std::string PermitsKey(const std::string& name);
std::string PermitsSuffix(int64_t permits);  // "x4"
// Of a key under QueuePrefix; what is not ours to read has all of them, so that nothing is given
// away twice.
int64_t PermitsOf(std::string_view key, int64_t all);

class SemaphoreRule : public TurnRule {
 public:
  // 1 <= wanted <= permits
  SemaphoreRule(const std::string& name, int64_t permits, int64_t wanted);

  std::vector<Compare> Conditions(bool only_try) const override;
  std::vector<Op> Writes() const override;
  std::vector<Op> Reads(int64_t token) const override;
  Turn Decide(const std::vector<const RangeResult*>& answers, int64_t token) override;
  Missed OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                  absl::Status& why) override;
  KeyRange Owners() const override { return queue_; }

 private:
  const KeyRange queue_;
  const std::string permits_key_;
  const int64_t permits_;
  const int64_t wanted_;
  bool create_ = false;  // `permits_key_` was not there
};

}  // namespace conclave
