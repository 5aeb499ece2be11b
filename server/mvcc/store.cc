#include "conclave/server/mvcc/store.h"

#include <utility>

#include "conclave/base/check.h"
#include "conclave/server/mvcc/hash_kv.h"
#include "conclave/server/mvcc/range_cursor.h"
#include "conclave/server/mvcc/revision_log.h"
#include "conclave/server/mvcc/tree_index.h"

namespace conclave::mvcc {
namespace {

int64_t LiveCost(const Record& record) {
  return static_cast<int64_t>(record.key().size() + record.value().size()) + kLiveOverhead;
}

}  // namespace

// --- Pin ---

Pin::Pin(std::shared_ptr<Pins> pins, int64_t revision)
    : pins_(std::move(pins)), revision_(revision) {
  ++(*pins_)[revision];
}

Pin::Pin(Pin&& other) noexcept : pins_(std::move(other.pins_)), revision_(other.revision_) {}

Pin& Pin::operator=(Pin&& other) noexcept {
  std::swap(pins_, other.pins_);
  std::swap(revision_, other.revision_);
  return *this;
}

Pin::~Pin() {
  if (pins_ == nullptr) return;
  const auto pin = pins_->find(revision_);
  CONCLAVE_CHECK(pin != pins_->end());
  if (--pin->second == 0) pins_->erase(pin);
}

// --- WriteTxn ---

WriteTxn::WriteTxn(Store* store) : store_(store), main_(store->current_revision_ + 1) {
  CONCLAVE_CHECK(!store->txn_open_, "one write transaction at a time");
  store->txn_open_ = true;
}

WriteTxn::WriteTxn(WriteTxn&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)), main_(other.main_), sub_(other.sub_) {}

WriteTxn::~WriteTxn() {
  if (store_ == nullptr) return;
  CONCLAVE_CHECK(!wrote(), "a transaction that wrote was not committed");
  store_->txn_open_ = false;
}

WriteTxn::PutResult WriteTxn::Put(std::string_view key, std::string_view value, int64_t lease) {
  CONCLAVE_CHECK(store_ != nullptr, "the transaction has ended");
  PutResult result;
  store_->index_->Put(key, [&](const Record* head) {
    RecordFields fields{.key = key,
                        .value = value,
                        .revision = {.main = main_, .sub = sub_},
                        .create_revision = main_,
                        .version = 1,
                        .lease = lease};
    if (head != nullptr && !head->tombstone()) {
      head->Prefetch();  // RemoveHead hashes it
      result.previous = RecordRef(head);
      fields.create_revision = head->create_revision();
      fields.version = head->version() + 1;
    }
    result.record = MakeRecord(fields);
    return result.record.get();
  });
  ++sub_;
  if (result.previous) store_->RemoveHead(*result.previous);
  store_->AddHead(*result.record);
  store_->Log(*result.record);
  return result;
}

RecordRef WriteTxn::Delete(std::string_view key) {
  CONCLAVE_CHECK(store_ != nullptr, "the transaction has ended");
  RecordRef previous(store_->Get(key));
  if (!previous) return previous;
  RecordRef tombstone;
  store_->index_->Put(key, [&](const Record*) {
    tombstone = MakeRecord(
        {.key = key, .value = {}, .revision = {.main = main_, .sub = sub_}, .tombstone = true});
    return tombstone.get();
  });
  ++sub_;
  store_->RemoveHead(*previous);
  store_->Log(*tombstone);
  return previous;
}

std::vector<RecordRef> WriteTxn::DeleteRange(const KeyRange& range) {
  std::vector<RecordRef> deleted;
  store_->ForEach(range, kLatest, [&](const Record& record) {
    deleted.emplace_back(&record);
    return true;
  });
  for (const RecordRef& record : deleted) {
    CONCLAVE_CHECK(Delete(record->key()) == record);
  }
  return deleted;
}

int64_t WriteTxn::revision() const { return wrote() ? main_ : main_ - 1; }

int64_t WriteTxn::Commit() {
  CONCLAVE_CHECK(store_ != nullptr, "the transaction has ended");
  Store* store = std::exchange(store_, nullptr);
  store->txn_open_ = false;
  store->current_revision_ = revision();
  return store->current_revision_;
}

// --- Store ---

Store::Store()
    : pins_(std::make_shared<Pin::Pins>()), index_(new TreeIndex), log_(new RevisionLog) {}

Store::~Store() = default;

void Store::AddHead(const Record& record) {
  live_digest_ += HashRecord(record);
  ++sizes_.live_keys;
  sizes_.live_bytes += LiveCost(record);
}

void Store::RemoveHead(const Record& record) {
  live_digest_ -= HashRecord(record);
  --sizes_.live_keys;
  sizes_.live_bytes -= LiveCost(record);
}

void Store::Log(const Record& record) {
  log_->Append(&record);
  ++sizes_.records;
  sizes_.record_bytes += static_cast<int64_t>(record.memory());
}

const Record* Store::Get(std::string_view key) const {
  const Slot* slot = index_->Find(key);
  return slot != nullptr && slot->live() ? slot->head() : nullptr;
}

const Record* Store::GetAt(std::string_view key, int64_t revision) const {
  CONCLAVE_CHECK(revision >= compact_revision_, revision, " is compacted");
  const Slot* slot = index_->Find(key);
  if (slot == nullptr) return nullptr;
  const Record* record = slot->At(revision);
  return record != nullptr && !record->tombstone() ? record : nullptr;
}

absl::StatusOr<int64_t> Store::ResolveRevision(int64_t revision) const {
  if (revision <= 0) return kLatest;
  if (revision > current_revision_) return FutureRevisionError();
  if (revision < compact_revision_) return CompactedError();
  return revision;
}

void Store::ForEach(const KeyRange& range, int64_t revision,
                    absl::FunctionRef<bool(const Record&)> visit) const {
  CONCLAVE_CHECK(revision >= compact_revision_, revision, " is compacted");
  if (revision == kLatest || Latest(revision)) {
    index_->ForEach(range, [&](const Slot& slot) { return !slot.live() || visit(*slot.head()); });
    return;
  }
  index_->ForEach(range, [&](const Slot& slot) {
    const Record* record = slot.At(revision);
    return record == nullptr || record->tombstone() || visit(*record);
  });
}

int64_t Store::Count(const KeyRange& range, int64_t revision) const {
  if (revision == kLatest || Latest(revision)) return index_->CountLive(range);
  int64_t count = 0;
  ForEach(range, revision, [&](const Record&) {
    ++count;
    return true;
  });
  return count;
}

RangeCursor Store::OpenRange(const KeyRange& range, int64_t revision) {
  if (revision == kLatest) {
    CONCLAVE_CHECK(!txn_open_, "a cursor reads committed revisions");
    revision = current_revision_;
  }
  return RangeCursor(this, range, revision);
}

void Store::ForEachSince(int64_t from, absl::FunctionRef<bool(const Record&)> visit) const {
  CONCLAVE_CHECK(from >= free_target_, from, " is compacted");
  log_->ForEach({.main = from, .sub = 0}, visit);
}

void Store::ForEachVersionSince(std::string_view key, int64_t from,
                                absl::FunctionRef<bool(const Record&)> visit) const {
  CONCLAVE_CHECK(from >= free_target_, from, " is compacted");
  const Slot* slot = index_->Find(key);
  if (slot == nullptr) return;
  for (uint32_t i = slot->CountBefore(from); i < slot->size(); ++i) {
    if (!visit(*slot->record(i))) return;
  }
}

WriteTxn Store::Begin() { return WriteTxn(this); }

absl::StatusOr<HashKvResult> Store::HashKv(int64_t revision) {
  absl::StatusOr<HashKvCursor> cursor = HashKvCursor::Open(this, revision);
  if (!cursor.ok()) return cursor.status();
  CONCLAVE_CHECK(cursor->Advance(SIZE_MAX));
  return cursor->result();
}

Digest Store::digest() const {
  return Mix(Mix(live_digest_, static_cast<uint64_t>(current_revision_)),
             static_cast<uint64_t>(compact_revision_));
}

void Store::CheckInvariants() const {
  index_->CheckInvariants();
  log_->CheckInvariants();
  CONCLAVE_CHECK(static_cast<int64_t>(log_->size()) == sizes_.records);
  Digest digest;
  int64_t live_keys = 0;
  int64_t live_bytes = 0;
  int64_t records = 0;
  int64_t record_bytes = 0;
  index_->ForEach(KeyRange::All(), [&](const Slot& slot) {
    if (slot.live()) {
      digest += HashRecord(*slot.head());
      ++live_keys;
      live_bytes += LiveCost(*slot.head());
    }
    for (uint32_t i = 0; i < slot.size(); ++i) {
      CONCLAVE_CHECK(log_->First(slot.record(i)->revision()) == slot.record(i));
      record_bytes += static_cast<int64_t>(slot.record(i)->memory());
    }
    records += slot.size();
    return true;
  });
  CONCLAVE_CHECK(digest == live_digest_);
  CONCLAVE_CHECK(live_keys == sizes_.live_keys && live_bytes == sizes_.live_bytes);
  CONCLAVE_CHECK(records == sizes_.records && record_bytes == sizes_.record_bytes);
  CONCLAVE_CHECK(index_->CountLive(KeyRange::All()) == live_keys);
  CONCLAVE_CHECK(freed_revision_ <= FreeTarget() && FreeTarget() <= compact_revision_);
}

}  // namespace conclave::mvcc
