#include "conclave/server/mvcc/hash_kv.h"

#include "conclave/base/check.h"
#include "conclave/base/crc32c.h"
#include "conclave/server/mvcc/revision_log.h"
#include "conclave/server/mvcc/wire.h"

namespace conclave::mvcc {
namespace {

char* WriteBigEndian(uint64_t number, char* out) {
  for (int shift = 56; shift >= 0; shift -= 8) *out++ = static_cast<char>(number >> shift);
  return out;
}

}  // namespace

absl::StatusOr<HashKvCursor> HashKvCursor::Open(Store* store, int64_t revision) {
  CONCLAVE_CHECK(!store->txn_open_, "a hash inside a transaction");
  if (revision == 0) revision = store->current_revision();
  if (revision > 0 && revision < store->compact_revision()) return CompactedError();
  if (revision > store->current_revision()) return FutureRevisionError();
  return HashKvCursor(store, revision);
}

HashKvCursor::HashKvCursor(Store* store, int64_t revision)
    : store_(store), pin_(store->PinAt(store->compact_revision())) {
  result_.hash = Crc32c("key");
  result_.hash_revision = revision;
  result_.compact_revision = store->compact_revision();
  nothing_lives_ = true;
  done_ = revision < 0;  // before everything: the hash of nothing
  if (done_) return;
  if (store->Latest(revision)) {
    nothing_lives_ = store->sizes().live_keys == 0;
  } else {
    store->ForEach(KeyRange::All(), revision, [&](const Record&) {
      nothing_lives_ = false;
      return false;
    });
  }
}

bool HashKvCursor::Advance(size_t budget) {
  if (done_) return true;
  done_ = true;
  store_->log_->ForEach(next_, [&](const Record& record) {
    if (record.mod_revision() > result_.hash_revision) return false;
    next_ = record.revision();
    if (budget-- == 0) {
      done_ = false;
      return false;
    }
    if (Counts(record)) Add(record);
    return true;
  });
  if (done_) pin_ = Pin();
  return done_;
}

// Above the compact revision everything counts. At or below it, what a compaction at the hash's own
// revision would leave; but where that would leave no key at all, what the last compaction did
// leave (etcd's definition). Its tombstones never count, since some versions keep those at exactly
// the compact revision and some do not.
bool HashKvCursor::Counts(const Record& record) const {
  if (record.mod_revision() > result_.compact_revision) return true;
  if (record.tombstone()) return false;
  return store_->Newest(record, nothing_lives_ ? result_.compact_revision : result_.hash_revision);
}

void HashKvCursor::Add(const Record& record) {
  constexpr size_t kRevisionSize = 8 + 1 + 8 + 1;
  const Revision revision = record.revision();
  // The key's tag and size are at most 11 bytes.
  buffer_.resize(kRevisionSize +
                 (record.tombstone() ? 11 + record.key().size() : KeyValueSize(record)));
  char* out = WriteBigEndian(static_cast<uint64_t>(revision.main), buffer_.data());
  *out++ = '_';
  out = WriteBigEndian(static_cast<uint64_t>(revision.sub), out);
  if (record.tombstone()) {
    *out++ = 't';
    if (!record.key().empty()) {
      *out++ = 1 << 3 | 2;  // KeyValue.key, the only field of a tombstone
      out = WriteVarint(record.key().size(), out);
      out += record.key().copy(out, record.key().size());
    }
  } else {
    out = WriteKeyValue(record, out);
  }
  const size_t size = static_cast<size_t>(out - buffer_.data());
  CONCLAVE_CHECK(size <= buffer_.size());
  result_.hash = Crc32cExtend(result_.hash, std::string_view(buffer_.data(), size));
}

}  // namespace conclave::mvcc
