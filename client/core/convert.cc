#include "conclave/client/core/convert.h"

#include <utility>

namespace conclave {
namespace {

void FillCompare(const Compare& from, const NameSpace& space, etcdserverpb::Compare& to) {
  to.set_key(space.Key(from.range.key));
  to.set_range_end(space.End(from.range.end));
  switch (from.result) {
    case Compare::Result::kEqual:
      to.set_result(etcdserverpb::Compare::EQUAL);
      break;
    case Compare::Result::kGreater:
      to.set_result(etcdserverpb::Compare::GREATER);
      break;
    case Compare::Result::kLess:
      to.set_result(etcdserverpb::Compare::LESS);
      break;
    case Compare::Result::kNotEqual:
      to.set_result(etcdserverpb::Compare::NOT_EQUAL);
      break;
  }
  switch (from.target) {
    case Compare::Target::kVersion:
      to.set_target(etcdserverpb::Compare::VERSION);
      to.set_version(from.number);
      break;
    case Compare::Target::kCreateRevision:
      to.set_target(etcdserverpb::Compare::CREATE);
      to.set_create_revision(from.number);
      break;
    case Compare::Target::kModRevision:
      to.set_target(etcdserverpb::Compare::MOD);
      to.set_mod_revision(from.number);
      break;
    case Compare::Target::kValue:
      to.set_target(etcdserverpb::Compare::VALUE);
      to.set_value(from.value);
      break;
    case Compare::Target::kLease:
      to.set_target(etcdserverpb::Compare::LEASE);
      to.set_lease(from.number);
      break;
  }
}

void FillOp(const Op& from, const NameSpace& space, etcdserverpb::RequestOp& to) {
  if (const auto* range = std::get_if<RangeRequest>(&from)) {
    *to.mutable_request_range() = ToProto(*range, space);
  } else if (const auto* put = std::get_if<PutRequest>(&from)) {
    *to.mutable_request_put() = ToProto(*put, space);
  } else if (const auto* remove = std::get_if<DeleteRequest>(&from)) {
    *to.mutable_request_delete_range() = ToProto(*remove, space);
  } else {
    *to.mutable_request_txn() = ToProto(std::get<TxnRequest>(from), space);
  }
}

OpResult ResultOf(etcdserverpb::ResponseOp& op, int64_t revision, const NameSpace& space) {
  if (op.has_response_range()) return FromProto(*op.mutable_response_range(), space);
  if (op.has_response_put()) return FromProto(*op.mutable_response_put(), space);
  if (op.has_response_delete_range()) return FromProto(*op.mutable_response_delete_range(), space);
  // The header of a nested transaction is empty; its revision is that of the whole.
  op.mutable_response_txn()->mutable_header()->set_revision(revision);
  return FromProto(*op.mutable_response_txn(), space);
}

}  // namespace

etcdserverpb::RangeRequest ToProto(const RangeRequest& request, const NameSpace& space) {
  const RangeOptions& options = request.options;
  etcdserverpb::RangeRequest proto;
  proto.set_key(space.Key(request.range.key));
  proto.set_range_end(space.End(request.range.end));
  proto.set_limit(options.limit);
  proto.set_revision(options.revision);
  proto.set_sort_order(
      static_cast<etcdserverpb::RangeRequest::SortOrder>(static_cast<int>(options.sort_order)));
  proto.set_sort_target(
      static_cast<etcdserverpb::RangeRequest::SortTarget>(static_cast<int>(options.sort_target)));
  proto.set_serializable(options.serializable);
  proto.set_keys_only(options.keys_only);
  proto.set_count_only(options.count_only);
  proto.set_min_mod_revision(options.min_mod_revision);
  proto.set_max_mod_revision(options.max_mod_revision);
  proto.set_min_create_revision(options.min_create_revision);
  proto.set_max_create_revision(options.max_create_revision);
  return proto;
}

etcdserverpb::PutRequest ToProto(const PutRequest& request, const NameSpace& space) {
  etcdserverpb::PutRequest proto;
  proto.set_key(space.Key(request.key));
  proto.set_value(request.value);
  proto.set_lease(request.options.lease);
  proto.set_prev_kv(request.options.prev_kv);
  proto.set_ignore_value(request.options.ignore_value);
  proto.set_ignore_lease(request.options.ignore_lease);
  return proto;
}

etcdserverpb::DeleteRangeRequest ToProto(const DeleteRequest& request, const NameSpace& space) {
  etcdserverpb::DeleteRangeRequest proto;
  proto.set_key(space.Key(request.range.key));
  proto.set_range_end(space.End(request.range.end));
  proto.set_prev_kv(request.options.prev_kv);
  return proto;
}

etcdserverpb::TxnRequest ToProto(const TxnRequest& request, const NameSpace& space) {
  etcdserverpb::TxnRequest proto;
  for (const Compare& compare : request.conditions)
    FillCompare(compare, space, *proto.add_compare());
  for (const Op& op : request.success) FillOp(op, space, *proto.add_success());
  for (const Op& op : request.failure) FillOp(op, space, *proto.add_failure());
  return proto;
}

std::optional<KeyValue> FromProto(mvccpb::KeyValue& kv, const NameSpace& space) {
  if (!space.Strip(*kv.mutable_key())) return std::nullopt;
  return KeyValue{.key = std::move(*kv.mutable_key()),
                  .value = std::move(*kv.mutable_value()),
                  .create_revision = kv.create_revision(),
                  .mod_revision = kv.mod_revision(),
                  .version = kv.version(),
                  .lease = kv.lease()};
}

std::optional<WatchEvent> FromProto(mvccpb::Event& event, const NameSpace& space) {
  std::optional<KeyValue> kv = FromProto(*event.mutable_kv(), space);
  if (!kv.has_value()) return std::nullopt;
  WatchEvent result;
  result.type =
      event.type() == mvccpb::Event::DELETE ? WatchEvent::Type::kDelete : WatchEvent::Type::kPut;
  result.kv = *std::move(kv);
  if (event.has_prev_kv()) result.prev_kv = FromProto(*event.mutable_prev_kv(), space);
  return result;
}

RangeResult FromProto(etcdserverpb::RangeResponse& response, const NameSpace& space) {
  RangeResult result{
      .revision = response.header().revision(), .count = response.count(), .more = response.more()};
  result.kvs.reserve(static_cast<size_t>(response.kvs_size()));
  for (mvccpb::KeyValue& kv : *response.mutable_kvs()) {
    if (auto own = FromProto(kv, space)) result.kvs.push_back(*std::move(own));
  }
  return result;
}

PutResult FromProto(etcdserverpb::PutResponse& response, const NameSpace& space) {
  PutResult result{.revision = response.header().revision()};
  if (response.has_prev_kv()) result.prev_kv = FromProto(*response.mutable_prev_kv(), space);
  return result;
}

DeleteResult FromProto(etcdserverpb::DeleteRangeResponse& response, const NameSpace& space) {
  DeleteResult result{.revision = response.header().revision(), .deleted = response.deleted()};
  for (mvccpb::KeyValue& kv : *response.mutable_prev_kvs()) {
    if (auto own = FromProto(kv, space)) result.prev_kvs.push_back(*std::move(own));
  }
  return result;
}

TxnResult FromProto(etcdserverpb::TxnResponse& response, const NameSpace& space) {
  TxnResult result{.revision = response.header().revision(), .succeeded = response.succeeded()};
  for (etcdserverpb::ResponseOp& op : *response.mutable_responses()) {
    result.results.push_back(ResultOf(op, result.revision, space));
  }
  return result;
}

}  // namespace conclave
