// The protocol's rules for transactions, one test each.
#include <gtest/gtest.h>

#include <string>

#include "conclave/tests/apply/machine.h"

namespace conclave::apply {
namespace {

using Code = wire::Code;

class TxnTest : public testing::Test {
 protected:
  static void AddPut(google::protobuf::RepeatedPtrField<pb::RequestOp>* ops, const std::string& key,
                     const std::string& value = "v", int64_t lease = 0) {
    pb::PutRequest* const put = ops->Add()->mutable_request_put();
    put->set_key(key);
    put->set_value(value);
    put->set_lease(lease);
  }
  static void AddDelete(google::protobuf::RepeatedPtrField<pb::RequestOp>* ops,
                        const std::string& key, const std::string& end = "") {
    pb::DeleteRangeRequest* const range = ops->Add()->mutable_request_delete_range();
    range->set_key(key);
    range->set_range_end(end);
  }
  static pb::RangeRequest* AddRange(google::protobuf::RepeatedPtrField<pb::RequestOp>* ops,
                                    const std::string& key, const std::string& end = "") {
    pb::RangeRequest* const range = ops->Add()->mutable_request_range();
    range->set_key(key);
    range->set_range_end(end);
    return range;
  }
  static pb::Compare* AddCompare(pb::TxnRequest* txn, const std::string& key,
                                 pb::Compare::CompareTarget target,
                                 pb::Compare::CompareResult result) {
    pb::Compare* const compare = txn->add_compare();
    compare->set_key(key);
    compare->set_target(target);
    compare->set_result(result);
    return compare;
  }
  static pb::TxnRequest Nested(const pb::TxnRequest& inner) {
    pb::TxnRequest outer;
    *outer.add_success()->mutable_request_txn() = inner;
    return outer;
  }

  Machine machine_;
};

TEST_F(TxnTest, IsOneRevisionForAllItsWrites) {
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "a");
  AddPut(txn.mutable_success(), "b");
  AddDelete(txn.mutable_success(), "c");
  ASSERT_TRUE(machine_.Put("c", "v").ok());
  const auto answer = machine_.Txn(txn);
  EXPECT_EQ(answer->header().revision(), 3);
  EXPECT_EQ(machine_.Get("a")->kvs(0).mod_revision(), 3);
  EXPECT_EQ(machine_.Get("b")->kvs(0).mod_revision(), 3);
  EXPECT_EQ(machine_.Get("c")->count(), 0);
}

TEST_F(TxnTest, WithoutAnEffectiveWriteLeavesTheRevision) {
  pb::TxnRequest txn;
  AddDelete(txn.mutable_success(), "absent");
  EXPECT_EQ(machine_.Txn(txn)->header().revision(), 1);
  EXPECT_EQ(machine_.Txn(pb::TxnRequest())->header().revision(), 1);
}

TEST_F(TxnTest, HeadersInsideCarryOnlyTheRevision) {
  pb::TxnRequest inner;
  AddPut(inner.mutable_success(), "b");
  pb::TxnRequest txn;
  AddRange(txn.mutable_success(), "a");
  AddPut(txn.mutable_success(), "a");
  *txn.add_success()->mutable_request_txn() = inner;
  const auto answer = machine_.Txn(txn);
  EXPECT_EQ(answer->header().cluster_id(), Machine::kClusterId);
  const pb::ResponseHeader range = answer->responses(0).response_range().header();
  EXPECT_EQ(range.revision(), 1);
  EXPECT_EQ(range.cluster_id(), 0u);
  EXPECT_EQ(answer->responses(1).response_put().header().revision(), 2);
  const pb::TxnResponse& nested = answer->responses(2).response_txn();
  EXPECT_TRUE(nested.has_header());
  EXPECT_EQ(nested.header().revision(), 0);
  EXPECT_TRUE(nested.succeeded());
}

TEST_F(TxnTest, ReadsDoNotGoThroughTheLog) {
  pb::TxnRequest txn;
  AddRange(txn.mutable_success(), "a")->set_serializable(true);
  const auto route = [this, &txn] {
    return machine_.state().Check(wire::Method::kTxn, txn.SerializeAsString()).route;
  };
  EXPECT_EQ(route(), Route::kReadLocal);
  AddRange(txn.mutable_failure(), "a");
  EXPECT_EQ(route(), Route::kRead);
  AddDelete(txn.mutable_failure(), "a");
  EXPECT_EQ(route(), Route::kPropose);
  // Without any operation it is serializable.
  txn = pb::TxnRequest();
  AddCompare(&txn, "a", pb::Compare::VERSION, pb::Compare::EQUAL);
  EXPECT_EQ(route(), Route::kReadLocal);
  EXPECT_TRUE(machine_.Txn(txn)->succeeded());
}

TEST_F(TxnTest, ARangeSeesThePutsBeforeIt) {
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "k", "new");
  AddRange(txn.mutable_success(), "k");
  ASSERT_TRUE(machine_.Put("k", "old").ok());
  const auto answer = machine_.Txn(txn);
  const pb::RangeResponse& range = answer->responses(1).response_range();
  EXPECT_EQ(range.kvs(0).value(), "new");
  EXPECT_EQ(range.header().revision(), 3);
}

TEST_F(TxnTest, ARangeAtANumberedRevisionDoesNotSeeThem) {
  ASSERT_TRUE(machine_.Put("k", "old").ok());
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "k", "new");
  AddRange(txn.mutable_success(), "k")->set_revision(2);
  EXPECT_EQ(machine_.Txn(txn)->responses(1).response_range().kvs(0).value(), "old");
}

TEST_F(TxnTest, ComparesSeeTheStateBeforeAlsoInNestedTransactions) {
  pb::TxnRequest inner;
  AddCompare(&inner, "k", pb::Compare::VERSION, pb::Compare::EQUAL)->set_version(0);
  AddPut(inner.mutable_success(), "first");
  AddPut(inner.mutable_failure(), "second");
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "k");
  *txn.add_success()->mutable_request_txn() = inner;
  EXPECT_TRUE(machine_.Txn(txn)->responses(1).response_txn().succeeded());
  EXPECT_EQ(machine_.Get("first")->count(), 1);
  EXPECT_EQ(machine_.Get("second")->count(), 0);
}

TEST_F(TxnTest, AKeyThatIsMissingHasNoValueAndOtherwiseZeros) {
  for (const auto result :
       {pb::Compare::EQUAL, pb::Compare::NOT_EQUAL, pb::Compare::GREATER, pb::Compare::LESS}) {
    pb::TxnRequest txn;
    AddCompare(&txn, "absent", pb::Compare::VALUE, result)->set_value("");
    EXPECT_FALSE(machine_.Txn(txn)->succeeded());
  }
  for (const auto target :
       {pb::Compare::VERSION, pb::Compare::CREATE, pb::Compare::MOD, pb::Compare::LEASE}) {
    pb::TxnRequest txn;
    AddCompare(&txn, "absent", target, pb::Compare::EQUAL);
    EXPECT_TRUE(machine_.Txn(txn)->succeeded());
  }
}

TEST_F(TxnTest, ACompareOfARangeHoldsForAllItsKeys) {
  ASSERT_TRUE(machine_.Put("a", "1").ok());
  ASSERT_TRUE(machine_.Put("b", "1").ok());
  pb::TxnRequest txn;
  pb::Compare* const compare = AddCompare(&txn, "a", pb::Compare::VALUE, pb::Compare::EQUAL);
  compare->set_range_end("c");
  compare->set_value("1");
  EXPECT_TRUE(machine_.Txn(txn)->succeeded());
  ASSERT_TRUE(machine_.Put("b", "2").ok());
  EXPECT_FALSE(machine_.Txn(txn)->succeeded());
  // An empty range is compared as one key that is missing.
  compare->set_range_end("Z");
  EXPECT_FALSE(machine_.Txn(txn)->succeeded());
  compare->set_target(pb::Compare::MOD);
  compare->set_mod_revision(0);
  EXPECT_TRUE(machine_.Txn(txn)->succeeded());
}

TEST_F(TxnTest, HasAtMost128OperationsAndNestedOnesShareThem) {
  pb::TxnRequest txn;
  for (int i = 0; i < 128; ++i) AddRange(txn.mutable_success(), "k");
  for (int i = 0; i < 128; ++i) AddRange(txn.mutable_failure(), "k");
  EXPECT_TRUE(machine_.Txn(txn).ok());
  AddRange(txn.mutable_failure(), "k");
  EXPECT_EQ(machine_.Txn(txn).code, Code::kInvalidArgument);
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: too many operations in txn request");

  pb::TxnRequest inner;
  for (int i = 0; i < 127; ++i) AddRange(inner.mutable_success(), "k");
  EXPECT_TRUE(machine_.Txn(Nested(inner)).ok());
  AddRange(inner.mutable_success(), "k");
  EXPECT_EQ(machine_.Txn(Nested(inner)).error, "etcdserver: too many operations in txn request");

  pb::TxnRequest compares;
  for (int i = 0; i < 129; ++i) {
    AddCompare(&compares, "k", pb::Compare::VERSION, pb::Compare::EQUAL);
  }
  EXPECT_EQ(machine_.Txn(compares).error, "etcdserver: too many operations in txn request");
}

TEST_F(TxnTest, AnOperationThatIsNoneIsAKeyNotFound) {
  pb::TxnRequest txn;
  txn.add_failure();
  EXPECT_EQ(machine_.Txn(txn).code, Code::kInvalidArgument);
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: key not found");
}

TEST_F(TxnTest, WhatItsRequestsGetWrongIsRefusedAsOutside) {
  pb::TxnRequest txn;
  AddPut(txn.mutable_failure(), "");
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: key is not provided");
  txn = pb::TxnRequest();
  AddCompare(&txn, "", pb::Compare::VERSION, pb::Compare::EQUAL);
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: key is not provided");
  txn = pb::TxnRequest();
  AddRange(txn.mutable_success(), "k")->set_sort_order(static_cast<pb::RangeRequest::SortOrder>(9));
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: invalid sort option");
}

// ---- The same key twice -------------------------------------------------------------------------

TEST_F(TxnTest, ABranchMustNotPutAKeyTwice) {
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "k");
  AddPut(txn.mutable_failure(), "k");
  EXPECT_TRUE(machine_.Txn(txn).ok());
  AddPut(txn.mutable_failure(), "k");
  EXPECT_EQ(machine_.Txn(txn).code, Code::kInvalidArgument);
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
}

TEST_F(TxnTest, ABranchMustNotPutWhatItDeletes) {
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "b");
  AddDelete(txn.mutable_success(), "a", "c");
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
  txn.mutable_success(0)->mutable_request_put()->set_key("c");
  EXPECT_TRUE(machine_.Txn(txn).ok());
  AddDelete(txn.mutable_success(), "c");
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
}

TEST_F(TxnTest, DeletesMayOverlap) {
  pb::TxnRequest txn;
  AddDelete(txn.mutable_success(), "a", "c");
  AddDelete(txn.mutable_success(), "b", "d");
  AddDelete(txn.mutable_success(), "b");
  ASSERT_TRUE(machine_.Put("b", "v").ok());
  const auto answer = machine_.Txn(txn);
  EXPECT_EQ(answer->responses(0).response_delete_range().deleted(), 1);
  EXPECT_EQ(answer->responses(2).response_delete_range().deleted(), 0);
}

TEST_F(TxnTest, TheRuleHoldsAcrossNestedTransactionsButNotTheirBranches) {
  pb::TxnRequest inner;
  AddPut(inner.mutable_success(), "k");
  AddPut(inner.mutable_failure(), "k");
  pb::TxnRequest txn = Nested(inner);
  EXPECT_TRUE(machine_.Txn(txn).ok());
  AddPut(txn.mutable_success(), "k");
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
  txn = Nested(inner);
  AddDelete(txn.mutable_success(), "a", "z");
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
  txn = Nested(inner);
  *txn.add_success()->mutable_request_txn() = inner;
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
}

TEST_F(TxnTest, AnOpenEndedDeleteIsNotTakenForAnOverlap) {
  pb::TxnRequest txn;
  AddDelete(txn.mutable_success(), "a", OpenEnd());
  AddPut(txn.mutable_success(), "b", "new");
  ASSERT_TRUE(machine_.Put("b", "old").ok());
  ASSERT_TRUE(machine_.Put("c", "old").ok());
  EXPECT_TRUE(machine_.Txn(txn).ok());
  EXPECT_EQ(machine_.Get("b")->kvs(0).version(), 1);
  EXPECT_EQ(machine_.Get("c")->count(), 0);
  // Where etcd would die: what the put should keep is gone by then.
  txn.mutable_success(1)->mutable_request_put()->clear_value();
  txn.mutable_success(1)->mutable_request_put()->set_ignore_value(true);
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: key not found");
  EXPECT_EQ(machine_.Get("b")->count(), 1);
}

TEST_F(TxnTest, ManyOverlappingWritesAreFoundInReasonableTime) {
  // As hostile as the limits allow: three levels, thousands of deletes and puts.
  pb::TxnRequest leaf;
  for (int i = 0; i < 42; ++i) AddDelete(leaf.mutable_success(), "k" + std::to_string(i), "z");
  for (int i = 0; i < 42; ++i) AddPut(leaf.mutable_failure(), "a" + std::to_string(i));
  pb::TxnRequest middle;
  for (int i = 0; i < 42; ++i) *middle.add_success()->mutable_request_txn() = leaf;
  pb::TxnRequest txn;
  for (int i = 0; i < 42; ++i) *txn.add_success()->mutable_request_txn() = middle;
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: duplicate key given in txn request");
}

// ---- All or nothing -----------------------------------------------------------------------------

TEST_F(TxnTest, IsDoneWholeOrNotAtAll) {
  ASSERT_TRUE(machine_.Put("k", "old").ok());
  const auto expect_refused = [this](const pb::TxnRequest& txn, const std::string& error) {
    const mvcc::Digest before = machine_.state().digest();
    EXPECT_EQ(machine_.Txn(txn).error, error);
    EXPECT_EQ(machine_.state().digest(), before);
    // Also where nobody waits for the answer.
    const Bytes entry = machine_.entries().back();
    EXPECT_NE(machine_.ApplyPayload(entry, /*want_response=*/false).error, nullptr);
    EXPECT_EQ(machine_.state().digest(), before);
  };
  pb::TxnRequest txn;
  AddPut(txn.mutable_success(), "k", "new");
  AddPut(txn.mutable_success(), "l", "new", /*lease=*/404);
  expect_refused(txn, "etcdserver: requested lease not found");

  txn.mutable_success()->RemoveLast();
  AddRange(txn.mutable_success(), "k")->set_revision(9);
  expect_refused(txn, "etcdserver: mvcc: required revision is a future revision");

  ASSERT_TRUE(machine_.Put("k", "old").ok());
  ASSERT_TRUE(machine_.Compact(3).ok());
  txn.mutable_success(1)->mutable_request_range()->set_revision(2);
  expect_refused(txn, "etcdserver: mvcc: required revision has been compacted");
  txn.mutable_success(1)->mutable_request_range()->set_revision(-1);
  expect_refused(txn, "etcdserver: mvcc: required revision has been compacted");

  txn.mutable_success()->RemoveLast();
  pb::PutRequest* const put = txn.add_success()->mutable_request_put();
  put->set_key("absent");
  put->set_ignore_lease(true);
  expect_refused(txn, "etcdserver: key not found");
}

TEST_F(TxnTest, TheBranchNotTakenIsNotChecked) {
  pb::TxnRequest txn;
  AddPut(txn.mutable_failure(), "k", "v", /*lease=*/404);
  AddPut(txn.mutable_success(), "k", "v");
  EXPECT_TRUE(machine_.Txn(txn).ok());
}

}  // namespace
}  // namespace conclave::apply
