// The outcome of a vote, as far as the votes that have come in decide it.
#pragma once

#include <cstdint>

namespace conclave::raft {

enum class VoteResult : uint8_t {
  kPending = 0,  // neither, yet
  kLost = 1,     // cannot be won any more
  kWon = 2,
};

}  // namespace conclave::raft
