#include "conclave/tests/support/strace.h"

#include "absl/strings/str_cat.h"

namespace conclave::testing {
namespace {

constexpr absl::Duration kAttachPatience = absl::Seconds(10);

absl::StatusOr<std::unique_ptr<ChildProcess>> Inject(const std::string& fault, pid_t pid) {
  if (absl::Status can = CanTrace(); !can.ok()) return can;
  auto tracer = ChildProcess::Start({"strace", "-f", "-p", absl::StrCat(pid), "-o", "/dev/null",
                                     "-e", absl::StrCat("inject=", fault)});
  if (!tracer.ok()) return tracer.status();
  // It says when it has attached.
  const bool attached = WaitFor(
      [&] {
        return (*tracer)->Output().find("attached") != std::string::npos || !(*tracer)->Running();
      },
      kAttachPatience);
  if (attached && (*tracer)->Output().find("attached") != std::string::npos) return tracer;
  return absl::UnavailableError(absl::StrCat("strace does not attach: ", (*tracer)->Output()));
}

}  // namespace

absl::Status CanTrace() {
  static const absl::Status& status = *new absl::Status([]() -> absl::Status {
    const auto traced = RunCommand({"strace", "-f", "-o", "/dev/null", "true"});
    if (traced.ok()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(
        "no system call can be made to fail here: strace is missing or may not trace: ",
        traced.status().message()));
  }());
  return status;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> FailNext(const std::string& calls, pid_t pid) {
  return Inject(absl::StrCat(calls, ":error=EIO:when=1"), pid);
}

absl::StatusOr<std::unique_ptr<ChildProcess>> DelayAll(const std::string& calls,
                                                       absl::Duration delay, pid_t pid) {
  return Inject(absl::StrCat(calls, ":delay_enter=", absl::ToInt64Microseconds(delay)), pid);
}

std::vector<std::string> KillingAt(const std::string& call, int n) {
  return {"strace",
          "-D",
          "-f",
          "-o",
          "/dev/null",
          "-e",
          absl::StrCat("inject=", call, ":signal=KILL:when=", n)};
}

std::vector<std::string> RecordingWrites(const std::string& output) {
  return {"strace", "-D", "-f", "-y", "-s", "0", "-o", output, "-e", "trace=pwritev,fdatasync"};
}

}  // namespace conclave::testing
