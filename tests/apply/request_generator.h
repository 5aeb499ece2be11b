// Random requests over few keys, revisions and leases, so that they concern each other: for the
// comparison with the naive model and with a real etcd.
#pragma once

#include <cstdint>
#include <string>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"

namespace conclave::apply {

struct GeneratorOptions {
  // Requests that make etcd 3.4 crash or answer by its age are left out.
  bool for_etcd_34 = false;
};

class RequestGenerator {
 public:
  RequestGenerator(uint64_t seed, const GeneratorOptions& options)
      : prng_(seed), options_(options) {}

  // What revisions are drawn around.
  void set_revision(int64_t revision) { revision_ = revision; }

  etcdserverpb::RangeRequest Range();
  etcdserverpb::PutRequest Put();
  etcdserverpb::DeleteRangeRequest DeleteRange();
  etcdserverpb::TxnRequest Txn() { return Txn(3); }
  int64_t Lease();
  int64_t Revision();
  Prng& prng() { return prng_; }

 private:
  std::string Key();
  std::string RangeEnd(const std::string& key);
  etcdserverpb::TxnRequest Txn(int depth);
  void Compare(etcdserverpb::Compare* compare);
  void Operation(etcdserverpb::RequestOp* op, int depth);

  Prng prng_;
  GeneratorOptions options_;
  int64_t revision_ = 1;
};

}  // namespace conclave::apply
