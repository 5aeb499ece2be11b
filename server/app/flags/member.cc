// --help's group "Member": who this is, where its data stands, and what it listens on.
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetQuota(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->quota_backend_bytes,
                            ParseInt(value, std::numeric_limits<int64_t>::min(),
                                     std::numeric_limits<int64_t>::max(), "2147483648"));
  return absl::OkStatus();
}

constexpr char kNoBackendFile[] = "there is no backend file to tune here";

const FlagEntry kFlags[] = {
    Works("name", kText, "default", "name of this member", SetText<&Config::name>),
    Works("data-dir", kText, "${name}.conclave", "directory of log and snapshots",
          SetText<&Config::data_dir>),
    Works("wal-dir", kText, "${data-dir}/wal", "directory of the log, on a disk of its own",
          SetText<&Config::wal_dir>),
    Works("listen-client-urls", kList, "http://127.0.0.1:2379",
          "addresses to serve clients on, gRPC and HTTP", SetUrls<&Config::listen_client_urls>),
    Works("listen-peer-urls", kList, "http://127.0.0.1:2380", "addresses to serve other members on",
          SetUrls<&Config::listen_peer_urls>),
    Works("listen-metrics-urls", kList, "",
          "further addresses for /metrics, /health, /livez, /readyz",
          SetUrls<&Config::listen_metrics_urls>),
    Works("quota-backend-bytes", kNumber, "0", "limit on live bytes; 0 is 2 GiB, below 0 is none",
          SetQuota),
    Works("snapshot-count", kNumber, "0",
          "take a snapshot after so many entries; 0: when the log has outgrown the last one",
          SetNumber<&Config::snapshot_count, 0, std::numeric_limits<int64_t>::max()>),
    Works("snapshot-catchup-entries", kNumber, "0",
          "entries kept for members that lag, once a snapshot covers them; 0: 32 MiB of them",
          SetNumber<&Config::snapshot_catchup_entries, 0, std::numeric_limits<int64_t>::max()>)
        .OnceExperimental(),
    Ignored("max-snapshots", kNumber, "the newest two are kept"),
    Ignored("max-wals", kNumber, "the log keeps what no snapshot covers"),
    Ignored("backend-batch-limit", kNumber, kNoBackendFile),
    Ignored("backend-batch-interval", kDuration, kNoBackendFile),
    Ignored("backend-bbolt-freelist-type", kText, kNoBackendFile).OnceExperimental(),
    Ignored("memory-mlock", kBool, kNoBackendFile).OnceExperimental(),
    Works("socket-reuse-port", kBool, "false", "several processes may listen on the same port",
          SetBool<&Config::socket_reuse_port>),
    Ignored("socket-reuse-address", kBool, "always on"),
    Refused("unsafe-no-fsync", kBool, "what is acknowledged is always on the disk"),
};

}  // namespace

FlagGroup MemberFlags() { return {"Member", kFlags}; }

}  // namespace conclave::app
