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
  return routes;
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

Any ClusterResource(std::string_view cluster) {
  Cluster message;
  message.set_name(std::string(cluster));
  message.set_type(Cluster::EDS);
  message.mutable_eds_cluster_config()->mutable_eds_config()->mutable_ads();
  message.set_lb_policy(Cluster::ROUND_ROBIN);
  // Without this the client drops every call beyond 1,024 at a time.
  message.mutable_circuit_breakers()->add_thresholds()->mutable_max_requests()->set_value(
      std::numeric_limits<uint32_t>::max());
  return Pack(kClusterType, message);
}

Any EndpointResource(std::string_view cluster, const EndpointSet& endpoints) {
  ClusterLoadAssignment message;
  message.set_cluster_name(std::string(cluster));
  if (!endpoints.empty()) {
    LocalityLbEndpoints* locality = message.add_endpoints();
    locality->mutable_locality();  // the client ignores endpoints without one
    locality->mutable_load_balancing_weight()->set_value(1);
    for (const Endpoint& endpoint : endpoints.endpoints()) {
      SocketAddress* address = locality->add_lb_endpoints()
                                   ->mutable_endpoint()
                                   ->mutable_address()
                                   ->mutable_socket_address();
      address->set_address(endpoint.ip);
      address->set_port_value(endpoint.port);
    }
  }
  return Pack(kEndpointType, message);
}

}  // namespace conclave::xds
