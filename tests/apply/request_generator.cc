#include "conclave/tests/apply/request_generator.h"

namespace conclave::apply {

namespace pb = etcdserverpb;

std::string RequestGenerator::Key() {
  if (prng_.Chance(1, 150)) return "";
  if (options_.for_etcd_34) {
    // Up to twelve keys, Go's sort keeps equal ones in order.
    std::string key(1, static_cast<char>('a' + prng_.Below(4)));
    if (prng_.Chance(2, 3)) key.push_back(static_cast<char>('a' + prng_.Below(2)));
    return key;
  }
  std::string key(1, static_cast<char>('a' + prng_.Below(5)));
  if (prng_.Chance(1, 2)) key.push_back(static_cast<char>('a' + prng_.Below(3)));
  if (prng_.Chance(1, 30)) key.push_back('\0');
  return key;
}

std::string RequestGenerator::RangeEnd(const std::string& key) {
  switch (prng_.Below(6)) {
    case 0:
    case 1:
      return "";
    case 2:
      return std::string(1, '\0');
    case 3:
      return key + "\xff";
    default:
      return Key();
  }
}

int64_t RequestGenerator::Lease() {
  return prng_.Chance(1, 10) ? 99 : static_cast<int64_t>(prng_.Below(5)) + 1;
}

int64_t RequestGenerator::Revision() {
  switch (prng_.Below(8)) {
    case 0:
      return revision_ + 1;
    case 1:
      return 1;
    case 2:
      return prng_.Between(-2, 0);
    default:
      return prng_.Between(revision_ > 12 ? revision_ - 12 : 1, revision_);
  }
}

pb::RangeRequest RequestGenerator::Range() {
  pb::RangeRequest request;
  request.set_key(Key());
  request.set_range_end(RangeEnd(request.key()));
  if (prng_.Chance(1, 3)) request.set_limit(prng_.Between(-1, 4));
  if (prng_.Chance(1, 4)) request.set_revision(Revision());
  if (prng_.Chance(1, 3)) {
    const int past = options_.for_etcd_34 ? 0 : 1;
    request.set_sort_order(static_cast<pb::RangeRequest::SortOrder>(prng_.Between(0, 2 + past)));
    request.set_sort_target(static_cast<pb::RangeRequest::SortTarget>(prng_.Between(0, 4 + past)));
  }
  request.set_serializable(prng_.Chance(1, 5));
  request.set_keys_only(prng_.Chance(1, 8));
  request.set_count_only(prng_.Chance(1, 8));
  if (prng_.Chance(1, 10)) request.set_min_mod_revision(Revision());
  if (prng_.Chance(1, 10)) request.set_max_mod_revision(Revision());
  if (prng_.Chance(1, 10)) request.set_min_create_revision(Revision());
  if (prng_.Chance(1, 10)) request.set_max_create_revision(Revision());
  return request;
}

pb::PutRequest RequestGenerator::Put() {
  pb::PutRequest request;
  request.set_key(Key());
  if (!prng_.Chance(1, 6)) request.set_value(std::to_string(prng_.Below(6)));
  if (prng_.Chance(1, 4)) request.set_lease(Lease());
  request.set_prev_kv(prng_.Chance(1, 4));
  if (prng_.Chance(1, 6)) {
    request.set_ignore_value(true);
    if (!prng_.Chance(1, 8)) request.clear_value();
  }
  if (prng_.Chance(1, 6)) {
    request.set_ignore_lease(true);
    if (!prng_.Chance(1, 8)) request.clear_lease();
  }
  return request;
}

pb::DeleteRangeRequest RequestGenerator::DeleteRange() {
  pb::DeleteRangeRequest request;
  request.set_key(Key());
  if (prng_.Chance(1, 2)) request.set_range_end(RangeEnd(request.key()));
  request.set_prev_kv(prng_.Chance(1, 3));
  return request;
}

void RequestGenerator::Compare(pb::Compare* compare) {
  compare->set_key(Key());
  if (prng_.Chance(1, 5)) compare->set_range_end(RangeEnd(compare->key()));
  compare->set_result(static_cast<pb::Compare::CompareResult>(prng_.Below(4)));
  compare->set_target(static_cast<pb::Compare::CompareTarget>(prng_.Below(5)));
  // The union's member mostly agrees with the target.
  const uint64_t member =
      prng_.Chance(1, 10) ? prng_.Below(6) : static_cast<uint64_t>(compare->target());
  switch (member) {
    case 0:
      compare->set_version(prng_.Between(0, 3));
      break;
    case 1:
      compare->set_create_revision(prng_.Chance(1, 3) ? 0 : Revision());
      break;
    case 2:
      compare->set_mod_revision(prng_.Chance(1, 3) ? 0 : Revision());
      break;
    case 3:
      compare->set_value(std::to_string(prng_.Below(6)));
      break;
    case 4:
      compare->set_lease(prng_.Chance(1, 2) ? 0 : Lease());
      break;
    default:
      break;
  }
}

void RequestGenerator::Operation(pb::RequestOp* op, int depth) {
  switch (prng_.Below(depth > 0 ? 8 : 7)) {
    case 0:
    case 1:
      *op->mutable_request_range() = Range();
      break;
    case 2:
    case 3:
    case 4:
      *op->mutable_request_put() = Put();
      break;
    case 5:
    case 6:
      *op->mutable_request_delete_range() = DeleteRange();
      // etcd dies of a put with ignore_* behind a delete that its check for overlap does not see.
      if (options_.for_etcd_34 && op->request_delete_range().range_end() == std::string(1, '\0')) {
        op->mutable_request_delete_range()->clear_range_end();
      }
      break;
    default:
      *op->mutable_request_txn() = Txn(depth - 1);
  }
}

pb::TxnRequest RequestGenerator::Txn(int depth) {
  pb::TxnRequest request;
  for (uint64_t n = prng_.Below(3); n > 0; --n) Compare(request.add_compare());
  for (uint64_t n = prng_.Below(4); n > 0; --n) Operation(request.add_success(), depth);
  for (uint64_t n = prng_.Below(4); n > 0; --n) Operation(request.add_failure(), depth);
  if (prng_.Chance(1, 100)) request.add_success();
  return request;
}

}  // namespace conclave::apply
