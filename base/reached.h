// REACHED("raft: leader steps down without a quorum"): a mark on a rare path. The simulator reports
// the marks that no run came by (scripts/sim), so that a path which is no longer tested is noticed.
//
// A mark is one byte that is written when the path is taken, and lies in a section of its own,
// where the simulator finds all of them. Not in templates, inline functions or on hot paths.
#pragma once

#include <atomic>

namespace conclave {

struct ReachedMark {
  const char* name;
  std::atomic<bool> reached;  // relaxed: a store like any other
};

}  // namespace conclave

#define REACHED(mark_name)                                                     \
  do {                                                                         \
    static constinit ::conclave::ReachedMark mark                              \
        __attribute__((section("conclave_marks"), used)) = {mark_name, false}; \
    mark.reached.store(true, std::memory_order_relaxed);                       \
  } while (false)
