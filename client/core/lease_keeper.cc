#include "conclave/client/core/lease_keeper.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave {
namespace {

constexpr std::string_view kMethod = "/etcdserverpb.Lease/LeaseKeepAlive";
constexpr Duration kPatienceMin = std::chrono::milliseconds(200);
constexpr Duration kPatienceMax = std::chrono::seconds(2);

// A share of what is left, so that time remains for the next member however many have not answered:
// three of seven can be silent, and met one after the other, within a lease of three seconds.
Duration Patience(Duration left) { return std::clamp(left / 4, kPatienceMin, kPatienceMax); }

}  // namespace

LeaseKeeper::LeaseKeeper(Engine& engine) : engine_(engine), stream_(engine, kMethod, *this) {}

LeaseKeeper::~LeaseKeeper() = default;

void LeaseKeeper::Keep(LeaseId id, Duration ttl, Duration margin, Instant sent_at,
                       Observer observer) {
  Lease& lease = leases_[id];
  lease.ttl = ttl;
  lease.margin = std::min(margin, ttl / 2);
  lease.deadline = sent_at + ttl - lease.margin;
  lease.observer = std::move(observer);
  lease.renew = engine_.At(sent_at + ttl / 3, [this, id] { Renew(id); });
  ArmLoss(id, lease);
  ReportSessions();
  stream_.Start();
}

void LeaseKeeper::CancelTimers(Lease& lease) {
  engine_.CancelTimer(lease.renew);
  engine_.CancelTimer(lease.patience);
  engine_.CancelTimer(lease.loss);
}

void LeaseKeeper::Forget(LeaseId id) {
  auto found = leases_.find(id);
  if (found == leases_.end()) return;
  CancelTimers(found->second);
  Erase(found);
}

void LeaseKeeper::Erase(std::map<LeaseId, Lease>::iterator lease) {
  if (lease->second.health == SessionHealth::kSuspect) --suspect_;
  leases_.erase(lease);
  ReportSessions();
  if (leases_.empty()) stream_.Stop();
}

void LeaseKeeper::SetHealth(Lease& lease, SessionHealth health) {
  if (lease.health == health) return;
  if (lease.health == SessionHealth::kSuspect) --suspect_;
  if (health == SessionHealth::kSuspect) ++suspect_;
  lease.health = health;
  ReportSessions();
}

void LeaseKeeper::ReportSessions() {
  if (engine_.observer() == nullptr) return;
  engine_.observer()->OnSession(static_cast<int>(leases_.size()) - suspect_, suspect_);
}

void LeaseKeeper::Shutdown() {
  // Nobody renews them any more. Who contends on a session and the session hold each other, until
  // one of them is told so.
  for (auto& [id, lease] : leases_) TellLost(lease);
  leases_.clear();
  stream_.Stop();
}

void LeaseKeeper::ArmLoss(LeaseId id, Lease& lease) {
  engine_.CancelTimer(lease.loss);
  lease.loss = engine_.At(lease.deadline, [this, id] { Lost(id); });
}

void LeaseKeeper::Renew(LeaseId id) {
  Lease& lease = leases_.at(id);
  engine_.CancelTimer(lease.renew);
  if (!stream_.open()) {
    REACHED("client: a lease is due and there is no stream");
    return Suspect(id, lease);  // OnStreamOpen renews what is due
  }
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(id);
  stream_.Send(request.SerializeAsString());
  lease.unanswered.push_back(engine_.now());
  if (lease.unanswered.size() == 1) AwaitAnswer(id, lease);
}

void LeaseKeeper::AwaitAnswer(LeaseId id, Lease& lease) {
  const Duration patience = Patience(lease.deadline - engine_.now());
  lease.patience = engine_.After(patience, [this, id] { OnUnanswered(id); });
}

void LeaseKeeper::OnUnanswered(LeaseId id) {
  Lease& lease = leases_.at(id);
  REACHED("client: a renewal goes unanswered");
  Suspect(id, lease);
  stream_.Abandon();
}

void LeaseKeeper::Suspect(LeaseId id, Lease& lease) {
  if (lease.health != SessionHealth::kAlive) return;
  SetHealth(lease, SessionHealth::kSuspect);
  Notify(id);
}

void LeaseKeeper::OnStreamOpen() {
  // Renew what is due, at once: nobody knows how long the last stream had been dead.
  std::vector<LeaseId> due;
  for (auto& [id, lease] : leases_) {
    if (lease.renew.first <= engine_.now()) due.push_back(id);
  }
  if (MUTANT("renewals-end-with-their-stream")) return;
  for (LeaseId id : due) Renew(id);
}

void LeaseKeeper::OnStreamLost() {
  for (auto& [id, lease] : leases_) {
    engine_.CancelTimer(lease.patience);
    if (lease.unanswered.empty()) continue;
    lease.unanswered.clear();
    engine_.CancelTimer(lease.renew);  // due now
    Suspect(id, lease);
  }
}

void LeaseKeeper::OnStreamMessage(std::string_view message) {
  etcdserverpb::LeaseKeepAliveResponse response;
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    engine_.OnNonsense("undecodable message", kMethod);
    return stream_.Abandon();
  }
  engine_.OnRevision(response.header().revision());
  auto found = leases_.find(response.id());
  if (found == leases_.end() || found->second.unanswered.empty()) {
    REACHED("client: a renewal that nobody waits for");
    return;
  }
  const LeaseId id = found->first;
  Lease& lease = found->second;
  const Instant sent_at = lease.unanswered.front();
  lease.unanswered.pop_front();
  if (response.ttl() <= 0) {  // 0 is the protocol's word for a lease that is gone
    REACHED("client: a lease is gone");
    return Lost(id);
  }
  if (engine_.observer() != nullptr) engine_.observer()->OnKeepAlive(engine_.now() - sent_at);
  engine_.CancelTimer(lease.patience);
  lease.ttl = std::chrono::seconds(std::min(response.ttl(), kTtlSecondsMax));
  const Instant from = MUTANT("session-counts-from-the-answer") ? engine_.now() : sent_at;
  lease.deadline = std::max(lease.deadline, from + lease.ttl - lease.margin);
  if (!lease.unanswered.empty()) AwaitAnswer(id, lease);
  SetHealth(lease, SessionHealth::kAlive);
  ArmLoss(id, lease);
  engine_.CancelTimer(lease.renew);
  lease.renew = engine_.At(sent_at + lease.ttl / 3, [this, id] { Renew(id); });
  Notify(id);
}

void LeaseKeeper::Lost(LeaseId id) {
  auto found = leases_.find(id);
  Lease& lease = found->second;
  CancelTimers(lease);
  TellLost(lease);
  Erase(found);
  if (engine_.observer() != nullptr) engine_.observer()->OnSessionLost();
}

void LeaseKeeper::TellLost(Lease& lease) {
  engine_.Defer([observer = std::move(lease.observer), deadline = lease.deadline]() mutable {
    observer(SessionHealth::kLost, deadline);
  });
}

void LeaseKeeper::Notify(LeaseId id) {
  engine_.Defer([this, id] {
    auto found = leases_.find(id);
    if (found == leases_.end()) return;
    // Outside the map while it runs: it may forget the lease.
    Observer observer = std::move(found->second.observer);
    observer(found->second.health, found->second.deadline);
    found = leases_.find(id);
    if (found != leases_.end()) found->second.observer = std::move(observer);
  });
}

}  // namespace conclave
