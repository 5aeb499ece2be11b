// TestCluster: real server processes for tests, ours or Debian's etcd, one member or more.
//
//   class KvTest : public testing::TestWithParam<ServerUnderTest> {};
//   TEST_P(KvTest, Puts) {
//     CONCLAVE_START_CLUSTER(cluster, GetParam());      // skips, saying why, if the binary is
//     absent
//     ... Client::Connect({.endpoints = cluster->endpoints()}) ...
//   }
//   INSTANTIATE_TEST_SUITE_P(Servers, KvTest, testing::ValuesIn(AllServers()), ServerName);
//
// The binaries: CONCLAVE_TEST_ETCD and CONCLAVE_TEST_SERVER, or else <build>/peers/usr/bin/etcd and
// <build>/bin/conclave. Ports are free ones on 127.0.0.1; data lies in a temporary directory that
// goes with the cluster. The processes die with the thread that started them (PR_SET_PDEATHSIG), so
// start clusters from the test's own thread.
#pragma once

#include <sys/types.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/tests/support/tcp_proxy.h"
#include "gtest/gtest.h"

namespace conclave::testing {

enum class ServerKind { kEtcd, kConclave };

struct ServerUnderTest {
  ServerKind kind = ServerKind::kEtcd;
  int members = 1;

  friend bool operator==(const ServerUnderTest&, const ServerUnderTest&) = default;
};

void PrintTo(const ServerUnderTest& server, std::ostream* out);

// All four: etcd and conclave, one and three members. A binary that is absent makes a skip, not a
// gap.
std::vector<ServerUnderTest> AllServers();
std::vector<ServerUnderTest> SingleServers();  // one member only
std::vector<ServerUnderTest> TripleServers();  // three members only
// "etcd1", "conclave3": for INSTANTIATE_TEST_SUITE_P.
std::string ServerName(const ::testing::TestParamInfo<ServerUnderTest>& info);

// Path of the binary, or an error that says what to set.
absl::StatusOr<std::string> ServerBinary(ServerKind kind);

class TestCluster {
 public:
  struct Options {
    ServerKind kind = ServerKind::kEtcd;
    int members = 1;
    std::vector<std::string> extra_flags{};
    int heartbeat_ms = 50;
    int election_ms = 500;      // so the shortest lease is 1 s
    bool peer_proxies = false;  // members reach each other through TcpProxies
  };

  // Starts all members and waits until each serves a linearizable read. NotFound: no binary.
  static absl::StatusOr<std::unique_ptr<TestCluster>> Start(const Options& options);
  static absl::StatusOr<std::unique_ptr<TestCluster>> Start(const ServerUnderTest& server) {
    return Start(Options{.kind = server.kind, .members = server.members});
  }
  // A cluster that all tests of this process share; for tests that leave it whole and use keys of
  // their own. Null if the binary is absent (see ServerBinary for the reason).
  static TestCluster* Shared(const ServerUnderTest& server);

  ~TestCluster();
  TestCluster(const TestCluster&) = delete;
  TestCluster& operator=(const TestCluster&) = delete;

  int size() const { return static_cast<int>(members_.size()); }
  ServerKind kind() const { return options_.kind; }
  // "127.0.0.1:port" of the client ports.
  std::vector<std::string> endpoints() const;
  std::string endpoint(int member) const;
  int client_port(int member) const { return members_.at(member).client_port; }
  // With peer_proxies: what stands in front of the member's peer port.
  TcpProxy& peer_proxy(int member) { return *members_.at(member).peer_proxy; }
  std::string JoinedEndpoints() const;  // with commas, for command lines
  pid_t pid(int member) const;
  std::string log_path(int member) const;
  std::string data_dir(int member) const;

  void Kill(int member);       // SIGKILL, and reaped
  void Terminate(int member);  // SIGTERM, and reaped (SIGKILL after 10 s)
  void Pause(int member);      // SIGSTOP
  void Resume(int member);     // SIGCONT
  // Starts a member that was killed, on its old ports and data. Does not wait. `under`: a command
  // that runs it and becomes it, such as `strace -D`.
  absl::Status Restart(int member, const std::vector<std::string>& under = {});
  // Waits until a member ends of its own accord: its exit code, or minus the signal.
  absl::StatusOr<int> WaitEnd(int member, absl::Duration timeout = absl::Seconds(20));
  absl::Status WaitHealthy(int member, absl::Duration timeout = absl::Seconds(20));
  absl::Status WaitAllHealthy(absl::Duration timeout = absl::Seconds(20));
  // Index of the member that leads; Unavailable if none is known within the timeout.
  absl::StatusOr<int> Leader(absl::Duration timeout = absl::Seconds(10));

 private:
  struct MemberProcess {
    std::string name;
    std::string directory;
    int client_port = 0;
    int peer_port = 0;
    std::unique_ptr<TcpProxy> peer_proxy{};  // null: others connect directly
    pid_t pid = -1;
    bool paused = false;
  };

  TestCluster(Options options, std::string binary, std::string directory);
  absl::Status ChoosePorts();
  static std::string PeerUrl(const MemberProcess& member);  // as others know it
  absl::Status Launch(MemberProcess& member, const std::vector<std::string>& under = {});
  void Reap(MemberProcess& member, int signal, absl::Duration patience);
  std::string LogTail(const MemberProcess& member) const;

  const Options options_;
  const std::string binary_;
  const std::string directory_;
  bool existing_ = false;
  std::vector<MemberProcess> members_;
};

// A port of 127.0.0.1 that nobody listens on, below the range the system hands out by itself.
int FreePort();

// Waits until `condition()` is true, looking every few milliseconds; false at the timeout. For
// conditions of other processes, where there is nothing to wait on.
template <typename Condition>
[[nodiscard]] bool WaitFor(Condition&& condition, absl::Duration timeout = absl::Seconds(10)) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

// A process of the test's own (etcdctl, another copy of the test binary): output to a file, killed
// when the object goes.
class ChildProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      const std::vector<std::string>& argv, const std::vector<std::string>& env = {});
  ~ChildProcess();
  pid_t pid() const { return pid_; }
  std::string Output() const;  // stdout and stderr so far
  bool Running();
  void Signal(int signal);
  // Exit code, or -signal; waits.
  absl::StatusOr<int> Wait(absl::Duration timeout = absl::Seconds(20));

 private:
  ChildProcess(pid_t pid, std::string output_path)
      : pid_(pid), output_path_(std::move(output_path)) {}
  pid_t pid_;
  std::string output_path_;
  bool reaped_ = false;
  int code_ = 0;
};

// Runs a command to its end; its output. An error carries the exit code and the output.
absl::StatusOr<std::string> RunCommand(const std::vector<std::string>& argv,
                                       absl::Duration timeout = absl::Seconds(20));
// etcdctl with ETCDCTL_API=3 against the cluster.
absl::StatusOr<std::string> Etcdctl(const TestCluster& cluster, std::vector<std::string> args);
std::vector<std::string> EtcdctlCommand(const TestCluster& cluster, std::vector<std::string> args);

}  // namespace conclave::testing

#define CONCLAVE_START_CLUSTER(name, ...)                                 \
  if (auto binary_ = ::conclave::testing::ServerBinary(                   \
          ::conclave::testing::ServerUnderTest(__VA_ARGS__).kind);        \
      !binary_.ok()) {                                                    \
    GTEST_SKIP() << binary_.status().message();                           \
  }                                                                       \
  auto name##_or_ = ::conclave::testing::TestCluster::Start(__VA_ARGS__); \
  ASSERT_TRUE(name##_or_.ok()) << name##_or_.status();                    \
  std::unique_ptr<::conclave::testing::TestCluster> name = *std::move(name##_or_)

#define CONCLAVE_SHARED_CLUSTER(name, server)                                                \
  if (auto binary_ = ::conclave::testing::ServerBinary((server).kind); !binary_.ok()) {      \
    GTEST_SKIP() << binary_.status().message();                                              \
  }                                                                                          \
  ::conclave::testing::TestCluster* name = ::conclave::testing::TestCluster::Shared(server); \
  ASSERT_NE(name, nullptr) << "the shared cluster did not start"
