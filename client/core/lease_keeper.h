// LeaseKeeper: keeps all leases of a client alive over one stream.
//
// Each lease is renewed at a third of its TTL. A renewal counts from the moment it was *sent*: the
// server cannot have renewed earlier, so a lease is safe until that moment plus the TTL, less a
// margin for clock drift. That is the local deadline. The server answers the renewals of a stream
// in order, so an answer belongs to the oldest unanswered renewal of its lease.
//
// Health: Alive while renewals are answered; Suspect when one has gone unanswered for a quarter of
// the time that is left until the deadline (and the stream is then left for another member, which
// is given a quarter of the rest); Lost at the local deadline, or when the server says that the
// lease is gone. Lost is final, and the keeper forgets the lease.
#pragma once

#include <deque>
#include <map>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/resuming_stream.h"
#include "conclave/client/core/types.h"

namespace conclave {

class LeaseKeeper : private ResumingStream::Owner {
 public:
  // On the engine's thread: after every acknowledged renewal and every change of health.
  using Observer = absl::AnyInvocable<void(SessionHealth health, Instant deadline)>;

  explicit LeaseKeeper(Engine& engine);
  ~LeaseKeeper() override;

  // `sent_at`: when the grant was sent. The margin is capped at half of the TTL.
  void Keep(LeaseId lease, Duration ttl, Duration margin, Instant sent_at, Observer observer);
  void Forget(LeaseId lease);
  bool Keeps(LeaseId lease) const { return leases_.count(lease) != 0; }
  // All leases are lost to their observers; on the servers they live on until they end.
  void Shutdown();
  void OnEndpointsChanged() { stream_.OnEndpointsChanged(); }

  size_t size() const { return leases_.size(); }

 private:
  struct Lease {
    Duration ttl{};
    Duration margin{};
    Instant deadline{};
    SessionHealth health = SessionHealth::kAlive;
    Observer observer;
    std::deque<Instant> unanswered{};  // send times, on this stream
    TimerId renew{};
    TimerId patience{};
    TimerId loss{};
  };

  void OnStreamOpen() override;
  void OnStreamMessage(std::string_view message) override;
  void OnStreamLost() override;

  void Renew(LeaseId id);
  void AwaitAnswer(LeaseId id, Lease& lease);  // to its oldest renewal
  void OnUnanswered(LeaseId id);
  void Suspect(LeaseId id, Lease& lease);
  void Lost(LeaseId id);
  void TellLost(Lease& lease);  // deferred; takes the observer
  void Notify(LeaseId id);
  void ArmLoss(LeaseId id, Lease& lease);
  void CancelTimers(Lease& lease);
  void Erase(std::map<LeaseId, Lease>::iterator lease);
  void SetHealth(Lease& lease, SessionHealth health);
  void ReportSessions();

  Engine& engine_;
  ResumingStream stream_;
  std::map<LeaseId, Lease> leases_;
  int suspect_ = 0;  // of leases_
};

}  // namespace conclave
