#include "conclave/server/watch/event_batch.h"

#include <utility>

#include "conclave/base/check.h"
#include "conclave/server/mvcc/wire.h"

namespace conclave::watch {
namespace {

using mvcc::VarintSize;
using mvcc::WriteVarint;

// WatchResponse.events = 11; Event: 1 type, 2 kv, 3 prev_kv.
constexpr char kEventsTag = 11 << 3 | 2;
constexpr char kTypeTag = 1 << 3;
constexpr char kRecordTag = 2 << 3 | 2;
constexpr char kPreviousTag = 3 << 3 | 2;
constexpr char kDelete = 1;

size_t MessageSize(size_t size) { return 1 + VarintSize(size) + size; }

size_t BodySize(const Event& event) {
  return (event.is_delete() ? 2 : 0) + MessageSize(mvcc::KeyValueSize(*event.record)) +
         (event.previous ? MessageSize(mvcc::KeyValueSize(*event.previous)) : 0);
}

char* WriteRecord(char tag, const mvcc::Record& record, char* out) {
  *out++ = tag;
  out = WriteVarint(mvcc::KeyValueSize(record), out);
  return mvcc::WriteKeyValue(record, out);
}

size_t SumOfSizes(const std::vector<Event>& events) {
  size_t size = 0;
  for (const Event& event : events) size += EncodedEventSize(event);
  return size;
}

}  // namespace

size_t EncodedEventSize(const Event& event) { return MessageSize(BodySize(event)); }

EventBatch::EventBatch(std::vector<Event> events)
    : events_(std::move(events)), encoded_size_(SumOfSizes(events_)) {
  CONCLAVE_CHECK(!events_.empty());
}

const Bytes& EventBatch::Encoded() const {
  std::call_once(encode_once_, [this] {
    char* out;
    encoded_ = Bytes::Uninitialized(encoded_size_, &out);
    for (const Event& event : events_) {
      *out++ = kEventsTag;
      out = WriteVarint(BodySize(event), out);
      if (event.is_delete()) {
        *out++ = kTypeTag;
        *out++ = kDelete;
      }
      out = WriteRecord(kRecordTag, *event.record, out);
      if (event.previous) out = WriteRecord(kPreviousTag, *event.previous, out);
    }
    CONCLAVE_CHECK(out == encoded_.data() + encoded_.size());
  });
  return encoded_;
}

}  // namespace conclave::watch
