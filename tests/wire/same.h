// Views of requests and protobuf's own messages: that the same bytes are accepted by both, and mean
// the same. By gtest's expectations.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/requests.h"
#include "conclave/tests/wire/message_generator.h"

namespace conclave::wire {

inline void ExpectSame(const RangeRequest& view, const etcdserverpb::RangeRequest& message) {
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

inline void ExpectSame(const PutRequest& view, const etcdserverpb::PutRequest& message) {
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.value, message.value());
  EXPECT_EQ(view.lease, message.lease());
  EXPECT_EQ(view.prev_kv, message.prev_kv());
  EXPECT_EQ(view.ignore_value, message.ignore_value());
  EXPECT_EQ(view.ignore_lease, message.ignore_lease());
}

inline void ExpectSame(const DeleteRangeRequest& view,
                       const etcdserverpb::DeleteRangeRequest& message) {
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.range_end, message.range_end());
  EXPECT_EQ(view.prev_kv, message.prev_kv());
}

inline void ExpectSame(const CompactionRequest& view,
                       const etcdserverpb::CompactionRequest& message) {
  EXPECT_EQ(view.revision, message.revision());
  EXPECT_EQ(view.physical, message.physical());
}

inline void ExpectSame(const Compare& view, const etcdserverpb::Compare& message) {
  EXPECT_EQ(view.result, static_cast<int32_t>(message.result()));
  EXPECT_EQ(view.target, static_cast<int32_t>(message.target()));
  EXPECT_EQ(view.key, message.key());
  EXPECT_EQ(view.range_end, message.range_end());
  EXPECT_EQ(view.union_field, static_cast<uint32_t>(message.target_union_case()));
  switch (message.target_union_case()) {
    case etcdserverpb::Compare::kVersion:
      EXPECT_EQ(view.union_number, message.version());
      break;
    case etcdserverpb::Compare::kCreateRevision:
      EXPECT_EQ(view.union_number, message.create_revision());
      break;
    case etcdserverpb::Compare::kModRevision:
      EXPECT_EQ(view.union_number, message.mod_revision());
      break;
    case etcdserverpb::Compare::kValue:
      EXPECT_EQ(view.union_value, message.value());
      break;
    case etcdserverpb::Compare::kLease:
      EXPECT_EQ(view.union_number, message.lease());
      break;
    case etcdserverpb::Compare::TARGET_UNION_NOT_SET:
      break;
  }
}

inline void ExpectSame(const TxnRequest& view, const etcdserverpb::TxnRequest& message);

inline void ExpectSame(const RequestOp& view, const etcdserverpb::RequestOp& message) {
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
  for (const etcdserverpb::RequestOp& message : messages) {
    ASSERT_TRUE(cursor.Next(&encoded));
    RequestOp op;
    ASSERT_TRUE(op.Merge(encoded));
    ExpectSame(op, message);
  }
  EXPECT_FALSE(cursor.Next(&encoded));
}

inline void ExpectSame(const TxnRequest& view, const etcdserverpb::TxnRequest& message) {
  MessageCursor compares = view.compares();
  std::string_view encoded;
  for (const etcdserverpb::Compare& compare : message.compare()) {
    ASSERT_TRUE(compares.Next(&encoded));
    Compare parsed;
    ASSERT_TRUE(Parse(encoded, &parsed));
    ExpectSame(parsed, compare);
  }
  EXPECT_FALSE(compares.Next(&encoded));
  ExpectSameOps(view.success(), message.success());
  ExpectSameOps(view.failure(), message.failure());
}

inline void ExpectSame(const LeaseGrantRequest& view,
                       const etcdserverpb::LeaseGrantRequest& message) {
  EXPECT_EQ(view.ttl_s, message.ttl());
  EXPECT_EQ(view.id, message.id());
}
inline void ExpectSame(const LeaseIdRequest& view,
                       const etcdserverpb::LeaseRevokeRequest& message) {
  EXPECT_EQ(view.id, message.id());
}
inline void ExpectSame(const LeaseIdRequest& view,
                       const etcdserverpb::LeaseKeepAliveRequest& message) {
  EXPECT_EQ(view.id, message.id());
}
inline void ExpectSame(const LeaseTimeToLiveRequest& view,
                       const etcdserverpb::LeaseTimeToLiveRequest& message) {
  EXPECT_EQ(view.id, message.id());
  EXPECT_EQ(view.keys, message.keys());
}

inline void ExpectSame(const WatchRequest& view, const etcdserverpb::WatchRequest& message) {
  ASSERT_EQ(static_cast<int>(view.kind), static_cast<int>(message.request_union_case()));
  EXPECT_EQ(view.cancel_watch_id, message.cancel_request().watch_id());
  const etcdserverpb::WatchCreateRequest& create = message.create_request();
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
    put |= filter == etcdserverpb::WatchCreateRequest::NOPUT;
    erase |= filter == etcdserverpb::WatchCreateRequest::NODELETE;
  }
  EXPECT_EQ(view.create.filter_put, put);
  EXPECT_EQ(view.create.filter_delete, erase);
}

inline void ExpectSame(const MemberAddRequest& view,
                       const etcdserverpb::MemberAddRequest& message) {
  EXPECT_EQ(view.is_learner, message.islearner());
  ASSERT_EQ(view.peer_urls.size(), static_cast<size_t>(message.peerurls_size()));
  for (size_t i = 0; i < view.peer_urls.size(); ++i) {
    EXPECT_EQ(view.peer_urls[i], message.peerurls(static_cast<int>(i)));
  }
}
inline void ExpectSame(const MemberIdRequest& view,
                       const etcdserverpb::MemberRemoveRequest& message) {
  EXPECT_EQ(view.id, message.id());
}
inline void ExpectSame(const MemberUpdateRequest& view,
                       const etcdserverpb::MemberUpdateRequest& message) {
  EXPECT_EQ(view.id, message.id());
  ASSERT_EQ(view.peer_urls.size(), static_cast<size_t>(message.peerurls_size()));
}
inline void ExpectSame(const MemberListRequest& view,
                       const etcdserverpb::MemberListRequest& message) {
  EXPECT_EQ(view.linearizable, message.linearizable());
}
inline void ExpectSame(const AlarmRequest& view, const etcdserverpb::AlarmRequest& message) {
  EXPECT_EQ(view.action, static_cast<int32_t>(message.action()));
  EXPECT_EQ(view.member_id, message.memberid());
  EXPECT_EQ(view.alarm, static_cast<int32_t>(message.alarm()));
}
inline void ExpectSame(const HashKvRequest& view, const etcdserverpb::HashKVRequest& message) {
  EXPECT_EQ(view.revision, message.revision());
}
inline void ExpectSame(const MoveLeaderRequest& view,
                       const etcdserverpb::MoveLeaderRequest& message) {
  EXPECT_EQ(view.target_id, message.targetid());
}
inline void ExpectSame(const DowngradeRequest& view,
                       const etcdserverpb::DowngradeRequest& message) {
  EXPECT_EQ(view.action, static_cast<int32_t>(message.action()));
  EXPECT_EQ(view.version, message.version());
}

inline bool ParseView(std::string_view encoded, TxnRequest* view) {
  *view = TxnRequest(encoded);
  return ValidTxn(encoded);
}
template <typename View>
inline bool ParseView(std::string_view encoded, View* view) {
  return Parse(encoded, view);
}

template <typename View, typename Message>
void ExpectSameMeaning(const std::string& encoded) {
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

}  // namespace conclave::wire
