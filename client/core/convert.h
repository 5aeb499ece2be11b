// Between the client's own types and the protocol's messages.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/name_space.h"
#include "conclave/client/core/types.h"

namespace conclave {

// Keys get the name space's prefix on the way out and lose it on the way in; a key that is not of
// the space does not come in at all.
etcdserverpb::RangeRequest ToProto(const RangeRequest& request, const NameSpace& space);
etcdserverpb::PutRequest ToProto(const PutRequest& request, const NameSpace& space);
etcdserverpb::DeleteRangeRequest ToProto(const DeleteRequest& request, const NameSpace& space);
etcdserverpb::TxnRequest ToProto(const TxnRequest& request, const NameSpace& space);

// These move strings out of the message.
std::optional<KeyValue> FromProto(mvccpb::KeyValue& kv, const NameSpace& space);
std::optional<WatchEvent> FromProto(mvccpb::Event& event, const NameSpace& space);
RangeResult FromProto(etcdserverpb::RangeResponse& response, const NameSpace& space);
PutResult FromProto(etcdserverpb::PutResponse& response, const NameSpace& space);
DeleteResult FromProto(etcdserverpb::DeleteRangeResponse& response, const NameSpace& space);
TxnResult FromProto(etcdserverpb::TxnResponse& response, const NameSpace& space);

}  // namespace conclave
