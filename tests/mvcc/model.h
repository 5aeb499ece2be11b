// A naive model of the store: every record that was ever written, in a list; every question is
// answered by walking all of it. What compaction takes away is computed from its definition.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "conclave/base/crc32c.h"
#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/record.h"

namespace conclave::mvcc {

struct ModelRecord {
  std::string key;
  std::string value;
  Revision revision;
  int64_t create = 0;
  int64_t version = 0;
  int64_t lease = 0;
  bool tombstone = false;

  bool operator==(const ModelRecord&) const = default;

  static ModelRecord Of(const Record& record) {
    return {.key = std::string(record.key()),
            .value = std::string(record.value()),
            .revision = record.revision(),
            .create = record.create_revision(),
            .version = record.version(),
            .lease = record.lease(),
            .tombstone = record.tombstone()};
  }
  RecordFields Fields() const {
    return {.key = key,
            .value = value,
            .revision = revision,
            .create_revision = create,
            .version = version,
            .lease = lease,
            .tombstone = tombstone};
  }
  friend void PrintTo(const ModelRecord& record, std::ostream* out) {
    *out << record.key << '@' << record.revision.main << '.' << record.revision.sub
         << (record.tombstone ? " deleted" : "") << " create " << record.create << " version "
         << record.version << " lease " << record.lease << " value " << record.value;
  }
};

class Model {
 public:
  int64_t current = 1;
  int64_t compacted = -1;
  std::vector<ModelRecord> log;  // everything, never shortened

  // The newest record of a key with main <= revision, tombstones included.
  const ModelRecord* Newest(const std::string& key, int64_t revision) const {
    const ModelRecord* newest = nullptr;
    const auto history = by_key_.find(key);
    if (history == by_key_.end()) return nullptr;
    for (const size_t index : history->second) {
      if (log[index].revision.main <= revision) newest = &log[index];
    }
    return newest;
  }
  const ModelRecord* Get(const std::string& key, int64_t revision) const {
    const ModelRecord* newest = Newest(key, revision);
    return newest != nullptr && !newest->tombstone ? newest : nullptr;
  }
  std::vector<ModelRecord> Range(const KeyRange& range, int64_t revision) const {
    std::vector<ModelRecord> result;
    for (const auto& [key, history] : by_key_) {
      if (!range.Contains(key)) continue;
      if (const ModelRecord* record = Get(key, revision)) result.push_back(*record);
    }
    return result;
  }
  std::vector<ModelRecord> Since(int64_t from) const {
    std::vector<ModelRecord> result;
    for (const ModelRecord& record : log) {
      if (record.revision.main >= from) result.push_back(record);
    }
    return result;
  }

  // The records that are logically there: the definition of compaction (Newest at the compact
  // revision, no tombstones below it, everything at or behind it).
  std::vector<ModelRecord> Kept() const {
    std::vector<ModelRecord> result;
    for (const ModelRecord& record : log) {
      if (record.revision.main >= compacted ||
          (!record.tombstone && Newest(record.key, compacted) == &record)) {
        result.push_back(record);
      }
    }
    return result;
  }

  void Put(Revision revision, const std::string& key, const std::string& value, int64_t lease) {
    const ModelRecord* before = Get(key, INT64_MAX);
    Append({.key = key,
            .value = value,
            .revision = revision,
            .create = before != nullptr ? before->create : revision.main,
            .version = before != nullptr ? before->version + 1 : 1,
            .lease = lease});
  }
  bool Delete(Revision revision, const std::string& key) {
    if (Get(key, INT64_MAX) == nullptr) return false;
    Append({.key = key, .value = {}, .revision = revision, .tombstone = true});
    return true;
  }

  // etcd's definition, word by word: hash all of the backend after a finished compaction, but of
  // what is at or below the compact revision only what a compaction at `revision` would keep (if it
  // would keep anything), and no tombstone of exactly the compact revision.
  uint32_t HashKv(int64_t revision) const {
    bool keeps_any = false;
    for (const auto& [key, history] : by_key_) keeps_any |= Get(key, revision) != nullptr;
    uint32_t hash = Crc32c("key");
    for (const ModelRecord& record : log) {
      const int64_t main = record.revision.main;
      if (main > revision) break;
      const bool newest_at_compaction = Newest(record.key, compacted) == &record;
      if (main <= compacted) {
        if (!newest_at_compaction || record.tombstone) continue;
        if (keeps_any && Get(record.key, revision) != &record) continue;
      }
      std::string bytes;
      BigEndian(main, &bytes);
      bytes += '_';
      BigEndian(record.revision.sub, &bytes);
      if (record.tombstone) bytes += 't';
      Field(1, record.key, &bytes);
      if (!record.tombstone) {
        Number(2, record.create, &bytes);
        Number(3, main, &bytes);
        Number(4, record.version, &bytes);
        Field(5, record.value, &bytes);
        Number(6, record.lease, &bytes);
      }
      hash = Crc32cExtend(hash, bytes);
    }
    return hash;
  }

 private:
  void Append(ModelRecord record) {
    by_key_[record.key].push_back(log.size());
    log.push_back(std::move(record));
  }
  static void BigEndian(int64_t number, std::string* out) {
    for (int i = 7; i >= 0; --i) *out += static_cast<char>(number >> (8 * i));
  }
  static void Varint(uint64_t number, std::string* out) {
    for (; number >= 128; number /= 128) *out += static_cast<char>(number % 128 + 128);
    *out += static_cast<char>(number);
  }
  static void Number(int field, int64_t number, std::string* out) {
    if (number == 0) return;
    Varint(static_cast<uint64_t>(field) * 8, out);
    Varint(static_cast<uint64_t>(number), out);
  }
  static void Field(int field, const std::string& bytes, std::string* out) {
    if (bytes.empty()) return;
    Varint(static_cast<uint64_t>(field) * 8 + 2, out);
    Varint(bytes.size(), out);
    *out += bytes;
  }

  std::map<std::string, std::vector<size_t>> by_key_;
};

}  // namespace conclave::mvcc
