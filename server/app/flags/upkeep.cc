// --help's group "Upkeep": checks of the data, features that can be switched, and what older
// servers had.
#include "conclave/server/app/flags/feature_gates.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetGateway(std::string_view value, Config* /*config*/) {
  CONCLAVE_ASSIGN_OR_RETURN(const bool on, ParseBool(value));
  if (!on) return InvalidValue("must be true: the JSON gateway is a part of the client port");
  return absl::OkStatus();
}

absl::Status SetProxy(std::string_view value, Config* /*config*/) {
  if (value != "off") return InvalidValue("must be off: there is no v2 proxy");
  return absl::OkStatus();
}

constexpr char kNoBackendFile[] = "there is no backend file to tune here";
constexpr char kNoProxy[] = "there is no v2 proxy";
constexpr char kNoTracing[] = "there is no tracing; the metrics tell how long calls take";
constexpr char kAlwaysCompared[] = "members compare their state all the time";

const FlagEntry kFlags[] = {
    Works("config-file", kText, "", "a YAML or JSON file that decides alone",
          SetText<&Config::config_file>),
    Works("feature-gates", kText, "",
          "Name=true,... of etcd's features; CompactHashCheck is --compact-hash-check-enabled, "
          "StopGRPCServiceOnDefrag is --stop-grpc-service-on-defrag, the others have no effect",
          SetFeatureGates),
    Works("corrupt-check-time", kDuration, "0s",
          "how often the leader logs that the members' states were compared, which they always "
          "are; 0: never",
          SetDuration<&Config::corrupt_check_time>)
        .OnceExperimental(),
    Works("compact-hash-check-enabled", kBool, "false",
          "the leader logs that the members' states were compared, which they always are",
          SetBool<&Config::compact_hash_check>)
        .OnceExperimental(),
    Works("compact-hash-check-time", kDuration, "1m", "how often",
          SetDuration<&Config::compact_hash_check_time, 1>)
        .OnceExperimental(),
    Ignored("initial-corrupt-check", kBool, kAlwaysCompared).OnceExperimental(),
    Ignored("downgrade-check-time", kDuration, "a downgrade is looked after all the time")
        .OnceExperimental(),
    Ignored("enable-lease-checkpoint", kBool, "what is left of a lease is always replicated")
        .OnceExperimental(),
    Ignored("enable-lease-checkpoint-persist", kBool, "what is left of a lease is always kept")
        .OnceExperimental(),
    Ignored("txn-mode-write-with-shared-buffer", kBool, kNoBackendFile).OnceExperimental(),
    Works("stop-grpc-service-on-defrag", kBool, "false",
          "who watches grpc.health.v1 hears NOT_SERVING and SERVING when this member defragments",
          SetBool<&Config::stop_grpc_service_on_defrag>)
        .OnceExperimental(),
    Ignored("set-member-localaddr", kBool, "the system picks the address to call from")
        .OnceExperimental(),
    Ignored("enable-distributed-tracing", kBool, kNoTracing).OnceExperimental(),
    Ignored("distributed-tracing-address", kText, kNoTracing).OnceExperimental(),
    Ignored("distributed-tracing-service-name", kText, kNoTracing).OnceExperimental(),
    Ignored("distributed-tracing-instance-id", kText, kNoTracing).OnceExperimental(),
    Ignored("distributed-tracing-sampling-rate", kNumber, kNoTracing).OnceExperimental(),
    Ignored("enable-v2", kBool, "there is no v2 API"),
    Ignored("enable-v2v3", kText, "there is no v2 API").OnceExperimental(),
    Ignored("v2-deprecation", kText, "there is no v2 API"),
    Ignored("proxy-failure-wait", kNumber, kNoProxy),
    Ignored("proxy-refresh-interval", kNumber, kNoProxy),
    Ignored("proxy-dial-timeout", kNumber, kNoProxy),
    Ignored("proxy-write-timeout", kNumber, kNoProxy),
    Ignored("proxy-read-timeout", kNumber, kNoProxy),
    Works("enable-grpc-gateway", kBool, "true", "always on: the JSON gateway", SetGateway),
    Works("proxy", kText, "off", "only off: there is no v2 proxy", SetProxy),
};

}  // namespace

FlagGroup UpkeepFlags() { return {"Upkeep", kFlags}; }

}  // namespace conclave::app
