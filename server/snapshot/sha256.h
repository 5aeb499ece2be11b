// SHA-256 over bytes that come in pieces.
#pragma once

#include <memory>
#include <string_view>

#include "conclave/server/snapshot/format.h"

namespace conclave::snapshot {

// Thread: one. Any failure of the library is a CHECK: it could only run out of memory.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void Append(std::string_view bytes);
  // Of all that was appended. Nothing may follow.
  [[nodiscard]] Hash Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace conclave::snapshot
