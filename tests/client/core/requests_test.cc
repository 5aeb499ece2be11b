// Requests on their way out and answers on their way in: what is refused at once, nested
// transactions, and the name space, by the messages that go over the wire.
#include "conclave/client/core/calls.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/lease_keeper.h"
#include "conclave/client/core/name_space.h"
#include "conclave/client/core/validate.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/tests/client/core/fake_transport.h"

namespace conclave {
namespace {

using testing::EngineFixture;

constexpr std::string_view kZero("\0", 1);

class RequestsTest : public EngineFixture {
 protected:
  RequestsTest() : EngineFixture(1) {}

  // For a result that may come as late as with the engine's shutdown.
  template <typename Result>
  absl::StatusOr<Result>& Slot() {
    auto slot = std::make_shared<absl::StatusOr<Result>>();
    slots_.push_back(slot);
    return *slot;
  }
  template <typename Result>
  calls::Done<Result> Into(absl::StatusOr<Result>& result) {
    result = absl::UnknownError("not answered yet");
    return [&result](absl::StatusOr<Result> answer) { result = std::move(answer); };
  }
  absl::Status AnswerOf(const TxnRequest& request) {
    auto& result = Slot<TxnResult>();
    calls::Txn(engine_, request, kNever, Into(result));
    Go(Duration(0));
    return result.status();
  }
  absl::Status AnswerOf(const RangeRequest& request) {
    auto& result = Slot<RangeResult>();
    calls::Range(engine_, request, kNever, Into(result));
    Go(Duration(0));
    return result.status();
  }
  absl::Status AnswerOf(const PutRequest& request) {
    auto& result = Slot<PutResult>();
    calls::Put(engine_, request, kNever, Into(result));
    Go(Duration(0));
    return result.status();
  }
  void ExpectRefused(const absl::Status& status, const std::string& why) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_NE(status.message().find(why), absl::string_view::npos) << status;
    EXPECT_TRUE(GetErrorDetail(status).has_value());
    EXPECT_FALSE(IsOutcomeUnknown(status));
    EXPECT_FALSE(IsRetryable(status));
    EXPECT_TRUE(wire_.calls.empty()) << "it was sent all the same";
  }

  std::vector<std::shared_ptr<void>> slots_;
};

TxnRequest Nested(int depth) {
  TxnRequest request{.success = {Get("k")}};
  for (int i = 1; i < depth; ++i) request = TxnRequest{.success = {Txn(std::move(request))}};
  return request;
}

TEST_F(RequestsTest, WhatCannotBeMeantIsRefusedWithoutACall) {
  ExpectRefused(AnswerOf(PutRequest{.key = ""}), "key of a put is empty");
  ExpectRefused(AnswerOf(PutRequest{.key = "k", .value = "v", .options = {.ignore_value = true}}),
                "ignore_value");
  ExpectRefused(AnswerOf(PutRequest{.key = "k", .options = {.lease = 7, .ignore_lease = true}}),
                "ignore_lease");
  ExpectRefused(AnswerOf(RangeRequest{}), "key is empty");
  ExpectRefused(AnswerOf(RangeRequest{.range = KeyRange("", "z")}), "key is empty");
  ExpectRefused(AnswerOf(RangeRequest{.range = "k", .options = {.limit = -1}}), "limit");
  ExpectRefused(AnswerOf(RangeRequest{.range = "k", .options = {.revision = -1}}), "revision");
  ExpectRefused(AnswerOf(RangeRequest{.range = "k", .options = {.min_mod_revision = -1}}), "bound");
  ExpectRefused(AnswerOf(TxnRequest{.conditions = {Absent("")}}), "condition");
  ExpectRefused(AnswerOf(TxnRequest{.failure = {Delete("")}}), "key is empty");
  ExpectRefused(AnswerOf(TxnRequest{.success = {Txn({.failure = {Put("", "v")}})}}), "put");
  ExpectRefused(AnswerOf(Nested(kTxnDepthMax + 1)), "nested");
  auto& compacted = Slot<int64_t>();
  calls::Compact(engine_, 0, false, kNever, Into(compacted));
  Go(Duration(0));
  ExpectRefused(compacted.status(), "greater than 0");
}

TEST_F(RequestsTest, EmptyTransactionsAndDeepOnesAreSent) {
  EXPECT_EQ(AnswerOf(TxnRequest{}).message(), "not answered yet");
  EXPECT_EQ(AnswerOf(Nested(kTxnDepthMax)).message(), "not answered yet");
  EXPECT_EQ(wire_.calls.size(), 2u);
  etcdserverpb::TxnRequest deep;
  EXPECT_TRUE(deep.ParseFromString(LastCall().request)) << "deeper than messages can be read";
}

TEST_F(RequestsTest, AWatchOfNothingEndsAtOnce) {
  for (const int64_t revision : {0, -1}) {
    std::vector<WatchBatch> batches;
    engine_.watches().Add(revision < 0 ? KeyRange("k") : KeyRange(""), {.from_revision = revision},
                          [&batches](WatchBatch batch) { batches.push_back(std::move(batch)); });
    EXPECT_TRUE(batches.empty()) << "called back from within";
    Go(Duration(0));
    ASSERT_EQ(batches.size(), 1u);
    EXPECT_EQ(batches[0].status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(engine_.watches().size(), 0u);
  }
  EXPECT_TRUE(wire_.streams.empty());
}

TEST_F(RequestsTest, AWriteInANestedBranchMakesAWrite) {
  EXPECT_FALSE(calls::HasWrites(Nested(3)));
  EXPECT_FALSE(calls::HasWrites({}));
  EXPECT_TRUE(calls::HasWrites({.failure = {Txn({.failure = {Put("k", "v")}})}}));
  EXPECT_TRUE(calls::HasWrites({.success = {Get("k"), Delete("k")}}));
}

TEST_F(RequestsTest, ResultsOfNestedTransactionsAreCheckedAndCarryTheRevision) {
  const TxnRequest request{
      .success = {Txn({.conditions = {Absent("k")}, .success = {Put("k", "v")}, .failure = {}})}};
  auto& result = Slot<TxnResult>();
  calls::Txn(engine_, request, kNever, Into(result));
  etcdserverpb::TxnResponse good;
  good.mutable_header()->set_revision(9);
  good.set_succeeded(true);
  etcdserverpb::TxnResponse& inner = *good.add_responses()->mutable_response_txn();
  inner.set_succeeded(true);
  inner.add_responses()->mutable_response_put()->mutable_header()->set_revision(9);
  Answer(good);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->txn(0).revision, 9);
  EXPECT_EQ(result->txn(0).put(0).revision, 9);

  inner.set_succeeded(false);  // whose branch has no operations: the result is of another shape
  calls::Txn(engine_, request, kNever, Into(result));
  Answer(good);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(IsOutcomeUnknown(result.status()));
}

TEST(NameSpaceTest, KeysAndEndsAreGos) {
  const NameSpace space("/prod/");
  EXPECT_EQ(space.Key("k"), "/prod/k");
  EXPECT_EQ(space.End(""), "");
  EXPECT_EQ(space.End("m"), "/prod/m");
  EXPECT_EQ(space.End(kZero), "/prod0");
  EXPECT_EQ(NameSpace("\xff\xff").End(kZero), kZero);
  EXPECT_EQ(NameSpace("a\xff").End(kZero), "b");
  EXPECT_EQ(NameSpace().End(kZero), kZero);
  EXPECT_EQ(NameSpace().Key("k"), "k");
  const NameSpace bytes(std::string_view("\0/", 2));
  EXPECT_EQ(bytes.Key(kZero), std::string("\0/\0", 3));
}

TEST(NameSpaceTest, OnlyKeysOfTheSpaceComeIn) {
  const NameSpace space("/prod/");
  std::string key = "/prod/k";
  EXPECT_TRUE(space.Strip(key));
  EXPECT_EQ(key, "k");
  for (std::string foreign : {"/prod/", "/prod", "/prox/k", "", "/prod0"}) {
    const std::string before = foreign;
    EXPECT_FALSE(space.Strip(foreign)) << before;
    EXPECT_EQ(foreign, before);
  }
  std::string any;
  EXPECT_TRUE(NameSpace().Strip(any));
}

// The same engine under a name space.
class NameSpacedTest : public RequestsTest {
 protected:
  NameSpacedTest() : spaced_(SpacedOptions(), wire_) { spaced_.Advance(now_); }
  void TearDown() override {
    spaced_.Shutdown();
    RequestsTest::TearDown();
  }
  static EngineOptions SpacedOptions() {
    EngineOptions options = Options(1);
    options.name_space = NameSpace("/p/");
    return options;
  }
  template <typename Message>
  void AnswerSpaced(const Message& message) {
    spaced_.OnUnaryDone(LastCall().id, {}, message.SerializeAsString());
    spaced_.Advance(now_);
  }
  template <typename Message>
  Message Request() {
    Message message;
    EXPECT_TRUE(message.ParseFromString(LastCall().request));
    return message;
  }

  Engine spaced_;
};

TEST_F(NameSpacedTest, RangesOfEveryKind) {
  auto& result = Slot<RangeResult>();
  const struct {
    KeyRange range;
    std::string key;
    std::string end;
  } kCases[] = {
      {"k", "/p/k", ""},
      {Prefix("a/"), "/p/a/", "/p/a0"},
      {Prefix("\xff"), "/p/\xff", "/p0"},
      {FromKey("m"), "/p/m", "/p0"},
      {AllKeys(), std::string("/p/\0", 4), "/p0"},
      {Prefix(""), std::string("/p/\0", 4), "/p0"},
      {{"a", "c"}, "/p/a", "/p/c"},
  };
  for (const auto& each : kCases) {
    calls::Range(spaced_, {.range = each.range}, kNever, Into(result));
    const auto request = Request<etcdserverpb::RangeRequest>();
    EXPECT_EQ(request.key(), each.key);
    EXPECT_EQ(request.range_end(), each.end);
  }
  etcdserverpb::RangeResponse answer;
  for (const char* key : {"/p/a", "/q/foreign", "/p/", "/p/b"}) answer.add_kvs()->set_key(key);
  AnswerSpaced(answer);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->kvs.size(), 2u);
  EXPECT_EQ(result->kvs[0].key, "a");
  EXPECT_EQ(result->kvs[1].key, "b");
}

TEST_F(NameSpacedTest, TransactionsInEveryDepth) {
  auto& result = Slot<TxnResult>();
  calls::Txn(spaced_,
             {.conditions = {Absent(Prefix("a/")), ModRevision("k") == 3},
              .success = {Txn({.conditions = {Present(FromKey("z"))},
                               .success = {Put("in", "v", {.prev_kv = true}),
                                           Delete(AllKeys(), {.prev_kv = true})}})}},
             kNever, Into(result));
  const auto request = Request<etcdserverpb::TxnRequest>();
  EXPECT_EQ(request.compare(0).key(), "/p/a/");
  EXPECT_EQ(request.compare(0).range_end(), "/p/a0");
  EXPECT_EQ(request.compare(1).key(), "/p/k");
  EXPECT_EQ(request.compare(1).range_end(), "");
  const etcdserverpb::TxnRequest& inner = request.success(0).request_txn();
  EXPECT_EQ(inner.compare(0).range_end(), "/p0");
  EXPECT_EQ(inner.success(0).request_put().key(), "/p/in");
  EXPECT_EQ(inner.success(1).request_delete_range().range_end(), "/p0");

  etcdserverpb::TxnResponse answer;
  answer.set_succeeded(true);
  etcdserverpb::TxnResponse& nested = *answer.add_responses()->mutable_response_txn();
  nested.set_succeeded(true);
  nested.add_responses()->mutable_response_put()->mutable_prev_kv()->set_key("/p/in");
  nested.add_responses()->mutable_response_delete_range()->add_prev_kvs()->set_key("/p/old");
  AnswerSpaced(answer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->txn(0).put(0).prev_kv->key, "in");
  EXPECT_EQ(result->txn(0).deleted(1).prev_kvs.at(0).key, "old");
}

TEST_F(NameSpacedTest, WatchesAndTheKeysOfLeases) {
  std::vector<WatchBatch> batches;
  spaced_.watches().Add(AllKeys(), {.from_revision = 5, .prev_kv = true},
                        [&batches](WatchBatch batch) { batches.push_back(std::move(batch)); });
  spaced_.Advance(now_);
  const auto create = Sent<etcdserverpb::WatchRequest>(0).create_request();
  EXPECT_EQ(create.key(), std::string("/p/\0", 4));
  EXPECT_EQ(create.range_end(), "/p0");
  etcdserverpb::WatchResponse response;
  response.set_created(true);
  spaced_.OnStreamMessage(LastStream().id, response.SerializeAsString());
  response.set_created(false);
  for (const char* key : {"/p/a", "/foreign"}) {
    mvccpb::Event& event = *response.add_events();
    event.mutable_kv()->set_key(key);
    event.mutable_kv()->set_mod_revision(6);
    event.mutable_prev_kv()->set_key(key);
  }
  spaced_.OnStreamMessage(LastStream().id, response.SerializeAsString());
  spaced_.Advance(now_);
  ASSERT_EQ(batches.size(), 1u);
  ASSERT_EQ(batches[0].events.size(), 1u);
  EXPECT_EQ(batches[0].events[0].kv.key, "a");
  EXPECT_EQ(batches[0].events[0].prev_kv->key, "a");

  auto& lease = Slot<TimeToLiveResult>();
  calls::TimeToLive(spaced_, 7, true, kNever, Into(lease));
  etcdserverpb::LeaseTimeToLiveResponse answer;
  for (const char* key : {"/p/a", "/foreign", "/p/"}) answer.add_keys(key);
  AnswerSpaced(answer);
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_EQ(lease->keys, std::vector<std::string>{"a"});
}

}  // namespace
}  // namespace conclave
