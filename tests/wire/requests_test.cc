// Views of requests against protobuf's own parser: the same bytes are accepted, and mean the same.
#include "conclave/api/wire/requests.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"
#include "conclave/tests/wire/message_generator.h"

namespace conclave::wire {
namespace {

namespace pb = etcdserverpb;

void ExpectSame(const RangeRequest& view, const pb::RangeRequest& message) {
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.range_end, message.range_end());
  EXPECT_EQ(view.limit, message.limit());
  EXPECT_EQ(view.revision, message.revision());
  EXPECT_EQ(view.sort_order, static_cast<int32_t>(message.sort_order()));
  EXPECT_EQ(view.sort_target, static_cast<int32_t>(message.sort_target()));
  EXPECT_EQ(view.serializable, message.serializable());
  EXPECT_EQ(view.keys_only, message.keys_only());
  EXPECT_EQ(view.count_only, message.count_only());
  EXPECT_EQ(view.min_mod_revision, message.min_mod_revision());
  EXPECT_EQ(view.max_mod_revision, message.max_mod_revision());
  EXPECT_EQ(view.min_create_revision, message.min_create_revision());
  EXPECT_EQ(view.max_create_revision, message.max_create_revision());
}

void ExpectSame(const PutRequest& view, const pb::PutRequest& message) {
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.value, message.value());
  EXPECT_EQ(view.lease, message.lease());
  EXPECT_EQ(view.prev_kv, message.prev_kv());
  EXPECT_EQ(view.ignore_value, message.ignore_value());
  EXPECT_EQ(view.ignore_lease, message.ignore_lease());
}

void ExpectSame(const DeleteRangeRequest& view, const pb::DeleteRangeRequest& message) {
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.range_end, message.range_end());
  EXPECT_EQ(view.prev_kv, message.prev_kv());
}

void ExpectSame(const CompactionRequest& view, const pb::CompactionRequest& message) {
  EXPECT_EQ(view.revision, message.revision());
  EXPECT_EQ(view.physical, message.physical());
}

void ExpectSame(const Compare& view, const pb::Compare& message) {
  EXPECT_EQ(view.result, static_cast<int32_t>(message.result()));
  EXPECT_EQ(view.target, static_cast<int32_t>(message.target()));
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.range_end, message.range_end());
  EXPECT_EQ(view.union_field, static_cast<uint32_t>(message.target_union_case()));
  switch (message.target_union_case()) {
    case pb::Compare::kVersion:
      EXPECT_EQ(view.union_number, message.version());
      break;
    case pb::Compare::kCreateRevision:
      EXPECT_EQ(view.union_number, message.create_revision());
      break;
    case pb::Compare::kModRevision:
      EXPECT_EQ(view.union_number, message.mod_revision());
      break;
    case pb::Compare::kValue:
      EXPECT_EQ(view.union_value, message.value());
      break;
    case pb::Compare::kLease:
      EXPECT_EQ(view.union_number, message.lease());
      break;
    case pb::Compare::TARGET_UNION_NOT_SET:
      break;
  }
}

void ExpectSame(const TxnRequest& view, const pb::TxnRequest& message);

void ExpectSame(const RequestOp& view, const pb::RequestOp& message) {
  ASSERT_EQ(static_cast<int>(view.kind()), static_cast<int>(message.request_case()));
  switch (view.kind()) {
    case RequestOp::Kind::kNone:
      break;
    case RequestOp::Kind::kRange: {
      RangeRequest request;
      ASSERT_TRUE(view.GetRange(&request));
      ExpectSame(request, message.request_range());
      break;
    }
    case RequestOp::Kind::kPut: {
      PutRequest request;
      ASSERT_TRUE(view.GetPut(&request));
      ExpectSame(request, message.request_put());
      break;
    }
    case RequestOp::Kind::kDeleteRange: {
      DeleteRangeRequest request;
      ASSERT_TRUE(view.GetDeleteRange(&request));
      ExpectSame(request, message.request_delete_range());
      break;
    }
    case RequestOp::Kind::kTxn:
      ExpectSame(view.txn(), message.request_txn());
      break;
  }
}

template <typename Messages>
void ExpectSameOps(MessageCursor cursor, const Messages& messages) {
  std::string_view encoded;
  for (const pb::RequestOp& message : messages) {
    ASSERT_TRUE(cursor.Next(&encoded));
    RequestOp op;
    ASSERT_TRUE(op.Merge(encoded));
    ExpectSame(op, message);
  }
  EXPECT_FALSE(cursor.Next(&encoded));
}

void ExpectSame(const TxnRequest& view, const pb::TxnRequest& message) {
  MessageCursor compares = view.compares();
  std::string_view encoded;
  for (const pb::Compare& compare : message.compare()) {
    ASSERT_TRUE(compares.Next(&encoded));
    Compare parsed;
    ASSERT_TRUE(Parse(encoded, &parsed));
    ExpectSame(parsed, compare);
  }
  EXPECT_FALSE(compares.Next(&encoded));
  ExpectSameOps(view.success(), message.success());
  ExpectSameOps(view.failure(), message.failure());
}

void ExpectSame(const LeaseGrantRequest& view, const pb::LeaseGrantRequest& message) {
  EXPECT_EQ(view.ttl_s, message.ttl());
  EXPECT_EQ(view.id, message.id());
}
void ExpectSame(const LeaseIdRequest& view, const pb::LeaseRevokeRequest& message) {
  EXPECT_EQ(view.id, message.id());
}
void ExpectSame(const LeaseIdRequest& view, const pb::LeaseKeepAliveRequest& message) {
  EXPECT_EQ(view.id, message.id());
}
void ExpectSame(const LeaseTimeToLiveRequest& view, const pb::LeaseTimeToLiveRequest& message) {
  EXPECT_EQ(view.id, message.id());
  EXPECT_EQ(view.keys, message.keys());
}

void ExpectSame(const WatchRequest& view, const pb::WatchRequest& message) {
  ASSERT_EQ(static_cast<int>(view.kind), static_cast<int>(message.request_union_case()));
  EXPECT_EQ(view.cancel_watch_id, message.cancel_request().watch_id());
  const pb::WatchCreateRequest& create = message.create_request();
  EXPECT_EQ(view.create.key, create.key());
  EXPECT_EQ(view.create.range_end, create.range_end());
  EXPECT_EQ(view.create.start_revision, create.start_revision());
  EXPECT_EQ(view.create.progress_notify, create.progress_notify());
  EXPECT_EQ(view.create.prev_kv, create.prev_kv());
  EXPECT_EQ(view.create.watch_id, create.watch_id());
  EXPECT_EQ(view.create.fragment, create.fragment());
  bool put = false;
  bool erase = false;
  for (const int filter : create.filters()) {
    put |= filter == pb::WatchCreateRequest::NOPUT;
    erase |= filter == pb::WatchCreateRequest::NODELETE;
  }
  EXPECT_EQ(view.create.filter_put, put);
  EXPECT_EQ(view.create.filter_delete, erase);
}

void ExpectSame(const MemberAddRequest& view, const pb::MemberAddRequest& message) {
  EXPECT_EQ(view.is_learner, message.islearner());
  ASSERT_EQ(view.peer_urls.size(), static_cast<size_t>(message.peerurls_size()));
  for (size_t i = 0; i < view.peer_urls.size(); ++i) {
    EXPECT_EQ(view.peer_urls[i], message.peerurls(static_cast<int>(i)));
  }
}
void ExpectSame(const MemberIdRequest& view, const pb::MemberRemoveRequest& message) {
  EXPECT_EQ(view.id, message.id());
}
void ExpectSame(const MemberUpdateRequest& view, const pb::MemberUpdateRequest& message) {
  EXPECT_EQ(view.id, message.id());
  ASSERT_EQ(view.peer_urls.size(), static_cast<size_t>(message.peerurls_size()));
}
void ExpectSame(const MemberListRequest& view, const pb::MemberListRequest& message) {
  EXPECT_EQ(view.linearizable, message.linearizable());
}
void ExpectSame(const AlarmRequest& view, const pb::AlarmRequest& message) {
  EXPECT_EQ(view.action, static_cast<int32_t>(message.action()));
  EXPECT_EQ(view.member_id, message.memberid());
  EXPECT_EQ(view.alarm, static_cast<int32_t>(message.alarm()));
}
void ExpectSame(const HashKvRequest& view, const pb::HashKVRequest& message) {
  EXPECT_EQ(view.revision, message.revision());
}
void ExpectSame(const MoveLeaderRequest& view, const pb::MoveLeaderRequest& message) {
  EXPECT_EQ(view.target_id, message.targetid());
}
void ExpectSame(const DowngradeRequest& view, const pb::DowngradeRequest& message) {
  EXPECT_EQ(view.action, static_cast<int32_t>(message.action()));
  EXPECT_EQ(view.version, message.version());
}

bool ParseView(std::string_view encoded, TxnRequest* view) {
  *view = TxnRequest(encoded);
  return ValidTxn(encoded);
}
template <typename View>
bool ParseView(std::string_view encoded, View* view) {
  return Parse(encoded, view);
}

template <typename View, typename Message>
void Compare(const std::string& encoded) {
  Message message;
  const bool theirs = message.ParseFromString(encoded);
  View view;
  const bool ours = ParseView(encoded, &view);
  if (!theirs) {
    EXPECT_FALSE(ours) << "protobuf refuses it";
  } else if (!ours) {
    EXPECT_TRUE(HasFieldOfWrongWireType(Message::descriptor(), encoded)) << message.DebugString();
  } else {
    ExpectSame(view, message);
  }
}

template <typename View, typename Message>
void CompareMany(uint64_t seed) {
  Prng prng(seed);
  for (int i = 0; i < 4000; ++i) {
    Message message;
    FillRandomly(&message, &prng, 6);
    std::string encoded = message.SerializeAsString();
    SCOPED_TRACE(testing::Message()
                 << Message::descriptor()->name() << " seed " << seed << " #" << i);
    Compare<View, Message>(encoded);
    // Two encodings one behind the other mean the two messages merged.
    Message other;
    FillRandomly(&other, &prng, 3);
    Compare<View, Message>(encoded + other.SerializeAsString());
    for (int damages = 0; damages < 4; ++damages) {
      std::string damaged = encoded;
      Damage(&damaged, &prng);
      Compare<View, Message>(damaged);
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
