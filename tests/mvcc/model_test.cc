// Random transactions, compactions, cursors and snapshots against the naive model; what the store
// has freed must never show. Every failure names its seed.

#include "conclave/tests/mvcc/model.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>

#include "conclave/base/prng.h"
#include "conclave/server/mvcc/hash_kv.h"
#include "conclave/server/mvcc/range_cursor.h"
#include "conclave/server/mvcc/snapshot_cursor.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::mvcc {
namespace {

std::vector<ModelRecord> Collect(absl::FunctionRef<RecordRef()> next) {
  std::vector<ModelRecord> records;
  while (RecordRef record = next()) records.push_back(ModelRecord::Of(*record));
  return records;
}

// What is read in slices while the world goes on, and what must come out of it in the end.
struct OpenRead {
  std::unique_ptr<RangeCursor> cursor;
  std::unique_ptr<SnapshotCursor> snapshot;
  std::unique_ptr<HashKvCursor> hash;
  std::vector<ModelRecord> expected;
  std::vector<ModelRecord> found;
  uint32_t expected_hash = 0;
};

class World {
 public:
  World(uint64_t seed, size_t keys) : prng_(seed), store_(new Store) {
    for (size_t i = 0; i < keys; ++i) keys_.push_back(RandomKey(i));
  }
  ~World() { open_.clear(); }

  void Step() {
    switch (prng_.Below(20)) {
      case 0:
        return Compact();
      case 1:
      case 2:
        store_->CompactSlice(prng_.Below(20));
        return;
      case 3:
        return Open();
      case 4:
      case 5:
      case 6:
        return Continue();
      case 7:
        return CompareReads();
      case 8:
        if (prng_.Chance(1, 10)) Reinstall();
        return;
      default:
        return Write();
    }
  }

  void Compare() {
    ASSERT_EQ(store_->current_revision(), model_.current);
    ASSERT_EQ(store_->compact_revision(), model_.compacted);
    store_->CheckInvariants();
    for (int i = 0; i < 20; ++i) CompareReads();
    SnapshotCursor cursor(store_.get());
    ASSERT_EQ(Collect([&] { return cursor.Next(); }), model_.Kept());
  }

  // After everything is freed, nothing but what is logically there is in memory.
  void CompareMemory() {
    open_.clear();
    while (store_->CompactSlice(100)) {
    }
    Compare();
    ASSERT_EQ(store_->sizes().records, static_cast<int64_t>(model_.Kept().size()));
  }

 private:
  std::string RandomKey(size_t i) {
    // Keys with long common prefixes, keys that are prefixes of others, zero bytes, the empty key.
    std::string key;
    switch (prng_.Below(4)) {
      case 0:
        key = "/registry/services/" + std::to_string(i);
        break;
      case 1:
        for (uint64_t n = prng_.Below(6); n > 0; --n)
          key += static_cast<char>(prng_.Below(3) * 127);
        break;
      case 2:
        key = "/registry/" + std::string(prng_.Below(12), 'a');
        break;
      default:
        key = std::to_string(prng_.Next());
    }
    return key;
  }
  const std::string& AnyKey() { return keys_[prng_.Below(keys_.size())]; }
  KeyRange AnyRange() {
    switch (prng_.Below(5)) {
      case 0:
        return KeyRange::Single(AnyKey());
      case 1:
        return KeyRange::From(AnyKey());
      case 2:
        return KeyRange::All();
      default:
        return KeyRange::Between(AnyKey(), AnyKey());
    }
  }

  void Write() {
    WriteTxn txn = store_->Begin();
    const int64_t main = model_.current + 1;
    int64_t sub = 0;
    for (uint64_t ops = prng_.Between(1, 4); ops > 0; --ops) {
      if (prng_.Chance(2, 3)) {
        const std::string key = AnyKey();
        const std::string value(prng_.Below(20), static_cast<char>('a' + prng_.Below(26)));
        const int64_t lease = prng_.Chance(1, 4) ? prng_.Between(1, 1000) : 0;
        const ModelRecord* before = model_.Get(key, INT64_MAX);
        const std::optional<ModelRecord> previous =
            before != nullptr ? std::optional(*before) : std::nullopt;
        const WriteTxn::PutResult result = txn.Put(key, value, lease);
        model_.Put({main, sub++}, key, value, lease);
        ASSERT_EQ(ModelRecord::Of(*result.record), model_.log.back());
        ASSERT_EQ(result.previous ? std::optional(ModelRecord::Of(*result.previous)) : std::nullopt,
                  previous);
      } else {
        const KeyRange range = prng_.Chance(2, 3) ? KeyRange::Single(AnyKey()) : AnyRange();
        const std::vector<ModelRecord> expected = model_.Range(range, INT64_MAX);
        if (expected.size() > 20) continue;
        std::vector<ModelRecord> deleted;
        for (const RecordRef& record : txn.DeleteRange(range)) {
          deleted.push_back(ModelRecord::Of(*record));
        }
        ASSERT_EQ(deleted, expected);
        for (const ModelRecord& record : deleted)
          ASSERT_TRUE(model_.Delete({main, sub++}, record.key));
      }
      // Inside the transaction the latest state has its writes, and a numbered revision has not.
      const std::string& key = AnyKey();
      CompareRecord(store_->Get(key), model_.Get(key, INT64_MAX));
      CompareRecord(store_->GetAt(key, model_.current), model_.Get(key, model_.current));
    }
    ASSERT_EQ(txn.revision(), sub > 0 ? main : model_.current);
    if (sub > 0) model_.current = main;
    ASSERT_EQ(txn.Commit(), model_.current);
  }

  void Compact() {
    const int64_t revision = prng_.Between(model_.compacted - 1, model_.current + 1);
    const absl::Status status = store_->Compact(revision);
    if (revision <= model_.compacted) {
      ASSERT_EQ(status, CompactedError());
    } else if (revision > model_.current) {
      ASSERT_EQ(status, FutureRevisionError());
    } else {
      ASSERT_TRUE(status.ok());
      model_.compacted = revision;
    }
  }

  int64_t AnyRevision() {
    return prng_.Between(std::max<int64_t>(model_.compacted, 1), model_.current);
  }

  void CompareRecord(const Record* record, const ModelRecord* expected) {
    ASSERT_EQ(record != nullptr, expected != nullptr);
    if (record != nullptr) {
      ASSERT_EQ(ModelRecord::Of(*record), *expected);
    }
  }

  void CompareReads() {
    const std::string& key = AnyKey();
    CompareRecord(store_->Get(key), model_.Get(key, INT64_MAX));
    const int64_t revision = AnyRevision();
    CompareRecord(store_->GetAt(key, revision), model_.Get(key, revision));
    const KeyRange range = AnyRange();
    for (const int64_t at : {kLatest, model_.current, revision}) {
      std::vector<ModelRecord> found;
      store_->ForEach(range, at, [&](const Record& record) {
        found.push_back(ModelRecord::Of(record));
        return true;
      });
      ASSERT_EQ(found, model_.Range(range, at));
      ASSERT_EQ(store_->Count(range, at), static_cast<int64_t>(found.size()));
    }
    std::vector<ModelRecord> since;
    store_->ForEachSince(revision, [&](const Record& record) {
      since.push_back(ModelRecord::Of(record));
      return true;
    });
    ASSERT_EQ(since, model_.Since(revision));
    ASSERT_EQ(store_->HashKv(revision)->hash, model_.HashKv(revision));
  }

  void Open() {
    if (open_.size() >= 4) return;
    OpenRead read;
    switch (prng_.Below(3)) {
      case 0: {
        const int64_t revision = AnyRevision();
        const KeyRange range = AnyRange();
        read.cursor = std::make_unique<RangeCursor>(store_->OpenRange(range, revision));
        read.expected = model_.Range(range, revision);
        break;
      }
      case 1:
        read.snapshot = std::make_unique<SnapshotCursor>(store_.get());
        read.expected = model_.Kept();
        break;
      default: {
        const int64_t revision = AnyRevision();
        read.hash = std::make_unique<HashKvCursor>(*HashKvCursor::Open(store_.get(), revision));
        read.expected_hash = model_.HashKv(revision);
      }
    }
    open_.push_back(std::move(read));
  }

  void Continue() {
    if (open_.empty()) return;
    const size_t index = prng_.Below(open_.size());
    OpenRead& read = open_[index];
    const size_t budget = prng_.Below(30);
    bool done = false;
    if (read.hash) {
      done = read.hash->Advance(budget);
      if (done) {
        ASSERT_EQ(read.hash->result().hash, read.expected_hash);
      }
    } else {
      for (size_t i = 0; i < budget && !done; ++i) {
        const RecordRef record = read.cursor ? read.cursor->Next() : read.snapshot->Next();
        done = !record;
        if (record) read.found.push_back(ModelRecord::Of(*record));
      }
      if (done) {
        ASSERT_EQ(read.found, read.expected);
      }
    }
    if (done) open_.erase(open_.begin() + static_cast<ptrdiff_t>(index));
  }

  // Goes on with a store that was rebuilt from a snapshot.
  void Reinstall() {
    SnapshotCursor cursor(store_.get());
    std::string bytes;
    while (const RecordRef record = cursor.Next()) {
      const size_t before = bytes.size();
      EncodeRecord(*record, &bytes);
      ASSERT_EQ(bytes.size() - before, EncodedRecordSize(*record));
    }
    StoreBuilder builder(cursor.image());
    std::string_view input = bytes;
    while (!input.empty()) {
      RecordFields fields;
      ASSERT_TRUE(DecodeRecord(&input, &fields).ok());
      ASSERT_TRUE(builder.Add(fields).ok());
    }
    absl::StatusOr<std::unique_ptr<Store>> rebuilt = builder.Finish();
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    cursor = SnapshotCursor(rebuilt->get());
    ASSERT_EQ((*rebuilt)->digest(), store_->digest());
    ASSERT_EQ((*rebuilt)->sizes().live_bytes, store_->sizes().live_bytes);
    open_.clear();
    store_ = *std::move(rebuilt);
    Compare();
  }

  Prng prng_;
  std::unique_ptr<Store> store_;
  Model model_;
  std::vector<std::string> keys_;
  std::vector<OpenRead> open_;
};

void RunWorld(uint64_t seed, size_t keys, int steps) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", " << keys << " keys");
  World world(seed, keys);
  for (int i = 0; i < steps; ++i) {
    world.Step();
    if (i % 200 == 0) world.Compare();
    if (testing::Test::HasFatalFailure()) return;
  }
  world.CompareMemory();
}

TEST(StoreModel, FewKeysManyRevisions) {
  for (uint64_t seed = 1; seed <= 150 && !HasFatalFailure(); ++seed) RunWorld(seed, 8, 600);
}

TEST(StoreModel, ManyKeysFewRevisions) {
  for (uint64_t seed = 1000; seed <= 1030 && !HasFatalFailure(); ++seed) RunWorld(seed, 500, 1500);
}

}  // namespace
}  // namespace conclave::mvcc
