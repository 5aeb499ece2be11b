// --help's group "Conclave's own": what etcd does not have.
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"
#include "conclave/server/wal/log.h"

namespace conclave::app {
namespace {

using enum FlagKind;

absl::Status SetLogSegmentBytes(std::string_view value, Config* config) {
  constexpr int64_t kPage = 4096;
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t bytes,
                            ParseInt(value, static_cast<int64_t>(wal::kSegmentBytesMin),
                                     static_cast<int64_t>(wal::kSegmentBytesMax), "16777216"));
  if (bytes % kPage != 0) {
    return InvalidValue("must be a multiple of 4096, for example 16777216");
  }
  config->log_segment_bytes = static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::Status SetCorePlacement(std::string_view value, Config* config) {
  if (value != "auto" && value != "queue" && value != "thread") {
    return InvalidValue("must be auto, queue or thread");
  }
  config->core_placement = std::string(value);
  return absl::OkStatus();
}

const FlagEntry kFlags[] = {
    Works("listen-xds-urls", kList, "",
          "addresses where gRPC clients of any language find services as xds:///my-service",
          SetUrls<&Config::listen_xds_urls>),
    Works("conclave-queue-threads", kNumber, "0", "network threads; 0: one",
          SetNumber<&Config::queue_threads, 0, 64>),
    Works("conclave-core", kText, "auto", "where the core runs: auto, queue or thread",
          SetCorePlacement),
    Works("conclave-snapshot-log-bytes", kNumber, "67108864",
          "take a snapshot when the log has grown by so much (or by the last snapshot's size)",
          SetNumber<&Config::snapshot_log_bytes, 4096, int64_t{1} << 40>),
    Works("conclave-snapshot-bytes-per-second", kNumber, "67108864",
          "how fast a snapshot goes to the disk, or to a member that lags",
          SetNumber<&Config::snapshot_bytes_per_second, int64_t{1} << 16, int64_t{1} << 40>),
    Works("conclave-file-check-interval", kDuration, "6h",
          "how often all files are read again, to find damage before they are needed",
          SetDuration<&Config::file_check_interval, 1>),
    Works("conclave-log-segment-bytes", kNumber, "16777216", "size of one file of the log",
          SetLogSegmentBytes),
};

}  // namespace

FlagGroup ConclaveFlags() { return {"Conclave's own", kFlags}; }

}  // namespace conclave::app
