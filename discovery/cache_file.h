// CacheFile: a service's last good set on disk, for a process that starts while the cluster is out
// of reach.
//
// One file per service in a directory of the user's: "<escaped name>.instances", mode 0600,
// replaced as a whole by rename. All numbers are little-endian, every text is its length (u32) and
// its bytes:
//
//   "CNCLVDSC"  u32 version = 1  u32 CRC-32C of all that follows  u64 bytes that follow
//   text service   i64 revision   i64 saved at (unix, ms)   u32 entries
//   per entry: text key, id, address, version, zone, raw metadata; u8 state; u8 has weight, i64
//   weight; u32 tags, text each; u32 attributes, two texts each
//
// A file that is damaged, of another version, larger than kBytesMax, of another service, no plain
// file or not this user's is refused, whatever it holds. Encode and Decode are pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/discovery/snapshot.h"

namespace conclave {

class CacheFile {
 public:
  static constexpr size_t kBytesMax = 64 << 20;
  static constexpr size_t kEntriesMax = 1'000'000;

  struct Content {
    std::string service{};
    int64_t revision = 0;
    absl::Time saved_at = absl::InfinitePast();
    InstanceList instances{};
  };

  static std::string Encode(const Content& content);
  // DataLoss says what is wrong.
  [[nodiscard]] static absl::StatusOr<Content> Decode(std::string_view bytes);

  // Where the file of `service` lies. Different services have different files.
  static std::string PathOf(std::string_view directory, std::string_view service);

  // NotFound: there is none. DataLoss, PermissionDenied: one that must not be used.
  [[nodiscard]] static absl::StatusOr<Content> Read(const std::string& path,
                                                    std::string_view service);
  // Makes the directory (mode 0700) if it is not there. Blocks for the disk.
  [[nodiscard]] static absl::Status Write(const std::string& path, std::string_view bytes);
};

}  // namespace conclave
