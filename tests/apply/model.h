// The KV service as naively as it can be written: a std::map of all keys, copied for every
// revision. It has no speed and no cleverness, so it is easy to see that it is right; the state
// machine must answer the same.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"

namespace conclave::apply {

template <typename Message>
struct ModelAnswer {
  const wire::Error* error = nullptr;
  Message message;
};

class Model {
 public:
  Model() { history_[1] = {}; }

  ModelAnswer<etcdserverpb::RangeResponse> Range(const etcdserverpb::RangeRequest& request) const;
  ModelAnswer<etcdserverpb::PutResponse> Put(const etcdserverpb::PutRequest& request);
  ModelAnswer<etcdserverpb::DeleteRangeResponse> DeleteRange(
      const etcdserverpb::DeleteRangeRequest& request);
  ModelAnswer<etcdserverpb::TxnResponse> Txn(const etcdserverpb::TxnRequest& request);
  const wire::Error* Compact(int64_t revision);
  const wire::Error* Grant(int64_t lease);
  const wire::Error* Revoke(int64_t lease);
  std::vector<std::string> LeaseKeys(int64_t lease) const;

  int64_t revision() const { return revision_; }

 private:
  using Keys = std::map<std::string, mvccpb::KeyValue>;

  const wire::Error* CheckRange(const etcdserverpb::RangeRequest& request) const;
  const wire::Error* CheckPut(const etcdserverpb::PutRequest& request) const;
  const wire::Error* CheckTxnShape(const etcdserverpb::TxnRequest& request, int budget) const;
  // Every set of keys that a branch may put, every range that it may delete; false if they overlap.
  using Ops = google::protobuf::RepeatedPtrField<etcdserverpb::RequestOp>;
  bool CheckOverlap(const Ops& ops, std::set<std::string>* puts,
                    std::vector<etcdserverpb::DeleteRangeRequest>* deletes) const;
  bool Holds(const etcdserverpb::Compare& compare) const;
  void Decide(const etcdserverpb::TxnRequest& request, std::vector<bool>* path) const;
  const wire::Error* CheckTxn(const etcdserverpb::TxnRequest& request,
                              const std::vector<bool>& path, bool puts, size_t* at,
                              std::vector<std::string>* deleted_from) const;
  void ExecuteTxn(const etcdserverpb::TxnRequest& request, const std::vector<bool>& path,
                  size_t* at, etcdserverpb::TxnResponse* response);

  void DoRange(const etcdserverpb::RangeRequest& request, const Keys& keys,
               etcdserverpb::RangeResponse* response) const;
  void DoPut(const etcdserverpb::PutRequest& request, etcdserverpb::PutResponse* response);
  void DoDelete(const etcdserverpb::DeleteRangeRequest& request,
                etcdserverpb::DeleteRangeResponse* response);
  void Commit();
  int64_t current() const { return revision_ + (wrote_ ? 1 : 0); }

  int64_t revision_ = 1;
  int64_t compacted_ = -1;
  Keys now_;
  bool wrote_ = false;
  std::map<int64_t, Keys> history_;  // by revision
  std::set<int64_t> leases_;
};

}  // namespace conclave::apply
