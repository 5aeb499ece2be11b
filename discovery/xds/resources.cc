#include "conclave/discovery/xds/resources.h"

#include <limits>
#include <string>

#include "conclave/discovery/xds/xds.pb.h"
#include "google/protobuf/any.pb.h"

namespace conclave::xds {
namespace {

using google::protobuf::Any;

constexpr std::string_view kConnectionManagerType =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
    "HttpConnectionManager";
constexpr std::string_view kRouterType =
    "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

template <typename Message>
Any Pack(std::string_view type_url, const Message& message) {
  Any any;
  any.set_type_url(std::string(type_url));
  message.SerializeToString(any.mutable_value());
  return any;
}

RouteConfiguration AllCallsTo(std::string_view name, std::string_view cluster,
                              const CallPolicy& policy) {
  RouteConfiguration routes;
  routes.set_name(std::string(name));
  VirtualHost* host = routes.add_virtual_hosts();
  host->set_name("all");
  host->add_domains("*");
  Route* route = host->add_routes();
  route->mutable_match()->set_prefix("");
  route->mutable_route()->set_cluster(std::string(cluster));
  if (policy.retries_max > 0) {
    RetryPolicy* retry = route->mutable_route()->mutable_retry_policy();
    retry->set_retry_on(policy.retry_on);
    retry->mutable_num_retries()->set_value(policy.retries_max);
  }
  if (!policy.hash_header.empty()) {
    route->mutable_route()->add_hash_policy()->mutable_header()->set_header_name(
        policy.hash_header);
  }
  return routes;
}

void SetDuration(Duration from, DurationValue* to) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(from);
  to->set_seconds(seconds.count());
  to->set_nanos(static_cast<int32_t>((from - seconds).count()));
}

void SetOutlier(const OutlierPolicy& policy, OutlierDetection* out) {
  SetDuration(policy.interval, out->mutable_interval());
  SetDuration(policy.base_ejection, out->mutable_base_ejection_time());
  SetDuration(policy.max_ejection, out->mutable_max_ejection_time());
  out->mutable_max_ejection_percent()->set_value(policy.max_ejected_percent);
  // What is not enforced is not looked at.
  out->mutable_enforcing_success_rate()->set_value(policy.stdev_factor > 0 ? 100 : 0);
  out->mutable_success_rate_stdev_factor()->set_value(policy.stdev_factor);
  out->mutable_success_rate_minimum_hosts()->set_value(policy.hosts_min);
  out->mutable_success_rate_request_volume()->set_value(policy.calls_min);
  out->mutable_enforcing_failure_percentage()->set_value(policy.failure_percent > 0 ? 100 : 0);
  out->mutable_failure_percentage_threshold()->set_value(policy.failure_percent);
  out->mutable_failure_percentage_minimum_hosts()->set_value(policy.hosts_min);
  out->mutable_failure_percentage_request_volume()->set_value(policy.calls_min);
}

}  // namespace

Any ListenerResource(std::string_view listener, std::string_view cluster,
                     const CallPolicy& policy) {
  HttpConnectionManager manager;
  *manager.mutable_route_config() = AllCallsTo(listener, cluster, policy);
  HttpFilter* router = manager.add_http_filters();
  router->set_name("router");
  router->mutable_typed_config()->set_type_url(std::string(kRouterType));
  Listener message;
  message.set_name(std::string(listener));
  *message.mutable_api_listener()->mutable_api_listener() = Pack(kConnectionManagerType, manager);
  return Pack(kListenerType, message);
}

Any ClusterResource(std::string_view cluster, const CallPolicy& policy) {
  Cluster message;
  message.set_name(std::string(cluster));
  message.set_type(Cluster::EDS);
  message.mutable_eds_cluster_config()->mutable_eds_config()->mutable_ads();
  if (policy.hash_header.empty()) {
    message.set_lb_policy(Cluster::ROUND_ROBIN);
  } else {
    message.set_lb_policy(Cluster::RING_HASH);
    message.mutable_ring_hash_lb_config()->mutable_minimum_ring_size()->set_value(
        policy.ring_size_min);
  }
  if (policy.outlier.has_value()) {
    SetOutlier(*policy.outlier, message.mutable_outlier_detection());
  }
  // Without this the client drops every call beyond 1,024 at a time.
  message.mutable_circuit_breakers()->add_thresholds()->mutable_max_requests()->set_value(
      std::numeric_limits<uint32_t>::max());
  return Pack(kClusterType, message);
}

Any EndpointResource(std::string_view cluster, const EndpointSet& endpoints) {
  ClusterLoadAssignment message;
  message.set_cluster_name(std::string(cluster));
  for (const EndpointSet::Locality& from : endpoints.localities()) {
    LocalityLbEndpoints* locality = message.add_endpoints();
    locality->mutable_locality()->set_zone(from.zone);  // the client ignores endpoints without one
    locality->mutable_locality()->set_sub_zone(from.sub_zone);
    locality->mutable_load_balancing_weight()->set_value(from.weight);
    locality->set_priority(from.priority);
    for (const Endpoint& endpoint : from.endpoints) {
      LbEndpoint* to = locality->add_lb_endpoints();
      SocketAddress* address = to->mutable_endpoint()->mutable_address()->mutable_socket_address();
      address->set_address(endpoint.ip);
      address->set_port_value(endpoint.port);
      if (endpoint.weight != 1) to->mutable_load_balancing_weight()->set_value(endpoint.weight);
    }
  }
  return Pack(kEndpointType, message);
}

}  // namespace conclave::xds
