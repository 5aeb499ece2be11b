#include "conclave/server/app/server.h"

#include <malloc.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/server/app/auto_compactor.h"
#include "conclave/server/app/command_line.h"
#include "conclave/server/app/core.h"
#include "conclave/server/app/http2_bridge.h"
#include "conclave/server/app/join_watch.h"
#include "conclave/server/app/member_start.h"
#include "conclave/server/app/metrics.h"
#include "conclave/server/app/own_socket.h"
#include "conclave/server/app/password_worker.h"
#include "conclave/server/app/tls_setup.h"
#include "conclave/server/app/version.h"
#include "conclave/server/app/xds_security.h"
#include "conclave/server/auth/jwt.h"
#include "conclave/server/env/split_disk.h"
#include "conclave/server/http/front_door.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/posix/disk.h"
#include "conclave/server/posix/file_check.h"
#include "conclave/server/posix/log_thread.h"
#include "conclave/server/posix/worker.h"
#include "conclave/server/recipes/recipe_door.h"
#include "conclave/server/recipes/xds_door.h"
#include "conclave/server/rpc/transport.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/wal/log.h"

namespace conclave::app {
namespace {

// What gRPC may receive beyond a request of the largest size; etcd's number.
constexpr uint64_t kReceiveOverhead = 512 * 1024;
// A message in JSON may be larger than in protobuf: by a third where it is bytes.
constexpr uint64_t kJsonOverhead = 2;
constexpr Duration kPingIntervalMin = std::chrono::seconds(1);  // gRPC's
constexpr size_t kReservedDescriptors = 150;  // files, peers, the clients of our own
constexpr Duration kConnectionGrace = std::chrono::milliseconds(100);

uint64_t RandomSeed() {
  uint64_t seed = 0;
  CONCLAVE_CHECK(getrandom(&seed, sizeof seed, 0) == sizeof seed);
  return seed;
}

int UsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

std::vector<std::string> Texts(const std::vector<Url>& urls) {
  std::vector<std::string> texts;
  for (const Url& url : urls) texts.push_back(url.Text());
  return texts;
}

// As many connections as there are descriptors, but for those that the server itself needs.
size_t ClientsMax() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kReservedDescriptors;
  const auto descriptors = static_cast<size_t>(limit.rlim_cur);
  return descriptors > 2 * kReservedDescriptors ? descriptors - kReservedDescriptors
                                                : descriptors / 2;
}

rpc::TransportOptions TransportSettings(const Config& config, bool peers) {
  rpc::TransportOptions options;
  options.queue_threads = config.queue_threads == 0 ? 1 : config.queue_threads;
  options.receive_bytes_max = config.max_request_bytes + kReceiveOverhead;
  options.concurrent_streams_max = config.max_concurrent_streams;
  options.keepalive_min_time = config.grpc_keepalive_min_time;
  const bool pings = config.grpc_keepalive_interval > Duration::zero() &&
                     config.grpc_keepalive_timeout > Duration::zero();
  options.keepalive_interval =
      pings ? std::max(config.grpc_keepalive_interval, kPingIntervalMin) : Duration::max();
  options.keepalive_timeout = std::max(config.grpc_keepalive_timeout, kPingIntervalMin);
  options.handling_histograms = config.extensive_metrics;
  options.peer_reuse_port = config.socket_reuse_port;
  if (peers) {
    for (const Url& url : config.listen_peer_urls) options.peer_listen.push_back(url.Text());
  }
  return options;
}

node::Options NodeSettings(const Config& config) {
  node::Options options;
  options.name = config.name;
  options.client_urls = Texts(config.advertise_client_urls);
  options.version = std::string(kProtocolVersion);
  options.heartbeat_interval = config.heartbeat_interval;
  options.election_timeout = config.election_timeout;
  options.seed = RandomSeed();
  options.quota_bytes = config.quota_backend_bytes;
  options.request_bytes_max = config.max_request_bytes;
  options.txn_ops_max = config.max_txn_ops;
  options.auth_token_ttl = config.auth_token_ttl;
  options.bcrypt_cost = config.bcrypt_cost;
  options.strict_reconfig_check = config.strict_reconfig_check;
  options.learners_max = config.max_learners;
  options.watch_progress_interval = config.watch_progress_notify_interval;
  options.snapshot_log_bytes_min = config.snapshot_log_bytes;
  options.snapshot_bytes_per_second = config.snapshot_bytes_per_second;
  options.file_check_interval = config.file_check_interval;
  options.snapshot_entries = config.snapshot_count;
  options.catch_up_entries = config.snapshot_catchup_entries;
  if (config.compact_hash_check) {
    options.divergence_report_interval = config.compact_hash_check_time;
  }
  options.corruption_report_interval = config.corrupt_check_time;
  if (config.compaction_batch_limit > 0) {
    options.compaction_slice_records = config.compaction_batch_limit;
  }
  options.compaction_rest = config.compaction_sleep_interval;
  options.initial_election_advance = config.initial_election_tick_advance;
  options.slow_request = config.warning_unary_request_duration;
  return options;
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& path, std::string_view what) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || content.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--auth-token: cannot read ", std::string(what), "=", path));
  }
  return content;
}

// Nothing in it for simple tokens.
absl::StatusOr<auth::JwtProvider> TokenProvider(const Config& config) {
  const size_t comma = config.auth_token.find(',');
  if (config.auth_token == "simple" || comma == std::string::npos) return auth::JwtProvider();
  CONCLAVE_ASSIGN_OR_RETURN(
      const auth::JwtSpec spec,
      auth::ParseJwtSpec(std::string_view(config.auth_token).substr(comma + 1)));
  CONCLAVE_ASSIGN_OR_RETURN(std::string public_key, ReadKeyFile(spec.public_key_file, "pub-key"));
  CONCLAVE_ASSIGN_OR_RETURN(std::string private_key,
                            ReadKeyFile(spec.private_key_file, "priv-key"));
  auto provider = auth::MakeJwtProvider(spec.method, public_key, private_key, spec.time_to_live);
  auth::Wipe(private_key.data(), private_key.size());
  if (!provider.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--auth-token: ", std::string(provider.status().message())));
  }
  return provider;
}

}  // namespace

class Server::Impl final : public http::Backend, private rpc::Door {
 public:
  explicit Impl(ServerOptions options) : options_(std::move(options)) {}
  ~Impl() override { Stop(Duration::zero()); }

  absl::Status Start();
  bool WaitReady(Duration timeout);
  void Stop(Duration timeout);
  std::vector<Url> client_urls() const { return client_urls_; }
  absl::Status failure() {
    std::lock_guard lock(mutex_);
    return failure_;
  }
  bool diverged() const { return diverged_.load(std::memory_order_acquire); }
  bool wants_reload() const { return wants_reload_.load(std::memory_order_acquire); }

  // http::Backend
  void Call(node::Method method, std::string request,
            std::function<void(node::Reply)> done) override {
    core_->Call(method, std::move(request), std::move(done));
  }
  std::shared_ptr<local::Call> Open(local::CallOptions options,
                                    std::shared_ptr<local::Listener> listener) override {
    return local_->Start(std::move(options), std::move(listener));
  }
  void GetStats(std::function<void(std::shared_ptr<const node::Stats>)> done) override {
    core_->GetStats(std::move(done));
  }
  std::string RenderMetrics(const node::Stats& stats) override {
    std::optional<recipes::XdsDoor::Figures> xds;
    {
      std::lock_guard lock(mutex_);  // they may be going
      for (const auto& door : xds_doors_) {
        const recipes::XdsDoor::Figures figures = door->figures();
        if (!xds.has_value()) xds.emplace();
        xds->watched += figures.watched;
        xds->waiting += figures.waiting;
        xds->streams += figures.streams;
        xds->responses += figures.responses;
        xds->acks += figures.acks;
        xds->nacks += figures.nacks;
      }
    }
    return app::RenderMetrics({.stats = &stats,
                               .queues = transport_->counters(),
                               .peers = transport_->peer_counters(),
                               .slow_turns = core_->slow_turns(),
                               .extensive = options_.config.extensive_metrics,
                               .start_time_seconds = start_time_seconds_,
                               .xds = xds});
  }
  std::optional<std::vector<std::string>> command_line() const override {
    return options_.config.enable_pprof ? std::optional(ShownCommandLine()) : std::nullopt;
  }
  std::string version() const override { return std::string(kProtocolVersion); }

 private:
  std::vector<size_t> AddEndpoints(const std::vector<Url>& urls, http::Serves serves,
                                   std::vector<http::Endpoint>* endpoints) const;
  // rpc::Door
  void Begin(rpc::Door::Call call) override {
    recipe_door_->Begin(
        {call.id, std::string(call.method), std::move(call.request), std::move(call.credentials)});
  }
  void Cancel(node::CallId id) override { recipe_door_->Cancel(id); }
  void Sent(node::CallId id, uint64_t bytes) override { recipe_door_->Sent(id, bytes); }

  void OpenRecipeDoor();
  absl::Status BindDoor();
  absl::Status OpenMember(node::Options* settings, node::Opened* opened);
  absl::Status OpenXdsDoors();
  void WatchJoining(uint64_t cluster_id);
  bool HasState();
  void CheckFiles();
  void StartDiskThreads(uint64_t cluster_id, std::unique_ptr<wal::Log> log);
  CoreSinks Sinks();
  void OnReady();
  void OnStopped();

  ServerOptions options_;
  const double start_time_seconds_ =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::vector<Url> client_urls_;
  raft::NodeId member_id_;
  std::optional<std::vector<node::PeerAddress>> joining_;  // the others, of a member that joins

  // In the order of their lives: what stands below uses what stands above.
  TlsPolicies tls_;
  std::unique_ptr<http::FrontDoor> door_;
  std::shared_ptr<env::Disk> disk_;
  std::unique_ptr<env::Lock> lock_;
  std::unique_ptr<env::Lock> log_lock_;  // of --wal-dir
  std::unique_ptr<posix::Worker> worker_;
  std::unique_ptr<posix::SnapshotWriter> snapshot_writer_;
  uint64_t cluster_id_ = 0;
  std::unique_ptr<posix::FileCheck> file_check_;  // the worker's
  std::unique_ptr<posix::LogThread> log_thread_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<PasswordWorker> password_worker_;
  std::unique_ptr<recipes::RecipeDoor> recipe_door_;  // asked by the transport, and answers to it
  Http2Bridge http2_bridge_;
  std::unique_ptr<rpc::Transport> transport_;
  std::unique_ptr<local::LocalChannel> local_;
  std::unique_ptr<AutoCompactor> compactor_;
  std::unique_ptr<JoinWatch> join_watch_;
  std::unique_ptr<OwnSocket> own_socket_;  // the way in for what follows
  std::vector<std::unique_ptr<recipes::XdsDoor>>
      xds_doors_;  // clients of all this; guarded by mutex_

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = false;
  std::atomic<bool> diverged_{false};
  std::atomic<bool> wants_reload_{false};
  bool node_stopped_ = false;
  bool shut_down_ = false;
  absl::Status failure_;
};

// One endpoint for each address: http:// and https:// may share it.
std::vector<size_t> Server::Impl::AddEndpoints(const std::vector<Url>& urls, http::Serves serves,
                                               std::vector<http::Endpoint>* endpoints) const {
  std::vector<size_t> indices;
  for (const Url& url : urls) {
    const http::Endpoint endpoint{.host = url.host,
                                  .port = url.port,
                                  .serves = serves,
                                  .reuse_port = options_.config.socket_reuse_port,
                                  .is_unix = url.is_unix(),
                                  .plain = !url.is_tls(),
                                  .tls = url.is_tls() ? tls_.client.get() : nullptr};
    const auto same =
        std::find_if(endpoints->begin(), endpoints->end(), [&](const http::Endpoint& other) {
          return url.port != 0 && other.host == url.host && other.port == url.port &&
                 other.serves == serves;
        });
    indices.push_back(static_cast<size_t>(same - endpoints->begin()));
    if (same == endpoints->end()) {
      endpoints->push_back(endpoint);
    } else {
      same->plain = same->plain || endpoint.plain;
      if (endpoint.tls != nullptr) same->tls = endpoint.tls;
    }
  }
  return indices;
}

absl::Status Server::Impl::BindDoor() {
  std::vector<http::Endpoint> endpoints;
  const std::vector<Url>& http_urls = options_.config.listen_client_http_urls;
  const http::Serves serves = http_urls.empty() ? http::Serves::kAll : http::Serves::kGrpcOnly;
  const std::vector<size_t> indices =
      AddEndpoints(options_.config.listen_client_urls, serves, &endpoints);
  AddEndpoints(http_urls, http::Serves::kHttpOnly, &endpoints);
  AddEndpoints(options_.config.listen_metrics_urls, http::Serves::kMetrics, &endpoints);
  CONCLAVE_ASSIGN_OR_RETURN(
      door_, http::FrontDoor::Bind(endpoints, {.log =
                                                   [log = options_.log](tls::Policy::Note note) {
                                                     log->Warn(note.message,
                                                               std::move(note.fields));
                                                   },
                                               .clients_max = ClientsMax()}));
  client_urls_ = options_.config.listen_client_urls;
  const std::vector<uint16_t> ports = door_->ports();
  for (size_t i = 0; i < client_urls_.size(); ++i) {
    // A port that was picked is what clients have to be told.
    for (Url& url : options_.config.advertise_client_urls) {
      if (url.port == 0 && client_urls_[i].port == 0 && !url.is_unix())
        url.port = ports[indices[i]];
    }
    client_urls_[i].port = ports[indices[i]];
  }
  return absl::OkStatus();
}

absl::Status Server::Impl::OpenMember(node::Options* settings, node::Opened* opened) {
  const Config& config = options_.config;
  if (options_.disk != nullptr) {
    disk_ = options_.disk;
  } else {
    CONCLAVE_ASSIGN_OR_RETURN(disk_, posix::OpenDisk(config.data_dir));
  }
  std::shared_ptr<env::Disk> log_disk;
  if (!config.wal_dir.empty()) {
    CONCLAVE_ASSIGN_OR_RETURN(log_disk, posix::OpenDisk(config.wal_dir));
    disk_ = std::make_shared<env::SplitDisk>(disk_, wal::kDirectory, log_disk);
  }
  CONCLAVE_ASSIGN_OR_RETURN(MemberStart start, DecideStart(*disk_, config, tls_.peer.get()));
  joining_ = start.joining;
  settings->id = start.id;
  settings->cluster_id = start.cluster_id;
  // The lock is a file: it must not be left in somebody else's directory.
  const absl::Status owner = node::CheckOwner(*disk_, *settings);
  if (owner.ok() || posix::HasLockFile(*disk_)) {
    CONCLAVE_ASSIGN_OR_RETURN(lock_, posix::LockDataDirectory(*disk_));
    if (log_disk != nullptr) {
      CONCLAVE_ASSIGN_OR_RETURN(log_lock_, posix::LockDataDirectory(*log_disk));
    }
  }
  CONCLAVE_RETURN_IF_ERROR(owner);
  auto found = node::OpenMember(
      *disk_, *settings, start.founders.has_value() ? &*start.founders : nullptr,
      {.segment_bytes = config.log_segment_bytes,
       .joining = std::move(start.joining),
       .force_new_cluster = config.force_new_cluster,
       .ask_others = [&] { return AskOthers(config, tls_.peer.get(), settings->id); }});
  if (!found.ok()) return found.status();
  *opened = *std::move(found);
  for (const std::string& note : opened->notes) {
    options_.log->Warn("recovery", {{"note", note}});
  }
  options_.log->Info(opened->first_start ? "starting a new member" : "restarting local member",
                     {{"name", config.name},
                      {"data-dir", config.data_dir},
                      {"local-member-id", absl::StrCat(absl::Hex(settings->id.value()))},
                      {"cluster-id", absl::StrCat(absl::Hex(settings->cluster_id))}});
  return absl::OkStatus();
}

// On the worker.
void Server::Impl::CheckFiles() {
  if (file_check_ == nullptr) {
    file_check_ = std::make_unique<posix::FileCheck>(disk_.get(), cluster_id_);
  }
  posix::FileCheck::Outcome outcome = file_check_->Next();
  if (outcome.done) file_check_.reset();
  core_->Post(node::FilesChecked{outcome.done, std::move(outcome.damage)});
}

void Server::Impl::StartDiskThreads(uint64_t cluster_id, std::unique_ptr<wal::Log> log) {
  cluster_id_ = cluster_id;
  worker_ = std::make_unique<posix::Worker>();
  posix::SnapshotWriter::Options snapshots;
  snapshots.cluster_id = cluster_id;
  snapshots.written = [this](uint64_t bytes) { core_->Post(node::SnapshotWritten{bytes}); };
  snapshots.saved = [this](const snapshot::Saved& saved) {
    core_->Post(std::make_unique<node::SnapshotSaved>(
        node::SnapshotSaved{.meta = saved.meta, .bytes = saved.bytes}));
    options_.log->Write(
        "server/app",
        {.message = "saved snapshot",
         .numbers = {{"snapshot-index", static_cast<int64_t>(saved.meta.index.value())},
                     {"bytes", static_cast<int64_t>(saved.bytes)}}});
  };
  snapshots.failed = [this](const raft::SnapshotMeta& meta, const absl::Status& status) {
    core_->Post(std::make_unique<node::SnapshotSaved>(
        node::SnapshotSaved{.meta = meta, .bytes = 0, .failed = true}));
    options_.log->Warn("failed to save snapshot", {{"error", std::string(status.message())}});
  };
  snapshot_writer_ =
      std::make_unique<posix::SnapshotWriter>(disk_.get(), worker_.get(), std::move(snapshots));
  posix::LogThread::Options logging;
  logging.synced = [this](uint64_t batch, Duration write_time) {
    core_->Post(node::LogSynced{batch, write_time});
  };
  logging.space = [this](posix::LogThread::Space space) {
    core_->Post(node::DiskSpace{.full = space == posix::LogThread::Space::kFull,
                                .tight = space == posix::LogThread::Space::kTight});
  };
  logging.worker = worker_.get();
  log_thread_ = std::make_unique<posix::LogThread>(std::move(log), std::move(logging));
}

// Plain and TLS addresses are doors of their own, over one way into the server.
absl::Status Server::Impl::OpenXdsDoors() {
  if (options_.config.listen_xds_urls.empty()) return absl::OkStatus();
  CONCLAVE_ASSIGN_OR_RETURN(own_socket_, OwnSocket::Open());
  for (const bool with_tls : {false, true}) {
    recipes::XdsDoor::Options options;
    std::vector<Url> urls;
    for (const Url& url : options_.config.listen_xds_urls) {
      if (url.is_tls() == with_tls) urls.push_back(url);
    }
    if (urls.empty()) continue;
    for (const Url& url : urls) options.listen.push_back(url.HostPort());
    options.store = own_socket_->endpoint();
    if (with_tls) {
      CONCLAVE_ASSIGN_OR_RETURN(options.credentials, XdsCredentials(tls_.client.get()));
    }
    options.may_see = [this, names_count = options_.config.client_tls.files.client_cert_auth](
                          const std::string& user, const std::string& service, auto answer) {
      AskMaySee(core_.get(), names_count ? user : std::string(), service, std::move(answer));
    };
    options.log = [log = options_.log](LogLevel level, std::string_view line) {
      if (level >= LogLevel::kWarning) log->Warn("xds", {{"note", std::string(line)}});
    };
    auto door = recipes::XdsDoor::Start(std::move(options));
    if (!door.ok()) {
      return absl::Status(door.status().code(), absl::StrCat("--listen-xds-urls: ",
                                                             std::string(door.status().message())));
    }
    const std::vector<int> ports = (*door)->ports();
    for (size_t i = 0; i < ports.size(); ++i) {
      urls[i].port = static_cast<uint16_t>(ports[i]);
      options_.log->Info(
          with_tls ? "serving xDS clients securely" : "serving xDS clients insecurely",
          {{"address", urls[i].HostPort()}});
    }
    xds_doors_.push_back(*std::move(door));
  }
  return absl::OkStatus();
}

// As far as the node says; one that is stopping says nothing.
bool Server::Impl::HasState() {
  constexpr Duration kAnswerTimeout = std::chrono::seconds(1);
  auto has_state = std::make_shared<std::promise<bool>>();
  std::future<bool> answer = has_state->get_future();
  core_->GetStats([has_state](std::shared_ptr<const node::Stats> stats) {
    has_state->set_value(stats->applied > raft::Index());
  });
  return answer.wait_for(kAnswerTimeout) == std::future_status::ready && answer.get();
}

void Server::Impl::WatchJoining(uint64_t cluster_id) {
  if (!joining_.has_value()) return;
  JoinWatch::Options options;
  options.self = member_id_;
  options.cluster_id = cluster_id;
  for (const auto& [name, urls] : options_.config.initial_cluster) {
    if (name != options_.config.name) options.initial.push_back(Texts(urls));
  }
  options.others = *std::move(joining_);
  options.peer_tls = tls_.peer.get();
  options.joined = [this] { return HasState(); };
  options.met = [this](std::vector<node::PeerAddress> others) {
    core_->Post(node::Acquaintances{std::move(others)});
  };
  options.give_up = [this](absl::Status why) {
    options_.log->Error("cannot join the cluster", {{"error", std::string(why.message())}});
    {
      std::lock_guard lock(mutex_);
      failure_ = std::move(why);
    }
    OnStopped();
  };
  join_watch_ = std::make_unique<JoinWatch>(std::move(options));
}

// Nothing is asked of either before the transport serves clients.
void Server::Impl::OpenRecipeDoor() {
  local_ = std::make_unique<local::LocalChannel>([this](int fd) { transport_->HandOver(fd); });
  recipes::RecipeDoor::Options options;
  options.channel = local_.get();
  options.seed = RandomSeed();
  options.reply = [this](node::Reply reply) { transport_->Answer(std::move(reply)); };
  options.stream = [this](node::StreamEffect effect) { transport_->Answer(std::move(effect)); };
  recipe_door_ = std::make_unique<recipes::RecipeDoor>(std::move(options));
}

CoreSinks Server::Impl::Sinks() {
  CoreSinks sinks;
  sinks.append = [this](node::LogAppend append) {
    posix::LogWrite write;
    write.batch = append.batch;
    if (append.reset.has_value()) {
      write.reset = wal::Position{append.reset->index, append.reset->term};
    }
    write.hard_state = append.hard_state;
    write.entries = std::move(append.entries);
    log_thread_->Append(std::move(write));
  };
  sinks.snapshot_piece = [this](node::SnapshotPiece piece) {
    snapshot_writer_->Take(
        {std::move(piece.meta), std::move(piece.data), piece.first, piece.last, piece.abandon});
  };
  sinks.truncate = [this](node::LogTruncate truncate) {
    log_thread_->TruncatePrefix(truncate.index);
  };
  sinks.password_job = [this](auth::PasswordJob job) { password_worker_->Take(std::move(job)); };
  sinks.log = [this](const node::LogLine& line) { options_.log->Write("server/node", line); };
  sinks.slow_turn = options_.config.warning_apply_duration;
  sinks.ready = [this] { OnReady(); };
  sinks.stopped = [this] { OnStopped(); };
  sinks.diverged = [this] {
    diverged_.store(true, std::memory_order_release);
    OnStopped();
  };
  sinks.defragmented = [this] {
    if (options_.config.stop_grpc_service_on_defrag) transport_->TellOfPause();
  };
  sinks.check_files = [this] { worker_->Run([this] { CheckFiles(); }); };
  sinks.reload = [this] {
    wants_reload_.store(true, std::memory_order_release);
    OnStopped();
  };
  return sinks;
}

absl::Status Server::Impl::Start() {
  const Config& config = options_.config;
  CONCLAVE_ASSIGN_OR_RETURN(tls_, SetUpTls(config, options_.log));
  CONCLAVE_RETURN_IF_ERROR(BindDoor());
  node::Options settings = NodeSettings(config);
  CONCLAVE_ASSIGN_OR_RETURN(const auth::JwtProvider tokens, TokenProvider(config));
  settings.token_verifier = tokens.verifier;
  password_worker_ = std::make_unique<PasswordWorker>(
      tokens.signer,
      [this](std::unique_ptr<auth::PasswordOutcome> outcome) { core_->Post(std::move(outcome)); });
  node::Opened opened;
  CONCLAVE_RETURN_IF_ERROR(OpenMember(&settings, &opened));

  member_id_ = settings.id;
  const bool own_thread =
      config.core_placement == "thread" ||
      (config.core_placement == "auto" && config.queue_threads > 1 && UsableCores() > 2);
  rpc::TransportOptions network = TransportSettings(config, options_.peers);
  network.client_tls = tls_.client.get();
  network.peer_tls = tls_.peer.get();
  network.member = settings.id;
  network.cluster_id = settings.cluster_id;
  network.local_reply = [this](node::Reply reply) { core_->OnLocalReply(std::move(reply)); };
  network.door = this;
  network.http = &http2_bridge_;
  network.log = [log = options_.log](const node::LogLine& line) { log->Write("server/rpc", line); };

  auto node = std::make_unique<node::Node>(settings, std::move(opened.recovered), rpc::Now());
  core_ = std::make_unique<Core>(own_thread ? CorePlacement::kOwnThread : CorePlacement::kOnQueue,
                                 std::move(node), Sinks());
  StartDiskThreads(settings.cluster_id, std::move(opened.log));
  // Their clients' connections wait in the socket's backlog until there is who serves them.
  CONCLAVE_RETURN_IF_ERROR(OpenXdsDoors());
  OpenRecipeDoor();
  CONCLAVE_ASSIGN_OR_RETURN(transport_, rpc::Transport::Start(std::move(network), core_.get()));
  core_->Start(transport_.get());
  rpc::Transport* const transport = transport_.get();
  http2_bridge_.Open(door_->OpenHttp2(AnswersTo(transport)));
  door_->Start(
      [transport](http::Handed handed) { transport->HandOver(AcceptedOf(&handed)); }, this,
      {.access = config.http_access,
       .message_bytes_max = kJsonOverhead * (config.max_request_bytes + kReceiveOverhead)});
  if (own_socket_ != nullptr) {
    own_socket_->Start(
        [transport](int fd) { transport->HandOver({.fd = fd, .is_server_itself = true}); });
  }
  WatchJoining(settings.cluster_id);
  if (config.auto_compaction_mode != CompactionMode::kOff) {
    compactor_ = std::make_unique<AutoCompactor>(config, this, options_.log);
  }
  return absl::OkStatus();
}

void Server::Impl::OnReady() {
  // Recovery has held a snapshot's chunks and the log's entries, and is over.
  malloc_trim(0);
  options_.log->Info(
      "published local member to cluster through raft",
      {{"local-member-id", absl::StrCat(absl::Hex(member_id_.value()))},
       {"local-member-attributes",
        absl::StrCat("{Name:", options_.config.name, " ClientURLs:[",
                     absl::StrJoin(Texts(options_.config.advertise_client_urls), " "), "]}")}});
  options_.log->Info("ready to serve client requests");
  for (const Url& url : client_urls_) {
    options_.log->Info(url.is_tls()
                           ? "serving client traffic securely"
                           : "serving client traffic insecurely; this is strongly discouraged!",
                       {{"traffic", "grpc+http"}, {"address", url.HostPort()}});
  }
  {
    std::lock_guard lock(mutex_);
    ready_ = true;
    changed_.notify_all();
  }
  if (options_.on_ready) options_.on_ready();
}

void Server::Impl::OnStopped() {
  {
    std::lock_guard lock(mutex_);
    node_stopped_ = true;
    changed_.notify_all();
  }
  if (options_.on_stopped) options_.on_stopped();
}

bool Server::Impl::WaitReady(Duration timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [this] { return ready_; });
}

void Server::Impl::Stop(Duration timeout) {
  // Destroyed without the lock: they wait for threads.
  std::vector<std::unique_ptr<recipes::XdsDoor>> xds_doors;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(shut_down_, true)) return;
    xds_doors = std::exchange(xds_doors_, {});
  }
  xds_doors.clear();
  own_socket_.reset();
  compactor_.reset();
  join_watch_.reset();
  if (recipe_door_) recipe_door_->Stop();
  if (core_ && transport_ && timeout > Duration::zero()) {
    core_->Post(node::StopRequest{});
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [this] { return node_stopped_; });
  }
  if (core_) core_->Stop();
  password_worker_.reset();
  if (door_) door_->StopHttp2();
  if (transport_) transport_->Stop(kConnectionGrace);
  if (door_) door_->Stop();
  local_.reset();
  // The log thread's reports go to the core, so it ends first; so do the worker's.
  log_thread_.reset();
  snapshot_writer_.reset();
  worker_.reset();
  if (diverged()) {
    const absl::Status status = snapshot::KeepAsEvidence(*disk_);
    if (!status.ok()) {
      options_.log->Warn("cannot set the snapshots aside",
                         {{"error", std::string(status.message())}});
    }
  }
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

bool Server::WaitReady(Duration timeout) { return impl_->WaitReady(timeout); }
void Server::Stop(Duration timeout) { impl_->Stop(timeout); }
absl::Status Server::failure() const { return impl_->failure(); }
std::vector<Url> Server::client_urls() const { return impl_->client_urls(); }
bool Server::diverged() const { return impl_->diverged(); }
bool Server::wants_reload() const { return impl_->wants_reload(); }

}  // namespace conclave::app
