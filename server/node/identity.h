// Whose data directory this is: `identity`, a small file that is written once, when the member's
// log has been created and before the member speaks to anybody.
//
// It answers what neither log nor snapshots can: a directory whose log is gone, was it ever a
// member's? Without it a founder that lost its log would found itself anew, and vote a second time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

// Its name, at the root of the data directory.
inline constexpr std::string_view kIdentityName = "identity";

struct Identity {
  uint64_t cluster_id = 0;
  raft::NodeId member_id;

  friend bool operator==(const Identity&, const Identity&) = default;
};

// The bytes of the file (docs/formats.md).
[[nodiscard]] std::string EncodeIdentity(const Identity& identity);
// DataLoss: damaged. FailedPrecondition: of a newer version.
[[nodiscard]] absl::StatusOr<Identity> DecodeIdentity(std::string_view bytes);

// Nullopt: there is none. Errors as DecodeIdentity, naming the file.
[[nodiscard]] absl::StatusOr<std::optional<Identity>> ReadIdentity(env::Disk& disk);
// Durable when it returns; visible all at once.
[[nodiscard]] absl::Status WriteIdentity(env::Disk& disk, const Identity& identity);

}  // namespace conclave::node
