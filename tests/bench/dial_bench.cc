// What a channel of Dial costs a call over a plain round-robin channel to the same backends: CPU of
// this process (getrusage) per unary call. The two take turns, so that what else the machine does
// meets both; the backends are processes of their own.
//
//   dial_bench [--calls 4000] [--rounds 9] [--backends 3]
#include <grpcpp/grpcpp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/discovery/channel.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/discovery/echo_backend.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

using testing::Echo;

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "dial_bench: %s\n", why.c_str());
  std::exit(1);
}

// Serves until killed; tells its address by a pipe. Forked before gRPC is used in this process.
class BackendProcess {
 public:
  BackendProcess() {
    int report[2];
    if (pipe(report) != 0) Fail("pipe");
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      testing::EchoBackend backend;
      const std::string& address = backend.address();
      if (write(report[1], address.data(), address.size()) < 0) _exit(1);
      close(report[1]);
      pause();
      _exit(0);
    }
    close(report[1]);
    char address[64] = {};
    if (read(report[0], address, sizeof(address) - 1) <= 0) Fail("a backend did not start");
    close(report[0]);
    address_ = address;
  }
  ~BackendProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  BackendProcess(const BackendProcess&) = delete;
  BackendProcess& operator=(const BackendProcess&) = delete;
  const std::string& address() const { return address_; }

 private:
  pid_t pid_ = -1;
  std::string address_;
};

double CpuMicroseconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

double CpuPerCall(Echo::Stub& stub, int calls) {
  const double before = CpuMicroseconds();
  for (int i = 0; i < calls; ++i) {
    grpc::ClientContext context;
    testing::EchoReply reply;
    const grpc::Status status = stub.Unary(&context, {}, &reply);
    if (!status.ok()) Fail(status.error_message());
  }
  return (CpuMicroseconds() - before) / calls;
}

int Main(int argc, char** argv) {
  int calls = 4000;
  int rounds = 9;
  int count = 3;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    if (flag == "--calls") calls = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--rounds") rounds = std::max(1, std::atoi(argv[i + 1]));
    if (flag == "--backends") count = std::max(1, std::atoi(argv[i + 1]));
  }
  std::vector<std::unique_ptr<BackendProcess>> backends;
  std::string plain_target = "ipv4:";
  for (int i = 0; i < count; ++i) {
    backends.push_back(std::make_unique<BackendProcess>());
    plain_target += (i > 0 ? "," : "") + backends.back()->address();
  }
  auto cluster =
      testing::TestCluster::Start(testing::ServerUnderTest{.kind = testing::ServerKind::kConclave});
  if (!cluster.ok()) Fail(cluster.status().ToString());
  auto client = Client::Connect({.endpoints = (*cluster)->endpoints()});
  if (!client.ok()) Fail(client.status().ToString());
  for (const auto& backend : backends) {
    const auto put = client->Put(InstanceKey("bench", backend->address()),
                                 EncodeNamingValue({.address = backend->address()}));
    if (!put.ok()) Fail(put.status().ToString());
  }
  const auto dialed = Dial(*client, "bench", grpc::InsecureChannelCredentials());
  if (!dialed.ok()) Fail(dialed.status().ToString());
  grpc::ChannelArguments args;
  args.SetLoadBalancingPolicyName("round_robin");
  auto by_dial = Echo::NewStub(*dialed);
  auto plain = Echo::NewStub(
      grpc::CreateCustomChannel(plain_target, grpc::InsecureChannelCredentials(), args));
  CpuPerCall(*by_dial, calls / 4);  // connects, and warms up
  CpuPerCall(*plain, calls / 4);
  std::vector<double> dial_us;
  std::vector<double> plain_us;
  std::vector<double> difference_us;
  for (int round = 0; round < rounds; ++round) {
    plain_us.push_back(CpuPerCall(*plain, calls));
    dial_us.push_back(CpuPerCall(*by_dial, calls));
    difference_us.push_back(dial_us.back() - plain_us.back());
  }
  const auto median = [](std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  std::printf(
      "CPU per call, median of %d rounds of %d calls to %d backends: round robin %.1f us, "
      "Dial %.1f us, difference %.1f us\n",
      rounds, calls, count, median(plain_us), median(dial_us), median(difference_us));
  return 0;
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) { return conclave::Main(argc, argv); }
