// A bbolt file in memory.
#pragma once

#include <cstring>
#include <string>
#include <utility>

#include "conclave/server/bbolt/reader.h"

namespace conclave::bbolt {

class MemorySource : public Source {
 public:
  explicit MemorySource(std::string bytes) : bytes_(std::move(bytes)) {}

  uint64_t size() const override { return bytes_.size(); }
  absl::Status Read(uint64_t offset, std::span<char> out) override {
    if (offset + out.size() > bytes_.size()) return absl::InternalError("a read past the end");
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  std::string bytes_;
};

}  // namespace conclave::bbolt
