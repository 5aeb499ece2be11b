// The protocol's rules for Range, Put, DeleteRange and Compact, one test each.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/tests/apply/machine.h"

namespace conclave::apply {
namespace {

using Code = wire::Code;

std::vector<std::string> Keys(const pb::RangeResponse& response) {
  std::vector<std::string> keys;
  for (const mvccpb::KeyValue& kv : response.kvs()) keys.push_back(kv.key());
  return keys;
}

class KvTest : public testing::Test {
 protected:
  pb::RangeRequest All() {
    pb::RangeRequest request;
    request.set_key(OpenEnd());
    request.set_range_end(OpenEnd());
    return request;
  }

  Machine machine_;
};

TEST_F(KvTest, AFreshStoreIsAtRevisionOneAndNothingIsCompacted) {
  EXPECT_EQ(machine_.Get("k")->header().revision(), 1);
  EXPECT_EQ(machine_.HashKv()->compact_revision(), -1);
}

TEST_F(KvTest, HeadersCarryClusterMemberAndTerm) {
  const pb::ResponseHeader header = machine_.Put("k", "v")->header();
  EXPECT_EQ(header.cluster_id(), Machine::kClusterId);
  EXPECT_EQ(header.member_id(), Machine::kMemberId);
  EXPECT_EQ(header.raft_term(), Machine::kTerm);
  EXPECT_EQ(header.revision(), 2);
}

TEST_F(KvTest, DeletingNothingLeavesTheRevision) {
  const auto answer = machine_.Delete("absent");
  EXPECT_EQ(answer->deleted(), 0);
  EXPECT_EQ(answer->header().revision(), 1);
}

TEST_F(KvTest, VersionsCountUpAndBeginAnewAfterADelete) {
  ASSERT_TRUE(machine_.Put("k", "1").ok());
  ASSERT_TRUE(machine_.Put("k", "2").ok());
  mvccpb::KeyValue kv = machine_.Get("k")->kvs(0);
  EXPECT_EQ(kv.create_revision(), 2);
  EXPECT_EQ(kv.mod_revision(), 3);
  EXPECT_EQ(kv.version(), 2);
  ASSERT_TRUE(machine_.Delete("k").ok());
  ASSERT_TRUE(machine_.Put("k", "3").ok());
  kv = machine_.Get("k")->kvs(0);
  EXPECT_EQ(kv.create_revision(), 5);
  EXPECT_EQ(kv.mod_revision(), 5);
  EXPECT_EQ(kv.version(), 1);
}

TEST_F(KvTest, ARangesHeaderHasTheCurrentRevisionNotTheAskedOne) {
  ASSERT_TRUE(machine_.Put("k", "1").ok());
  ASSERT_TRUE(machine_.Put("k", "2").ok());
  const auto answer = machine_.Get("k", "", 2);
  EXPECT_EQ(answer->kvs(0).value(), "1");
  EXPECT_EQ(answer->header().revision(), 3);
}

TEST_F(KvTest, ARevisionMustNotBeCompactedNorInTheFuture) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(machine_.Put("k", std::to_string(i)).ok());
  ASSERT_TRUE(machine_.Compact(3).ok());
  const auto compacted = machine_.Get("k", "", 2);
  EXPECT_EQ(compacted.code, Code::kOutOfRange);
  EXPECT_EQ(compacted.error, "etcdserver: mvcc: required revision has been compacted");
  const auto future = machine_.Get("k", "", 6);
  EXPECT_EQ(future.code, Code::kOutOfRange);
  EXPECT_EQ(future.error, "etcdserver: mvcc: required revision is a future revision");
  EXPECT_EQ(machine_.Get("k", "", 3)->kvs(0).value(), "1");
  EXPECT_EQ(machine_.Get("k", "", -7)->kvs(0).value(), "3");
}

TEST_F(KvTest, TheCountIsOfTheWholeRangeWhateverTheLimitAndTheFilters) {
  for (const char* key : {"a", "b", "c", "d"}) ASSERT_TRUE(machine_.Put(key, "v").ok());
  pb::RangeRequest request = All();
  request.set_limit(2);
  auto answer = machine_.Range(request);
  EXPECT_EQ(Keys(*answer.operator->()), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(answer->more());
  EXPECT_EQ(answer->count(), 4);
  request.set_limit(4);
  EXPECT_FALSE(machine_.Range(request)->more());
  request.set_limit(0);
  request.set_min_mod_revision(4);
  answer = machine_.Range(request);
  EXPECT_EQ(Keys(answer.message), (std::vector<std::string>{"c", "d"}));
  EXPECT_EQ(answer->count(), 4);
  request.set_limit(1);
  EXPECT_TRUE(machine_.Range(request)->more());
}

TEST_F(KvTest, FiltersByRevisionIncludeTheirBounds) {
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(machine_.Put(key, "v").ok());  // 2, 3, 4
  ASSERT_TRUE(machine_.Put("a", "w").ok());                                          // 5
  pb::RangeRequest request = All();
  request.set_max_create_revision(3);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"a", "b"}));
  request.set_min_mod_revision(4);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"a"}));
}

TEST_F(KvTest, SortsByAnyTargetInBothOrders) {
  ASSERT_TRUE(machine_.Put("a", "3").ok());
  ASSERT_TRUE(machine_.Put("b", "1").ok());
  ASSERT_TRUE(machine_.Put("c", "2").ok());
  ASSERT_TRUE(machine_.Put("b", "1").ok());
  pb::RangeRequest request = All();
  request.set_sort_order(pb::RangeRequest::DESCEND);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"c", "b", "a"}));
  request.set_sort_target(pb::RangeRequest::VALUE);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"a", "c", "b"}));
  request.set_sort_order(pb::RangeRequest::ASCEND);
  request.set_sort_target(pb::RangeRequest::MOD);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"a", "c", "b"}));
  request.set_sort_target(pb::RangeRequest::VERSION);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"a", "c", "b"}));
  request.set_sort_target(pb::RangeRequest::CREATE);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(KvTest, ATargetWithoutAnOrderIsAscending) {
  ASSERT_TRUE(machine_.Put("a", "2").ok());
  ASSERT_TRUE(machine_.Put("b", "1").ok());
  pb::RangeRequest request = All();
  request.set_sort_target(pb::RangeRequest::VALUE);
  EXPECT_EQ(Keys(machine_.Range(request).message), (std::vector<std::string>{"b", "a"}));
}

TEST_F(KvTest, TheLimitCutsBehindTheSort) {
  for (const char* key : {"a", "b", "c", "d"}) ASSERT_TRUE(machine_.Put(key, "v").ok());
  pb::RangeRequest request = All();
  request.set_limit(1);
  request.set_sort_order(pb::RangeRequest::DESCEND);
  const auto answer = machine_.Range(request);
  EXPECT_EQ(Keys(answer.message), (std::vector<std::string>{"d"}));
  EXPECT_TRUE(answer->more());
}

TEST_F(KvTest, AnUnknownSortOptionIsRefused) {
  pb::RangeRequest request = All();
  request.set_sort_order(static_cast<pb::RangeRequest::SortOrder>(3));
  EXPECT_EQ(machine_.Range(request).error, "etcdserver: invalid sort option");
  request.set_sort_order(pb::RangeRequest::NONE);
  request.set_sort_target(static_cast<pb::RangeRequest::SortTarget>(-1));
  EXPECT_EQ(machine_.Range(request).error, "etcdserver: invalid sort option");
}

TEST_F(KvTest, KeysOnlyDropsTheValueAndWithoutASortByValueTheLease) {
  ASSERT_TRUE(machine_.Grant(7, 100).ok());
  ASSERT_TRUE(machine_.Put("k", "v", 7).ok());
  pb::RangeRequest request = All();
  request.set_keys_only(true);
  mvccpb::KeyValue kv = machine_.Range(request)->kvs(0);
  EXPECT_EQ(kv.value(), "");
  EXPECT_EQ(kv.lease(), 0);
  EXPECT_EQ(kv.version(), 1);
  request.set_sort_target(pb::RangeRequest::VALUE);
  kv = machine_.Range(request)->kvs(0);
  EXPECT_EQ(kv.value(), "");
  EXPECT_EQ(kv.lease(), 7);
}

TEST_F(KvTest, CountOnlySendsNoKeys) {
  ASSERT_TRUE(machine_.Put("a", "v").ok());
  ASSERT_TRUE(machine_.Put("b", "v").ok());
  pb::RangeRequest request = All();
  request.set_count_only(true);
  request.set_limit(1);
  auto answer = machine_.Range(request);
  EXPECT_EQ(answer->count(), 2);
  EXPECT_EQ(answer->kvs_size(), 0);
  EXPECT_FALSE(answer->more());
  request.set_revision(2);
  EXPECT_EQ(machine_.Range(request)->count(), 1);
}

TEST_F(KvTest, WhatARangeEndMeans) {
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(machine_.Put(key, "v").ok());
  EXPECT_EQ(machine_.Get("b")->count(), 1);
  EXPECT_EQ(machine_.Get("b", OpenEnd())->count(), 2);
  EXPECT_EQ(machine_.Get(OpenEnd(), OpenEnd())->count(), 3);
  EXPECT_EQ(machine_.Get("a", "c")->count(), 2);
  EXPECT_EQ(machine_.Get("c", "a")->count(), 0);
  EXPECT_EQ(machine_.Get("b", "b")->count(), 0);
  EXPECT_EQ(machine_.Delete("c", "a")->deleted(), 0);
  EXPECT_EQ(machine_.Delete("b", OpenEnd())->deleted(), 2);
}

TEST_F(KvTest, AnEmptyKeyIsNotProvided) {
  EXPECT_EQ(machine_.Get("").code, Code::kInvalidArgument);
  EXPECT_EQ(machine_.Get("").error, "etcdserver: key is not provided");
  EXPECT_EQ(machine_.Put("", "v").error, "etcdserver: key is not provided");
  EXPECT_EQ(machine_.Delete("").error, "etcdserver: key is not provided");
}

TEST_F(KvTest, AMalformedRequestIsRefused) {
  for (const auto method : {wire::Method::kRange, wire::Method::kPut, wire::Method::kDeleteRange,
                            wire::Method::kTxn, wire::Method::kCompact, wire::Method::kLeaseGrant,
                            wire::Method::kLeaseLeases, wire::Method::kHashKv}) {
    EXPECT_EQ(machine_.CallRaw(method, "\x0a\x05").error, &wire::kErrMalformed);
  }
}

// ---- Put ----------------------------------------------------------------------------------------

TEST_F(KvTest, PutGivesThePreviousIfAsked) {
  pb::PutRequest request;
  request.set_key("k");
  request.set_value("1");
  request.set_prev_kv(true);
  EXPECT_FALSE(machine_.Put(request)->has_prev_kv());
  request.set_value("2");
  const auto answer = machine_.Put(request);
  EXPECT_EQ(answer->prev_kv().value(), "1");
  EXPECT_EQ(answer->prev_kv().mod_revision(), 2);
}

TEST_F(KvTest, IgnoreValueAndIgnoreLeaseKeepWhatIsThere) {
  ASSERT_TRUE(machine_.Grant(7, 100).ok());
  pb::PutRequest request;
  request.set_key("k");
  request.set_ignore_value(true);
  EXPECT_EQ(machine_.Put(request).error, "etcdserver: key not found");
  request.set_value("x");
  EXPECT_EQ(machine_.Put(request).error, "etcdserver: value is provided");

  ASSERT_TRUE(machine_.Put("k", "v", 7).ok());
  request.clear_value();
  request.set_ignore_lease(true);
  ASSERT_TRUE(machine_.Put(request).ok());
  const mvccpb::KeyValue kv = machine_.Get("k")->kvs(0);
  EXPECT_EQ(kv.value(), "v");
  EXPECT_EQ(kv.lease(), 7);
  EXPECT_EQ(kv.version(), 2);
  request.set_lease(7);
  EXPECT_EQ(machine_.Put(request).error, "etcdserver: lease is provided");
}

TEST_F(KvTest, ALeaseMustExistBeforeTheKeyDoes) {
  const auto refused = machine_.Put("k", "v", 5);
  EXPECT_EQ(refused.code, Code::kNotFound);
  EXPECT_EQ(refused.error, "etcdserver: requested lease not found");
  EXPECT_EQ(machine_.Get("k")->count(), 0);
}

TEST_F(KvTest, APutWithoutALeaseDetachesAndOneWithAnotherMoves) {
  ASSERT_TRUE(machine_.Grant(1, 100).ok());
  ASSERT_TRUE(machine_.Grant(2, 100).ok());
  ASSERT_TRUE(machine_.Put("k", "v", 1).ok());
  ASSERT_TRUE(machine_.Put("k", "v", 2).ok());
  EXPECT_EQ(machine_.TimeToLive(1, true)->keys_size(), 0);
  EXPECT_EQ(machine_.TimeToLive(2, true)->keys_size(), 1);
  ASSERT_TRUE(machine_.Put("k", "v").ok());
  EXPECT_EQ(machine_.TimeToLive(2, true)->keys_size(), 0);
  ASSERT_TRUE(machine_.Revoke(2).ok());
  EXPECT_EQ(machine_.Get("k")->count(), 1);
}

TEST_F(KvTest, ARequestAboveTheLimitIsTooLarge) {
  StateMachineOptions options;
  options.limits.request_bytes_max = 1000;
  Machine machine(options);
  EXPECT_TRUE(machine.Put("k", std::string(900, 'x')).ok());
  const auto refused = machine.Put("k", std::string(1000, 'x'));
  EXPECT_EQ(refused.code, Code::kInvalidArgument);
  EXPECT_EQ(refused.error, "etcdserver: request is too large");
  // Reads are not written to the log.
  EXPECT_TRUE(machine.Get(std::string(2000, 'x')).ok());
}

// ---- DeleteRange, Compact -----------------------------------------------------------------------

TEST_F(KvTest, DeleteGivesThePreviousOnesInOrder) {
  for (const char* key : {"b", "a", "c"}) ASSERT_TRUE(machine_.Put(key, key).ok());
  pb::DeleteRangeRequest request;
  request.set_key("a");
  request.set_range_end("c");
  request.set_prev_kv(true);
  const auto answer = machine_.Delete(request);
  EXPECT_EQ(answer->deleted(), 2);
  ASSERT_EQ(answer->prev_kvs_size(), 2);
  EXPECT_EQ(answer->prev_kvs(0).value(), "a");
  EXPECT_EQ(answer->prev_kvs(1).value(), "b");
  EXPECT_EQ(answer->header().revision(), 5);
}

TEST_F(KvTest, CompactionMovesForwardOnlyAndNotBeyondThePresent) {
  ASSERT_TRUE(machine_.Put("k", "1").ok());
  ASSERT_TRUE(machine_.Put("k", "2").ok());
  EXPECT_EQ(machine_.Compact(4).error, "etcdserver: mvcc: required revision is a future revision");
  const auto answer = machine_.Compact(3);
  EXPECT_EQ(answer->header().revision(), 3);
  EXPECT_EQ(machine_.Compact(3).error, "etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(machine_.Compact(2).error, "etcdserver: mvcc: required revision has been compacted");
}

TEST_F(KvTest, CompactionToZeroSucceedsOnceOnAFreshStore) {
  EXPECT_TRUE(machine_.Compact(0).ok());
  EXPECT_EQ(machine_.Compact(0).error, "etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(machine_.Compact(-1).error, "etcdserver: mvcc: required revision has been compacted");
}

// ---- Long reads ---------------------------------------------------------------------------------

TEST_F(KvTest, ALongRangeIsReadInSlicesAtOneRevision) {
  StateMachineOptions options;
  options.immediate_range_max = 10;
  Machine machine(options);
  for (int i = 100; i < 200; ++i) ASSERT_TRUE(machine.Put("k" + std::to_string(i), "old").ok());
  pb::RangeRequest request = All();
  for (const auto order :
       {pb::RangeRequest::NONE, pb::RangeRequest::ASCEND, pb::RangeRequest::DESCEND}) {
    request.set_sort_order(order);
    ReadResult read = machine.state().Read({}, wire::Method::kRange, request.SerializeAsString());
    ASSERT_NE(read.task, nullptr);
    const int64_t revision = machine.state().store().current_revision();
    for (int i = 0; !read.task->Run(7); ++i) {
      ASSERT_TRUE(machine.Put("k" + std::to_string(100 + i), "new").ok());
      ASSERT_TRUE(machine.Put("z", "new").ok());
      (void)machine.Compact(machine.state().store().current_revision());
      machine.state().CompactSlice(1000);
    }
    pb::RangeResponse response;
    ASSERT_TRUE(response.ParseFromString(read.task->TakeResponse().ToString()));
    EXPECT_EQ(response.header().revision(), revision);
    EXPECT_EQ(response.count(), response.kvs_size());
    for (const mvccpb::KeyValue& kv : response.kvs()) EXPECT_LE(kv.mod_revision(), revision);
    EXPECT_TRUE(std::is_sorted(
        response.kvs().begin(), response.kvs().end(), [order](const auto& a, const auto& b) {
          return order == pb::RangeRequest::DESCEND ? a.key() > b.key() : a.key() < b.key();
        }));
  }
}

TEST_F(KvTest, ALongHashIsTheHashOfItsBeginning) {
  StateMachineOptions options;
  options.immediate_range_max = 3;
  Machine machine(options);
  Machine all_at_once;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(machine.Put("k" + std::to_string(i % 7), "v").ok());
    ASSERT_TRUE(all_at_once.Put("k" + std::to_string(i % 7), "v").ok());
  }
  ReadResult read = machine.state().Read({}, wire::Method::kHashKv, "");
  ASSERT_NE(read.task, nullptr);
  while (!read.task->Run(2)) {
    ASSERT_TRUE(machine.Put("k1", "new").ok());
    (void)machine.Compact(machine.state().store().current_revision());
    machine.state().CompactSlice(1000);
  }
  pb::HashKVResponse response;
  ASSERT_TRUE(response.ParseFromString(read.task->TakeResponse().ToString()));
  EXPECT_EQ(response.hash(), all_at_once.HashKv()->hash());
  EXPECT_EQ(response.hash_revision(), 51);
  EXPECT_EQ(response.header().revision(), 51);
}

TEST_F(KvTest, HashKvRefusesRevisionsThatCannotBeRead) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(machine_.Put("k", "v").ok());
  ASSERT_TRUE(machine_.Compact(4).ok());
  EXPECT_EQ(machine_.HashKv(3).error, "etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(machine_.HashKv(7).error, "etcdserver: mvcc: required revision is a future revision");
  EXPECT_EQ(machine_.HashKv(5)->compact_revision(), 4);
  EXPECT_EQ(machine_.HashKv(5)->hash_revision(), 5);
}

}  // namespace
}  // namespace conclave::apply
