#include "conclave/tests/faults/damaged_files.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "conclave/server/wal/format.h"

namespace conclave::testing {
namespace {

// etcd's log is frames of 8 bytes of length and a record, which begins with its type; all that
// follows the last one is zeros.
constexpr uint64_t kFrameBytes = 8;
constexpr uint64_t kFrameLengthMask = (uint64_t{1} << 56) - 1;
constexpr char kEtcdTypeTag = 0x08;
constexpr char kEtcdEntry = 2;

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::string> FilesOf(const std::string& directory, std::string_view ending) {
  std::vector<std::string> files;
  for (const auto& file : std::filesystem::directory_iterator(directory)) {
    if (file.path().string().ends_with(ending)) files.push_back(file.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<uint64_t> Records(const std::string& content) {
  const uint32_t seed = wal::SegmentSeed(content);
  std::vector<uint64_t> records;
  for (uint64_t at = wal::kRecordsStart;;) {
    const auto record = wal::DecodeRecord(content, at, seed);
    if (!record.has_value()) return records;
    if (record->head.entry_count > 0) records.push_back(at);
    at = record->end;
  }
}

std::vector<uint64_t> EtcdRecords(const std::string& content) {
  std::vector<uint64_t> records;
  for (uint64_t at = 0; at + kFrameBytes + 2 <= content.size();) {
    uint64_t frame = 0;
    std::memcpy(&frame, content.data() + at, kFrameBytes);
    if (frame == 0) break;
    const uint64_t padding = (frame >> 63) != 0 ? (frame >> 56) & 7 : 0;
    if (content[at + kFrameBytes] == kEtcdTypeTag && content[at + kFrameBytes + 1] == kEtcdEntry) {
      records.push_back(at);
    }
    at += kFrameBytes + (frame & kFrameLengthMask) + padding;
  }
  return records;
}

template <typename Change>
bool Rewrite(const FilePlace& place, size_t count, Change&& change) {
  std::fstream file(place.file, std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes(count, '\0');
  file.seekg(static_cast<std::streamoff>(place.offset));
  file.read(bytes.data(), static_cast<std::streamsize>(count));
  change(&bytes);
  file.seekp(static_cast<std::streamoff>(place.offset));
  file.write(bytes.data(), static_cast<std::streamsize>(count));
  return file.flush().good();
}

}  // namespace

std::vector<FilePlace> LastRecords(ServerKind kind, const std::string& data_dir, size_t count) {
  const bool etcd = kind == ServerKind::kEtcd;
  const auto segments =
      etcd ? FilesOf(data_dir + "/member/wal", ".wal") : FilesOf(data_dir + "/wal", ".log");
  if (segments.empty()) return {};
  const std::string content = Content(segments.back());
  std::vector<uint64_t> records = etcd ? EtcdRecords(content) : Records(content);
  if (records.size() > count) {
    records.erase(records.begin(), records.end() - static_cast<ptrdiff_t>(count));
  }
  std::vector<FilePlace> places;
  for (const uint64_t at : records) places.push_back({segments.back(), at});
  return places;
}

std::vector<FilePlace> PlacesInState(ServerKind kind, const std::string& data_dir,
                                     std::string_view text) {
  const auto files = kind == ServerKind::kEtcd ? FilesOf(data_dir + "/member/snap", "db")
                                               : FilesOf(data_dir + "/snapshot", ".snapshot");
  std::vector<FilePlace> places;
  for (const std::string& file : files) {
    const std::string content = Content(file);
    for (size_t at = content.find(text); at != std::string::npos; at = content.find(text, at + 1)) {
      places.push_back({file, at});
    }
  }
  return places;
}

bool ZeroBytes(const FilePlace& place, size_t count) {
  return Rewrite(place, count, [](std::string* bytes) { bytes->assign(bytes->size(), '\0'); });
}

bool FlipBit(const FilePlace& place, int bit) {
  return Rewrite(place, 1, [bit](std::string* bytes) {
    (*bytes)[0] = static_cast<char>((*bytes)[0] ^ (1 << bit));
  });
}

}  // namespace conclave::testing
