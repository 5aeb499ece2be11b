#include "conclave/server/app/embedded.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"
#include "conclave/server/app/config.h"
#include "conclave/server/app/server.h"
#include "conclave/server/env/memory/memory_disk.h"

namespace conclave {
namespace {

constexpr Duration kReadyTimeout = std::chrono::seconds(10);
constexpr Duration kStopTimeout = std::chrono::seconds(1);
// Small, for every file of a disk in memory is there twice.
constexpr uint64_t kMemorySegmentBytes = uint64_t{1} << 20;
constexpr uint64_t kMemorySnapshotLogBytes = uint64_t{8} << 20;

}  // namespace

class EmbeddedServer::Impl {
 public:
  ~Impl() {
    Stop();
    server.reset();
    if (temporary) {
      std::error_code ignored;
      std::filesystem::remove_all(data_dir, ignored);
    }
  }
  absl::Status ChooseDisk(const Options& options, app::ServerOptions* settings);
  void Stop() {
    if (server) server->Stop(kStopTimeout);
  }

  std::string data_dir;
  bool temporary = false;
  std::string endpoint;
  std::unique_ptr<app::Server> server;
};

EmbeddedServer::EmbeddedServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddedServer::~EmbeddedServer() = default;

absl::Status EmbeddedServer::Impl::ChooseDisk(const Options& options,
                                              app::ServerOptions* settings) {
  if (options.in_memory) {
    if (!options.data_dir.empty()) {
      return absl::InvalidArgumentError("in_memory and data_dir exclude each other");
    }
    settings->disk = std::make_shared<env::MemoryDisk>("memory");
    settings->config.data_dir = "memory";  // for messages
    settings->config.log_segment_bytes = kMemorySegmentBytes;
    settings->config.snapshot_log_bytes = kMemorySnapshotLogBytes;
    return absl::OkStatus();
  }
  data_dir = options.data_dir;
  if (data_dir.empty()) {
    std::error_code ignored;
    std::string pattern =
        (std::filesystem::temp_directory_path(ignored) / "conclave-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("cannot make a temporary directory: ", std::strerror(errno)));
    }
    data_dir = pattern;
    temporary = true;
  }
  settings->config.data_dir = data_dir;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EmbeddedServer>> EmbeddedServer::Start(Options options) {
  if (options.name.empty()) return absl::InvalidArgumentError("a server's name is not empty");
  auto impl = std::make_unique<Impl>();
  app::ServerOptions settings;
  settings.peers = false;
  const bool with_tls = !options.tls_cert_file.empty() || !options.tls_key_file.empty();
  CONCLAVE_ASSIGN_OR_RETURN(app::Url url,
                            app::ParseUrl((with_tls ? "https://" : "http://") + options.listen));
  tls::Options& files = settings.config.client_tls.files;
  files.cert_file = std::move(options.tls_cert_file);
  files.key_file = std::move(options.tls_key_file);
  files.ca_file = std::move(options.tls_ca_file);
  files.client_cert_auth = options.tls_client_cert_auth;
  CONCLAVE_RETURN_IF_ERROR(impl->ChooseDisk(options, &settings));
  settings.config.name = options.name;
  settings.config.quota_backend_bytes = options.quota_bytes;
  settings.config.listen_client_urls = {url};
  // Nobody dials it; but a member's id comes of its peer address, so it must stay the same.
  settings.config.listen_peer_urls = {{"embedded.invalid", 2380}};
  CONCLAVE_RETURN_IF_ERROR(app::Complete(&settings.config));
  settings.log = app::Log::Silent();
  if (!options.log_level.empty()) {
    CONCLAVE_ASSIGN_OR_RETURN(settings.log,
                              app::Log::Open({.level = options.log_level, .outputs = {"stderr"}}));
  }
  CONCLAVE_ASSIGN_OR_RETURN(impl->server, app::Server::Start(std::move(settings)));
  if (!impl->server->WaitReady(kReadyTimeout)) {
    return absl::UnavailableError("the embedded server did not become ready");
  }
  const app::Url served = impl->server->client_urls().front();
  impl->endpoint = with_tls ? served.Text() : served.HostPort();
  return std::unique_ptr<EmbeddedServer>(new EmbeddedServer(std::move(impl)));
}

std::string EmbeddedServer::client_endpoint() const { return impl_->endpoint; }
const std::string& EmbeddedServer::data_dir() const { return impl_->data_dir; }
void EmbeddedServer::Stop() { impl_->Stop(); }

}  // namespace conclave
