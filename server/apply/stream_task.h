// StreamTask: a read whose answer is a stream of messages: a range in chunks, a backup of the
// state.
//
// It reads at one revision, which it pins; writes go on between its slices. It must end before the
// StateMachine that made it does.
#pragma once

#include <cstddef>
#include <cstdint>

#include "conclave/api/wire/errors.h"
#include "conclave/base/bytes.h"

namespace conclave::apply {

class StreamTask {
 public:
  enum class Step : uint8_t {
    kMore,     // not there yet
    kMessage,  // TakeMessage has the next one
    kEnd,      // there is nothing more
  };
  // An encoded response: prefix, then rest.
  struct Message {
    Bytes prefix;
    Bytes rest;
    size_t size() const { return prefix.size() + rest.size(); }
  };

  virtual ~StreamTask() = default;
  StreamTask() = default;
  StreamTask(const StreamTask&) = delete;
  StreamTask& operator=(const StreamTask&) = delete;

  // Looks at about *budget records (some 0.2 us each) and takes them off it, or stops at a message.
  [[nodiscard]] virtual Step Run(size_t* budget) = 0;
  // After each kMessage, once.
  [[nodiscard]] virtual Message TakeMessage() = 0;
};

}  // namespace conclave::apply
