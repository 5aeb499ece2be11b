#include "conclave/server/recipes/recipe_call.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/election.pb.h"
#include "conclave/api/lock.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/contender.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/session_core.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/election/leader_tracker.h"
#include "conclave/server/recipes/recipe_door.h"

namespace conclave::recipes {
namespace {

using wire::Code;

// Of one request to the store; the server's own is shorter.
constexpr Duration kStepTimeout = std::chrono::seconds(10);

constexpr std::string_view kNoLeaderField = "\"leader\" field must be provided";
constexpr std::string_view kNotLeader = "election: not leader";
constexpr std::string_view kElectionNoLeader = "election: no leader";
constexpr std::string_view kLockExpired = "mutex: session is expired";
constexpr std::string_view kElectionExpired = "election: session is expired";

// The services answer with the store's texts, and with its codes where these say what to do about
// it.
void FailWith(Answerer* answerer, const absl::Status& status, std::string_view if_aborted) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  const bool told = detail.has_value() && !detail->server_error.empty();
  std::string text = told ? detail->server_error : std::string(status.message());
  Code code = Code::kUnknown;
  if (absl::IsUnavailable(status)) code = Code::kUnavailable;
  if (absl::IsDeadlineExceeded(status)) code = Code::kDeadlineExceeded;
  if (absl::IsCancelled(status)) {
    code = Code::kCancelled;
    text = "context canceled";
  }
  if (absl::IsAborted(status) && !told) text = if_aborted;
  answerer->Fail(static_cast<int>(code), text);
}

// One request, one answer.
class SimpleCall : public RecipeCall {
 public:
  SimpleCall(std::shared_ptr<CallerClient> client, Answerer* answerer)
      : client_(std::move(client)), answerer_(answerer) {}
  void Cancel() override { client_->engine().Cancel(call_); }

 protected:
  template <typename Response>
  void Ask(std::string_view method, CallKind kind, const google::protobuf::Message& request,
           std::function<void(const Response&)> then) {
    Engine& engine = client_->engine();
    Answerer* const answerer = answerer_;
    call_ = engine.Call({.method = method,
                         .kind = kind,
                         .request = request.SerializeAsString(),
                         .deadline = engine.now() + kStepTimeout},
                        [answerer, then = std::move(then)](absl::StatusOr<std::string> answer) {
                          if (!answer.ok()) return FailWith(answerer, answer.status(), "");
                          Response response;
                          if (!response.ParseFromString(*answer)) {
                            return answerer->Fail(static_cast<int>(Code::kInternal),
                                                  "the store's answer is malformed");
                          }
                          then(response);
                        });
  }

  const std::shared_ptr<CallerClient> client_;
  Answerer* const answerer_;
  CallId call_ = 0;
};

class UnlockCall final : public SimpleCall {
 public:
  UnlockCall(v3lockpb::UnlockRequest request, std::shared_ptr<CallerClient> client,
             Answerer* answerer)
      : SimpleCall(std::move(client), answerer), request_(std::move(request)) {}

  void Start() override {
    etcdserverpb::DeleteRangeRequest remove;
    remove.set_key(request_.key());
    // Deleting twice is deleting once.
    Ask<etcdserverpb::DeleteRangeResponse>(
        "/etcdserverpb.KV/DeleteRange", CallKind::kRead, remove,
        [answerer = answerer_](const etcdserverpb::DeleteRangeResponse& removed) {
          v3lockpb::UnlockResponse response;
          *response.mutable_header() = removed.header();
          answerer->Done(response.SerializeAsString());
        });
  }

 private:
  const v3lockpb::UnlockRequest request_;
};

// A write that happens only while the key is the leader's.
etcdserverpb::TxnRequest IfLeads(const v3electionpb::LeaderKey& leader) {
  etcdserverpb::TxnRequest txn;
  etcdserverpb::Compare* compare = txn.add_compare();
  compare->set_target(etcdserverpb::Compare::CREATE);
  compare->set_result(etcdserverpb::Compare::EQUAL);
  compare->set_key(leader.key());
  compare->set_create_revision(leader.rev());
  return txn;
}

class ProclaimCall final : public SimpleCall {
 public:
  ProclaimCall(v3electionpb::ProclaimRequest request, std::shared_ptr<CallerClient> client,
               Answerer* answerer)
      : SimpleCall(std::move(client), answerer), request_(std::move(request)) {}

  void Start() override {
    if (!request_.has_leader()) {
      return answerer_->Fail(static_cast<int>(Code::kUnknown), kNoLeaderField);
    }
    etcdserverpb::TxnRequest txn = IfLeads(request_.leader());
    etcdserverpb::PutRequest* put = txn.add_success()->mutable_request_put();
    put->set_key(request_.leader().key());
    put->set_value(request_.value());
    put->set_lease(request_.leader().lease());
    // Without a lease it would outlive its leader.
    put->set_ignore_lease(request_.leader().lease() == 0);
    Ask<etcdserverpb::TxnResponse>(
        "/etcdserverpb.KV/Txn", CallKind::kWrite, txn,
        [answerer = answerer_](const etcdserverpb::TxnResponse& written) {
          if (!written.succeeded()) {
            return answerer->Fail(static_cast<int>(Code::kUnknown), kNotLeader);
          }
          v3electionpb::ProclaimResponse response;
          *response.mutable_header() = written.header();
          answerer->Done(response.SerializeAsString());
        });
  }

 private:
  const v3electionpb::ProclaimRequest request_;
};

class ResignCall final : public SimpleCall {
 public:
  ResignCall(v3electionpb::ResignRequest request, std::shared_ptr<CallerClient> client,
             Answerer* answerer)
      : SimpleCall(std::move(client), answerer), request_(std::move(request)) {}

  void Start() override {
    if (!request_.has_leader()) {
      return answerer_->Fail(static_cast<int>(Code::kUnknown), kNoLeaderField);
    }
    etcdserverpb::TxnRequest txn = IfLeads(request_.leader());
    txn.add_success()->mutable_request_delete_range()->set_key(request_.leader().key());
    // Who does not lead any more has resigned, so it may be repeated.
    Ask<etcdserverpb::TxnResponse>("/etcdserverpb.KV/Txn", CallKind::kRead, txn,
                                   [answerer = answerer_](const etcdserverpb::TxnResponse& done) {
                                     v3electionpb::ResignResponse response;
                                     *response.mutable_header() = done.header();
                                     answerer->Done(response.SerializeAsString());
                                   });
  }

 private:
  const v3electionpb::ResignRequest request_;
};

class LeaderCall final : public SimpleCall {
 public:
  LeaderCall(v3electionpb::LeaderRequest request, std::shared_ptr<CallerClient> client,
             Answerer* answerer)
      : SimpleCall(std::move(client), answerer), request_(std::move(request)) {}

  void Start() override {
    const KeyRange candidates = Prefix(absl::StrCat(request_.name(), "/"));
    etcdserverpb::RangeRequest oldest;
    oldest.set_key(candidates.key);
    oldest.set_range_end(candidates.end);
    oldest.set_limit(1);
    oldest.set_sort_order(etcdserverpb::RangeRequest::ASCEND);
    oldest.set_sort_target(etcdserverpb::RangeRequest::CREATE);
    Ask<etcdserverpb::RangeResponse>(
        "/etcdserverpb.KV/Range", CallKind::kRead, oldest,
        [answerer = answerer_](const etcdserverpb::RangeResponse& found) {
          if (found.kvs().empty()) {
            return answerer->Fail(static_cast<int>(Code::kUnknown), kElectionNoLeader);
          }
          v3electionpb::LeaderResponse response;
          *response.mutable_header() = found.header();
          *response.mutable_kv() = found.kvs(0);
          answerer->Done(response.SerializeAsString());
        });
  }

 private:
  const v3electionpb::LeaderRequest request_;
};

// Lock and Campaign: a place in a queue, until it is the first one.
class QueueCall final : public RecipeCall {
 public:
  struct Place {
    std::string name;
    std::string value;
    LeaseId lease = 0;
    bool is_campaign = false;
  };
  QueueCall(Place place, std::shared_ptr<CallerClient> client, Answerer* answerer)
      : client_(std::move(client)), answerer_(answerer), place_(std::move(place)) {}

  void Start() override {
    if (place_.lease != 0) return Contend();
    Engine& engine = client_->engine();
    grant_ = calls::Grant(engine, RecipeDoor::kDefaultLeaseSeconds, 0, CallKind::kRead,
                          engine.now() + kStepTimeout, [this](absl::StatusOr<GrantResult> grant) {
                            grant_ = 0;
                            if (!grant.ok()) return FailWith(answerer_, grant.status(), "");
                            place_.lease = grant->id;
                            Contend();
                          });
  }

  void Cancel() override {
    if (grant_ != 0) return client_->engine().Cancel(grant_);
    if (contender_ != nullptr) contender_->Cancel(absl::CancelledError("context canceled"));
  }

 private:
  void Contend() {
    auto session = SessionCore::Borrow(client_->engine(), place_.lease);
    contender_ = std::make_shared<Contender>(
        std::move(session), Contender::Request{.name = place_.name, .value = place_.value});
    contender_->Start(
        [this](absl::StatusOr<Contender::Outcome> outcome) { OnOutcome(outcome.status()); },
        [](const absl::Status&) {});
  }

  void OnOutcome(const absl::Status& outcome) {
    if (!outcome.ok()) {
      return FailWith(answerer_, outcome, place_.is_campaign ? kElectionExpired : kLockExpired);
    }
    if (!contender_->owning()) {
      // Lost between its turn and this word of it.
      return FailWith(answerer_, absl::AbortedError(""),
                      place_.is_campaign ? kElectionExpired : kLockExpired);
    }
    contender_->Detach();
    if (!place_.is_campaign) {
      v3lockpb::LockResponse response;
      *response.mutable_header() = client_->header();
      response.set_key(contender_->key());
      return answerer_->Done(response.SerializeAsString());
    }
    v3electionpb::CampaignResponse response;
    *response.mutable_header() = client_->header();
    v3electionpb::LeaderKey* leader = response.mutable_leader();
    leader->set_name(place_.name);
    leader->set_key(contender_->key());
    leader->set_rev(contender_->token());
    leader->set_lease(place_.lease);
    answerer_->Done(response.SerializeAsString());
  }

  const std::shared_ptr<CallerClient> client_;
  Answerer* const answerer_;
  Place place_;
  CallId grant_ = 0;
  std::shared_ptr<Contender> contender_;
};

class ObserveCall final : public RecipeCall {
 public:
  ObserveCall(const v3electionpb::LeaderRequest& request, std::shared_ptr<CallerClient> client,
              Answerer* answerer)
      : client_(std::move(client)), answerer_(answerer), name_(request.name()) {}
  ~ObserveCall() override { client_->engine().watches().Remove(watch_); }

  void Start() override {
    watch_ = client_->engine().watches().Add(Prefix(absl::StrCat(name_, "/")), {.list_first = true},
                                             [this](const WatchBatch& batch) { OnBatch(batch); });
  }

  void Cancel() override { FailWith(answerer_, absl::CancelledError(""), ""); }

  void OnSent(uint64_t bytes) override {
    unsent_ -= std::min<uint64_t>(unsent_, bytes);
    if (unsent_ > RecipeDoor::kUnsentBytesMax || !latest_.has_value()) return;
    Tell(*std::exchange(latest_, std::nullopt));
  }

 private:
  void OnBatch(const WatchBatch& batch) {
    if (!batch.status.ok()) return FailWith(answerer_, batch.status, "");
    for (const std::optional<KeyValue>& leader : tracker_.ApplyKeys(batch)) {
      if (!leader.has_value() && !led_) continue;  // nobody has gone
      led_ = true;
      v3electionpb::LeaderResponse response;
      *response.mutable_header() = client_->header();
      response.mutable_header()->set_revision(batch.revision);
      mvccpb::KeyValue* kv = response.mutable_kv();
      if (leader.has_value()) {
        kv->set_key(leader->key);
        kv->set_create_revision(leader->create_revision);
        kv->set_mod_revision(leader->mod_revision);
        kv->set_version(leader->version);
        kv->set_value(leader->value);
        kv->set_lease(leader->lease);
      }
      if (unsent_ > RecipeDoor::kUnsentBytesMax) {
        latest_ = response.SerializeAsString();
      } else {
        Tell(response.SerializeAsString());
      }
    }
  }

  void Tell(std::string message) {
    unsent_ += message.size();
    answerer_->Message(std::move(message));
  }

  const std::shared_ptr<CallerClient> client_;
  Answerer* const answerer_;
  const std::string name_;
  WatchHandle watch_ = 0;
  LeaderTracker tracker_;
  bool led_ = false;  // somebody has led since we look
  uint64_t unsent_ = 0;
  std::optional<std::string> latest_;  // what a reader that is behind will hear
};

template <typename Call, typename Request>
std::unique_ptr<RecipeCall> Make(std::string_view bytes, std::shared_ptr<CallerClient> client,
                                 Answerer* answerer) {
  Request request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return nullptr;
  return std::make_unique<Call>(std::move(request), std::move(client), answerer);
}

}  // namespace

std::unique_ptr<RecipeCall> MakeRecipeCall(std::string_view method, std::string_view request,
                                           std::shared_ptr<CallerClient> client,
                                           Answerer* answerer) {
  const auto size = static_cast<int>(request.size());
  if (method == "/v3lockpb.Lock/Lock") {
    v3lockpb::LockRequest lock;
    if (!lock.ParseFromArray(request.data(), size)) return nullptr;
    return std::make_unique<QueueCall>(QueueCall::Place{lock.name(), "", lock.lease(), false},
                                       std::move(client), answerer);
  }
  if (method == "/v3electionpb.Election/Campaign") {
    v3electionpb::CampaignRequest campaign;
    if (!campaign.ParseFromArray(request.data(), size)) return nullptr;
    return std::make_unique<QueueCall>(
        QueueCall::Place{campaign.name(), campaign.value(), campaign.lease(), true},
        std::move(client), answerer);
  }
  if (method == "/v3lockpb.Lock/Unlock") {
    return Make<UnlockCall, v3lockpb::UnlockRequest>(request, std::move(client), answerer);
  }
  if (method == "/v3electionpb.Election/Proclaim") {
    return Make<ProclaimCall, v3electionpb::ProclaimRequest>(request, std::move(client), answerer);
  }
  if (method == "/v3electionpb.Election/Resign") {
    return Make<ResignCall, v3electionpb::ResignRequest>(request, std::move(client), answerer);
  }
  if (method == "/v3electionpb.Election/Leader") {
    return Make<LeaderCall, v3electionpb::LeaderRequest>(request, std::move(client), answerer);
  }
  if (method == "/v3electionpb.Election/Observe") {
    return Make<ObserveCall, v3electionpb::LeaderRequest>(request, std::move(client), answerer);
  }
  return nullptr;
}

}  // namespace conclave::recipes
