// Schedule: what happens when, in simulated time. Events of the same instant happen in the order
// they were planned, so that a run is a function of its seed.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "conclave/base/time.h"

namespace conclave::sim {

class Schedule {
 public:
  using Action = std::function<void()>;

  Instant now() const { return now_; }
  bool empty() const { return events_.empty(); }
  uint64_t happened() const { return happened_; }

  void At(Instant at, Action action) {
    events_.push({at < now_ ? now_ : at, ++planned_, std::move(action)});
  }
  void After(Duration delay, Action action) { At(now_ + delay, std::move(action)); }

  // Lets everything up to `end` happen.
  void RunUntil(Instant end) {
    while (!events_.empty() && events_.top().at <= end) {
      // The action may plan more, so it leaves the queue first.
      Event event = std::move(const_cast<Event&>(events_.top()));
      events_.pop();
      now_ = event.at;
      ++happened_;
      event.action();
    }
    now_ = end;
  }

 private:
  struct Event {
    Instant at;
    uint64_t order = 0;
    Action action;
    friend bool operator<(const Event& a, const Event& b) {  // the queue's top is the largest
      return a.at != b.at ? a.at > b.at : a.order > b.order;
    }
  };

  Instant now_{};
  uint64_t planned_ = 0;
  uint64_t happened_ = 0;
  std::priority_queue<Event> events_;
};

// The hash of all that was seen to happen, in order.
class Trace {
 public:
  void Mix(uint64_t value) {
    hash_ ^= value + 0x9e3779b97f4a7c15u + (hash_ << 6) + (hash_ >> 2);
    hash_ *= 0xff51afd7ed558ccdu;
    hash_ ^= hash_ >> 32;
  }
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0x243f6a8885a308d3u;
};

}  // namespace conclave::sim
