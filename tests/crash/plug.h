// Plug: pulls the plug of a disk at its n-th change, in one of six ways.
//
// Until then it counts. Thread: one. Once it is pulled every operation fails, as on a machine that
// is off; whoever drives the member must ask pulled() after each call that may have touched the
// disk, and then throw the member away without carrying out anything else for it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "conclave/base/prng.h"
#include "conclave/server/env/memory/memory_disk.h"

namespace conclave::crash {

enum class Mode : uint8_t {
  kBefore,      // the process dies; what it had written is there
  kTornSector,  // the write is there up to a sector of 512 bytes
  kTornPage,    // or up to a page of 4 KiB
  kReordered,   // the first sector of what was not synced is missing, later ones are there
  kUnsynced,    // written, and all that was not synced is lost
  kAfter,       // done; the process dies before it can tell anybody
};
inline constexpr std::array kModes = {Mode::kBefore,    Mode::kTornSector, Mode::kTornPage,
                                      Mode::kReordered, Mode::kUnsynced,   Mode::kAfter};
std::string_view NameOf(Mode mode);

class Plug {
 public:
  // `at`: from 1 on; 0: never. The disk must outlive it.
  Plug(env::MemoryDisk* disk, Mode mode, uint64_t at, uint64_t seed);
  ~Plug();
  Plug(const Plug&) = delete;
  Plug& operator=(const Plug&) = delete;

  // True if the machine is off, which it is from this call on at the latest when its time has come.
  [[nodiscard]] bool pulled();
  // What was changed at that point: the operation and the kind of file.
  [[nodiscard]] const std::string& point() const { return point_; }

 private:
  absl::Status OnOperation(env::MemoryDisk::Operation operation, std::string_view path);
  void Pull();

  env::MemoryDisk* const disk_;
  const Mode mode_;
  const uint64_t at_;
  Prng prng_;
  uint64_t count_ = 0;
  bool due_ = false;
  bool pulled_ = false;
  std::string point_;
};

}  // namespace conclave::crash
