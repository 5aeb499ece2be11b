// ReadTask: a read that takes longer than one turn should: a range over many keys, a hash over the
// store.
//
// It reads at one revision, which it pins; writes go on between its slices. It must end before the
// StateMachine that made it does.
#pragma once

#include <cstddef>

#include "conclave/api/wire/errors.h"
#include "conclave/base/bytes.h"

namespace conclave::apply {

class ReadTask {
 public:
  virtual ~ReadTask() = default;
  ReadTask() = default;
  ReadTask(const ReadTask&) = delete;
  ReadTask& operator=(const ReadTask&) = delete;

  // Looks at about `budget` records (some 0.2 us each); true when the answer is there.
  [[nodiscard]] virtual bool Run(size_t budget) = 0;

  // After Run gave true: the error, or null and the response (once).
  virtual const wire::Error* error() const { return nullptr; }
  [[nodiscard]] virtual Bytes TakeResponse() = 0;
};

}  // namespace conclave::apply
