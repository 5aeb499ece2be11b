// What an entry of 300 bytes costs in the log.
//
//   Encode   our own CPU: the disk swallows the write
//   Write    and the kernel's copy into the page cache, without sync
//   Commit   and fdatasync, on the disk of the temporary directory (TMPDIR)
//   Recover  reading a log of 50,000 entries back
//
// The argument is the number of entries per batch; "per_entry" is CPU time (Commit: wall time).
#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/server/posix/disk.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {
namespace {

constexpr size_t kEntryBytes = 300;
constexpr Options kOptions{.cluster_id = 1, .member_id = raft::NodeId(2)};

// Swallows everything.
class NullFile : public env::File {
 public:
  absl::Status Write(uint64_t, std::span<const std::string_view> pieces) override {
    benchmark::DoNotOptimize(pieces.data());
    return absl::OkStatus();
  }
  absl::StatusOr<size_t> Read(uint64_t, std::span<char>) override { return size_t{0}; }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Preallocate(uint64_t, uint64_t) override { return absl::OkStatus(); }
  absl::Status Truncate(uint64_t) override { return absl::OkStatus(); }
  absl::StatusOr<uint64_t> Size() override { return uint64_t{0}; }
};

class NullDisk : public env::Disk {
 public:
  std::string Describe() const override { return "null"; }
  absl::StatusOr<std::unique_ptr<env::File>> Open(std::string_view, env::OpenMode) override {
    return std::make_unique<NullFile>();
  }
  absl::Status CreateDirectory(std::string_view) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::string>> List(std::string_view) override {
    return std::vector<std::string>();
  }
  absl::Status Rename(std::string_view, std::string_view) override { return absl::OkStatus(); }
  absl::Status Remove(std::string_view) override { return absl::OkStatus(); }
  absl::Status SyncDirectory(std::string_view) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<env::Lock>> LockFile(std::string_view) override {
    return std::make_unique<env::Lock>();
  }
  absl::StatusOr<env::Space> FreeSpace() override { return env::Space(); }
};

// A real directory, removed at the end.
class Directory {
 public:
  Directory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "wal-bench-XXXXXX").string();
    CONCLAVE_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    disk = *posix::OpenDisk(path_);
  }
  ~Directory() { std::filesystem::remove_all(path_); }

  std::unique_ptr<env::Disk> disk;

 private:
  std::string path_;
};

std::vector<raft::Entry> Entries(uint64_t count) {
  std::vector<raft::Entry> entries;
  for (uint64_t i = 0; i < count; ++i) {
    entries.push_back({.term = raft::Term(1),
                       .index = raft::Index(i + 1),
                       .type = raft::EntryType::kCommand,
                       .payload = Bytes::Copy(std::string(kEntryBytes, 'x'))});
  }
  return entries;
}

std::unique_ptr<Log> OpenLog(env::Disk& disk) {
  auto recovered = Log::Recover(disk, kOptions, Position());
  CONCLAVE_CHECK(recovered.ok(), recovered.status().ToString());
  return std::move(recovered->log);
}

void Run(benchmark::State& state, env::Disk& disk, bool sync) {
  const auto log = OpenLog(disk);
  std::vector<raft::Entry> entries = Entries(static_cast<uint64_t>(state.range(0)));
  for (auto _ : state) {
    CONCLAVE_CHECK(log->Append({.reset = {}, .hard_state = {}, .entries = entries}).ok());
    if (sync) CONCLAVE_CHECK(log->Sync().ok());
    for (raft::Entry& entry : entries) entry.index = entry.index + entries.size();
    if (log->segment_count() > 4) CONCLAVE_CHECK(log->TruncatePrefix(log->last_index()).ok());
  }
  state.counters["per_entry"] =
      benchmark::Counter(static_cast<double>(state.iterations() * state.range(0)),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void Encode(benchmark::State& state) {
  NullDisk disk;
  Run(state, disk, false);
}
BENCHMARK(Encode)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void Write(benchmark::State& state) {
  Directory directory;
  Run(state, *directory.disk, false);
}
BENCHMARK(Write)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void Commit(benchmark::State& state) {
  Directory directory;
  Run(state, *directory.disk, true);
}
BENCHMARK(Commit)->Arg(1)->Arg(10)->Arg(100)->Arg(1000)->UseRealTime();

void Recover(benchmark::State& state) {
  Directory directory;
  const uint64_t count = 50'000;
  {
    const auto log = OpenLog(*directory.disk);
    const auto entries = Entries(count);
    for (size_t i = 0; i < count; i += 100) {
      const std::span<const raft::Entry> some(&entries[i], 100);
      CONCLAVE_CHECK(log->Append({.reset = {}, .hard_state = {}, .entries = some}).ok());
    }
    CONCLAVE_CHECK(log->Sync().ok());
  }
  for (auto _ : state) {
    auto recovered = Log::Recover(*directory.disk, kOptions, Position());
    CONCLAVE_CHECK(recovered.ok() && recovered->entries.size() == count);
  }
  state.counters["per_entry"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * static_cast<double>(count),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(Recover)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace conclave::wal
