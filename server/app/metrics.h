// The metrics page: etcd's names, from the node's figures, the transport's counters and /proc.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conclave/server/node/stats.h"
#include "conclave/server/recipes/xds_door.h"
#include "conclave/server/rpc/call_counters.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::app {

struct MetricsInput {
  const node::Stats* stats = nullptr;
  std::span<const rpc::QueueCounters* const> queues;
  std::vector<rpc::PeerCounters> peers;
  uint64_t slow_turns = 0;  // of the core, over --warning-apply-duration
  bool extensive = false;
  double start_time_seconds = 0;                   // of the process, since 1970
  std::optional<recipes::XdsDoor::Figures> xds{};  // if there is an xDS port
};

// Prometheus' text format.
std::string RenderMetrics(const MetricsInput& input);

}  // namespace conclave::app
