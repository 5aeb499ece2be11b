// Directory: who belongs to a cluster, as a member tells whoever asks at its peer port. A server
// that joins learns from it who it is and whom to listen to; one that founds a cluster, whether it
// has been a member already.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/server/apply/membership.h"

namespace conclave::node {

struct Directory {
  uint64_t cluster_id = 0;
  std::string cluster_version;         // empty: not decided yet
  std::vector<apply::Member> members;  // by id

  // By its peer URLs, in whatever order; null: none has them.
  const apply::Member* FindByUrls(std::vector<std::string> peer_urls) const;
};

[[nodiscard]] std::string EncodeDirectory(const apply::Membership& membership,
                                          std::string_view cluster_version);
// InvalidArgument if it is none.
[[nodiscard]] absl::StatusOr<Directory> DecodeDirectory(std::string_view bytes);

}  // namespace conclave::node
