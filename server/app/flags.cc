#include "conclave/server/app/flags.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/server/wal/log.h"

namespace conclave::app {
namespace {

absl::Status Invalid(std::string_view why) { return absl::InvalidArgumentError(std::string(why)); }

absl::StatusOr<bool> ParseBool(std::string_view text) {
  for (const char* yes : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return Invalid("must be true or false");
}

absl::StatusOr<int64_t> ParseInt(std::string_view text, int64_t least, int64_t most,
                                 std::string_view example) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(std::string(text), &value)) {
    return Invalid(absl::StrCat("must be a whole number, for example ", std::string(example)));
  }
  if (value < least || value > most) {
    return Invalid(absl::StrCat("must be from ", least, " to ", most));
  }
  return value;
}

// Go's durations are absl's: "1h0m0s", "100ms".
absl::StatusOr<Duration> ParseDuration(std::string_view text, Duration least) {
  absl::Duration value;
  if (!absl::ParseDuration(std::string(text), &value) || value == absl::InfiniteDuration() ||
      value == -absl::InfiniteDuration()) {
    return Invalid("must be a duration, for example 500ms or 1h30m");
  }
  const Duration result(absl::ToInt64Nanoseconds(value));
  if (result < least) {
    return Invalid(
        absl::StrCat("must be at least ", absl::FormatDuration(absl::Nanoseconds(least.count()))));
  }
  return result;
}

template <bool Config::*kField>
absl::Status SetBool(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->*kField, ParseBool(value));
  return absl::OkStatus();
}

template <std::string Config::*kField>
absl::Status SetText(std::string_view value, Config* config) {
  config->*kField = std::string(value);
  return absl::OkStatus();
}

template <std::vector<Url> Config::*kField>
absl::Status SetUrls(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->*kField, ParseUrls(value));
  return absl::OkStatus();
}

template <Duration Config::*kField>
absl::Status SetMilliseconds(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t count,
                            ParseInt(value, 1, 3'600'000, "100 (milliseconds)"));
  config->*kField = std::chrono::milliseconds(count);
  return absl::OkStatus();
}

template <Duration Config::*kField, int64_t kLeastMilliseconds = 0>
absl::Status SetDuration(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->*kField,
                            ParseDuration(value, std::chrono::milliseconds(kLeastMilliseconds)));
  return absl::OkStatus();
}

absl::Status SetInitialCluster(std::string_view value, Config* config) {
  config->initial_cluster.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string text(absl::StripAsciiWhitespace(part));
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return Invalid(absl::StrCat(
          "\"", text, "\" must be name=http://host:port (members separated by commas)"));
    }
    CONCLAVE_ASSIGN_OR_RETURN(Url url, ParseUrl(text.substr(equals + 1)));
    config->initial_cluster[text.substr(0, equals)].push_back(std::move(url));
  }
  return absl::OkStatus();
}

absl::Status SetInitialClusterState(std::string_view value, Config* config) {
  if (value != "new" && value != "existing") return Invalid("must be new or existing");
  config->initial_cluster_existing = value == "existing";
  return absl::OkStatus();
}

absl::Status SetMaxRequestBytes(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t bytes, ParseInt(value, 1, 100 << 20, "1572864"));
  config->max_request_bytes = static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::Status SetMaxTxnOps(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t count, ParseInt(value, 1, 1'000'000, "128"));
  config->max_txn_ops = static_cast<uint64_t>(count);
  return absl::OkStatus();
}

absl::Status SetQuota(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->quota_backend_bytes,
                            ParseInt(value, std::numeric_limits<int64_t>::min(),
                                     std::numeric_limits<int64_t>::max(), "2147483648"));
  return absl::OkStatus();
}

absl::Status SetMaxConcurrentStreams(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t count, ParseInt(value, 1, UINT32_MAX, "1000"));
  config->max_concurrent_streams = static_cast<uint32_t>(count);
  return absl::OkStatus();
}

absl::Status SetCompactionMode(std::string_view value, Config* config) {
  if (value != "periodic" && value != "revision") return Invalid("must be periodic or revision");
  config->auto_compaction_mode =
      value == "periodic" ? CompactionMode::kPeriodic : CompactionMode::kRevision;
  return absl::OkStatus();
}

// Its meaning depends on the mode, which may follow: checked when all is known. A bare number
// counts hours, as it always has.
absl::Status SetCompactionRetention(std::string_view value, Config* config) {
  int64_t number = 0;
  if (absl::SimpleAtoi(std::string(value), &number)) {
    if (number < 0) return Invalid("must not be negative");
    config->auto_compaction_revisions = number;
    config->auto_compaction_period = std::chrono::hours(number);
    return absl::OkStatus();
  }
  CONCLAVE_ASSIGN_OR_RETURN(config->auto_compaction_period, ParseDuration(value, Duration::zero()));
  config->auto_compaction_revisions = -1;  // not a number: only right for the periodic mode
  return absl::OkStatus();
}

absl::Status SetLogLevel(std::string_view value, Config* config) {
  for (const char* level : {"debug", "info", "warn", "error", "panic", "fatal"}) {
    if (value == level) {
      config->log_level = std::string(value);
      return absl::OkStatus();
    }
  }
  return Invalid("must be debug, info, warn, error, panic or fatal");
}

absl::Status SetLogger(std::string_view value, Config* /*config*/) {
  if (value != "zap") return Invalid("must be zap, the JSON lines that etcd writes");
  return absl::OkStatus();
}

absl::Status SetLogFormat(std::string_view value, Config* /*config*/) {
  if (value != "json") return Invalid("must be json; other formats are not there yet");
  return absl::OkStatus();
}

absl::Status SetLogOutputs(std::string_view value, Config* config) {
  config->log_outputs.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string output(part);
    if (output.empty()) return Invalid("must be stderr, stdout or paths of files");
    if (output.starts_with("systemd/")) return Invalid("the journal is not there yet; use stderr");
    config->log_outputs.push_back(output);
  }
  return absl::OkStatus();
}

absl::Status SetMetrics(std::string_view value, Config* config) {
  if (value != "basic" && value != "extensive") return Invalid("must be basic or extensive");
  config->extensive_metrics = value == "extensive";
  return absl::OkStatus();
}

absl::Status SetQueueThreads(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t count, ParseInt(value, 0, 64, "1"));
  config->queue_threads = static_cast<int>(count);
  return absl::OkStatus();
}

absl::Status SetSnapshotLogBytes(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t bytes,
                            ParseInt(value, 4096, int64_t{1} << 40, "67108864"));
  config->snapshot_log_bytes = static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::Status SetLogSegmentBytes(std::string_view value, Config* config) {
  constexpr int64_t kPage = 4096;
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t bytes,
                            ParseInt(value, static_cast<int64_t>(wal::kSegmentBytesMin),
                                     static_cast<int64_t>(wal::kSegmentBytesMax), "16777216"));
  if (bytes % kPage != 0) return Invalid("must be a multiple of 4096, for example 16777216");
  config->log_segment_bytes = static_cast<uint64_t>(bytes);
  return absl::OkStatus();
}

absl::Status SetCorePlacement(std::string_view value, Config* config) {
  if (value != "auto" && value != "queue" && value != "thread") {
    return Invalid("must be auto, queue or thread");
  }
  config->core_placement = std::string(value);
  return absl::OkStatus();
}

absl::Status SetPreVote(std::string_view value, Config* /*config*/) {
  CONCLAVE_ASSIGN_OR_RETURN(const bool on, ParseBool(value));
  if (!on) return Invalid("must be true: elections here always ask before they disturb a leader");
  return absl::OkStatus();
}

constexpr char kMember[] = "Member";
constexpr char kClustering[] = "Clustering";
constexpr char kLimits[] = "Limits and time-outs";
constexpr char kLogging[] = "Logging and metrics";
constexpr char kCompaction[] = "Auto compaction";
constexpr char kThreads[] = "Threads (of Conclave)";
constexpr char kStorage[] = "Storage (of Conclave)";
constexpr char kSecurity[] = "Security";
constexpr char kOther[] = "Other";

constexpr FlagEntry Works(const char* name, const char* group, const char* default_text,
                          const char* help, absl::Status (*set)(std::string_view, Config*),
                          bool is_bool = false) {
  return {name, group, FlagFate::kWorks, default_text, help, is_bool, set};
}
constexpr FlagEntry Ignored(const char* name, const char* why, bool is_bool = false) {
  return {name, kOther, FlagFate::kIgnored, "", why, is_bool, nullptr};
}
constexpr FlagEntry Refused(const char* name, const char* group, const char* why,
                            bool is_bool = false) {
  return {name, group, FlagFate::kRefused, "", why, is_bool, nullptr};
}

constexpr char kNoTls[] = "TLS is not there yet";
constexpr char kNoAuth[] = "users and roles are not there yet";
constexpr char kNoBackendFile[] = "there is no backend file to tune here";
constexpr char kNotYet[] = "not there yet";

const FlagEntry kFlags[] = {
    Works("name", kMember, "default", "name of this member", SetText<&Config::name>),
    Works("data-dir", kMember, "${name}.conclave", "directory of log and snapshots",
          SetText<&Config::data_dir>),
    Works("listen-client-urls", kMember, "http://127.0.0.1:2379",
          "addresses to serve clients on, gRPC and HTTP", SetUrls<&Config::listen_client_urls>),
    Works("listen-peer-urls", kMember, "http://127.0.0.1:2380",
          "addresses to serve other members on", SetUrls<&Config::listen_peer_urls>),
    Works("listen-metrics-urls", kMember, "",
          "further addresses for /metrics, /health, /livez, /readyz",
          SetUrls<&Config::listen_metrics_urls>),
    Works("listen-xds-urls", kMember, "",
          "addresses where gRPC clients of any language find services as xds:///my-service",
          SetUrls<&Config::listen_xds_urls>),
    Works("quota-backend-bytes", kMember, "0", "limit on live bytes; 0 is 2 GiB, below 0 is none",
          SetQuota),

    Works("initial-advertise-peer-urls", kClustering, "as --initial-cluster says",
          "addresses at which other members reach this one",
          SetUrls<&Config::initial_advertise_peer_urls>),
    Works("advertise-client-urls", kClustering, "as --listen-client-urls",
          "addresses at which clients reach this member", SetUrls<&Config::advertise_client_urls>),
    Works("initial-cluster", kClustering, "${name}=its own address",
          "all members of a new cluster: name=url,...", SetInitialCluster),
    Works("initial-cluster-state", kClustering, "new", "new or existing", SetInitialClusterState),
    Works("initial-cluster-token", kClustering, "etcd-cluster",
          "tells clusters of the same members apart", SetText<&Config::initial_cluster_token>),
    Works("pre-vote", kClustering, "true", "always on", SetPreVote, true),

    Works("heartbeat-interval", kLimits, "100", "milliseconds between the leader's heartbeats",
          SetMilliseconds<&Config::heartbeat_interval>),
    Works("election-timeout", kLimits, "1000", "milliseconds without a leader before an election",
          SetMilliseconds<&Config::election_timeout>),
    Works("max-request-bytes", kLimits, "1572864", "largest request of a client",
          SetMaxRequestBytes),
    Works("max-txn-ops", kLimits, "128", "most operations of a transaction", SetMaxTxnOps),
    Works("max-concurrent-streams", kLimits, "4294967295", "most open calls of a connection",
          SetMaxConcurrentStreams),
    Works("grpc-keepalive-min-time", kLimits, "5s", "clients that ping more often are sent away",
          SetDuration<&Config::grpc_keepalive_min_time>),
    Works("grpc-keepalive-interval", kLimits, "2h", "pings to idle clients",
          SetDuration<&Config::grpc_keepalive_interval, 1000>),
    Works("grpc-keepalive-timeout", kLimits, "20s",
          "a ping without answer ends the connection after",
          SetDuration<&Config::grpc_keepalive_timeout, 1000>),
    Works("warning-unary-request-duration", kLimits, "300ms", "log requests that take longer",
          SetDuration<&Config::warning_unary_request_duration, 1>),
    Works("experimental-warning-unary-request-duration", kLimits, "300ms",
          "older name of --warning-unary-request-duration",
          SetDuration<&Config::warning_unary_request_duration, 1>),
    Works("watch-progress-notify-interval", kLimits, "10m",
          "how often a watch that asked for it hears that nothing happened",
          SetDuration<&Config::watch_progress_notify_interval, 100>),
    Works("experimental-watch-progress-notify-interval", kLimits, "10m",
          "older name of --watch-progress-notify-interval",
          SetDuration<&Config::watch_progress_notify_interval, 100>),

    Works("auto-compaction-mode", kCompaction, "periodic", "periodic or revision",
          SetCompactionMode),
    Works("auto-compaction-retention", kCompaction, "0",
          "what to keep: a duration (a number is hours), or a number of revisions; 0 is off",
          SetCompactionRetention),

    Works("log-level", kLogging, "info", "debug, info, warn, error, panic or fatal", SetLogLevel),
    Works("logger", kLogging, "zap", "only zap: JSON lines", SetLogger),
    Works("log-format", kLogging, "json", "only json", SetLogFormat),
    Works("log-outputs", kLogging, "default",
          "stderr, stdout or paths of files, separated by commas", SetLogOutputs),
    Works("metrics", kLogging, "basic", "basic, or extensive: with histograms of calls",
          SetMetrics),

    Works("conclave-queue-threads", kThreads, "0", "network threads; 0: one", SetQueueThreads),
    Works("conclave-core", kThreads, "auto", "where the core runs: auto, queue or thread",
          SetCorePlacement),

    Works("conclave-snapshot-log-bytes", kStorage, "67108864",
          "take a snapshot when the log has grown by so much (or by the last snapshot's size)",
          SetSnapshotLogBytes),
    Works("conclave-log-segment-bytes", kStorage, "16777216", "size of one file of the log",
          SetLogSegmentBytes),

    Refused("wal-dir", kMember, "the log always stands in the data directory"),
    Refused("listen-client-http-urls", kMember, kNotYet),
    Refused("config-file", kOther, kNotYet),
    Refused("force-new-cluster", kClustering, kNotYet, true),
    Refused("discovery", kClustering, "name the members with --initial-cluster"),
    Refused("discovery-srv", kClustering, "name the members with --initial-cluster"),
    Refused("discovery-srv-name", kClustering, "name the members with --initial-cluster"),
    Refused("discovery-token", kClustering, "name the members with --initial-cluster"),
    Refused("discovery-endpoints", kClustering, "name the members with --initial-cluster"),
    Refused("discovery-fallback", kClustering, "name the members with --initial-cluster"),
    Refused("discovery-proxy", kClustering, "name the members with --initial-cluster"),
    Refused("unsafe-no-fsync", kOther, "what is acknowledged is always on the disk", true),
    Refused("cert-file", kSecurity, kNoTls),
    Refused("key-file", kSecurity, kNoTls),
    Refused("client-cert-auth", kSecurity, kNoTls, true),
    Refused("client-crl-file", kSecurity, kNoTls),
    Refused("client-cert-allowed-hostname", kSecurity, kNoTls),
    Refused("trusted-ca-file", kSecurity, kNoTls),
    Refused("auto-tls", kSecurity, kNoTls, true),
    Refused("peer-cert-file", kSecurity, kNoTls),
    Refused("peer-key-file", kSecurity, kNoTls),
    Refused("peer-client-cert-auth", kSecurity, kNoTls, true),
    Refused("peer-client-cert-file", kSecurity, kNoTls),
    Refused("peer-client-key-file", kSecurity, kNoTls),
    Refused("peer-trusted-ca-file", kSecurity, kNoTls),
    Refused("peer-auto-tls", kSecurity, kNoTls, true),
    Refused("peer-crl-file", kSecurity, kNoTls),
    Refused("peer-cert-allowed-cn", kSecurity, kNoTls),
    Refused("peer-cert-allowed-hostname", kSecurity, kNoTls),
    Refused("self-signed-cert-validity", kSecurity, kNoTls),
    Refused("cipher-suites", kSecurity, kNoTls),
    Refused("tls-min-version", kSecurity, kNoTls),
    Refused("tls-max-version", kSecurity, kNoTls),
    Refused("cors", kSecurity, kNotYet),
    Refused("host-whitelist", kSecurity, kNotYet),
    Refused("auth-token", kSecurity, kNoAuth),
    Refused("auth-token-ttl", kSecurity, kNoAuth),
    Refused("bcrypt-cost", kSecurity, kNoAuth),
    Refused("feature-gates", kOther, kNotYet),
    Refused("max-learners", kClustering, kNotYet),
    Refused("socket-reuse-port", kOther, "a port belongs to one process here", true),

    Ignored("strict-reconfig-check", "changes of membership are not served yet", true),
    Ignored("initial-election-tick-advance", "a member alone elects itself at once", true),
    Ignored("snapshot-count", "a snapshot is taken when the log has outgrown the last one"),
    Ignored("snapshot-catchup-entries", "the log keeps what followers need by bytes"),
    Ignored("experimental-snapshot-catchup-entries", "the log keeps what followers need by bytes"),
    Ignored("max-snapshots", "the newest two are kept"),
    Ignored("max-wals", "the log keeps what no snapshot covers"),
    Ignored("enable-pprof", "there is no Go profiler here; use perf", true),
    Ignored("enable-v2", "there is no v2 API", true),
    Ignored("proxy", "there is no v2 proxy"),
    Ignored("socket-reuse-address", "always on", true),
    Ignored("backend-batch-limit", kNoBackendFile),
    Ignored("backend-batch-interval", kNoBackendFile),
    Ignored("backend-bbolt-freelist-type", kNoBackendFile),
    Ignored("compaction-batch-limit", "compaction runs in slices of its own"),
    Ignored("compaction-sleep-interval", "compaction runs in slices of its own"),
    Ignored("experimental-compaction-batch-limit", "compaction runs in slices of its own"),
    Ignored("experimental-compaction-sleep-interval", "compaction runs in slices of its own"),
    Ignored("bootstrap-defrag-threshold-megabytes", "there is nothing to defragment"),
    Ignored("experimental-bootstrap-defrag-threshold-megabytes", "there is nothing to defragment"),
    Ignored("corrupt-check-time", "members compare their state all the time"),
    Ignored("experimental-corrupt-check-time", "members compare their state all the time"),
    Ignored("compact-hash-check-time", "members compare their state all the time"),
    Ignored("compact-hash-check-enabled", "members compare their state all the time", true),
    Ignored("experimental-initial-corrupt-check", "members compare their state all the time", true),
    Ignored("warning-apply-duration", "applying has no warning of its own"),
    Ignored("experimental-warning-apply-duration", "applying has no warning of its own"),
    Ignored("warning-watch-progress-duration", "watch progress has no warning of its own"),
};

const FlagEntry* FindFlag(std::string_view name) {
  for (const FlagEntry& flag : kFlags) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

absl::Status UnknownFlag(std::string_view name) {
  const FlagEntry* nearest = nullptr;
  size_t distance = 4;  // further away is not what was meant
  for (const FlagEntry& flag : kFlags) {
    const size_t d = EditDistance(name, flag.name);
    if (d < distance) {
      distance = d;
      nearest = &flag;
    }
  }
  std::string message = absl::StrCat("unknown flag --", std::string(name));
  if (nearest != nullptr) absl::StrAppend(&message, "; did you mean --", nearest->name, "?");
  absl::StrAppend(&message, " (`conclave --help` lists all flags)");
  return absl::InvalidArgumentError(message);
}

std::string VariableOf(std::string_view flag) {
  std::string name = "ETCD_";
  for (const char c : flag) {
    name.push_back(c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  }
  return name;
}

// `source` names where the value comes from: "--name" or "ETCD_NAME".
absl::Status ApplyFlag(const FlagEntry& flag, const std::string& source, std::string_view value,
                       CommandLine* line) {
  if (flag.fate == FlagFate::kRefused) {
    // A switch that is off asks for nothing.
    if (flag.is_bool) {
      const auto on = ParseBool(value);
      if (on.ok() && !*on) return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat(source, " cannot be used: ", flag.help, "; leave it out"));
  }
  if (flag.fate == FlagFate::kIgnored) {
    line->warnings.push_back(absl::StrCat(source, " is ignored: ", flag.help));
    return absl::OkStatus();
  }
  if (absl::Status status = flag.set(value, &line->config); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("invalid value \"", std::string(value),
                                                   "\" for ", source, ": ",
                                                   std::string(status.message())));
  }
  return absl::OkStatus();
}

absl::Status ParseEnvironment(const std::map<std::string, std::string>& environment,
                              CommandLine* line) {
  for (const auto& [variable, value] : environment) {
    if (!variable.starts_with("ETCD_")) continue;
    const FlagEntry* flag = nullptr;
    for (const FlagEntry& candidate : kFlags) {
      if (variable == VariableOf(candidate.name)) flag = &candidate;
    }
    if (flag == nullptr) {
      line->warnings.push_back(
          absl::StrCat("unrecognized environment variable ", variable, "=", value));
      continue;
    }
    if (value.empty()) continue;
    CONCLAVE_RETURN_IF_ERROR(ApplyFlag(*flag, variable, value, line));
  }
  return absl::OkStatus();
}

absl::Status CheckCompaction(Config* config) {
  if (config->auto_compaction_mode == CompactionMode::kOff &&
      config->auto_compaction_period > Duration::zero()) {
    config->auto_compaction_mode = CompactionMode::kPeriodic;  // the default mode
  }
  if (config->auto_compaction_mode == CompactionMode::kRevision) {
    if (config->auto_compaction_revisions < 0) {
      return Invalid(
          "--auto-compaction-retention must be a number of revisions when "
          "--auto-compaction-mode is revision");
    }
    if (config->auto_compaction_revisions == 0) config->auto_compaction_mode = CompactionMode::kOff;
  }
  if (config->auto_compaction_mode == CompactionMode::kPeriodic &&
      config->auto_compaction_period == Duration::zero()) {
    config->auto_compaction_mode = CompactionMode::kOff;
  }
  return absl::OkStatus();
}

// One argument as given, or two when the value stands by itself.
struct Given {
  const FlagEntry* flag = nullptr;
  std::string value;
};

absl::StatusOr<std::vector<Given>> SplitArguments(std::span<const std::string> arguments,
                                                  CommandLine* line) {
  std::vector<Given> given;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string_view argument = arguments[i];
    if (argument == "--" && i + 1 == arguments.size()) break;
    if (argument.size() < 2 || argument[0] != '-') {
      return Invalid(absl::StrCat("\"", std::string(argument),
                                  "\" is not a flag; conclave takes flags only, for example "
                                  "--data-dir=/var/lib/conclave"));
    }
    argument.remove_prefix(argument.starts_with("--") ? 2 : 1);
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    if (name == "help" || name == "h") {
      line->help = true;
      continue;
    }
    if (name == "version") {
      line->version = true;
      continue;
    }
    const FlagEntry* flag = FindFlag(name);
    if (flag == nullptr) return UnknownFlag(name);
    if (equals != std::string_view::npos) {
      given.push_back({flag, std::string(argument.substr(equals + 1))});
    } else if (flag->is_bool) {
      given.push_back({flag, "true"});
    } else if (i + 1 < arguments.size()) {
      given.push_back({flag, arguments[++i]});
    } else {
      return Invalid(absl::StrCat("--", flag->name, " needs a value: --", flag->name, "=..."));
    }
  }
  return given;
}

}  // namespace

std::span<const FlagEntry> AllFlags() { return kFlags; }

absl::StatusOr<CommandLine> ParseCommandLine(
    std::span<const std::string> arguments, const std::map<std::string, std::string>& environment) {
  CommandLine line;
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<Given> given, SplitArguments(arguments, &line));
  if (line.help || line.version) return line;
  std::map<std::string, std::string> left = environment;
  for (const Given& one : given) {
    const std::string variable = VariableOf(one.flag->name);
    if (left.erase(variable) > 0) {
      line.warnings.push_back(
          absl::StrCat(variable, " is shadowed by the flag --", one.flag->name));
    }
  }
  CONCLAVE_RETURN_IF_ERROR(ParseEnvironment(left, &line));
  for (const Given& one : given) {
    CONCLAVE_RETURN_IF_ERROR(
        ApplyFlag(*one.flag, absl::StrCat("--", one.flag->name), one.value, &line));
  }
  CONCLAVE_RETURN_IF_ERROR(CheckCompaction(&line.config));
  CONCLAVE_RETURN_IF_ERROR(Complete(&line.config));
  return line;
}

std::string HelpText() {
  std::string text =
      "conclave: service discovery and coordination, speaking the etcd v3 protocol.\n\n"
      "Usage: conclave [--flag=value ...]\n"
      "Without flags it serves clients at http://127.0.0.1:2379 and keeps its data in "
      "default.conclave.\n"
      "Every flag can be set by its variable too: --data-dir is ETCD_DATA_DIR.\n";
  std::vector<const char*> groups = {kMember,  kClustering, kLimits, kCompaction,
                                     kLogging, kThreads,    kStorage};
  for (const char* group : groups) {
    absl::StrAppend(&text, "\n", group, ":\n");
    for (const FlagEntry& flag : kFlags) {
      if (flag.fate != FlagFate::kWorks || std::string_view(flag.group) != group) continue;
      absl::StrAppend(&text, "  --", flag.name);
      if (*flag.default_text != '\0') absl::StrAppend(&text, " '", flag.default_text, "'");
      absl::StrAppend(&text, "\n      ", flag.help, "\n");
    }
  }
  absl::StrAppend(&text, "\nOther:\n  --help\n  --version\n");
  for (const FlagFate fate : {FlagFate::kIgnored, FlagFate::kRefused}) {
    absl::StrAppend(&text, fate == FlagFate::kIgnored ? "\nAccepted, without effect:\n"
                                                      : "\nKnown, but refused:\n");
    for (const FlagEntry& flag : kFlags) {
      if (flag.fate == fate) absl::StrAppend(&text, "  --", flag.name, ": ", flag.help, "\n");
    }
  }
  return text;
}

}  // namespace conclave::app
