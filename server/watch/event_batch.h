// EventBatch: the events of one or more whole revisions as some range of keys sees them. Immutable
// and shared: a thousand watchers of the same range get the same batch, so its encoding can be made
// once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/base/bytes.h"
#include "conclave/server/mvcc/record.h"

namespace conclave::watch {

struct Event {
  // The record itself: a tombstone is a DELETE, anything else a PUT.
  mvcc::RecordRef record;
  // With prev_kv: the key as it was before this revision; null if it did not exist or is compacted.
  mvcc::RecordRef previous;

  bool is_delete() const { return record->tombstone(); }
};

class EventBatch {
 public:
  explicit EventBatch(std::vector<Event> events);
  EventBatch(const EventBatch&) = delete;
  EventBatch& operator=(const EventBatch&) = delete;

  // In order of (main, sub); never empty.
  const std::vector<Event>& events() const { return events_; }
  int64_t first_revision() const { return events_.front().record->mod_revision(); }
  int64_t last_revision() const { return events_.back().record->mod_revision(); }

  // Bytes of field 11 (events) of a WatchResponse with exactly these events, tags and lengths
  // included.
  size_t encoded_size() const { return encoded_size_; }

  // Those bytes: made at the first call, by whichever thread comes first, and then shared.
  const Bytes& Encoded() const;

 private:
  const std::vector<Event> events_;
  const size_t encoded_size_;
  mutable std::once_flag encode_once_;
  mutable Bytes encoded_;
};

using EventBatchRef = std::shared_ptr<const EventBatch>;

// Bytes that the event takes in a WatchResponse (tag and length included).
[[nodiscard]] size_t EncodedEventSize(const Event& event);

}  // namespace conclave::watch
