#include "conclave/client/core/convert.h"

#include <utility>

namespace conclave {
namespace {

void FillCompare(const Compare& from, etcdserverpb::Compare& to) {
  to.set_key(from.range.key);
  to.set_range_end(from.range.end);
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

void FillOp(const Op& from, etcdserverpb::RequestOp& to) {
  if (const auto* range = std::get_if<RangeRequest>(&from)) {
    *to.mutable_request_range() = ToProto(*range);
  } else if (const auto* put = std::get_if<PutRequest>(&from)) {
    *to.mutable_request_put() = ToProto(*put);
  } else {
    *to.mutable_request_delete_range() = ToProto(std::get<DeleteRequest>(from));
  }
}

}  // namespace

etcdserverpb::RangeRequest ToProto(const RangeRequest& request) {
  const RangeOptions& options = request.options;
  etcdserverpb::RangeRequest proto;
  proto.set_key(request.range.key);
  proto.set_range_end(request.range.end);
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

etcdserverpb::PutRequest ToProto(const PutRequest& request) {
  etcdserverpb::PutRequest proto;
  proto.set_key(request.key);
  proto.set_value(request.value);
  proto.set_lease(request.options.lease);
  proto.set_prev_kv(request.options.prev_kv);
  proto.set_ignore_value(request.options.ignore_value);
  proto.set_ignore_lease(request.options.ignore_lease);
  return proto;
}

etcdserverpb::DeleteRangeRequest ToProto(const DeleteRequest& request) {
  etcdserverpb::DeleteRangeRequest proto;
  proto.set_key(request.range.key);
  proto.set_range_end(request.range.end);
  proto.set_prev_kv(request.options.prev_kv);
  return proto;
}

etcdserverpb::TxnRequest ToProto(const TxnRequest& request) {
  etcdserverpb::TxnRequest proto;
  for (const Compare& compare : request.conditions) FillCompare(compare, *proto.add_compare());
  for (const Op& op : request.success) FillOp(op, *proto.add_success());
  for (const Op& op : request.failure) FillOp(op, *proto.add_failure());
  return proto;
}

KeyValue FromProto(mvccpb::KeyValue& kv) {
  return {.key = std::move(*kv.mutable_key()),
          .value = std::move(*kv.mutable_value()),
          .create_revision = kv.create_revision(),
          .mod_revision = kv.mod_revision(),
          .version = kv.version(),
          .lease = kv.lease()};
}

WatchEvent FromProto(mvccpb::Event& event) {
  WatchEvent result;
  result.type =
      event.type() == mvccpb::Event::DELETE ? WatchEvent::Type::kDelete : WatchEvent::Type::kPut;
  result.kv = FromProto(*event.mutable_kv());
  if (event.has_prev_kv()) result.prev_kv = FromProto(*event.mutable_prev_kv());
  return result;
}

RangeResult FromProto(etcdserverpb::RangeResponse& response) {
  RangeResult result{
      .revision = response.header().revision(), .count = response.count(), .more = response.more()};
  result.kvs.reserve(static_cast<size_t>(response.kvs_size()));
  for (mvccpb::KeyValue& kv : *response.mutable_kvs()) result.kvs.push_back(FromProto(kv));
  return result;
}

PutResult FromProto(etcdserverpb::PutResponse& response) {
  PutResult result{.revision = response.header().revision()};
  if (response.has_prev_kv()) result.prev_kv = FromProto(*response.mutable_prev_kv());
  return result;
}

DeleteResult FromProto(etcdserverpb::DeleteRangeResponse& response) {
  DeleteResult result{.revision = response.header().revision(), .deleted = response.deleted()};
  for (mvccpb::KeyValue& kv : *response.mutable_prev_kvs()) {
    result.prev_kvs.push_back(FromProto(kv));
  }
  return result;
}

TxnResult FromProto(etcdserverpb::TxnResponse& response) {
  TxnResult result{.revision = response.header().revision(), .succeeded = response.succeeded()};
  for (etcdserverpb::ResponseOp& op : *response.mutable_responses()) {
    if (op.has_response_range()) {
      result.results.emplace_back(FromProto(*op.mutable_response_range()));
    } else if (op.has_response_put()) {
      result.results.emplace_back(FromProto(*op.mutable_response_put()));
    } else {
      result.results.emplace_back(FromProto(*op.mutable_response_delete_range()));
    }
  }
  return result;
}

}  // namespace conclave
