#include "conclave/tests/sim/rot.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "conclave/base/concat.h"
#include "conclave/server/node/identity.h"
#include "conclave/server/snapshot/format.h"
#include "conclave/server/wal/format.h"
#include "conclave/server/wal/vote_file.h"

namespace conclave::sim {
namespace {

constexpr uint64_t kSector = env::MemoryDisk::kSectorBytes;
constexpr uint64_t kZeroedBytes = 8;

// Bytes of a file that are known to be synced.
struct Zone {
  std::string file;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Up to where the records of the last segment are proven: each sync batch proves the one before it,
// and whether the last one itself is on the disk is not known.
uint64_t ProvenEnd(std::string_view segment) {
  const uint32_t seed = wal::SegmentSeed(segment.substr(0, wal::kHeaderBytes));
  uint64_t at = wal::kRecordsStart;
  uint64_t last = at;
  uint64_t last_but_one = at;
  while (const auto record = wal::DecodeRecord(segment, at, seed)) {
    if (record->head.batch_start != last) {
      last_but_one = std::exchange(last, record->head.batch_start);
    }
    at = record->end;
  }
  return last_but_one;
}

std::vector<Zone> ProvenLog(const env::MemoryDisk& disk) {
  std::vector<std::string> files;
  for (const std::string& file : disk.Files()) {
    if (file.starts_with("wal/") && file.ends_with(wal::kSegmentSuffix)) files.push_back(file);
  }
  std::vector<Zone> zones;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string content = disk.Content(files[i]);
    const auto header = wal::DecodeSegmentHeader(content.substr(0, wal::kHeaderBytes));
    if (!header.ok()) continue;
    zones.push_back({files[i], 0, wal::kHeaderBytes});
    uint64_t end = ProvenEnd(content);
    if (i + 1 < files.size()) {
      const auto next =
          wal::DecodeSegmentHeader(disk.Content(files[i + 1]).substr(0, wal::kHeaderBytes));
      if (!next.ok() || next->sequence != header->sequence + 1) continue;
      end = std::min<uint64_t>(next->previous_end, content.size());
    }
    if (end > wal::kRecordsStart) zones.push_back({files[i], wal::kRecordsStart, end});
  }
  return zones;
}

class Rotting {
 public:
  Rotting(env::MemoryDisk* disk, Prng* prng) : disk_(*disk), prng_(*prng) {}

  void Log() {
    const std::vector<Zone> zones = ProvenLog(disk_);
    if (zones.empty()) return;
    const Zone& zone = zones[prng_.Below(zones.size())];
    switch (prng_.Below(4)) {
      case 0:
        return Zero(zone);
      case 1:
        return Noise(zone);
      default:
        return Flip(zone);
    }
  }

  void Snapshot() {
    const std::string directory = Concat(snapshot::kDirectory, "/");
    std::vector<Zone> files;
    for (const std::string& file : disk_.Files()) {
      if (!file.starts_with(directory)) continue;
      if (!snapshot::IsFileName(file.substr(directory.size()))) continue;
      files.push_back({file, 0, disk_.Content(file).size()});
    }
    if (files.empty()) return;
    if (prng_.Chance(3, 4)) return Flip(files[prng_.Below(files.size())]);
    for (const Zone& file : files) Flip(file);
  }

  void Votes() {
    const std::string file = Concat(wal::kDirectory, "/", wal::kVoteName);
    const std::string identity(node::kIdentityName);
    if (!disk_.Exists(file) || !disk_.Exists(identity)) return;
    const auto copy = [&](uint64_t which, uint64_t bytes) {
      const uint64_t at = which * wal::kVoteCopyBytes;
      if (disk_.Content(file).size() >= at + bytes) Flip({file, at, at + bytes});
    };
    const uint64_t what = prng_.Below(5);
    if (what == 0 || what == 2) copy(0, wal::kVoteRecordBytes);
    if (what == 1 || what == 2) copy(1, wal::kVoteRecordBytes);
    if (what == 3) copy(2, wal::kMarkBytes);
    if (what == 4) Flip({identity, 0, disk_.Content(identity).size()});
  }

  void Misplaced() {
    std::vector<Zone> sectors;
    for (const Zone& zone : ProvenLog(disk_)) {
      for (uint64_t at = (zone.begin + kSector - 1) / kSector * kSector; at + kSector <= zone.end;
           at += kSector) {
        sectors.push_back({zone.file, at, at + kSector});
      }
    }
    if (sectors.size() < 2) return;
    const size_t from = prng_.Below(sectors.size());
    const size_t to = prng_.Below(sectors.size());
    if (from == to) return;
    const std::string bytes =
        disk_.Content(sectors[from].file).substr(sectors[from].begin, kSector);
    Write(sectors[to], sectors[to].begin, bytes);
    if (prng_.Chance(1, 2)) Write(sectors[from], sectors[from].begin, std::string(kSector, '\0'));
  }

  std::vector<RottenSpot> TakeSpots() { return std::move(spots_); }

 private:
  uint64_t Within(uint64_t begin, uint64_t end) { return begin + prng_.Below(end - begin); }

  void Flip(const Zone& zone) {
    const uint64_t at = Within(zone.begin, zone.end);
    std::string bytes = disk_.Content(zone.file).substr(at, 1);
    bytes[0] = static_cast<char>(bytes[0] ^ (1 << prng_.Below(8)));
    Write(zone, at, bytes);
  }

  void Zero(const Zone& zone) {
    const uint64_t at = Within(zone.begin, zone.end) / kZeroedBytes * kZeroedBytes;
    Write(zone, at, std::string(std::min(kZeroedBytes, zone.end - at), '\0'));
  }

  void Noise(const Zone& zone) {
    const uint64_t at = std::max(zone.begin, Within(zone.begin, zone.end) / kSector * kSector);
    std::string bytes(std::min(kSector, zone.end - at), '\0');
    for (char& byte : bytes) byte = static_cast<char>(prng_.Next());
    Write(zone, at, bytes);
  }

  void Write(const Zone& zone, uint64_t at, const std::string& bytes) {
    if (disk_.Content(zone.file).compare(at, bytes.size(), bytes) == 0) return;
    disk_.Overwrite(zone.file, at, bytes);
    spots_.push_back({zone.file, at, bytes});
  }

  env::MemoryDisk& disk_;
  Prng& prng_;
  std::vector<RottenSpot> spots_;
};

}  // namespace

std::vector<RottenSpot> Rot(env::MemoryDisk* disk, RotKind kind, Prng* prng) {
  Rotting rotting(disk, prng);
  switch (kind) {
    case RotKind::kLog:
      rotting.Log();
      break;
    case RotKind::kSnapshot:
      rotting.Snapshot();
      break;
    case RotKind::kVotes:
      rotting.Votes();
      break;
    case RotKind::kMisplaced:
      rotting.Misplaced();
      break;
  }
  return rotting.TakeSpots();
}

bool IsStillThere(const env::MemoryDisk& disk, const RottenSpot& spot) {
  return disk.Exists(spot.file) &&
         disk.Content(spot.file).compare(spot.offset, spot.bytes.size(), spot.bytes) == 0;
}

}  // namespace conclave::sim
