// conclave: the server.
//
// Exit codes: 0 stopped by a signal, 1 cannot start or serve (a port in use, a foreign data
// directory), 2 a flag that cannot be used.

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/server/app/cluster_discovery.h"
#include "conclave/server/app/flags.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/log.h"
#include "conclave/server/app/server.h"
#include "conclave/server/app/service_manager.h"
#include "conclave/server/app/snapshot_command.h"
#include "conclave/server/app/version.h"
#include "conclave/server/failpoint/setup.h"
#include "conclave/server/node/identity.h"

extern char** environ;

namespace conclave::app {
namespace {

constexpr int kExitCannotServe = 1;
constexpr int kExitBadFlag = 2;
constexpr int kServeAgain = -1;  // not an exit code
// From the first signal to the end of the process: 1.5 s, of which closing connections takes a
// part.
constexpr Duration kStopTimeout = std::chrono::milliseconds(1200);

// One heap for all threads: there is hardly a moment when two of them allocate. glibc's heaps of
// other threads grow page by page, with a system call for each: 0.16 calls per put were measured.
// The heap grows and shrinks in steps of kHeapStepBytes.
constexpr int kHeapStepBytes = 4 << 20;
void SetUpMemory() {
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TOP_PAD, kHeapStepBytes);
  mallopt(M_TRIM_THRESHOLD, 4 * kHeapStepBytes);
}

std::map<std::string, std::string> Environment() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) variables[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return variables;
}

void PrintVersion() {
  std::cout << "etcd Version: " << kProtocolVersion << "\n"
            << "Conclave Version: " << kVersion << "\n";
}

void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

// Blocked in every thread, taken by sigwait in main: SIGUSR1 tells that the member has stopped of
// its own accord.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// Then nobody asks what founded its cluster.
bool HoldsMember(const std::string& data_dir) {
  std::error_code error;
  return std::filesystem::exists(absl::StrCat(data_dir, "/", std::string(node::kIdentityName)),
                                 error);
}

// By --discovery-token, if this is to be a new member. A signal ends the waiting, and the process:
// there is nothing to shut down yet.
absl::Status FindFounders(const sigset_t& signals, Log* log, Config* config) {
  if (config->discovery.token.empty()) return absl::OkStatus();
  if (HoldsMember(config->data_dir)) {
    log->Info("the data directory holds a member; nothing is discovered");
    return absl::OkStatus();
  }
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  auto founders = DiscoverFounders(*config, log);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (!founders.ok()) return founders.status();
  config->initial_cluster = *std::move(founders);
  config->initial_cluster_token = config->discovery.token;
  return absl::OkStatus();
}

int Serve(const CommandLine& line, const std::shared_ptr<Log>& log, const sigset_t& signals) {
  const pthread_t main_thread = pthread_self();
  ServerOptions options;
  options.config = line.config;
  options.log = log;
  options.on_ready = [log] {
    if (!NotifyServiceManager("READY=1")) {
      log->Warn("cannot tell the service manager at $NOTIFY_SOCKET that the server is ready");
    }
  };
  options.on_stopped = [main_thread] { pthread_kill(main_thread, SIGUSR1); };
  auto server = Server::Start(std::move(options));
  if (!server.ok()) {
    std::cerr << "conclave: " << server.status().message() << std::endl;
    return kExitCannotServe;
  }
  int signal = 0;
  sigwait(&signals, &signal);
  if (signal == SIGUSR1) {
    (*server)->Stop(Duration::zero());
    const absl::Status failure = (*server)->failure();
    if (!failure.ok()) {
      std::cerr << "conclave: " << failure.message() << std::endl;
      return kExitCannotServe;
    }
    if ((*server)->diverged()) {
      log->Info("the member starts again without its data");
      return kServeAgain;
    }
    if (!(*server)->wants_reload()) return 0;
    log->Info("the member starts again from its disk");
    return kServeAgain;
  }
  log->Info("received signal; shutting down",
            {{"signal", signal == SIGTERM ? "terminated" : "interrupt"}});
  NotifyServiceManager("STOPPING=1");
  // A second signal does not wait.
  std::thread([signals] {
    int again = 0;
    do {
      sigwait(&signals, &again);
    } while (again == SIGUSR1);
    std::_Exit(128 + again);
  }).detach();
  (*server)->Stop(kStopTimeout);
  log->Info("closed", {{"name", line.config.name}, {"data-dir", line.config.data_dir}});
  return 0;
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (!arguments.empty() && arguments[0] == "snapshot") {
    return RunSnapshotCommand(std::span(arguments).subspan(1));
  }
  auto line = ParseCommandLine(arguments, Environment());
  if (!line.ok()) {
    std::cerr << "conclave: " << line.status().message() << std::endl;
    return kExitBadFlag;
  }
  if (line->help) {
    std::cout << HelpText();
    return 0;
  }
  if (line->version) {
    PrintVersion();
    return 0;
  }
  if (line->config.discovery.token.empty() && !HoldsMember(line->config.data_dir)) {
    if (const absl::Status status = CheckInitialCluster(line->config); !status.ok()) {
      std::cerr << "conclave: " << status.message() << std::endl;
      return kExitBadFlag;
    }
  }
  const sigset_t signals = BlockSignals();  // before there is any other thread
  auto log = Log::Open(line->config.log);
  if (!log.ok()) {
    std::cerr << "conclave: " << log.status().message() << std::endl;
    return kExitBadFlag;
  }
  if (const absl::Status status = failpoint::SetUp(Environment()); !status.ok()) {
    std::cerr << "conclave: " << status.message() << std::endl;
    return kExitBadFlag;
  }
  RaiseFileLimit();
  (*log)->Info("starting", {{"conclave-version", std::string(kVersion)},
                            {"etcd-version", std::string(kProtocolVersion)},
                            {"name", line->config.name}});
  for (const std::string& warning : line->warnings) (*log)->Warn(warning);
  if (const absl::Status found = FindFounders(signals, log->get(), &line->config); !found.ok()) {
    std::cerr << "conclave: " << found.message() << std::endl;
    return kExitCannotServe;
  }
  int code = kServeAgain;
  while (code == kServeAgain) code = Serve(*line, *log, signals);
  return code;
}

}  // namespace
}  // namespace conclave::app

int main(int argc, char** argv) {
  conclave::app::SetUpMemory();
  const int code = conclave::app::Main(argc, argv);
  // Without the destructors of statics: gRPC's own threads may still run.
  std::cout.flush();
  std::_Exit(code);
}
