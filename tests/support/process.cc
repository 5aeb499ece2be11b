// Child processes: fork, exec, reap. Between fork and exec only async-signal-safe calls.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "conclave/tests/support/test_cluster.h"

extern char** environ;

namespace conclave::testing {
namespace {

std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& argv, const std::vector<std::string>& env) {
  std::string output = absl::StrCat(::testing::TempDir(), "conclave-child-XXXXXX");
  const int fd = mkostemp(output.data(), O_CLOEXEC);
  if (fd < 0) return absl::InternalError(absl::StrCat("cannot make ", output));
  std::vector<std::string> environment = env;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const std::vector<char*> arg_pointers = Pointers(argv);
  const std::vector<char*> env_pointers = Pointers(environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    close(fd);
    return absl::InternalError("fork failed");
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    setpgid(0, 0);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    const int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, STDIN_FILENO);
    execvpe(arg_pointers[0], arg_pointers.data(), env_pointers.data());
    _exit(127);
  }
  close(fd);
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, output));
}

ChildProcess::~ChildProcess() {
  if (!reaped_) {
    kill(pid_, SIGKILL);
    kill(pid_, SIGCONT);
    int status = 0;
    waitpid(pid_, &status, 0);
  }
  unlink(output_path_.c_str());
}

std::string ChildProcess::Output() const { return ReadWholeFile(output_path_); }

bool ChildProcess::Running() {
  if (reaped_) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  reaped_ = true;
  code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return false;
}

void ChildProcess::Signal(int signal) {
  if (!reaped_) kill(pid_, signal);
}

absl::StatusOr<int> ChildProcess::Wait(absl::Duration timeout) {
  if (!WaitFor([this] { return !Running(); }, timeout)) {
    return absl::DeadlineExceededError(absl::StrCat("still running; its output: ", Output()));
  }
  return code_;
}

absl::StatusOr<std::string> RunCommand(const std::vector<std::string>& argv,
                                       absl::Duration timeout) {
  absl::StatusOr<std::unique_ptr<ChildProcess>> child = ChildProcess::Start(argv);
  if (!child.ok()) return child.status();
  absl::StatusOr<int> code = (*child)->Wait(timeout);
  if (!code.ok()) return code.status();
  std::string output = (*child)->Output();
  if (*code != 0) {
    return absl::UnknownError(
        absl::StrCat(absl::StrJoin(argv, " "), ": exit code ", *code, ": ", output));
  }
  return output;
}

std::vector<std::string> EtcdctlCommand(const TestCluster& cluster, std::vector<std::string> args) {
  const char* from_environment = std::getenv("CONCLAVE_TEST_ETCDCTL");
  const std::string program =
      from_environment != nullptr ? from_environment : CONCLAVE_PEERS_DIR "/etcdctl";
  std::vector<std::string> argv = {"env", "ETCDCTL_API=3", program,
                                   absl::StrCat("--endpoints=", cluster.JoinedEndpoints())};
  argv.insert(argv.end(), args.begin(), args.end());
  return argv;
}

absl::StatusOr<std::string> Etcdctl(const TestCluster& cluster, std::vector<std::string> args) {
  return RunCommand(EtcdctlCommand(cluster, std::move(args)));
}

}  // namespace conclave::testing
