// The xDS resources of a service: listener (with its route inline), cluster, load assignment.
//
// All three are functions of the service's names and endpoints only. A listener and a cluster exist
// for every name that is asked for; what comes and goes is the load assignment. So "no endpoints"
// is an answer that the client can act on (calls fail at once, or wait if they said so), never a
// missing resource, on which it would wait 15 s.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "conclave/base/time.h"
#include "conclave/discovery/xds/endpoint_set.h"

namespace google::protobuf {
class Any;
}

namespace conclave::xds {

inline constexpr std::string_view kListenerType =
    "type.googleapis.com/envoy.config.listener.v3.Listener";
inline constexpr std::string_view kClusterType =
    "type.googleapis.com/envoy.config.cluster.v3.Cluster";
inline constexpr std::string_view kEndpointType =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

// Which endpoints are left alone for a while, because calls to them fail more often than to others.
struct OutlierPolicy {
  Duration interval = std::chrono::seconds(10);       // between looks
  Duration base_ejection = std::chrono::seconds(30);  // times the number of ejections so far
  Duration max_ejection = std::chrono::seconds(300);
  uint32_t max_ejected_percent = 10;  // of the endpoints; one may always be ejected
  // By share of failed calls. 0: not.
  uint32_t failure_percent = 0;
  // By distance from the mean rate of success, in thousandths of the standard deviation. 0: not.
  uint32_t stdev_factor = 0;
  // Of both: so many endpoints need so many calls within an interval.
  uint32_t hosts_min = 5;
  uint32_t calls_min = 50;
  friend bool operator==(const OutlierPolicy&, const OutlierPolicy&) = default;
};

// How calls on a service's channel behave, as far as xDS carries it.
struct CallPolicy {
  // gRPC retries a call up to this often if no byte of an answer has come and its status is one of
  // `retry_on`. 0: only gRPC's transparent retries (of calls that never left the client).
  uint32_t retries_max = 0;
  std::string retry_on = "unavailable";
  // Not empty: calls with the same value of this header go to the same endpoint (a ring hash), in
  // place of round robin.
  std::string hash_header{};
  uint64_t ring_size_min = 1024;
  std::optional<OutlierPolicy> outlier{};
  friend bool operator==(const CallPolicy&, const CallPolicy&) = default;
};

// `listener` is the name in the target `xds:///<listener>`; `cluster` names the cluster and its
// endpoints and is what gRPC's error messages show.
google::protobuf::Any ListenerResource(std::string_view listener, std::string_view cluster,
                                       const CallPolicy& policy);
google::protobuf::Any ClusterResource(std::string_view cluster, const CallPolicy& policy);
google::protobuf::Any EndpointResource(std::string_view cluster, const EndpointSet& endpoints);

}  // namespace conclave::xds
