// Views of requests against protobuf's own parser: the same bytes are accepted, and mean the same.
#include "conclave/api/wire/requests.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"
#include "conclave/tests/wire/message_generator.h"
#include "conclave/tests/wire/same.h"

namespace conclave::wire {
namespace {

namespace pb = etcdserverpb;

template <typename View, typename Message>
void CompareMany(uint64_t seed) {
  Prng prng(seed);
  for (int i = 0; i < 4000; ++i) {
    Message message;
    FillRandomly(&message, &prng, 6);
    std::string encoded = message.SerializeAsString();
    SCOPED_TRACE(testing::Message()
                 << Message::descriptor()->name() << " seed " << seed << " #" << i);
    ExpectSameMeaning<View, Message>(encoded);
    // Two encodings one behind the other mean the two messages merged.
    Message other;
    FillRandomly(&other, &prng, 3);
    ExpectSameMeaning<View, Message>(encoded + other.SerializeAsString());
    for (int damages = 0; damages < 4; ++damages) {
      std::string damaged = encoded;
      Damage(&damaged, &prng);
      ExpectSameMeaning<View, Message>(damaged);
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Requests, MeanWhatProtobufReads) {
  CompareMany<RangeRequest, pb::RangeRequest>(1);
  CompareMany<PutRequest, pb::PutRequest>(2);
  CompareMany<DeleteRangeRequest, pb::DeleteRangeRequest>(3);
  CompareMany<CompactionRequest, pb::CompactionRequest>(4);
  CompareMany<LeaseGrantRequest, pb::LeaseGrantRequest>(5);
  CompareMany<LeaseRevokeRequest, pb::LeaseRevokeRequest>(6);
  CompareMany<LeaseKeepAliveRequest, pb::LeaseKeepAliveRequest>(7);
  CompareMany<LeaseTimeToLiveRequest, pb::LeaseTimeToLiveRequest>(8);
  CompareMany<WatchRequest, pb::WatchRequest>(9);
  CompareMany<MemberAddRequest, pb::MemberAddRequest>(10);
  CompareMany<MemberRemoveRequest, pb::MemberRemoveRequest>(11);
  CompareMany<MemberUpdateRequest, pb::MemberUpdateRequest>(12);
  CompareMany<MemberListRequest, pb::MemberListRequest>(13);
  CompareMany<AlarmRequest, pb::AlarmRequest>(14);
  CompareMany<HashKvRequest, pb::HashKVRequest>(15);
  CompareMany<MoveLeaderRequest, pb::MoveLeaderRequest>(16);
  CompareMany<DowngradeRequest, pb::DowngradeRequest>(17);
}

TEST(Requests, TransactionsMeanWhatProtobufReads) {
  CompareMany<TxnRequest, pb::TxnRequest>(20);
  CompareMany<TxnRequest, pb::TxnRequest>(21);
}

// RequestOp with its member given twice, in pieces, with another one between.
TEST(Requests, MembersOfAnOperationMergeOrReplaceEachOther) {
  pb::RequestOp first;
  first.mutable_request_put()->set_key("k");
  pb::RequestOp second;
  second.mutable_request_put()->set_value("v");
  pb::RequestOp range;
  range.mutable_request_range()->set_key("r");
  for (const std::string& encoded :
       {first.SerializeAsString() + second.SerializeAsString(),
        first.SerializeAsString() + range.SerializeAsString() + second.SerializeAsString(),
        first.SerializeAsString() + second.SerializeAsString() + range.SerializeAsString()}) {
    pb::RequestOp message;
    ASSERT_TRUE(message.ParseFromString(encoded));
    RequestOp view;
    ASSERT_TRUE(view.Merge(encoded));
    ExpectSame(view, message);
  }
}

TEST(Requests, ANestedTransactionInPiecesIsOne) {
  pb::RequestOp op;
  op.mutable_request_txn()->add_compare()->set_key("a");
  op.mutable_request_txn()->add_success()->mutable_request_put()->set_key("b");
  const std::string encoded = op.SerializeAsString() + op.SerializeAsString();
  pb::RequestOp message;
  ASSERT_TRUE(message.ParseFromString(encoded));
  ASSERT_EQ(message.request_txn().compare_size(), 2);
  RequestOp view;
  ASSERT_TRUE(view.Merge(encoded));
  ExpectSame(view, message);
}

TEST(Requests, TheDepthOfTransactionsIsBoundedAsInProtobuf) {
  std::string encoded;
  int accepted = 0;
  for (int depth = 0; depth < 60; ++depth) {
    pb::TxnRequest message;
    const bool theirs = message.ParseFromString(encoded);
    EXPECT_EQ(ValidTxn(encoded), theirs) << depth;
    accepted += theirs ? 1 : 0;
    for (const int field : {4, 2}) {  // RequestOp.request_txn in TxnRequest.success
      std::string outer(1, static_cast<char>(field << 3 | 2));
      for (size_t size = encoded.size(); true; size >>= 7) {
        if (size < 0x80) {
          outer.push_back(static_cast<char>(size));
          break;
        }
        outer.push_back(static_cast<char>(size | 0x80));
      }
      encoded = outer + encoded;
    }
  }
  EXPECT_EQ(accepted, 51);
}

TEST(Requests, AKnownFieldOfTheWrongWireTypeIsRefused) {
  PutRequest put;
  EXPECT_FALSE(Parse("\x08\x01", &put));   // key as a varint
  EXPECT_FALSE(Parse("\x1a\x01x", &put));  // lease as bytes
  EXPECT_TRUE(Parse("\x38\x01", &put));    // field 7 is unknown
}

TEST(Requests, NamesMustBeUtf8) {
  DowngradeRequest downgrade;
  EXPECT_TRUE(
      Parse("\x12\x03"
            "3.5",
            &downgrade));
  EXPECT_FALSE(Parse("\x12\x01\xff", &downgrade));
}

}  // namespace
}  // namespace conclave::wire
