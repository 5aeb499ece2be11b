#include "conclave/server/mvcc/snapshot_cursor.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/base/status.h"
#include "conclave/server/mvcc/revision_log.h"
#include "conclave/server/mvcc/tree_index.h"
#include "conclave/server/mvcc/wire.h"

namespace conclave::mvcc {

// --- SnapshotCursor ---

SnapshotCursor::SnapshotCursor(Store* store)
    : store_(store), pin_(store->PinAt(store->compact_revision())) {
  CONCLAVE_CHECK(!store->txn_open_, "a snapshot inside a transaction");
  image_ = {.current_revision = store->current_revision(),
            .compact_revision = store->compact_revision(),
            .digest = store->digest()};
  check_garbage_ = store->freed_revision_ < store->compact_revision_;
}

RecordRef SnapshotCursor::Next() {
  RecordRef next;
  store_->log_->ForEach(next_, [&](const Record& record) {
    if (record.mod_revision() > image_.current_revision) return false;
    if (check_garbage_ && store_->Garbage(record, image_.compact_revision)) {
      REACHED("mvcc: a snapshot leaves out what is not freed yet");
      return true;
    }
    if (MUTANT("snapshot-without-tombstones") && record.tombstone()) return true;
    next = RecordRef(&record);
    return false;
  });
  if (next) {
    next_ = {.main = next->revision().main, .sub = next->revision().sub + 1};
  } else {
    next_ = {.main = kLatest, .sub = 0};
  }
  return next;
}

// --- StoreBuilder ---

namespace {

absl::Status Contradiction(const char* what) {
  return absl::DataLossError(absl::StrCat("state snapshot: ", what));
}

size_t CommonPrefix(std::string_view a, std::string_view b) {
  const size_t size = std::min(a.size(), b.size());
  size_t same = 0;
  while (same < size && a[same] == b[same]) ++same;
  return same;
}

// A record with the first bytes of its key that differ between keys, so that most comparisons while
// sorting need not look at the record.
struct Entry {
  uint64_t hint;
  const Record* record;

  friend bool operator<(const Entry& a, const Entry& b) {
    if (a.hint != b.hint) return a.hint < b.hint;
    const int order = a.record->key().compare(b.record->key());
    return order != 0 ? order < 0 : a.record->revision() < b.record->revision();
  }
};

uint64_t HintOf(std::string_view key, size_t skip) {
  uint64_t word = 0;
  std::memcpy(&word, key.data() + skip, std::min(sizeof(word), key.size() - skip));
  if constexpr (std::endian::native == std::endian::little) word = __builtin_bswap64(word);
  return word;
}

}  // namespace

StoreBuilder::StoreBuilder(const StoreImage& image)
    : image_(image), store_(std::make_unique<Store>()) {}

StoreBuilder::StoreBuilder() : StoreBuilder(StoreImage{.current_revision = INT64_MAX}) {}

absl::Status StoreBuilder::TakeRevision(Revision revision, std::string_view key) {
  if (revision.main < 1 || revision.sub < 0 || revision.sub > INT32_MAX ||
      revision.main > image_.current_revision) {
    return Contradiction("a revision is out of bounds");
  }
  if (revision <= last_) {
    return Contradiction("revisions are out of order");
  }
  if (last_ == Revision{}) {
    common_prefix_ = std::string(key);
  } else {
    common_prefix_.resize(CommonPrefix(common_prefix_, key));
  }
  last_ = revision;
  return absl::OkStatus();
}

absl::Status StoreBuilder::Add(const RecordFields& fields) {
  const Revision& revision = fields.revision;
  if (fields.tombstone ? fields.version != 0 || fields.create_revision != 0 || !fields.value.empty()
                       : fields.version < 1 || fields.create_revision < 1 ||
                             fields.create_revision > revision.main) {
    return Contradiction("a record contradicts itself");
  }
  CONCLAVE_RETURN_IF_ERROR(TakeRevision(revision, fields.key));
  store_->Log(*MakeRecord(fields));
  return absl::OkStatus();
}

absl::StatusOr<const Record*> StoreBuilder::Share(const Store& source, Revision revision) {
  const Record* record = source.log_->First(revision);
  if (record == nullptr || record->revision() != revision) {
    return Contradiction("a record that should be here already is not");
  }
  CONCLAVE_RETURN_IF_ERROR(TakeRevision(revision, record->key()));
  store_->Log(*record);
  return record;
}

bool StoreBuilder::Follows(const Record* before, const Record& after) {
  const bool exists = before != nullptr && !before->tombstone();
  if (after.tombstone()) return before == nullptr || exists;
  if (exists) {
    return after.version() == before->version() + 1 &&
           after.create_revision() == before->create_revision();
  }
  // Without anything before it, the record may be what compaction has left of a longer history.
  return before == nullptr ||
         (after.version() == 1 && after.create_revision() == after.mod_revision());
}

absl::StatusOr<std::unique_ptr<Store>> StoreBuilder::Finish() {
  const Digest digest = image_.digest;
  CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Build());
  if (store->digest() != digest) return Contradiction("the digest does not match");
  if (MUTANT("revision-of-the-newest-record-restored")) {
    store->current_revision_ = std::max<int64_t>(last_.main, 1);
  }
  return store;
}

absl::StatusOr<std::unique_ptr<Store>> StoreBuilder::FinishAt(int64_t current_revision) {
  if (current_revision < std::max<int64_t>(last_.main, 1)) {
    return Contradiction("a revision is out of bounds");
  }
  image_ = {.current_revision = current_revision};
  return Build();
}

absl::StatusOr<std::unique_ptr<Store>> StoreBuilder::Build() {
  std::unique_ptr<Store> store = std::move(store_);
  std::vector<Entry> entries;
  entries.reserve(store->log_->size());
  store->log_->ForEach(Revision{}, [&](const Record& record) {
    entries.push_back({.hint = HintOf(record.key(), common_prefix_.size()), .record = &record});
    return true;
  });
  std::sort(entries.begin(), entries.end());

  // The index shares one reference for each record; a failure below gives them back with the slots.
  std::vector<Slot> slots;
  slots.reserve(entries.size());
  std::vector<const Record*> history;
  bool consistent = true;
  for (size_t i = 0; i < entries.size();) {
    history.clear();
    const std::string_view key = entries[i].record->key();
    for (; i < entries.size() && entries[i].record->key() == key; ++i) {
      const Record* before = history.empty() ? nullptr : history.back();
      consistent = consistent && Follows(before, *entries[i].record);
      history.push_back(RecordRef(entries[i].record).Release());
    }
    if (!history.back()->tombstone()) store->AddHead(*history.back());
    slots.push_back(Slot::Of(history.data(), history.size()));
  }
  entries = {};
  store->index_->BulkLoad(slots);

  store->current_revision_ = image_.current_revision;
  store->compact_revision_ = image_.compact_revision;
  store->freed_revision_ = image_.compact_revision;
  store->free_target_ = image_.compact_revision;
  if (!consistent) return Contradiction("the revisions of a key do not follow each other");
  return store;
}

// --- Encoding ---

namespace {

bool ReadVarint(std::string_view* input, uint64_t* value) {
  *value = 0;
  for (size_t i = 0; i < input->size() && i < 10; ++i) {
    const auto byte = static_cast<unsigned char>((*input)[i]);
    if (i == 9 && byte > 1) return false;
    *value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      input->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

}  // namespace

size_t EncodedRecordSize(const Record& record) {
  const Revision revision = record.revision();
  return VarintSize(record.key().size()) + VarintSize(record.value().size()) +
         VarintSize(static_cast<uint64_t>(revision.main)) +
         VarintSize(static_cast<uint64_t>(revision.sub) << 1) +
         VarintSize(static_cast<uint64_t>(record.create_revision())) +
         VarintSize(static_cast<uint64_t>(record.version())) +
         VarintSize(static_cast<uint64_t>(record.lease())) + record.key().size() +
         record.value().size();
}

void EncodeRecord(const Record& record, std::string* out) {
  const Revision revision = record.revision();
  char head[7 * 10];
  char* end = WriteVarint(record.key().size(), head);
  end = WriteVarint(record.value().size(), end);
  end = WriteVarint(static_cast<uint64_t>(revision.main), end);
  end = WriteVarint(static_cast<uint64_t>(revision.sub) << 1 | (record.tombstone() ? 1 : 0), end);
  end = WriteVarint(static_cast<uint64_t>(record.create_revision()), end);
  end = WriteVarint(static_cast<uint64_t>(record.version()), end);
  end = WriteVarint(static_cast<uint64_t>(record.lease()), end);
  out->append(head, static_cast<size_t>(end - head));
  out->append(record.key());
  out->append(record.value());
}

absl::Status DecodeRecord(std::string_view* input, RecordFields* fields) {
  std::string_view rest = *input;
  uint64_t numbers[7];
  for (uint64_t& number : numbers) {
    if (!ReadVarint(&rest, &number)) return Contradiction("a record is cut off");
  }
  const auto [key_size, value_size, main, sub, create, version, lease] = numbers;
  if (key_size > rest.size() || value_size > rest.size() - key_size) {
    return Contradiction("a record is cut off");
  }
  if (key_size > UINT32_MAX || value_size > UINT32_MAX || main > INT64_MAX || create > INT64_MAX ||
      version > INT64_MAX || sub >> 1 > INT32_MAX) {
    return Contradiction("a record's number is out of bounds");
  }
  fields->key = rest.substr(0, key_size);
  fields->value = rest.substr(key_size, value_size);
  fields->revision = {.main = static_cast<int64_t>(main), .sub = static_cast<int64_t>(sub >> 1)};
  fields->tombstone = (sub & 1) != 0;
  fields->create_revision = static_cast<int64_t>(create);
  fields->version = static_cast<int64_t>(version);
  fields->lease = static_cast<int64_t>(lease);
  input->remove_prefix(static_cast<size_t>(rest.data() - input->data()) + key_size + value_size);
  return absl::OkStatus();
}

}  // namespace conclave::mvcc
