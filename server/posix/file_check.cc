#include "conclave/server/posix/file_check.h"

#include <algorithm>

#include "conclave/base/concat.h"
#include "conclave/server/wal/check.h"

namespace conclave::posix {
namespace {

// Only what the bytes say is damage: a file that is gone was not needed any more.
std::string DamageOf(const absl::Status& status) {
  return absl::IsDataLoss(status) ? std::string(status.message()) : std::string();
}

}  // namespace

FileCheck::FileCheck(env::Disk* disk, uint64_t cluster_id) : disk_(disk), cluster_id_(cluster_id) {
  if (auto names = snapshot::ListNewestFirst(*disk); names.ok()) snapshots_ = *std::move(names);
  if (auto names = wal::ListSegments(*disk); names.ok()) segments_ = *std::move(names);
  // From the back: the oldest first, each with the one that follows it.
  std::reverse(segments_.begin(), segments_.end());
}

FileCheck::Outcome FileCheck::Next() {
  Outcome outcome;
  if (!snapshots_.empty()) {
    outcome.damage = ReadSnapshot();
  } else if (segments_.size() > 1) {
    outcome.damage = ReadSegment();
  }
  outcome.done = snapshots_.empty() && segments_.size() <= 1;
  return outcome;
}

std::string FileCheck::ReadSnapshot() {
  if (reader_ == nullptr) {
    const std::string path = Concat(snapshot::kDirectory, "/", snapshots_.back());
    // Lets go of what is cached of it; the reader opens it for itself.
    (void)disk_->Open(path, env::OpenMode::kReadAgain);
    auto reader = snapshot::Reader::Open(*disk_, snapshots_.back(), cluster_id_);
    if (!reader.ok()) {
      snapshots_.pop_back();
      return DamageOf(reader.status());
    }
    reader_ = *std::move(reader);
  }
  for (uint64_t bytes = 0; bytes < kSliceBytes;) {
    const auto chunk = reader_->Next();
    if (chunk.ok() && chunk->has_value()) {
      bytes += (*chunk)->size();
      continue;
    }
    reader_.reset();
    snapshots_.pop_back();
    return DamageOf(chunk.status());
  }
  return {};
}

std::string FileCheck::ReadSegment() {
  const std::string name = std::move(segments_.back());
  segments_.pop_back();
  std::string damage = DamageOf(wal::CheckSealed(*disk_, name, segments_.back()));
  if (damage.empty()) return damage;
  // Meanwhile it may have become the next segment's file.
  const auto names = wal::ListSegments(*disk_);
  const bool is_there = names.ok() && std::find(names->begin(), names->end(), name) != names->end();
  return is_there ? damage : std::string();
}

}  // namespace conclave::posix
