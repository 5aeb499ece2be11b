// Discovery of the founders of a new cluster through another cluster, by etcd's protocol (v3):
//
//   /_etcd/registry/TOKEN/_config/size   how many members found it; written by the operator
//   /_etcd/registry/TOKEN/members/ID     "name=url,name=url" of each, written by itself; ID in hex
//
// A server registers itself and waits until there are as many as the size says; the first ones by
// the create revision of their keys are the founders, and who comes later is refused.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "conclave/server/app/config.h"
#include "conclave/server/app/log.h"

namespace conclave::app {

// Of a cluster that founds itself like this.
inline constexpr int64_t kFoundersMax = 100;

// The founders, of which this server is one: config.initial_cluster. Blocks until they are
// complete; also while the discovery service does not answer, which is logged.
//   FailedPrecondition  no size under that token, or the cluster is full; with etcd's texts
//   InvalidArgument     a value there is none of a member's
//   others              the discovery service does not let us in
[[nodiscard]] absl::StatusOr<InitialClusterMap> DiscoverFounders(const Config& config, Log* log);

}  // namespace conclave::app
