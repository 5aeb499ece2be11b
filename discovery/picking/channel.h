// DialPicking: a channel to a service that chooses the backend of each call itself, for balancing
// policies that gRPC 1.51 lacks: weighted, least request, slow start, or the application's own.
//
//   absl::StatusOr<std::shared_ptr<grpc::ChannelInterface>> channel = conclave::DialPicking(
//       discovery, "my-service", grpc::InsecureChannelCredentials(),
//       {.policy = conclave::picking::LeastRequest{}});
//   auto stub = helloworld::Greeter::NewStub(*channel);   // any stub, any call style
//
// Where Dial() will do, use Dial(): its channel is gRPC's own, and its semantics are stronger. Here
// a call is bound to its backend when it starts. So gRPC cannot move it to another backend any
// more: not while it waits for a connection, and not as a retry. docs/picking.md has the
// differences.
//
//   - no instances: calls fail at once with UNAVAILABLE, naming the service; with wait_for_ready
//     they wait for the first instance, up to their deadline;
//   - connections of backends that stay are kept across every change, and calls under way on one
//     that leaves are finished;
//   - a backend whose connection breaks gets no further call from that moment.
//
// Thread-safe. The channel ends with its last owner; calls under way then go on to their ends.
#pragma once

#include <grpcpp/impl/channel_interface.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/picking/backend.h"
#include "conclave/discovery/picking/policy.h"
#include "conclave/discovery/picking/stats.h"

namespace conclave {

struct PickingOptions {
  picking::Policy policy = picking::RoundRobin{};

  // Follow grpc.health.v1 of each backend: one that reports NOT_SERVING for `health_service` ("":
  // the whole server) counts as not ready. A server without that service counts as healthy.
  bool health_check = false;
  std::string health_service{};

  // A backend that joins, or comes back after it could not be reached or was ejected, gets its full
  // weight only after this time, and until then a part that grows with the time. Zero: at once.
  absl::Duration slow_start = absl::ZeroDuration();
  // Backends whose calls keep failing are left alone for a while. Unset: never.
  std::optional<picking::Outlier> outlier{};
  // If less than this share of the ready backends is not ejected, ejections are ignored.
  int panic_percent = 50;

  // Which instances get calls at all. Of those the ones that serve do, so `states` must be empty.
  // filter.max_instances is how many the channel connects to; with prefer_zone, so many in the zone
  // and as many elsewhere. filter.prefer_zone looks only at the registry: it spills over when no
  // instance of the zone is registered as serving.
  ServiceFilter filter{};
  // Calls stay with the backends of this zone, while at least zone_ready_percent of them are ready.
  std::string prefer_zone{};
  int zone_ready_percent = 50;

  // The rest is as in DialOptions.
  grpc::ChannelArguments args{};
  std::string authority{};
  absl::Duration reconnect_backoff_initial = absl::Milliseconds(200);
  absl::Duration reconnect_backoff_max = absl::Seconds(2);
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration keepalive_time = absl::Seconds(310);
  absl::Duration keepalive_timeout = absl::Seconds(10);
};

// `service` is "my-service" or "etcd:///my-service". InvalidArgument for a name that cannot be one
// and for options that make no sense; an unreachable registry or a service without instances is not
// an error here.
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::ChannelInterface>> DialPicking(
    const Discovery& discovery, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    const PickingOptions& options = {});

// With a Discovery of its own. A process that dials several services had better share one.
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::ChannelInterface>> DialPicking(
    const Client& client, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    const PickingOptions& options = {});

// Of a channel that DialPicking made; InvalidArgument for any other.
[[nodiscard]] absl::StatusOr<picking::PickingStats> ChannelStats(
    const grpc::ChannelInterface& channel);

}  // namespace conclave
