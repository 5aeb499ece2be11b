#include "conclave/tests/apply/machine.h"

#include <utility>

namespace conclave::apply {

Machine::Machine(StateMachineOptions options) {
  options.member_id = kMemberId;
  state_ = std::make_unique<StateMachine>(options);
  state_->Bootstrap(kClusterId, {{kMemberId, "", {"http://127.0.0.1:2380"}, {}, false}});
  state_->Promote(now_, Duration::zero());
}

Machine::Machine(std::unique_ptr<StateMachine> state) : state_(std::move(state)) {
  state_->Promote(now_, Duration::zero());
}

RawAnswer Machine::CallRaw(wire::Method method, const std::string& request) {
  const RequestCheck check = state_->Check(method, request);
  if (check.error != nullptr) return {check.error, Bytes()};
  if (check.route == Route::kPropose) {
    char* at;
    Bytes buffer = Bytes::Uninitialized(kCommandHeaderSize + request.size(), &at);
    request.copy(at + kCommandHeaderSize, request.size());
    const Bytes payload =
        state_->Prepare(method, std::move(buffer), kMemberId, sequence_++, &prng_);
    ApplyResult result = ApplyPayload(payload);
    return {result.error, std::move(result.response)};
  }
  EXPECT_NE(check.route, Route::kNode);
  ReadResult result = state_->Read({kTerm, now_}, method, request);
  if (result.task == nullptr) return {result.error, std::move(result.response)};
  while (!result.task->Run(7)) {
  }
  if (result.task->error() != nullptr) return {result.task->error(), Bytes()};
  return {nullptr, result.task->TakeResponse()};
}

ApplyResult Machine::ApplyPayload(const Bytes& payload, bool want_response) {
  entries_.push_back(payload);
  ApplyContext context;
  context.index = state_->applied_index() + 1;
  context.entry_term = kTerm;
  context.raft_term = kTerm;
  context.now = now_;
  context.want_response = want_response;
  return state_->Apply(context, payload);
}

Answer<pb::PutResponse> Machine::Put(const std::string& key, const std::string& value,
                                     int64_t lease) {
  pb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  request.set_lease(lease);
  return Put(request);
}

Answer<pb::DeleteRangeResponse> Machine::Delete(const std::string& key, const std::string& end) {
  pb::DeleteRangeRequest request;
  request.set_key(key);
  request.set_range_end(end);
  return Delete(request);
}

Answer<pb::CompactionResponse> Machine::Compact(int64_t revision) {
  pb::CompactionRequest request;
  request.set_revision(revision);
  return Call<pb::CompactionResponse>(wire::Method::kCompact, request);
}

Answer<pb::LeaseGrantResponse> Machine::Grant(int64_t id, int64_t ttl_s) {
  pb::LeaseGrantRequest request;
  request.set_id(id);
  request.set_ttl(ttl_s);
  return Call<pb::LeaseGrantResponse>(wire::Method::kLeaseGrant, request);
}

Answer<pb::LeaseRevokeResponse> Machine::Revoke(int64_t id) {
  pb::LeaseRevokeRequest request;
  request.set_id(id);
  return Call<pb::LeaseRevokeResponse>(wire::Method::kLeaseRevoke, request);
}

Answer<pb::LeaseTimeToLiveResponse> Machine::TimeToLive(int64_t id, bool keys) {
  pb::LeaseTimeToLiveRequest request;
  request.set_id(id);
  request.set_keys(keys);
  return Call<pb::LeaseTimeToLiveResponse>(wire::Method::kLeaseTimeToLive, request);
}

Answer<pb::LeaseLeasesResponse> Machine::Leases() {
  return Call<pb::LeaseLeasesResponse>(wire::Method::kLeaseLeases, pb::LeaseLeasesRequest());
}

Answer<pb::HashKVResponse> Machine::HashKv(int64_t revision) {
  pb::HashKVRequest request;
  request.set_revision(revision);
  return Call<pb::HashKVResponse>(wire::Method::kHashKv, request);
}

Answer<pb::RangeResponse> Machine::Get(const std::string& key, const std::string& end,
                                       int64_t revision) {
  pb::RangeRequest request;
  request.set_key(key);
  request.set_range_end(end);
  request.set_revision(revision);
  return Range(request);
}

}  // namespace conclave::apply
