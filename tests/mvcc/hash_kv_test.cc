// HashKV, byte for byte as etcd has it: the values were taken from etcd 3.4.23 with
// `etcdctl endpoint hashkv --rev`, after the same requests in the same order.

#include "conclave/server/mvcc/hash_kv.h"

#include <gtest/gtest.h>

namespace conclave::mvcc {
namespace {

constexpr int64_t kLease = 5693572463790195209;

class HashKv : public testing::Test {
 protected:
  void Put(std::string_view key, std::string_view value, int64_t lease = 0) {
    WriteTxn txn = store_.Begin();
    txn.Put(key, value, lease);
    txn.Commit();
  }
  void Delete(const KeyRange& range) {
    WriteTxn txn = store_.Begin();
    txn.DeleteRange(range);
    txn.Commit();
  }
  uint32_t Hash(int64_t revision) { return store_.HashKv(revision)->hash; }

  Store store_;
};

TEST_F(HashKv, AgreesWithEtcd) {
  EXPECT_EQ(Hash(0), 1084519789u);
  EXPECT_EQ(store_.HashKv(0)->compact_revision, -1);
  Put("foo", "bar");
  EXPECT_EQ(Hash(0), 3305255506u);
  Put("foo", "baz");
  Put("a", "");
  Put("leased", "v", kLease);
  EXPECT_EQ(Hash(0), 56004959u);
  EXPECT_EQ(Hash(3), 2020292994u);
  {
    WriteTxn txn = store_.Begin();
    txn.Put("t1", "x", 0);
    txn.Put("t2", "y", 0);
    txn.Delete("foo");
    ASSERT_EQ(txn.Commit(), 6);
  }
  EXPECT_EQ(Hash(0), 235614133u);
  EXPECT_EQ(Hash(5), 56004959u);
  Put("foo", "again");
  Delete(KeyRange::Single("a"));
  EXPECT_EQ(Hash(0), 1910958012u);
  EXPECT_EQ(Hash(6), 235614133u);

  // A compaction counts at once, and freeing its garbage changes nothing.
  ASSERT_TRUE(store_.Compact(6).ok());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Hash(0), 509518098u);
    EXPECT_EQ(Hash(7), 4157429225u);
    EXPECT_EQ(Hash(8), 509518098u);
    while (store_.CompactSlice(1)) {
    }
  }
  ASSERT_TRUE(store_.Compact(8).ok());
  EXPECT_EQ(Hash(0), 3964743451u);
  Put("z", "1");
  EXPECT_EQ(Hash(0), 3496012108u);
  EXPECT_EQ(store_.HashKv(0)->hash_revision, 9);
  EXPECT_EQ(store_.HashKv(0)->compact_revision, 8);
  Delete(KeyRange::All());
  // No key is left: etcd then skips nothing of what its compaction had kept.
  EXPECT_EQ(Hash(0), 651692587u);
  EXPECT_EQ(Hash(9), 3496012108u);
  ASSERT_TRUE(store_.Compact(9).ok());
  EXPECT_EQ(Hash(0), 651692587u);
  ASSERT_TRUE(store_.Compact(10).ok());
  EXPECT_EQ(Hash(0), 1084519789u);
  Put("foo", "new");
  EXPECT_EQ(Hash(0), 3679184541u);
}

TEST_F(HashKv, RefusesCompactedAndFutureRevisions) {
  Put("a", "1");
  Put("a", "2");
  ASSERT_TRUE(store_.Compact(3).ok());
  EXPECT_EQ(store_.HashKv(2).status(), CompactedError());
  EXPECT_TRUE(store_.HashKv(3).ok());
  EXPECT_EQ(store_.HashKv(4).status(), FutureRevisionError());
}

}  // namespace
}  // namespace conclave::mvcc
