// Between the client's own types and the protocol's messages.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/types.h"

namespace conclave {

etcdserverpb::RangeRequest ToProto(const RangeRequest& request);
etcdserverpb::PutRequest ToProto(const PutRequest& request);
etcdserverpb::DeleteRangeRequest ToProto(const DeleteRequest& request);
etcdserverpb::TxnRequest ToProto(const TxnRequest& request);

// These move strings out of the message.
KeyValue FromProto(mvccpb::KeyValue& kv);
WatchEvent FromProto(mvccpb::Event& event);
RangeResult FromProto(etcdserverpb::RangeResponse& response);
PutResult FromProto(etcdserverpb::PutResponse& response);
DeleteResult FromProto(etcdserverpb::DeleteRangeResponse& response);
TxnResult FromProto(etcdserverpb::TxnResponse& response);

}  // namespace conclave
