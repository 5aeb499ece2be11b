// WatchGroup: all watchers of the same shape (range, filters, prev_kv). What one of them hears of a
// revision, all of them do, so it is put together once. Internal to the hub.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/record.h"
#include "conclave/server/watch/event_batch.h"

namespace conclave::watch {

struct Watcher;

class WatchGroup {
 public:
  // `key` and `range_end` as a request has them, the key not empty.
  WatchGroup(uint64_t id, std::string key, std::string range_end, bool no_put, bool no_delete,
             bool prev_kv, std::string shape)
      : id_(id),
        shape_(std::move(shape)),
        key_(std::move(key)),
        range_end_(std::move(range_end)),
        no_put_(no_put),
        no_delete_(no_delete),
        prev_kv_(prev_kv) {}

  uint64_t id() const { return id_; }
  // What tells it from other groups.
  const std::string& shape() const { return shape_; }
  const std::string& key() const { return key_; }
  const std::string& range_end() const { return range_end_; }
  mvcc::KeyRange range() const { return mvcc::KeyRange::FromRequest(key_, range_end_); }
  bool prev_kv() const { return prev_kv_; }
  bool Wants(const mvcc::Record& record) const {
    return record.tombstone() ? !no_delete_ : !no_put_;
  }

  size_t members = 0;            // synced or not
  std::vector<Watcher*> synced;  // each knows its place
  std::vector<Event> gathering;  // of the revision that is being delivered

 private:
  const uint64_t id_;
  const std::string shape_;
  const std::string key_;
  const std::string range_end_;
  const bool no_put_;
  const bool no_delete_;
  const bool prev_kv_;
};

}  // namespace conclave::watch
