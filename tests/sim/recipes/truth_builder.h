// Truth: a store's history in the making, for the tests of the checkers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "conclave/tests/sim/history.h"

namespace conclave::sim {

inline Instant At(int64_t ms) { return Instant(std::chrono::milliseconds(ms)); }

// The truth as a list of what was written when; revisions 2, 3, ...
class Truth {
 public:
  Truth& Put(int64_t ms, const std::string& key, const std::string& value = "", int64_t lease = 0) {
    const int64_t revision = Begin(ms);
    const bool fresh = created_.try_emplace(key, revision).second;
    history_.back().writes.push_back(
        {key, value, created_[key], fresh ? 1 : 2, lease, /*tombstone=*/false});
    return *this;
  }
  Truth& Put(int64_t ms, const std::vector<std::string>& keys, int64_t lease) {
    const int64_t revision = Begin(ms);
    for (const std::string& key : keys) {
      created_[key] = revision;
      history_.back().writes.push_back({key, "", revision, 1, lease, /*tombstone=*/false});
    }
    return *this;
  }
  Truth& Delete(int64_t ms, const std::vector<std::string>& keys) {
    Begin(ms);
    for (const std::string& key : keys) {
      created_.erase(key);
      history_.back().writes.push_back({.key = key, .tombstone = true});
    }
    return *this;
  }
  const TrueHistory& history() const { return history_; }

 private:
  int64_t Begin(int64_t ms) {
    history_.push_back({.revision = static_cast<int64_t>(history_.size()) + 2, .applied = At(ms)});
    return history_.back().revision;
  }
  TrueHistory history_;
  std::map<std::string, int64_t> created_;
};

}  // namespace conclave::sim
