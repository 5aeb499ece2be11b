#include "conclave/tests/crash/plug.h"

#include "absl/strings/ascii.h"
#include "conclave/base/concat.h"

namespace conclave::crash {
namespace {

using Operation = env::MemoryDisk::Operation;

std::string_view NameOf(Operation operation) {
  switch (operation) {
    case Operation::kWrite:
      return "write";
    case Operation::kSync:
      return "sync";
    case Operation::kPreallocate:
      return "preallocate";
    case Operation::kTruncate:
      return "truncate";
    case Operation::kOpenNew:
      return "create";
    case Operation::kRename:
      return "rename";
    case Operation::kRemove:
      return "remove";
    case Operation::kSyncDirectory:
      return "sync names of";
    case Operation::kRead:
    case Operation::kLock:
      break;
  }
  return "";
}

// "wal/0000000000000002-0000000000004e21.log": "wal/*.log".
std::string KindOf(std::string_view path) {
  const size_t name = path.rfind('/') + 1;
  std::string kind(path.substr(0, name));
  bool number = false;
  for (const char c : path.substr(name)) {
    const bool digit = absl::ascii_isdigit(c);
    if (!digit && !(number && (absl::ascii_isxdigit(c) || c == '-'))) {
      number = false;
      kind += c;
    } else if (!number) {
      number = true;
      kind += '*';
    }
  }
  return kind;
}

absl::Status NoPower() { return absl::InternalError("the machine is off"); }

}  // namespace

std::string_view NameOf(Mode mode) {
  static constexpr std::array<std::string_view, kModes.size()> kNames = {
      "before", "torn at 512 B", "torn at 4 KiB", "reordered", "unsynced", "after"};
  return kNames[static_cast<size_t>(mode)];
}

Plug::Plug(env::MemoryDisk* disk, Mode mode, uint64_t at, uint64_t seed)
    : disk_(disk), mode_(mode), at_(at), prng_(seed) {
  disk_->set_hook(
      [this](Operation operation, std::string_view path) { return OnOperation(operation, path); });
}

Plug::~Plug() { disk_->set_hook(nullptr); }

bool Plug::pulled() {
  if (due_ && !pulled_) Pull();
  return pulled_;
}

absl::Status Plug::OnOperation(Operation operation, std::string_view path) {
  if (pulled()) return NoPower();
  if (operation == Operation::kRead || operation == Operation::kLock) return absl::OkStatus();
  if (++count_ != at_) return absl::OkStatus();
  point_ = Concat(NameOf(operation), " ", KindOf(path));
  due_ = true;
  if (mode_ != Mode::kBefore) return absl::OkStatus();
  Pull();
  return NoPower();
}

void Plug::Pull() {
  pulled_ = true;
  switch (mode_) {
    case Mode::kBefore:
    case Mode::kAfter:
      return disk_->KillProcess();
    case Mode::kTornSector:
      return disk_->CrashTearing(env::MemoryDisk::kSectorBytes, prng_);
    case Mode::kTornPage:
      return disk_->CrashTearing(4096, prng_);
    case Mode::kReordered:
      return disk_->CrashReordering(prng_);
    case Mode::kUnsynced:
      return disk_->CrashLosingAll();
  }
}

}  // namespace conclave::crash
