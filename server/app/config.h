// What a server is told: the outcome of its flags and environment, checked.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/app/log.h"
#include "conclave/server/http/access_policy.h"
#include "conclave/server/tls/policy.h"

namespace conclave::app {

// "http://127.0.0.1:2379", "https://...", "unix:///run/conclave.sock", "unixs://..."
struct Url {
  std::string host;  // without brackets; of a unix socket: its path, and there is no port
  uint16_t port = 0;
  std::string scheme = "http";

  bool is_tls() const { return scheme == "https" || scheme == "unixs"; }
  bool is_unix() const { return scheme == "unix" || scheme == "unixs"; }
  std::string HostPort() const;  // "127.0.0.1:2379", "[::1]:2379"; the path of a unix socket
  std::string Text() const;      // scheme + "://" + HostPort()
  friend bool operator==(const Url&, const Url&) = default;
};

// InvalidArgument, with what is wrong and an example, if `text` is none of the above.
absl::StatusOr<Url> ParseUrl(std::string_view text);
// Separated by commas; at least one.
absl::StatusOr<std::vector<Url>> ParseUrls(std::string_view text);

using InitialClusterMap = std::map<std::string, std::vector<Url>>;  // peer URLs by member name
// "m1=http://h:1,m1=http://h:2,m2=http://g:1"
absl::StatusOr<InitialClusterMap> ParseInitialCluster(std::string_view text);

// Of one kind of port.
struct TlsConfig {
  tls::Options files;  // without the settings that all ports share
  // Make and keep a certificate of our own when none is given.
  bool self_signed = false;
};

enum class CompactionMode : uint8_t { kOff, kPeriodic, kRevision };

// Another cluster, through which the founders of a new one find each other
// (cluster_discovery.h).
struct DiscoverySettings {
  std::string token;  // empty: --initial-cluster names them
  std::vector<std::string> endpoints;
  Duration dial_timeout = std::chrono::seconds(2);
  Duration request_timeout = std::chrono::seconds(5);
  Duration keepalive_time = std::chrono::seconds(2);
  Duration keepalive_timeout = std::chrono::seconds(6);
  bool insecure_transport = true;  // of endpoints that do not say it
  bool insecure_skip_tls_verify = false;
  std::string cert_file;
  std::string key_file;
  std::string ca_file;
  std::string user;  // or "user:password"
  std::string password;
};

struct Config {
  std::string name = "default";
  std::string data_dir;  // empty: "<name>.conclave"
  std::string wal_dir;   // empty: in data_dir

  std::vector<Url> listen_client_urls;
  std::vector<Url> advertise_client_urls;
  std::vector<Url> listen_peer_urls;
  std::vector<Url> initial_advertise_peer_urls;
  std::vector<Url> listen_metrics_urls;
  std::vector<Url> listen_client_http_urls;  // empty: listen_client_urls serve HTTP as well
  http::AccessPolicy http_access;
  std::vector<Url> listen_xds_urls;  // empty: nobody is served by xDS

  InitialClusterMap initial_cluster;
  DiscoverySettings discovery;
  bool initial_cluster_existing = false;
  bool initial_election_tick_advance = true;
  std::string initial_cluster_token = "etcd-cluster";
  bool force_new_cluster = false;
  bool strict_reconfig_check = true;
  uint64_t max_learners = 1;

  TlsConfig client_tls;
  TlsConfig peer_tls{.files = {.check_addresses = true}};
  std::vector<std::string> cipher_suites;  // Go's names; empty: the default
  tls::Version tls_min_version = tls::Version::kTls12;
  tls::Version tls_max_version = tls::Version::kAny;
  int self_signed_years = 1;

  Duration heartbeat_interval = std::chrono::milliseconds(100);
  Duration election_timeout = std::chrono::milliseconds(1000);

  uint64_t max_request_bytes = 1536 * 1024;
  uint64_t max_txn_ops = 128;
  int64_t quota_backend_bytes = 0;
  uint32_t max_concurrent_streams = UINT32_MAX;
  Duration grpc_keepalive_min_time = std::chrono::seconds(5);
  Duration grpc_keepalive_interval = std::chrono::hours(2);
  Duration grpc_keepalive_timeout = std::chrono::seconds(20);
  Duration warning_unary_request_duration = std::chrono::milliseconds(300);
  Duration watch_progress_notify_interval = std::chrono::minutes(10);

  CompactionMode auto_compaction_mode = CompactionMode::kOff;
  Duration auto_compaction_period{};
  int64_t auto_compaction_revisions = 0;
  // Of a compaction: how much at a time, and the rest between; 0: as the node does by itself.
  uint64_t compaction_batch_limit = 0;
  Duration compaction_sleep_interval{};

  std::string config_file;  // empty: flags and environment decide
  bool enable_pprof = false;
  // Whoever watches the server's health sees it go and come back when this member defragments.
  bool stop_grpc_service_on_defrag = false;
  std::map<std::string, bool> feature_gates;

  std::string auth_token = "simple";  // or "jwt,...", as auth::ParseJwtSpec reads it
  Duration auth_token_ttl = std::chrono::seconds(300);
  int bcrypt_cost = 10;

  LogOptions log;
  bool socket_reuse_port = false;
  // What members compare all the time is reported so often, if it is to be (0: it is not).
  bool compact_hash_check = false;
  Duration compact_hash_check_time = std::chrono::minutes(1);
  Duration corrupt_check_time{};
  bool log_rotation = false;
  LogRotation log_rotation_settings{.file_bytes_max = uint64_t{100} << 20};  // if it is on
  Duration warning_apply_duration = std::chrono::milliseconds(100);
  uint64_t snapshot_count = 0;            // 0: by the bytes of the log alone
  uint64_t snapshot_catchup_entries = 0;  // 0: likewise
  bool extensive_metrics = false;

  // Of our own. A snapshot is taken when the log has grown by this (or the last one's size).
  uint64_t snapshot_log_bytes = uint64_t{64} << 20;
  uint64_t snapshot_bytes_per_second = uint64_t{64} << 20;
  uint64_t log_segment_bytes = uint64_t{16} << 20;
  Duration file_check_interval = std::chrono::hours(6);
  // 0 threads is "by the number of cores".
  int queue_threads = 0;
  std::string core_placement = "auto";  // auto, queue, thread
};

// Fills in what depends on other settings, and checks what only fits together. InvalidArgument
// names the flag.
absl::Status Complete(Config* config);

// Whether --initial-cluster can found a cluster or join one, as this member. Not asked of a member
// that has its state: what founded its cluster does not matter any more. InvalidArgument likewise.
absl::Status CheckInitialCluster(const Config& config);

}  // namespace conclave::app
