#include "conclave/tests/support/test_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "conclave/tests/support/probe.h"

namespace conclave::testing {
namespace {

constexpr int kStartAttemptsMax = 3;  // a port may be taken between our look and the server's bind

const char* KindName(ServerKind kind) { return kind == ServerKind::kEtcd ? "etcd" : "conclave"; }

bool PortIsFree(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return free;
}

}  // namespace

int FreePort() {
  static std::mt19937 random{std::random_device{}()};
  static std::set<int> given;
  for (;;) {
    const int port = std::uniform_int_distribution<int>(12000, 31999)(random);
    if (PortIsFree(port) && given.insert(port).second) return port;
  }
}

void PrintTo(const ServerUnderTest& server, std::ostream* out) {
  *out << KindName(server.kind) << " with " << server.members << " member(s)";
}

std::vector<ServerUnderTest> SingleServers() {
  return {{ServerKind::kEtcd, 1}, {ServerKind::kConclave, 1}};
}

std::vector<ServerUnderTest> TripleServers() {
  return {{ServerKind::kEtcd, 3}, {ServerKind::kConclave, 3}};
}

std::vector<ServerUnderTest> AllServers() {
  return {{ServerKind::kEtcd, 1},
          {ServerKind::kEtcd, 3},
          {ServerKind::kConclave, 1},
          {ServerKind::kConclave, 3}};
}

std::string ServerName(const ::testing::TestParamInfo<ServerUnderTest>& info) {
  return absl::StrCat(KindName(info.param.kind), info.param.members);
}

absl::StatusOr<std::string> ServerBinary(ServerKind kind) {
  const bool etcd = kind == ServerKind::kEtcd;
  const char* variable = etcd ? "CONCLAVE_TEST_ETCD" : "CONCLAVE_TEST_SERVER";
  const char* from_environment = std::getenv(variable);
  const std::string path = from_environment != nullptr ? from_environment
                           : etcd                      ? CONCLAVE_PEERS_DIR "/etcd"
                                                       : CONCLAVE_BUILD_DIR "/bin/conclave";
  if (access(path.c_str(), X_OK) == 0) return path;
  return absl::NotFoundError(
      absl::StrCat("no ", KindName(kind), " at ", path, ": set ", variable,
                   etcd ? " or run scripts/test, which unpacks it" : " or build conclave"));
}

TestCluster::TestCluster(Options options, std::string binary, std::string directory)
    : options_(std::move(options)), binary_(std::move(binary)), directory_(std::move(directory)) {
  for (int i = 0; i < options_.members; ++i) {
    MemberProcess member;
    member.name = absl::StrCat("m", i);
    member.directory = absl::StrCat(directory_, "/", member.name);
    members_.push_back(std::move(member));
  }
}

TestCluster::~TestCluster() {
  for (MemberProcess& member : members_) Reap(member, SIGKILL, absl::Seconds(10));
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

absl::Status TestCluster::ChoosePorts() {
  for (MemberProcess& member : members_) {
    member.client_port = FreePort();
    member.peer_port = FreePort();
    if (!options_.peer_proxies) continue;
    absl::StatusOr<std::unique_ptr<TcpProxy>> proxy = TcpProxy::Start(member.peer_port);
    if (!proxy.ok()) return proxy.status();
    member.peer_proxy = *std::move(proxy);
  }
  return absl::OkStatus();
}

std::string TestCluster::PeerUrl(const MemberProcess& member) {
  return absl::StrCat("http://127.0.0.1:",
                      member.peer_proxy != nullptr ? member.peer_proxy->port() : member.peer_port);
}

absl::StatusOr<std::unique_ptr<TestCluster>> TestCluster::Start(const Options& options) {
  absl::StatusOr<std::string> binary = ServerBinary(options.kind);
  if (!binary.ok()) return binary.status();
  absl::Status why;
  for (int attempt = 0; attempt < kStartAttemptsMax; ++attempt) {
    std::string directory = absl::StrCat(::testing::TempDir(), "conclave-cluster-XXXXXX");
    if (mkdtemp(directory.data()) == nullptr) {
      return absl::InternalError(absl::StrCat("cannot make ", directory));
    }
    std::unique_ptr<TestCluster> cluster(new TestCluster(options, *binary, directory));
    if (absl::Status chosen = cluster->ChoosePorts(); !chosen.ok()) return chosen;
    for (MemberProcess& member : cluster->members_) {
      why = cluster->Launch(member);
      if (!why.ok()) break;
    }
    if (why.ok()) why = cluster->WaitAllHealthy();
    if (why.ok()) {
      cluster->existing_ = true;
      return cluster;
    }
  }
  return why;
}

TestCluster* TestCluster::Shared(const ServerUnderTest& server) {
  static auto& clusters = *new std::map<std::pair<int, int>, std::unique_ptr<TestCluster>>;
  static const int cleanup = std::atexit([] { clusters.clear(); });
  (void)cleanup;
  std::unique_ptr<TestCluster>& cluster = clusters[{static_cast<int>(server.kind), server.members}];
  if (cluster == nullptr) {
    absl::StatusOr<std::unique_ptr<TestCluster>> started = Start(server);
    if (!started.ok()) {
      std::fprintf(stderr, "%s\n", started.status().ToString().c_str());
      return nullptr;
    }
    cluster = *std::move(started);
  }
  return cluster.get();
}

absl::Status TestCluster::Launch(MemberProcess& member, const std::vector<std::string>& under) {
  std::vector<std::string> peers;
  for (const MemberProcess& each : members_) {
    peers.push_back(absl::StrCat(each.name, "=", PeerUrl(each)));
  }
  const std::string client_url = absl::StrCat("http://127.0.0.1:", member.client_port);
  const std::string peer_url = absl::StrCat("http://127.0.0.1:", member.peer_port);
  std::vector<std::string> argv = {
      binary_,
      absl::StrCat("--name=", member.name),
      absl::StrCat("--data-dir=", member.directory),
      absl::StrCat("--listen-client-urls=", client_url),
      absl::StrCat("--advertise-client-urls=", client_url),
      absl::StrCat("--listen-peer-urls=", peer_url),
      absl::StrCat("--initial-advertise-peer-urls=", PeerUrl(member)),
      absl::StrCat("--initial-cluster=", absl::StrJoin(peers, ",")),
      absl::StrCat("--initial-cluster-token=",
                   std::filesystem::path(directory_).filename().string()),
      absl::StrCat("--initial-cluster-state=", existing_ ? "existing" : "new"),
      absl::StrCat("--heartbeat-interval=", options_.heartbeat_ms),
      absl::StrCat("--election-timeout=", options_.election_ms)};
  argv.insert(argv.end(), options_.extra_flags.begin(), options_.extra_flags.end());
  argv.insert(argv.begin(), under.begin(), under.end());
  std::vector<char*> pointers;
  for (std::string& arg : argv) pointers.push_back(arg.data());
  pointers.push_back(nullptr);
  const std::string log = absl::StrCat(member.directory, ".log");
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return absl::InternalError(absl::StrCat("cannot write ", log));
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    setpgid(0, 0);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execvp(pointers[0], pointers.data());
    _exit(127);
  }
  close(fd);
  if (pid < 0) return absl::InternalError("fork failed");
  member.pid = pid;
  member.paused = false;
  return absl::OkStatus();
}

void TestCluster::Reap(MemberProcess& member, int signal, absl::Duration patience) {
  if (member.pid <= 0) return;
  kill(member.pid, signal);
  if (member.paused) kill(member.pid, SIGCONT);
  int status = 0;
  const auto ended = [&] { return waitpid(member.pid, &status, WNOHANG) != 0; };
  if (!WaitFor(ended, patience)) {
    kill(member.pid, SIGKILL);
    (void)WaitFor(ended, absl::InfiniteDuration());
  }
  member.pid = -1;
  member.paused = false;
}

std::string TestCluster::LogTail(const MemberProcess& member) const {
  std::ifstream file(absl::StrCat(member.directory, ".log"));
  std::ostringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  return all.size() > 4000 ? all.substr(all.size() - 4000) : all;
}

std::vector<std::string> TestCluster::endpoints() const {
  std::vector<std::string> all;
  for (int i = 0; i < size(); ++i) all.push_back(endpoint(i));
  return all;
}

std::string TestCluster::endpoint(int member) const {
  return absl::StrCat("127.0.0.1:", members_.at(member).client_port);
}

std::string TestCluster::JoinedEndpoints() const { return absl::StrJoin(endpoints(), ","); }

pid_t TestCluster::pid(int member) const { return members_.at(member).pid; }

std::string TestCluster::data_dir(int member) const { return members_.at(member).directory; }

std::string TestCluster::log_path(int member) const {
  return absl::StrCat(members_.at(member).directory, ".log");
}

void TestCluster::Kill(int member) { Reap(members_.at(member), SIGKILL, absl::Seconds(10)); }

void TestCluster::Terminate(int member) { Reap(members_.at(member), SIGTERM, absl::Seconds(10)); }

void TestCluster::Pause(int member) {
  const pid_t pid = members_.at(member).pid;
  kill(pid, SIGSTOP);
  // The signal stops one thread after the other: until the last of them stands, answers may come.
  int status = 0;
  while (waitpid(pid, &status, WUNTRACED) < 0 && errno == EINTR) {
  }
  members_.at(member).paused = true;
}

void TestCluster::Resume(int member) {
  kill(members_.at(member).pid, SIGCONT);
  members_.at(member).paused = false;
}

absl::Status TestCluster::Restart(int member, const std::vector<std::string>& under) {
  if (members_.at(member).pid > 0) return absl::FailedPreconditionError("it runs");
  return Launch(members_.at(member), under);
}

absl::StatusOr<int> TestCluster::WaitEnd(int member, absl::Duration timeout) {
  MemberProcess& process = members_.at(member);
  if (process.pid <= 0) return absl::FailedPreconditionError("it does not run");
  int status = 0;
  if (!WaitFor([&] { return waitpid(process.pid, &status, WNOHANG) == process.pid; }, timeout)) {
    return absl::DeadlineExceededError(absl::StrCat("member ", process.name, " goes on"));
  }
  process.pid = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

absl::Status TestCluster::WaitHealthy(int member, absl::Duration timeout) {
  MemberProcess& process = members_.at(member);
  absl::Status last = absl::UnknownError("not asked");
  const bool served_or_ended = WaitFor(
      [&] {
        int status = 0;
        if (process.pid <= 0 || waitpid(process.pid, &status, WNOHANG) == process.pid) {
          process.pid = -1;
          return true;
        }
        last = ProbeLinearizableRead(endpoint(member), absl::Milliseconds(500));
        return last.ok();
      },
      timeout);
  if (process.pid <= 0) {
    return absl::UnavailableError(
        absl::StrCat("member ", process.name, " has ended; its log: ", LogTail(process)));
  }
  if (served_or_ended) return last;
  return absl::DeadlineExceededError(absl::StrCat("member ", process.name,
                                                  " is not healthy: ", last.ToString(),
                                                  "; its log: ", LogTail(process)));
}

absl::Status TestCluster::WaitAllHealthy(absl::Duration timeout) {
  for (int i = 0; i < size(); ++i) {
    if (absl::Status status = WaitHealthy(i, timeout); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<int> TestCluster::Leader(absl::Duration timeout) {
  std::optional<int> leader;
  const auto found = [&] {
    for (int i = 0; i < size() && !leader; ++i) {
      if (members_[i].pid <= 0 || members_[i].paused) continue;
      absl::StatusOr<bool> leads = ProbeLeads(endpoint(i), absl::Milliseconds(500));
      if (leads.ok() && *leads) leader = i;
    }
    return leader.has_value();
  };
  if (!WaitFor(found, timeout)) return absl::UnavailableError("no member leads");
  return *leader;
}

}  // namespace conclave::testing
