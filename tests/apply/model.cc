#include "conclave/tests/apply/model.h"

#include <algorithm>

namespace conclave::apply {
namespace {

namespace pb = etcdserverpb;

bool InRange(const std::string& key, const std::string& begin, const std::string& end) {
  if (end.empty()) return key == begin;
  if (end == std::string(1, '\0')) return key >= begin;
  return key >= begin && key < end;
}

template <typename T>
int Order(const T& a, const T& b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

int CompareBy(pb::RangeRequest::SortTarget target, const mvccpb::KeyValue& a,
              const mvccpb::KeyValue& b) {
  switch (target) {
    case pb::RangeRequest::VERSION:
      return Order(a.version(), b.version());
    case pb::RangeRequest::CREATE:
      return Order(a.create_revision(), b.create_revision());
    case pb::RangeRequest::MOD:
      return Order(a.mod_revision(), b.mod_revision());
    case pb::RangeRequest::VALUE:
      return Order(a.value(), b.value());
    default:
      return Order(a.key(), b.key());
  }
}

}  // namespace

const wire::Error* Model::CheckRange(const pb::RangeRequest& request) const {
  if (request.key().empty()) return &wire::kErrEmptyKey;
  if (!pb::RangeRequest::SortOrder_IsValid(request.sort_order()) ||
      !pb::RangeRequest::SortTarget_IsValid(request.sort_target())) {
    return &wire::kErrInvalidSortOption;
  }
  return nullptr;
}

const wire::Error* Model::CheckPut(const pb::PutRequest& request) const {
  if (request.key().empty()) return &wire::kErrEmptyKey;
  if (request.ignore_value() && !request.value().empty()) return &wire::kErrValueProvided;
  if (request.ignore_lease() && request.lease() != 0) return &wire::kErrLeaseProvided;
  return nullptr;
}

void Model::DoRange(const pb::RangeRequest& request, const Keys& keys,
                    pb::RangeResponse* response) const {
  std::vector<mvccpb::KeyValue> found;
  for (const auto& [key, kv] : keys) {
    if (InRange(key, request.key(), request.range_end())) found.push_back(kv);
  }
  response->mutable_header()->set_revision(current());
  response->set_count(static_cast<int64_t>(found.size()));
  if (request.count_only()) return;
  const bool filtered = request.min_mod_revision() || request.max_mod_revision() ||
                        request.min_create_revision() || request.max_create_revision();
  if (request.sort_order() == pb::RangeRequest::NONE && !filtered && request.limit() > 0 &&
      static_cast<int64_t>(found.size()) > request.limit() + 1) {
    found.resize(static_cast<size_t>(request.limit()) + 1);
  }
  std::erase_if(found, [&](const mvccpb::KeyValue& kv) {
    return (request.min_mod_revision() && kv.mod_revision() < request.min_mod_revision()) ||
           (request.max_mod_revision() && kv.mod_revision() > request.max_mod_revision()) ||
           (request.min_create_revision() &&
            kv.create_revision() < request.min_create_revision()) ||
           (request.max_create_revision() && kv.create_revision() > request.max_create_revision());
  });
  const bool descend = request.sort_order() == pb::RangeRequest::DESCEND;
  std::stable_sort(found.begin(), found.end(),
                   [&](const mvccpb::KeyValue& a, const mvccpb::KeyValue& b) {
                     const int order = CompareBy(request.sort_target(), a, b);
                     return descend ? order > 0 : order < 0;
                   });
  if (request.limit() > 0 && static_cast<int64_t>(found.size()) > request.limit()) {
    found.resize(static_cast<size_t>(request.limit()));
    response->set_more(true);
  }
  for (mvccpb::KeyValue& kv : found) {
    if (request.keys_only()) {
      kv.clear_value();
      if (request.sort_target() != pb::RangeRequest::VALUE) kv.clear_lease();
    }
    *response->add_kvs() = kv;
  }
}

ModelAnswer<pb::RangeResponse> Model::Range(const pb::RangeRequest& request) const {
  if (const wire::Error* error = CheckRange(request)) return {error, {}};
  if (request.revision() > revision_) return {&wire::kErrFutureRevision, {}};
  if (request.revision() > 0 && request.revision() < compacted_) return {&wire::kErrCompacted, {}};
  ModelAnswer<pb::RangeResponse> answer;
  DoRange(request, request.revision() > 0 ? history_.at(request.revision()) : now_,
          &answer.message);
  return answer;
}

void Model::DoPut(const pb::PutRequest& request, pb::PutResponse* response) {
  const auto found = now_.find(request.key());
  mvccpb::KeyValue kv;
  kv.set_create_revision(revision_ + 1);
  if (found != now_.end()) {
    if (request.prev_kv()) *response->mutable_prev_kv() = found->second;
    kv = found->second;
  }
  kv.set_key(request.key());
  if (!request.ignore_value()) kv.set_value(request.value());
  if (!request.ignore_lease()) kv.set_lease(request.lease());
  kv.set_mod_revision(revision_ + 1);
  kv.set_version(kv.version() + 1);
  now_[request.key()] = kv;
  wrote_ = true;
  response->mutable_header()->set_revision(current());
}

ModelAnswer<pb::PutResponse> Model::Put(const pb::PutRequest& request) {
  if (const wire::Error* error = CheckPut(request)) return {error, {}};
  if (request.lease() != 0 && !leases_.contains(request.lease())) {
    return {&wire::kErrLeaseNotFound, {}};
  }
  if ((request.ignore_value() || request.ignore_lease()) && !now_.contains(request.key())) {
    return {&wire::kErrKeyNotFound, {}};
  }
  ModelAnswer<pb::PutResponse> answer;
  DoPut(request, &answer.message);
  Commit();
  return answer;
}

void Model::DoDelete(const pb::DeleteRangeRequest& request, pb::DeleteRangeResponse* response) {
  int64_t deleted = 0;
  for (auto it = now_.begin(); it != now_.end();) {
    if (!InRange(it->first, request.key(), request.range_end())) {
      ++it;
      continue;
    }
    if (request.prev_kv()) *response->add_prev_kvs() = it->second;
    it = now_.erase(it);
    ++deleted;
    wrote_ = true;
  }
  response->set_deleted(deleted);
  response->mutable_header()->set_revision(current());
}

ModelAnswer<pb::DeleteRangeResponse> Model::DeleteRange(const pb::DeleteRangeRequest& request) {
  if (request.key().empty()) return {&wire::kErrEmptyKey, {}};
  ModelAnswer<pb::DeleteRangeResponse> answer;
  DoDelete(request, &answer.message);
  Commit();
  return answer;
}

void Model::Commit() {
  if (wrote_) {
    ++revision_;
    history_[revision_] = now_;
  }
  wrote_ = false;
}

const wire::Error* Model::Compact(int64_t revision) {
  if (revision <= compacted_) return &wire::kErrCompacted;
  if (revision > revision_) return &wire::kErrFutureRevision;
  compacted_ = revision;
  return nullptr;
}

const wire::Error* Model::Grant(int64_t lease) {
  return leases_.insert(lease).second ? nullptr : &wire::kErrLeaseExists;
}

const wire::Error* Model::Revoke(int64_t lease) {
  if (leases_.erase(lease) == 0) return &wire::kErrLeaseNotFound;
  wrote_ =
      std::erase_if(now_, [lease](const auto& entry) { return entry.second.lease() == lease; }) > 0;
  Commit();
  return nullptr;
}

std::vector<std::string> Model::LeaseKeys(int64_t lease) const {
  std::vector<std::string> keys;
  for (const auto& [key, kv] : now_) {
    if (kv.lease() == lease) keys.push_back(key);
  }
  return keys;
}

// ---- Transactions -------------------------------------------------------------------------------

const wire::Error* Model::CheckTxnShape(const pb::TxnRequest& request, int budget) const {
  const int operations =
      std::max({request.compare_size(), request.success_size(), request.failure_size()});
  if (operations > budget) return &wire::kErrTooManyOps;
  for (const pb::Compare& compare : request.compare()) {
    if (compare.key().empty()) return &wire::kErrEmptyKey;
  }
  for (const auto* branch : {&request.success(), &request.failure()}) {
    for (const pb::RequestOp& op : *branch) {
      const wire::Error* error = nullptr;
      if (op.has_request_range()) {
        error = CheckRange(op.request_range());
      } else if (op.has_request_put()) {
        error = CheckPut(op.request_put());
      } else if (op.has_request_delete_range()) {
        if (op.request_delete_range().key().empty()) error = &wire::kErrEmptyKey;
      } else if (op.has_request_txn()) {
        error = CheckTxnShape(op.request_txn(), budget - operations);
      } else {
        error = &wire::kErrKeyNotFound;
      }
      if (error != nullptr) return error;
    }
  }
  return nullptr;
}

bool Model::CheckOverlap(const Ops& ops, std::set<std::string>* puts,
                         std::vector<pb::DeleteRangeRequest>* deletes) const {
  // An open end is not taken for one here.
  const auto deleted = [deletes](const std::string& key) {
    return std::any_of(deletes->begin(), deletes->end(), [&key](const auto& request) {
      if (request.range_end().empty()) return key == request.key();
      return key >= request.key() && key < request.range_end();
    });
  };
  for (const pb::RequestOp& op : ops) {
    if (op.has_request_delete_range()) deletes->push_back(op.request_delete_range());
  }
  for (const pb::RequestOp& op : ops) {
    if (!op.has_request_txn()) continue;
    std::set<std::string> then_puts;
    std::set<std::string> else_puts;
    std::vector<pb::DeleteRangeRequest> nested_deletes;
    std::vector<pb::DeleteRangeRequest> else_deletes;
    if (!CheckOverlap(op.request_txn().success(), &then_puts, &nested_deletes)) return false;
    if (!CheckOverlap(op.request_txn().failure(), &else_puts, &else_deletes)) return false;
    then_puts.merge(else_puts);
    for (const std::string& key : then_puts) {
      if (deleted(key) || !puts->insert(key).second) return false;
    }
    deletes->insert(deletes->end(), nested_deletes.begin(), nested_deletes.end());
    deletes->insert(deletes->end(), else_deletes.begin(), else_deletes.end());
  }
  for (const pb::RequestOp& op : ops) {
    if (!op.has_request_put()) continue;
    const std::string& key = op.request_put().key();
    if (deleted(key) || !puts->insert(key).second) return false;
  }
  return true;
}

bool Model::Holds(const pb::Compare& compare) const {
  std::vector<mvccpb::KeyValue> found;
  for (const auto& [key, kv] : now_) {
    if (InRange(key, compare.key(), compare.range_end())) found.push_back(kv);
  }
  if (found.empty()) {
    if (compare.target() == pb::Compare::VALUE) return false;
    found.emplace_back();
  }
  return std::all_of(found.begin(), found.end(), [&compare](const mvccpb::KeyValue& kv) {
    int order = 0;
    switch (compare.target()) {
      case pb::Compare::VERSION:
        order = Order(kv.version(), compare.version());
        break;
      case pb::Compare::CREATE:
        order = Order(kv.create_revision(), compare.create_revision());
        break;
      case pb::Compare::MOD:
        order = Order(kv.mod_revision(), compare.mod_revision());
        break;
      case pb::Compare::VALUE:
        order = Order(kv.value(), compare.value());
        break;
      case pb::Compare::LEASE:
        order = Order(kv.lease(), compare.lease());
        break;
      default:
        break;
    }
    switch (compare.result()) {
      case pb::Compare::EQUAL:
        return order == 0;
      case pb::Compare::GREATER:
        return order > 0;
      case pb::Compare::LESS:
        return order < 0;
      case pb::Compare::NOT_EQUAL:
        return order != 0;
      default:
        return true;
    }
  });
}

void Model::Decide(const pb::TxnRequest& request, std::vector<bool>* path) const {
  const bool succeeded = std::all_of(request.compare().begin(), request.compare().end(),
                                     [this](const pb::Compare& compare) { return Holds(compare); });
  path->push_back(succeeded);
  for (const pb::RequestOp& op : succeeded ? request.success() : request.failure()) {
    if (op.has_request_txn()) Decide(op.request_txn(), path);
  }
}

// All puts on the way are checked before all ranges.
const wire::Error* Model::CheckTxn(const pb::TxnRequest& request, const std::vector<bool>& path,
                                   bool puts, size_t* at,
                                   std::vector<std::string>* deleted_from) const {
  for (const pb::RequestOp& op : path[(*at)++] ? request.success() : request.failure()) {
    if (op.has_request_range()) {
      const int64_t revision = puts ? 0 : op.request_range().revision();
      if (revision > revision_) return &wire::kErrFutureRevision;
      if (revision != 0 && revision < compacted_) return &wire::kErrCompacted;
    } else if (op.has_request_put()) {
      if (!puts) continue;
      const pb::PutRequest& put = op.request_put();
      const bool gone = std::any_of(deleted_from->begin(), deleted_from->end(),
                                    [&put](const std::string& key) { return put.key() >= key; });
      if ((put.ignore_value() || put.ignore_lease()) && (gone || !now_.contains(put.key()))) {
        return &wire::kErrKeyNotFound;
      }
      if (put.lease() != 0 && !leases_.contains(put.lease())) return &wire::kErrLeaseNotFound;
    } else if (op.has_request_delete_range()) {
      const pb::DeleteRangeRequest& range = op.request_delete_range();
      if (range.range_end() == std::string(1, '\0')) deleted_from->push_back(range.key());
    } else if (const wire::Error* error =
                   CheckTxn(op.request_txn(), path, puts, at, deleted_from)) {
      return error;
    }
  }
  return nullptr;
}

void Model::ExecuteTxn(const pb::TxnRequest& request, const std::vector<bool>& path, size_t* at,
                       pb::TxnResponse* response) {
  response->set_succeeded(path[(*at)++]);
  response->mutable_header();
  for (const pb::RequestOp& op : response->succeeded() ? request.success() : request.failure()) {
    pb::ResponseOp* const answer = response->add_responses();
    if (op.has_request_range()) {
      const int64_t revision = op.request_range().revision();
      DoRange(op.request_range(), revision > 0 ? history_.at(revision) : now_,
              answer->mutable_response_range());
    } else if (op.has_request_put()) {
      DoPut(op.request_put(), answer->mutable_response_put());
    } else if (op.has_request_delete_range()) {
      DoDelete(op.request_delete_range(), answer->mutable_response_delete_range());
    } else {
      ExecuteTxn(op.request_txn(), path, at, answer->mutable_response_txn());
    }
  }
}

ModelAnswer<pb::TxnResponse> Model::Txn(const pb::TxnRequest& request) {
  if (const wire::Error* error = CheckTxnShape(request, 128)) return {error, {}};
  for (const auto* branch : {&request.success(), &request.failure()}) {
    std::set<std::string> puts;
    std::vector<pb::DeleteRangeRequest> deletes;
    if (!CheckOverlap(*branch, &puts, &deletes)) return {&wire::kErrDuplicateKey, {}};
  }
  std::vector<bool> path;
  Decide(request, &path);
  for (const bool puts : {true, false}) {
    size_t at = 0;
    std::vector<std::string> deleted_from;
    const wire::Error* const error = CheckTxn(request, path, puts, &at, &deleted_from);
    if (error != nullptr) return {error, {}};
  }
  ModelAnswer<pb::TxnResponse> answer;
  size_t at = 0;
  ExecuteTxn(request, path, &at, &answer.message);
  Commit();
  answer.message.mutable_header()->set_revision(revision_);
  return answer;
}

}  // namespace conclave::apply
