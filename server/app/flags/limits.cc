// --help's group "Limits and time-outs".
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

const FlagEntry kFlags[] = {
    Works("heartbeat-interval", kNumber, "100", "milliseconds between the leader's heartbeats",
          SetMilliseconds<&Config::heartbeat_interval>),
    Works("election-timeout", kNumber, "1000", "milliseconds without a leader before an election",
          SetMilliseconds<&Config::election_timeout>),
    Works("max-request-bytes", kNumber, "1572864", "largest request of a client",
          SetNumber<&Config::max_request_bytes, 1, 100 << 20>),
    Works("max-txn-ops", kNumber, "128", "most operations of a transaction",
          SetNumber<&Config::max_txn_ops, 1, 1'000'000>),
    Works("max-concurrent-streams", kNumber, "4294967295", "most open calls of a connection",
          SetNumber<&Config::max_concurrent_streams, 1, UINT32_MAX>),
    Works("grpc-keepalive-min-time", kDuration, "5s", "clients that ping more often are sent away",
          SetDuration<&Config::grpc_keepalive_min_time>),
    Works("grpc-keepalive-interval", kDuration, "2h", "pings to idle clients; 0: none",
          SetDuration<&Config::grpc_keepalive_interval>),
    Works("grpc-keepalive-timeout", kDuration, "20s",
          "a ping without answer ends the connection after; 0: no pings",
          SetDuration<&Config::grpc_keepalive_timeout>),
    Ignored("raft-read-timeout", kDuration, "a peer's connection ends when it is not alive"),
    Ignored("raft-write-timeout", kDuration, "a peer's connection ends when it is not alive"),
    Works("watch-progress-notify-interval", kDuration, "10m",
          "how often a watch that asked for it hears that nothing happened",
          SetDuration<&Config::watch_progress_notify_interval, 100>)
        .OnceExperimental(),
};

}  // namespace

FlagGroup LimitFlags() { return {"Limits and time-outs", kFlags}; }

}  // namespace conclave::app
