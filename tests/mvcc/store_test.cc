#include "conclave/server/mvcc/store.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/server/mvcc/range_cursor.h"

namespace conclave::mvcc {
namespace {

class StoreTest : public testing::Test {
 protected:
  int64_t Put(std::string_view key, std::string_view value, int64_t lease = 0) {
    WriteTxn txn = store_.Begin();
    txn.Put(key, value, lease);
    return txn.Commit();
  }
  int64_t Delete(const KeyRange& range) {
    WriteTxn txn = store_.Begin();
    txn.DeleteRange(range);
    return txn.Commit();
  }
  std::vector<std::string> Keys(const KeyRange& range, int64_t revision) {
    std::vector<std::string> keys;
    store_.ForEach(range, revision, [&](const Record& record) {
      keys.emplace_back(record.key());
      return true;
    });
    return keys;
  }
  std::vector<std::string> EventsSince(int64_t revision) {
    std::vector<std::string> events;
    store_.ForEachSince(revision, [&](const Record& record) {
      events.push_back((record.tombstone() ? "-" : "+") + std::string(record.key()));
      return true;
    });
    return events;
  }
  void FreeAll() {
    while (store_.CompactSlice(1)) {
    }
    store_.CheckInvariants();
  }

  Store store_;
};

TEST_F(StoreTest, AFreshStoreIsAtRevisionOneAndNothingIsCompacted) {
  EXPECT_EQ(store_.current_revision(), 1);
  EXPECT_EQ(store_.compact_revision(), -1);
  EXPECT_EQ(store_.Get("a"), nullptr);
  EXPECT_EQ(store_.Count(KeyRange::All(), kLatest), 0);
}

TEST_F(StoreTest, APutKeepsTheCreateRevisionAndCountsVersions) {
  Put("a", "1");
  Put("a", "2", 7);
  const Record* record = store_.Get("a");
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(record->value(), "2");
  EXPECT_EQ(record->create_revision(), 2);
  EXPECT_EQ(record->mod_revision(), 3);
  EXPECT_EQ(record->version(), 2);
  EXPECT_EQ(record->lease(), 7);
}

TEST_F(StoreTest, AKeyThatComesBackBeginsANewGeneration) {
  Put("a", "1");
  Delete(KeyRange::Single("a"));
  EXPECT_EQ(store_.Get("a"), nullptr);
  Put("a", "2");
  EXPECT_EQ(store_.Get("a")->create_revision(), 4);
  EXPECT_EQ(store_.Get("a")->version(), 1);
  EXPECT_EQ(store_.GetAt("a", 2)->value(), "1");
  EXPECT_EQ(store_.GetAt("a", 3), nullptr);
}

TEST_F(StoreTest, AllWritesOfATransactionShareOneRevisionAndCountSub) {
  Put("b", "0");
  WriteTxn txn = store_.Begin();
  EXPECT_EQ(txn.revision(), 2);
  txn.Put("c", "1", 0);
  EXPECT_EQ(txn.revision(), 3);
  txn.Put("a", "1", 0);
  const std::vector<RecordRef> deleted = txn.DeleteRange(KeyRange::From("b"));
  ASSERT_EQ(deleted.size(), 2u);
  EXPECT_EQ(deleted[0]->key(), "b");
  EXPECT_EQ(deleted[1]->key(), "c");
  EXPECT_EQ(txn.Commit(), 3);
  std::vector<Revision> revisions;
  store_.ForEachSince(3, [&](const Record& record) {
    revisions.push_back(record.revision());
    return true;
  });
  EXPECT_EQ(revisions, (std::vector<Revision>{{3, 0}, {3, 1}, {3, 2}, {3, 3}}));
}

TEST_F(StoreTest, ATransactionSeesItsOwnWritesAndOldRevisionsDoNot) {
  Put("a", "1");
  WriteTxn txn = store_.Begin();
  txn.Put("a", "2", 0);
  txn.Put("b", "2", 0);
  EXPECT_EQ(store_.Get("a")->value(), "2");
  EXPECT_EQ(store_.GetAt("a", 2)->value(), "1");
  EXPECT_EQ(Keys(KeyRange::All(), kLatest), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(Keys(KeyRange::All(), 2), (std::vector<std::string>{"a"}));
  EXPECT_EQ(store_.Count(KeyRange::All(), 2), 1);
  txn.Commit();
}

TEST_F(StoreTest, ATransactionWithoutEffectLeavesTheRevision) {
  EXPECT_EQ(Delete(KeyRange::All()), 1);
  EXPECT_EQ(store_.Begin().Commit(), 1);
  { WriteTxn dropped = store_.Begin(); }
  EXPECT_EQ(Put("a", "1"), 2);
}

using StoreDeathTest = StoreTest;

TEST_F(StoreDeathTest, MisuseOfTransactionsStopsTheProcess) {
  EXPECT_DEATH(
      {
        WriteTxn txn = store_.Begin();
        WriteTxn second = store_.Begin();
      },
      "one write transaction at a time");
  EXPECT_DEATH(
      {
        WriteTxn txn = store_.Begin();
        txn.Put("a", "1", 0);
      },
      "was not committed");
}

TEST_F(StoreTest, WhichRevisionsCanBeRead) {
  for (int i = 0; i < 5; ++i) Put("a", std::to_string(i));
  ASSERT_TRUE(store_.Compact(4).ok());
  EXPECT_EQ(*store_.ResolveRevision(0), kLatest);
  EXPECT_EQ(*store_.ResolveRevision(-3), kLatest);
  EXPECT_EQ(store_.ResolveRevision(3).status(), CompactedError());
  EXPECT_EQ(*store_.ResolveRevision(4), 4);
  EXPECT_EQ(*store_.ResolveRevision(6), 6);
  EXPECT_EQ(store_.ResolveRevision(7).status(), FutureRevisionError());
  EXPECT_EQ(CompactedError().message(), "etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(FutureRevisionError().message(),
            "etcdserver: mvcc: required revision is a future revision");
}

TEST_F(StoreTest, WhichRevisionsCanBeCompacted) {
  ASSERT_TRUE(store_.Compact(0).ok()) << "a fresh store takes 0, once";
  EXPECT_EQ(store_.Compact(0), CompactedError());
  Put("a", "1");
  EXPECT_EQ(store_.Compact(3), FutureRevisionError());
  EXPECT_TRUE(store_.Compact(2).ok());
  EXPECT_EQ(store_.Compact(2), CompactedError());
  FreeAll();
  EXPECT_EQ(store_.current_revision(), 2);
  EXPECT_EQ(store_.Get("a")->value(), "1");
}

TEST_F(StoreTest, ATombstoneAtTheCompactRevisionIsStillAnEvent) {
  Put("a", "1");
  Put("a", "2");
  Delete(KeyRange::Single("a"));
  ASSERT_TRUE(store_.Compact(4).ok());
  EXPECT_EQ(EventsSince(4), std::vector<std::string>{"-a"});
  FreeAll();
  EXPECT_EQ(EventsSince(4), std::vector<std::string>{"-a"});
  EXPECT_EQ(store_.sizes().records, 1);
  Put("b", "1");
  ASSERT_TRUE(store_.Compact(5).ok());
  FreeAll();
  EXPECT_EQ(EventsSince(5), std::vector<std::string>{"+b"});
  EXPECT_EQ(store_.sizes().records, 1);
}

TEST_F(StoreTest, APinHoldsGarbageBack) {
  Put("a", "1");
  Put("a", "2");
  Pin pin = store_.PinAt(2);
  Put("a", "3");
  ASSERT_TRUE(store_.Compact(4).ok());
  FreeAll();
  EXPECT_FALSE(store_.compaction_pending());
  EXPECT_EQ(store_.sizes().records, 3);
  EXPECT_EQ(store_.ResolveRevision(2).status(), CompactedError()) << "the answer does not wait";
  pin = Pin();
  EXPECT_TRUE(store_.compaction_pending());
  FreeAll();
  EXPECT_EQ(store_.sizes().records, 1);
}

TEST_F(StoreTest, ARangeCursorReadsItsRevisionWhateverHappens) {
  for (int i = 0; i < 300; ++i) Put("k" + std::to_string(i), "old");
  RangeCursor cursor = store_.OpenRange(KeyRange::All(), kLatest);
  EXPECT_EQ(cursor.revision(), 301);
  int found = 0;
  while (const RecordRef record = cursor.Next()) {
    EXPECT_EQ(record->value(), "old");
    ++found;
    Delete(KeyRange::Single(record->key()));
    Put(std::string(record->key()) + "x", "new");
    ASSERT_TRUE(store_.Compact(store_.current_revision()).ok());
    store_.CompactSlice(10);
  }
  EXPECT_EQ(found, 300);
  EXPECT_EQ(cursor.Next().get(), nullptr);
}

TEST_F(StoreTest, LiveSizesCountHeadsOnly) {
  Put("key", "12345");
  EXPECT_EQ(store_.sizes().live_bytes, 8 + kLiveOverhead);
  Put("key", "1");
  EXPECT_EQ(store_.sizes().live_bytes, 4 + kLiveOverhead);
  EXPECT_EQ(store_.sizes().records, 2);
  Delete(KeyRange::All());
  EXPECT_EQ(store_.sizes().live_bytes, 0);
  EXPECT_EQ(store_.sizes().live_keys, 0);
  ASSERT_TRUE(store_.Compact(3).ok());
  Put("b", "");
  FreeAll();
  EXPECT_EQ(store_.sizes().records, 3) << "what revision 3 can read, and everything behind it";
}

TEST_F(StoreTest, TheDigestTellsStatesApartAndDoesNotSeeTheProgressOfCompaction) {
  const Digest fresh = store_.digest();
  Put("a", "1");
  const Digest one = store_.digest();
  EXPECT_NE(fresh, one);
  Put("a", "1");
  const Digest two = store_.digest();
  EXPECT_NE(one, two);
  Delete(KeyRange::All());
  EXPECT_NE(store_.digest(), fresh) << "the revision is part of the state";
  const Digest before = store_.digest();
  ASSERT_TRUE(store_.Compact(4).ok());
  const Digest compacted = store_.digest();
  EXPECT_NE(before, compacted);
  FreeAll();
  EXPECT_EQ(store_.digest(), compacted);
}

TEST_F(StoreTest, ARecordOutlivesItsStore) {
  RecordRef record;
  {
    Store store;
    WriteTxn txn = store.Begin();
    record = txn.Put("a", "value", 0).record;
    txn.Commit();
  }
  EXPECT_EQ(record->value(), "value");
}

}  // namespace
}  // namespace conclave::mvcc
