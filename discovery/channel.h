// Dial: a gRPC channel to a service by its name. The only header of this library with gRPC's types
// in it.
//
//   absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
//       conclave::Dial(client, "my-service", grpc::InsecureChannelCredentials());
//   auto stub = helloworld::Greeter::NewStub(*channel);   // any stub, any call style
//
// It is a real grpc::Channel: round robin over the service's instances, connections kept across
// every change of the set, wait_for_ready, deadlines, retries, TLS: all gRPC's own.
//
//   - no instances: calls fail at once with UNAVAILABLE, naming the service; with wait_for_ready
//   they wait
//     for the first instance, up to their deadline;
//   - an instance that appears gets calls within milliseconds;
//   - an instance that leaves orderly (deregister, wait the notice, drain, stop) costs no call;
//   - an instance that dies is left when its connection breaks, within milliseconds; one that
//   hangs, when
//     its lease runs out at the latest;
//   - the registry out of reach: calls go on with the last known set, however long it takes.
//
// The channel keeps everything it needs alive (the watch, its threads, a client handle) and ends it
// with its last owner. A call still under way then goes on to its end.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"

namespace conclave {

struct DialOptions {
  // Further arguments of the channel; those below win over them.
  grpc::ChannelArguments args{};
  // The :authority of calls, and with TLS the name that the server's certificate must have.
  // Default: the service's name, with anything that cannot stand in a host name replaced by "-".
  std::string authority{};
  // A call that has had no answer yet and got UNAVAILABLE is sent to another instance up to this
  // often (gRPC allows 5 attempts in all). Only for services whose calls may safely be repeated.
  uint32_t retries_max = 0;
  // Connect only for the first call, and hang up after 10 s without any.
  bool lazy = false;

  absl::Duration reconnect_backoff_initial = absl::Milliseconds(200);
  absl::Duration reconnect_backoff_max = absl::Seconds(2);
  absl::Duration connect_timeout = absl::Seconds(5);
  // A connection with calls under way is pinged after this much silence and dropped if no answer
  // comes in time, so that calls to an instance that hangs end. gRPC servers hang up on clients
  // that ping more often than every 5 minutes, unless they are told otherwise
  // (GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_ DATA_MS); hence the default. New calls do not
  // depend on it: they leave an instance with its lease.
  absl::Duration keepalive_time = absl::Seconds(310);
  absl::Duration keepalive_timeout = absl::Seconds(10);
};

// `service` is "my-service" or "etcd:///my-service". InvalidArgument for a name that cannot be one;
// an unreachable registry or a service without instances is not an error here.
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Discovery& discovery, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options = {});

// With a Discovery of its own. A process that dials several services had better share one.
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Client& client, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options = {});

}  // namespace conclave
