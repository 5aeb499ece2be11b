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
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"

namespace conclave {

// Calls with the same value of a header go to the same instance, as long as it is there; when
// instances come and go, few values move (a hash ring). Calls without the header go anywhere.
// Weights make an instance's share of the ring larger (DialOptions::weighted).
//
// gRPC before 1.53 (Debian 12 has 1.51) has a fault in its ring that ends the process; with such a
// library Dial refuses this option with Unimplemented. DialPicking has a ring of its own.
struct DialRingHash {
  // In lower case; not a binary one ("-bin").
  std::string header{};
  // Points on the ring, at least; more spread values more evenly and cost memory: up to 8,388,608.
  uint64_t ring_size_min = 1024;
};

// Leaves instances alone for a while to which calls fail more often than to the others: any status
// but OK counts. Ejected the n-th time in a row it is left alone for n * base_ejection.
struct DialOutlier {
  absl::Duration interval = absl::Seconds(10);  // between looks
  absl::Duration base_ejection = absl::Seconds(30);
  absl::Duration max_ejection = absl::Seconds(300);
  // Of all instances; one may be ejected in any case.
  uint32_t max_ejected_percent = 10;
  // Ejected if more than this share of its calls within an interval failed. 0: not by this.
  uint32_t failure_percent = 85;
  // Ejected if its rate of success is this many thousandths of the standard deviation below the
  // mean of all. 0: not by this.
  uint32_t stdev_factor = 0;
  // Nobody is ejected unless so many instances had so many calls within an interval.
  uint32_t instances_min = 5;
  uint32_t calls_min = 50;
};

struct DialOptions {
  // Which instances get calls at all. Of those the ones that serve do, so `states` must be empty.
  // prefer_zone in here looks only at the registry: it spills over when no instance of the zone is
  // registered as serving. max_instances chooses among all zones, also with the prefer_zone below.
  ServiceFilter filter{};
  // Calls go to this zone as long as gRPC can reach one of its instances, and to the other zones
  // while it cannot: for that time only. gRPC gives a zone 10 s to connect before it turns to the
  // others.
  std::string prefer_zone{};
  // Calls in proportion to Instance::weight (unset: 100; 0: none, unless all are 0; at most
  // 100,000). Beyond 64 different weights near ones count as one.
  bool weighted = false;
  // In place of round robin. Not with gRPC before 1.53, as in Debian 12: Unimplemented.
  std::optional<DialRingHash> ring_hash{};
  std::optional<DialOutlier> outlier{};

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

// `service` is "my-service" or "etcd:///my-service". InvalidArgument for a name that cannot be one
// and for options that contradict one another; an unreachable registry or a service without
// instances is not an error here.
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Discovery& discovery, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options = {});

// With a Discovery of its own. A process that dials several services had better share one.
[[nodiscard]] absl::StatusOr<std::shared_ptr<grpc::Channel>> Dial(
    const Client& client, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const DialOptions& options = {});

// What is known of a channel that Dial made. (Which backend got how many calls is gRPC's own
// business and not to be had; a channel of DialPicking tells.)
struct DialStats {
  std::string service{};
  int64_t endpoints = 0;     // that gRPC was told last
  int64_t left_out = 0;      // addresses that cannot be used
  uint64_t updates = 0;      // sets of endpoints given to the xDS server
  uint64_t responses = 0;    // sent to the channel: listener, cluster, and the sets
  uint64_t acks = 0;         // taken by it
  uint64_t nacks = 0;        // refused; it then goes on with what it had
  std::string last_error{};  // of the last refusal
  bool connected = false;    // the channel's xDS client is
  grpc_connectivity_state state = GRPC_CHANNEL_IDLE;
  std::optional<absl::Time> stale_since{};  // as the service's snapshot
};

// NotFound if the channel was not made by Dial. By the pointer that Dial gave, or a copy.
[[nodiscard]] absl::StatusOr<DialStats> StatsOf(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace conclave
