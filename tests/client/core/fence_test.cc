// Fenced writes by the messages that go over the wire.
#include "conclave/client/core/fence.h"

#include "conclave/client/core/error.h"
#include "conclave/tests/client/core/fake_transport.h"

namespace conclave {
namespace {

class FenceTest : public testing::EngineFixture {
 protected:
  FenceTest() : EngineFixture(1) {}

  etcdserverpb::TxnRequest Sent() {
    EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/Txn");
    etcdserverpb::TxnRequest request;
    EXPECT_TRUE(request.ParseFromString(LastCall().request));
    return request;
  }

  const fenced::Fence fence_ = std::make_shared<const std::vector<Compare>>(
      std::vector<Compare>{CreateRevision("lock/1") == 5, Present("alive")});
  const fenced::Fence none_;
};

TEST_F(FenceTest, APutRunsUnderTheFenceAndItsResultComesBack) {
  auto result = std::make_shared<absl::StatusOr<PutResult>>();
  fenced::Put(engine_, fence_, {.key = "k", .value = "v", .options = {.prev_kv = true}}, kNever,
              [result](absl::StatusOr<PutResult> put) { *result = std::move(put); });
  const etcdserverpb::TxnRequest request = Sent();
  ASSERT_EQ(request.compare_size(), 2);
  EXPECT_EQ(request.compare(0).key(), "lock/1");
  ASSERT_EQ(request.success_size(), 1);
  EXPECT_EQ(request.success(0).request_put().key(), "k");
  EXPECT_EQ(request.failure_size(), 0);
  etcdserverpb::TxnResponse answer;
  answer.mutable_header()->set_revision(12);
  answer.set_succeeded(true);
  answer.add_responses()->mutable_response_put()->mutable_prev_kv()->set_key("k");
  Answer(answer);
  ASSERT_TRUE(result->ok()) << result->status();
  EXPECT_EQ((*result)->revision, 12);
  EXPECT_TRUE((*result)->prev_kv.has_value());
}

TEST_F(FenceTest, AFallenFenceIsAbortedAndNotAnElseBranch) {
  auto result = std::make_shared<absl::StatusOr<TxnResult>>();
  fenced::Txn(engine_, fence_,
              {.conditions = {Absent("k")}, .success = {Get("k")}, .failure = {Put("k", "v")}},
              kNever, [result](absl::StatusOr<TxnResult> txn) { *result = std::move(txn); });
  const etcdserverpb::TxnRequest request = Sent();
  EXPECT_EQ(request.compare_size(), 2);
  const etcdserverpb::TxnRequest& own = request.success(0).request_txn();
  EXPECT_EQ(own.compare(0).key(), "k");
  EXPECT_EQ(own.failure(0).request_put().key(), "k");
  EXPECT_EQ(request.failure_size(), 0);
  etcdserverpb::TxnResponse answer;
  answer.mutable_header()->set_revision(12);
  Answer(answer);
  EXPECT_TRUE(absl::IsAborted(result->status())) << result->status();
  EXPECT_FALSE(IsOutcomeUnknown(result->status()));
  EXPECT_FALSE(IsRetryable(result->status()));
}

TEST_F(FenceTest, WhatOnlyReadsOrHasNoFenceGoesAsItIs) {
  const auto ignore = [](const auto&) {};
  fenced::Txn(engine_, fence_, {.conditions = {Absent("k")}, .success = {Get("k")}}, kNever,
              ignore);
  EXPECT_EQ(Sent().compare_size(), 1);
  fenced::Txn(engine_, none_, {.success = {Put("k", "v")}}, kNever, ignore);
  EXPECT_EQ(Sent().compare_size(), 0);
  fenced::Put(engine_, none_, {.key = "k"}, kNever, ignore);
  EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/Put");
  fenced::Delete(engine_, none_, {.range = "k"}, kNever, ignore);
  EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/DeleteRange");
  fenced::Delete(engine_, fence_, {.range = "k"}, kNever, ignore);
  EXPECT_EQ(Sent().success(0).request_delete_range().key(), "k");
}

}  // namespace
}  // namespace conclave
