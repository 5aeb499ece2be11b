// Damage of a member's files while it is down, ours or etcd's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

struct FilePlace {
  std::string file;
  uint64_t offset = 0;
};

// Where the records stand that hold the last `count` entries of the log, one each, oldest first.
// All of them must be in the log's last file.
std::vector<FilePlace> LastRecords(ServerKind kind, const std::string& data_dir, size_t count);
// Wherever `text` stands in the files of the member's state: snapshots, or etcd's database.
std::vector<FilePlace> PlacesInState(ServerKind kind, const std::string& data_dir,
                                     std::string_view text);

// False: it could not be written.
[[nodiscard]] bool ZeroBytes(const FilePlace& place, size_t count);
[[nodiscard]] bool FlipBit(const FilePlace& place, int bit);

}  // namespace conclave::testing
