#include "conclave/testing/embedded_cluster.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/server/app/config.h"
#include "conclave/server/app/log.h"
#include "conclave/server/app/server.h"
#include "conclave/server/env/memory/memory_disk.h"

namespace conclave::testing {
namespace {

constexpr char kHost[] = "127.0.0.1";
constexpr Duration kReadyTimeout = std::chrono::seconds(20);
constexpr Duration kStopTimeout = std::chrono::seconds(5);
constexpr Duration kLookAgain = std::chrono::milliseconds(20);
constexpr absl::Duration kLookTimeout = absl::Seconds(1);
// A port that was free may be taken before the server binds it.
constexpr int kAttemptsMax = 5;
constexpr uint64_t kSegmentBytes = uint64_t{1} << 20;
constexpr uint64_t kSnapshotLogBytes = uint64_t{8} << 20;

// Ports that nobody listens on now, all different.
absl::StatusOr<std::vector<uint16_t>> FreePorts(size_t count) {
  std::vector<int> sockets;
  std::vector<uint16_t> ports;
  for (size_t i = 0; i < count; ++i) {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket < 0) break;
    sockets.push_back(socket);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(socket, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      break;
    }
    ports.push_back(ntohs(address.sin_port));
  }
  for (int socket : sockets) close(socket);
  if (ports.size() < count) return absl::UnavailableError("no free ports on 127.0.0.1");
  return ports;
}

}  // namespace

class EmbeddedCluster::Impl {
 public:
  ~Impl() {
    for (Member& member : members) member.server.reset();
  }

  struct Member {
    app::Config config;
    std::shared_ptr<env::MemoryDisk> disk;
    std::unique_ptr<app::Server> server;
  };

  absl::Status Start(const Options& options);
  absl::Status Configure(const Options& options);
  absl::Status StartMember(size_t i) {
    app::ServerOptions settings;
    settings.config = members[i].config;
    settings.log = log;
    settings.disk = members[i].disk;
    CONCLAVE_ASSIGN_OR_RETURN(members[i].server, app::Server::Start(std::move(settings)));
    return absl::OkStatus();
  }

  std::shared_ptr<app::Log> log;
  std::vector<Member> members;
};

absl::Status EmbeddedCluster::Impl::Configure(const Options& options) {
  members.clear();
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<uint16_t> ports, FreePorts(2 * options.members));
  std::map<std::string, std::vector<app::Url>> founders;
  for (size_t i = 0; i < options.members; ++i) {
    founders[absl::StrCat("m", i)] = {{kHost, ports[2 * i]}};
  }
  for (size_t i = 0; i < options.members; ++i) {
    Member& member = members.emplace_back();
    member.disk = std::make_shared<env::MemoryDisk>(absl::StrCat("memory of m", i));
    app::Config& config = member.config;
    config.name = absl::StrCat("m", i);
    config.data_dir = member.disk->Describe();
    config.listen_peer_urls = {{kHost, ports[2 * i]}};
    config.initial_advertise_peer_urls = config.listen_peer_urls;
    config.listen_client_urls = {{kHost, ports[2 * i + 1]}};
    config.advertise_client_urls = config.listen_client_urls;
    config.initial_cluster = founders;
    config.heartbeat_interval = absl::ToChronoNanoseconds(options.heartbeat_interval);
    config.election_timeout = absl::ToChronoNanoseconds(options.election_timeout);
    config.log_segment_bytes = kSegmentBytes;
    config.snapshot_log_bytes = kSnapshotLogBytes;
    CONCLAVE_RETURN_IF_ERROR(app::Complete(&config));
  }
  return absl::OkStatus();
}

absl::Status EmbeddedCluster::Impl::Start(const Options& options) {
  if (options.members < 1 || options.members > kMembersMax) {
    return absl::InvalidArgumentError("a cluster has 1 to 9 members");
  }
  log = app::Log::Silent();
  if (!options.log_level.empty()) {
    CONCLAVE_ASSIGN_OR_RETURN(log,
                              app::Log::Open({.level = options.log_level, .outputs = {"stderr"}}));
  }
  absl::Status started;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    CONCLAVE_RETURN_IF_ERROR(Configure(options));
    for (size_t i = 0; i < members.size(); ++i) {
      started = StartMember(i);
      if (!started.ok()) break;
    }
    if (!absl::IsUnavailable(started)) break;
  }
  if (!started.ok()) return started;
  for (Member& member : members) {
    if (member.server->WaitReady(kReadyTimeout)) continue;
    return absl::UnavailableError("the embedded cluster did not become ready");
  }
  return absl::OkStatus();
}

EmbeddedCluster::EmbeddedCluster(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddedCluster::~EmbeddedCluster() = default;

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> EmbeddedCluster::Start() {
  return Start(Options());
}

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> EmbeddedCluster::Start(const Options& options) {
  auto impl = std::make_unique<Impl>();
  CONCLAVE_RETURN_IF_ERROR(impl->Start(options));
  return std::unique_ptr<EmbeddedCluster>(new EmbeddedCluster(std::move(impl)));
}

size_t EmbeddedCluster::size() const { return impl_->members.size(); }

std::string EmbeddedCluster::endpoint(size_t i) const {
  return impl_->members.at(i).config.listen_client_urls.front().HostPort();
}

std::vector<std::string> EmbeddedCluster::endpoints() const {
  std::vector<std::string> all;
  for (size_t i = 0; i < size(); ++i) all.push_back(endpoint(i));
  return all;
}

bool EmbeddedCluster::running(size_t i) const { return impl_->members.at(i).server != nullptr; }

absl::StatusOr<Client> EmbeddedCluster::Connect(ConnectOptions options) const {
  options.endpoints = endpoints();
  return Client::Connect(std::move(options));
}

std::optional<size_t> EmbeddedCluster::Leader() const {
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return std::nullopt;
  std::mutex mutex;
  std::condition_variable never;
  const auto end = std::chrono::steady_clock::now() + kReadyTimeout;
  while (std::chrono::steady_clock::now() < end) {
    std::map<uint64_t, size_t> member_of;
    std::map<uint64_t, size_t> votes;
    for (size_t i = 0; i < size(); ++i) {
      if (!running(i)) continue;
      absl::StatusOr<MemberStatus> status = client->Status(endpoint(i), {.timeout = kLookTimeout});
      if (!status.ok()) continue;
      member_of[status->member_id] = i;
      ++votes[status->leader];
    }
    for (const auto& [leader, count] : votes) {
      if (count > size() / 2 && member_of.contains(leader)) return member_of[leader];
    }
    std::unique_lock lock(mutex);
    never.wait_for(lock, kLookAgain);
  }
  return std::nullopt;
}

void EmbeddedCluster::Kill(size_t i) {
  Impl::Member& member = impl_->members.at(i);
  if (member.server == nullptr) return;
  member.server->Stop(Duration::zero());
  member.server.reset();
  member.disk->KillProcess();
}

void EmbeddedCluster::Stop(size_t i) {
  Impl::Member& member = impl_->members.at(i);
  if (member.server == nullptr) return;
  member.server->Stop(kStopTimeout);
  member.server.reset();
}

absl::Status EmbeddedCluster::Restart(size_t i) {
  return running(i) ? absl::OkStatus() : impl_->StartMember(i);
}

}  // namespace conclave::testing
