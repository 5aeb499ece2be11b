#include "conclave/server/app/metrics.h"

#include <dirent.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <initializer_list>
#include <tuple>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "conclave/server/app/version.h"
#include "conclave/server/rpc/method_table.h"

namespace conclave::app {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr const char* kCodeNames[rpc::kStatusCodes] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

std::string HexId(uint64_t id) { return absl::StrCat(absl::Hex(id)); }

// A metric that is one of the node's figures.
constexpr MetricType kCounter = MetricType::Counter;
constexpr MetricType kGauge = MetricType::Gauge;
struct Figure {
  MetricType type;
  const char* name;
  const char* help;
  std::variant<uint64_t node::Stats::*, int64_t node::Stats::*> field;
};

// Collects families in the order in which they are added.
class Page {
 public:
  MetricFamily& Family(const char* name, const char* help, MetricType type) {
    families_.push_back({name, help, type, {}});
    return families_.back();
  }
  void Counter(const char* name, const char* help, double value, Labels labels = {}) {
    AddCounter(&Family(name, help, MetricType::Counter), value, std::move(labels));
  }
  void Gauge(const char* name, const char* help, double value, Labels labels = {}) {
    AddGauge(&Family(name, help, MetricType::Gauge), value, std::move(labels));
  }
  void Figures(const node::Stats& stats, std::initializer_list<Figure> figures) {
    for (const Figure& figure : figures) {
      const double value =
          std::visit([&](auto field) { return static_cast<double>(stats.*field); }, figure.field);
      if (figure.type == kCounter) {
        Counter(figure.name, figure.help, value);
      } else {
        Gauge(figure.name, figure.help, value);
      }
    }
  }
  static void AddCounter(MetricFamily* family, double value, Labels labels) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.counter.value = value;
    family->metric.push_back(std::move(metric));
  }
  static void AddGauge(MetricFamily* family, double value, Labels labels) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    family->metric.push_back(std::move(metric));
  }
  template <size_t kBuckets, int64_t kFirst>
  static void AddHistogram(MetricFamily* family,
                           const node::DoublingHistogram<kBuckets, kFirst>& histogram,
                           Labels labels) {
    ClientMetric metric;
    metric.label = std::move(labels);
    uint64_t cumulative = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      cumulative += histogram.counts[i];
      metric.histogram.bucket.push_back(
          {cumulative, std::chrono::duration<double>(histogram.Bound(i)).count()});
    }
    metric.histogram.sample_count = histogram.total;
    metric.histogram.sample_sum = std::chrono::duration<double>(histogram.sum).count();
    family->metric.push_back(std::move(metric));
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  std::vector<MetricFamily> families_;
};

void AddServer(const node::Stats& stats, Page* page) {
  page->Gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.",
              stats.has_leader ? 1 : 0);
  page->Gauge("etcd_server_is_leader",
              "Whether or not this member is a leader. 1 if is, 0 otherwise.",
              stats.is_leader ? 1 : 0);
  page->Gauge("etcd_server_is_learner",
              "Whether or not this member is a learner. 1 if is, 0 otherwise.",
              stats.is_learner ? 1 : 0);
  page->Gauge("etcd_server_id",
              "Server or member ID in hexadecimal format. 1 for 'server_id' label.", 1,
              {{"server_id", HexId(stats.member.value())}});
  page->Gauge("etcd_server_version",
              "Which version is running. 1 for 'server_version' label with current version.", 1,
              {{"server_version", std::string(kProtocolVersion)}});
  if (!stats.cluster_version.empty()) {
    page->Gauge(
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version.", 1,
        {{"cluster_version", stats.cluster_version.substr(0, stats.cluster_version.rfind('.'))}});
  }
  page->Gauge("conclave_info", "Which version of Conclave is running.", 1,
              {{"version", std::string(kVersion)}});
  page->Figures(
      stats,
      {
          {kCounter, "etcd_server_leader_changes_seen_total", "The number of leader changes seen.",
           &node::Stats::leader_changes_seen},
          {kGauge, "etcd_server_proposals_committed_total",
           "The total number of consensus proposals committed.", &node::Stats::proposals_committed},
          {kGauge, "etcd_server_proposals_applied_total",
           "The total number of consensus proposals applied.", &node::Stats::proposals_applied},
          {kGauge, "etcd_server_proposals_pending",
           "The current number of pending proposals to commit.", &node::Stats::proposals_pending},
          {kCounter, "etcd_server_proposals_failed_total",
           "The total number of failed proposals seen.", &node::Stats::proposals_failed},
          {kCounter, "etcd_server_slow_read_indexes_total",
           "The total number of pending read indexes not in sync with leader's or timed out.",
           &node::Stats::slow_reads},
          {kCounter, "etcd_server_read_indexes_failed_total",
           "The total number of failed read indexes seen.", &node::Stats::reads_failed},
          {kGauge, "etcd_server_quota_backend_bytes",
           "Current backend storage quota size in bytes.", &node::Stats::quota_bytes},
      });
  MetricFamily& alarms = page->Family("etcd_debugging_server_alarms",
                                      "Alarms for every member in cluster.", MetricType::Gauge);
  for (const node::AlarmStats& alarm : stats.alarms) {
    Page::AddGauge(&alarms, 1,
                   {{"server_id", HexId(alarm.member.value())},
                    {"alarm_type", alarm.type == 1 ? "NOSPACE" : "CORRUPT"}});
  }
  page->Gauge("conclave_log_awaits_repair",
              "1 while the log of this member, damaged, is short of what it once was.",
              stats.awaits_repair ? 1 : 0);
  page->Figures(
      stats,
      {
          {kCounter, "conclave_divergences_total",
           "Members seen with another state than ours at the same index.",
           &node::Stats::divergences},
          {kCounter, "conclave_memory_checks_total",
           "How often all records in memory were found to be as they were written.",
           &node::Stats::memory_checks},
          {kCounter, "conclave_file_checks_total", "How often all files were read again.",
           &node::Stats::file_checks},
          {kCounter, "conclave_files_damaged_total", "Files that were found damaged thereby.",
           &node::Stats::files_damaged},
          {kCounter, "conclave_slow_requests_total",
           "Requests that took longer than the warning bound.", &node::Stats::slow_requests},
          {kCounter, "conclave_core_turns_total", "Turns of the core.", &node::Stats::turns},
          {kCounter, "conclave_core_inputs_total", "Inputs of the core.", &node::Stats::inputs},
      });
}

// The checks of /livez and /readyz, as far as the node's figures tell: whoever gets this page has
// been answered by the node, and a linearizable read needs a leader.
void AddHealth(const node::Stats& stats, Page* page) {
  constexpr int kCorrupt = 2;  // etcdserverpb.AlarmType
  const bool corrupt = stats.HasAlarm(kCorrupt);
  const std::tuple<const char*, const char*, bool> checks[] = {
      {"livez", "serializable_read", true},
      {"readyz", "data_corruption", !corrupt},
      {"readyz", "linearizable_read", stats.has_leader},
      {"readyz", "non_learner", !stats.is_learner},
      {"readyz", "serializable_read", true}};
  MetricFamily& family = page->Family("etcd_server_healthcheck",
                                      "The result of each kind of healthcheck.", MetricType::Gauge);
  for (const auto& [type, name, well] : checks) {
    Page::AddGauge(&family, well ? 1 : 0, {{"type", type}, {"name", name}});
  }
}

void AddDisk(const node::Stats& stats, Page* page) {
  Page::AddHistogram(
      &page->Family("etcd_disk_wal_fsync_duration_seconds",
                    "The latency distributions of fsync called by WAL.", MetricType::Histogram),
      stats.wal_fsync, {});
  Page::AddHistogram(
      &page->Family("etcd_disk_backend_commit_duration_seconds",
                    "The latency distributions of a member's own writes from their "
                    "arrival to being applied; there is no backend file to commit to.",
                    MetricType::Histogram),
      stats.apply, {});
  page->Counter("conclave_snapshots_saved_total", "Snapshots of the state that became durable.",
                static_cast<double>(stats.snapshots_saved));
}

void AddStore(const node::Stats& stats, Page* page) {
  page->Figures(
      stats,
      {
          {kGauge, "etcd_mvcc_db_total_size_in_bytes", "Bytes of the store, all revisions.",
           &node::Stats::bytes},
          {kGauge, "etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the store, live.",
           &node::Stats::bytes_in_use},
          {kGauge, "etcd_debugging_mvcc_keys_total", "Total number of keys.", &node::Stats::keys},
          {kGauge, "etcd_debugging_mvcc_current_revision", "The current revision of store.",
           &node::Stats::revision},
          {kGauge, "etcd_debugging_mvcc_compact_revision",
           "The revision of the last compaction in store.", &node::Stats::compact_revision},
          {kCounter, "etcd_debugging_mvcc_events_total",
           "Total number of events sent by this member.", &node::Stats::events},
          {kGauge, "etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.",
           &node::Stats::watch_streams},
          {kGauge, "etcd_debugging_mvcc_watcher_total", "Total number of watchers.",
           &node::Stats::watchers},
          {kGauge, "etcd_debugging_mvcc_slow_watcher_total",
           "Total number of unsynced slow watchers.", &node::Stats::watchers_slow},
          {kGauge, "conclave_leases", "Leases that live.", &node::Stats::leases},
          {kCounter, "etcd_debugging_lease_granted_total", "The total number of granted leases.",
           &node::Stats::leases_granted},
          {kCounter, "etcd_debugging_lease_revoked_total", "The total number of revoked leases.",
           &node::Stats::leases_revoked},
          {kCounter, "etcd_debugging_lease_renewed_total",
           "The number of renewed leases seen by the leader.", &node::Stats::leases_renewed},
          {kCounter, "etcd_server_lease_expired_total", "The total number of expired leases.",
           &node::Stats::leases_expired},
      });
}

void AddPeers(const MetricsInput& input, Page* page) {
  MetricFamily round_trip{"etcd_network_peer_round_trip_time_seconds",
                          "Round-Trip-Time histogram between peers",
                          MetricType::Histogram,
                          {}};
  MetricFamily sent{"etcd_network_peer_sent_bytes_total",
                    "The total number of bytes sent to peers.",
                    MetricType::Counter,
                    {}};
  MetricFamily received{"etcd_network_peer_received_bytes_total",
                        "The total number of bytes received from peers.",
                        MetricType::Counter,
                        {}};
  MetricFamily failures{"etcd_network_peer_sent_failures_total",
                        "The total number of send failures from peers.",
                        MetricType::Counter,
                        {}};
  MetricFamily active{"etcd_network_active_peers",
                      "The current number of active peer connections.",
                      MetricType::Gauge,
                      {}};
  const std::string self = HexId(input.stats->member.value());
  for (const node::PeerStats& peer : input.stats->peers) {
    const std::string id = HexId(peer.id.value());
    Page::AddHistogram(&round_trip, peer.round_trip, {{"To", id}});
    uint64_t dropped = 0;
    uint64_t sent_bytes = peer.sent_bytes;
    uint64_t received_bytes = peer.received_bytes;
    for (const rpc::PeerCounters& link : input.peers) {
      if (link.peer != peer.id) continue;
      dropped = link.dropped_frames;
      sent_bytes = link.sent_bytes;
      received_bytes = link.received_bytes;
    }
    Page::AddCounter(&sent, static_cast<double>(sent_bytes), {{"To", id}});
    Page::AddCounter(&received, static_cast<double>(received_bytes), {{"From", id}});
    Page::AddCounter(&failures, static_cast<double>(peer.sent_failures + dropped), {{"To", id}});
    Page::AddGauge(&active, peer.connected ? 1 : 0, {{"Local", self}, {"Remote", id}});
  }
  for (MetricFamily* family : {&round_trip, &sent, &received, &failures, &active}) {
    page->Family(family->name.c_str(), family->help.c_str(), family->type) = *family;
  }
}

const char* TypeName(rpc::CallType type) {
  switch (type) {
    case rpc::CallType::kUnary:
      return "unary";
    case rpc::CallType::kServerStream:
      return "server_stream";
    case rpc::CallType::kBidiStream:
      return "bidi_stream";
  }
  return "";
}

void AddHandling(const MetricsInput& input, size_t method, const Labels& labels,
                 MetricFamily* family) {
  ClientMetric metric;
  metric.label = labels;
  uint64_t cumulative = 0;
  double sum = 0;
  for (const rpc::QueueCounters* queue : input.queues) {
    sum += static_cast<double>(queue->methods[method].handling_nanoseconds.value()) * 1e-9;
  }
  for (size_t i = 0; i <= rpc::kHandlingBuckets; ++i) {
    for (const rpc::QueueCounters* queue : input.queues) {
      cumulative += queue->methods[method].handling[i].value();
    }
    if (i < rpc::kHandlingBuckets) {
      metric.histogram.bucket.push_back({cumulative, rpc::kHandlingBounds[i]});
    }
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = sum;
  family->metric.push_back(std::move(metric));
}

void AddGrpc(const MetricsInput& input, Page* page) {
  MetricFamily started{"grpc_server_started_total",
                       "Total number of RPCs started on the server.",
                       MetricType::Counter,
                       {}};
  MetricFamily handled{
      "grpc_server_handled_total",
      "Total number of RPCs completed on the server, regardless of success or failure.",
      MetricType::Counter,
      {}};
  MetricFamily received{"grpc_server_msg_received_total",
                        "Total number of RPC stream messages received on the server.",
                        MetricType::Counter,
                        {}};
  MetricFamily sent{"grpc_server_msg_sent_total",
                    "Total number of gRPC stream messages sent by the server.",
                    MetricType::Counter,
                    {}};
  MetricFamily handling{"grpc_server_handling_seconds",
                        "Histogram of response latency (seconds) of gRPC that had been "
                        "application-level handled by the server.",
                        MetricType::Histogram,
                        {}};
  const auto methods = rpc::AllMethods();
  for (size_t i = 0; i < methods.size(); ++i) {
    const Labels labels = {{"grpc_method", std::string(methods[i].name())},
                           {"grpc_service", std::string(methods[i].service())},
                           {"grpc_type", TypeName(methods[i].type)}};
    uint64_t counts[3] = {};
    uint64_t codes[rpc::kStatusCodes] = {};
    for (const rpc::QueueCounters* queue : input.queues) {
      const rpc::MethodCounters& counters = queue->methods[i];
      counts[0] += counters.started.value();
      counts[1] += counters.received_messages.value();
      counts[2] += counters.sent_messages.value();
      for (size_t code = 0; code < rpc::kStatusCodes; ++code) {
        codes[code] += counters.handled[code].value();
      }
    }
    Page::AddCounter(&started, static_cast<double>(counts[0]), labels);
    Page::AddCounter(&received, static_cast<double>(counts[1]), labels);
    Page::AddCounter(&sent, static_cast<double>(counts[2]), labels);
    for (size_t code = 0; code < rpc::kStatusCodes; ++code) {
      Labels with_code = labels;
      with_code.insert(with_code.begin(), {"grpc_code", kCodeNames[code]});
      Page::AddCounter(&handled, static_cast<double>(codes[code]), with_code);
    }
    if (input.extensive) AddHandling(input, i, labels, &handling);
  }
  std::vector<MetricFamily*> families = {&started, &handled, &received, &sent};
  if (input.extensive) families.push_back(&handling);
  for (MetricFamily* family : families) {
    page->Family(family->name.c_str(), family->help.c_str(), family->type) = *family;
  }
  uint64_t received_bytes = 0;
  uint64_t sent_bytes = 0;
  for (const rpc::QueueCounters* queue : input.queues) {
    received_bytes += queue->received_bytes.value();
    sent_bytes += queue->sent_bytes.value();
  }
  page->Counter("etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
                static_cast<double>(received_bytes));
  page->Counter("etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.", static_cast<double>(sent_bytes));
}

int CountOpenFiles() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  int count = -3;  // ".", "..", and the directory itself
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

void AddProcess(const MetricsInput& input, Page* page) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  long pages_virtual = 0;
  long pages_resident = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
    if (std::fscanf(file, "%ld %ld", &pages_virtual, &pages_resident) != 2) pages_resident = 0;
    std::fclose(file);
  }
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  const double page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  page->Counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.",
                cpu);
  page->Gauge("process_open_fds", "Number of open file descriptors.", CountOpenFiles());
  page->Gauge("process_max_fds", "Maximum number of open file descriptors.",
              static_cast<double>(files.rlim_cur));
  page->Gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.",
              static_cast<double>(pages_virtual) * page_bytes);
  rlimit memory{};
  getrlimit(RLIMIT_AS, &memory);
  page->Gauge("process_virtual_memory_max_bytes",
              "Maximum amount of virtual memory available in bytes.",
              static_cast<double>(memory.rlim_cur));
  page->Gauge("process_resident_memory_bytes", "Resident memory size in bytes.",
              static_cast<double>(pages_resident) * page_bytes);
  page->Gauge("process_start_time_seconds",
              "Start time of the process since unix epoch in seconds.", input.start_time_seconds);
}

void AddXds(const recipes::XdsDoor::Figures& xds, Page* page) {
  page->Gauge("conclave_xds_services_watched", "Services that xDS clients are told of.",
              static_cast<double>(xds.watched));
  page->Gauge("conclave_xds_services_waiting",
              "Services that xDS clients want and that wait for others to be let go.",
              static_cast<double>(xds.waiting));
  page->Gauge("conclave_xds_streams", "Streams of xDS clients.", static_cast<double>(xds.streams));
  page->Counter("conclave_xds_responses_total", "Responses sent to xDS clients.",
                static_cast<double>(xds.responses));
  page->Counter("conclave_xds_acks_total", "Responses that xDS clients have taken.",
                static_cast<double>(xds.acks));
  page->Counter("conclave_xds_nacks_total", "Responses that xDS clients have refused.",
                static_cast<double>(xds.nacks));
}

}  // namespace

std::string RenderMetrics(const MetricsInput& input) {
  Page page;
  AddServer(*input.stats, &page);
  page.Counter("etcd_server_slow_apply_total", "The total number of slow apply requests.",
               static_cast<double>(input.slow_turns));
  AddHealth(*input.stats, &page);
  AddDisk(*input.stats, &page);
  AddStore(*input.stats, &page);
  AddPeers(input, &page);
  AddGrpc(input, &page);
  AddProcess(input, &page);
  if (input.xds.has_value()) AddXds(*input.xds, &page);
  return page.Text();
}

}  // namespace conclave::app
