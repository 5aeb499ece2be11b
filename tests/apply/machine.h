// A state machine driven as a node of one member drives it: each request is checked, and applied as
// the next entry or read at once. Speaks protobuf on both sides, so tests are written in messages.
#pragma once

#include <google/protobuf/message.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/state_machine.h"

namespace conclave::apply {

namespace pb = etcdserverpb;

// An answer: a code other than kOk with its text, or a message.
template <typename Message>
struct Answer {
  wire::Code code = wire::Code::kOk;
  std::string error;
  Message message;

  bool ok() const { return code == wire::Code::kOk; }
  const Message* operator->() const { return &message; }
};

struct RawAnswer {
  const wire::Error* error = nullptr;
  Bytes response;
};

class Machine {
 public:
  static constexpr uint64_t kClusterId = 77;
  static constexpr uint64_t kMemberId = 11;
  static constexpr uint64_t kTerm = 2;

  Machine() : Machine(StateMachineOptions()) {}
  explicit Machine(StateMachineOptions options);
  // Goes on with a state that was restored.
  explicit Machine(std::unique_ptr<StateMachine> state);

  StateMachine& state() { return *state_; }

  RawAnswer CallRaw(wire::Method method, const std::string& request);
  // Applies a payload as the next entry. Without want_response nobody waits for it.
  ApplyResult ApplyPayload(const Bytes& payload, bool want_response = true);
  void Wait(Duration time) { now_ += time; }
  Instant now() const { return now_; }

  // Every payload that was applied, for another machine to repeat.
  const std::vector<Bytes>& entries() const { return entries_; }

  template <typename Response, typename Request>
  Answer<Response> Call(wire::Method method, const Request& request) {
    const RawAnswer raw = CallRaw(method, request.SerializeAsString());
    Answer<Response> answer;
    if (raw.error != nullptr) {
      answer.code = raw.error->code;
      answer.error = raw.error->message;
    } else {
      EXPECT_TRUE(answer.message.ParseFromString(raw.response.ToString()));
      // Fields in protobuf's own order and form.
      EXPECT_EQ(answer.message.SerializeAsString(), raw.response.view());
    }
    return answer;
  }

  Answer<pb::RangeResponse> Range(const pb::RangeRequest& request) {
    return Call<pb::RangeResponse>(wire::Method::kRange, request);
  }
  Answer<pb::PutResponse> Put(const pb::PutRequest& request) {
    return Call<pb::PutResponse>(wire::Method::kPut, request);
  }
  Answer<pb::PutResponse> Put(const std::string& key, const std::string& value, int64_t lease = 0);
  Answer<pb::DeleteRangeResponse> Delete(const pb::DeleteRangeRequest& request) {
    return Call<pb::DeleteRangeResponse>(wire::Method::kDeleteRange, request);
  }
  Answer<pb::DeleteRangeResponse> Delete(const std::string& key, const std::string& end = "");
  Answer<pb::TxnResponse> Txn(const pb::TxnRequest& request) {
    return Call<pb::TxnResponse>(wire::Method::kTxn, request);
  }
  Answer<pb::CompactionResponse> Compact(int64_t revision);
  Answer<pb::LeaseGrantResponse> Grant(int64_t id, int64_t ttl_s);
  Answer<pb::LeaseRevokeResponse> Revoke(int64_t id);
  Answer<pb::LeaseTimeToLiveResponse> TimeToLive(int64_t id, bool keys = false);
  Answer<pb::LeaseLeasesResponse> Leases();
  Answer<pb::HashKVResponse> HashKv(int64_t revision = 0);

  Answer<pb::RangeResponse> Get(const std::string& key, const std::string& end = "",
                                int64_t revision = 0);

 private:
  std::unique_ptr<StateMachine> state_;
  std::vector<Bytes> entries_;
  uint64_t sequence_ = 1;
  Prng prng_{1};
  Instant now_{};
};

inline std::string OpenEnd() { return std::string(1, '\0'); }

}  // namespace conclave::apply
