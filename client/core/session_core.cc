#include "conclave/client/core/session_core.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/contender.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/lease_keeper.h"

namespace conclave {
namespace {

constexpr Duration kMarginMin = std::chrono::milliseconds(500);
constexpr int kMarginDivisor = 10;
constexpr Duration kRevokeAttempt = std::chrono::seconds(1);
constexpr Duration kRevokeAfterLoss = std::chrono::seconds(10);
constexpr Duration kRetryBase = std::chrono::milliseconds(50);
constexpr Duration kRetryCap = std::chrono::seconds(1);

}  // namespace

CallId SessionCore::Open(Engine& engine, const Request& request, Instant deadline,
                         Observer observer, Opened opened) {
  if (request.lease != 0) {
    return TakeOver(engine, request, deadline, std::move(observer), std::move(opened));
  }
  const Instant sent_at = engine.now();
  return calls::Grant(engine, request.ttl_seconds, 0, CallKind::kRead, deadline,
                      [&engine, sent_at, request, observer = std::move(observer),
                       opened = std::move(opened)](absl::StatusOr<GrantResult> grant) mutable {
                        if (!grant.ok()) return opened(grant.status());
                        opened(Make(engine, grant->id, absl::ToChronoNanoseconds(grant->ttl),
                                    request, sent_at, std::move(observer)));
                      });
}

CallId SessionCore::TakeOver(Engine& engine, const Request& request, Instant deadline,
                             Observer observer, Opened opened) {
  const Instant sent_at = engine.now();
  return calls::KeepAliveOnce(
      engine, request.lease, deadline,
      [&engine, sent_at, request, observer = std::move(observer),
       opened = std::move(opened)](absl::StatusOr<absl::Duration> ttl) mutable {
        if (!ttl.ok()) return opened(ttl.status());
        if (engine.leases().Keeps(request.lease)) {
          return opened(absl::FailedPreconditionError("a session of this client has that lease"));
        }
        opened(Make(engine, request.lease, absl::ToChronoNanoseconds(*ttl), request, sent_at,
                    std::move(observer)));
      });
}

std::shared_ptr<SessionCore> SessionCore::Make(Engine& engine, LeaseId lease, Duration ttl,
                                               const Request& request, Instant sent_at,
                                               Observer observer) {
  std::shared_ptr<SessionCore> session(new SessionCore(engine, lease, ttl, std::move(observer)));
  session->revoke_on_loss_ = request.revoke_on_loss;
  session->Begin(request.margin.value_or(std::max(kMarginMin, ttl / kMarginDivisor)), sent_at);
  return session;
}

std::shared_ptr<SessionCore> SessionCore::Borrow(Engine& engine, LeaseId lease) {
  std::shared_ptr<SessionCore> session(
      new SessionCore(engine, lease, Duration(0), [](SessionHealth, Instant) {}));
  session->deadline_ = kNever;
  return session;
}

void SessionCore::Begin(Duration margin, Instant sent_at) {
  if (MUTANT("session-believes-too-long")) margin = -std::chrono::seconds(5);
  deadline_ = sent_at + ttl_ - std::min(margin, ttl_ / 2);
  engine_.leases().Keep(lease_, ttl_, margin, sent_at,
                        [weak = weak_from_this()](SessionHealth health, Instant deadline) {
                          std::shared_ptr<SessionCore> self = weak.lock();
                          if (self == nullptr) return;
                          self->deadline_ = deadline;
                          self->observer_(health, deadline);
                          if (health != SessionHealth::kLost) return;
                          self->Lose();
                          if (!self->revoke_on_loss_) return;
                          // The server may still think that it lives: free what it holds.
                          self->Revoke(self->engine_.now() + kRevokeAfterLoss, 0,
                                       [](const absl::Status&) {});
                        });
}

uint64_t SessionCore::OnLost(Engine::Work work) {
  if (lost_) {
    REACHED("client: a session is lost already");
    engine_.Defer(std::move(work));
    return 0;
  }
  listeners_.emplace(next_listener_, std::move(work));
  return next_listener_++;
}

void SessionCore::RemoveOnLost(uint64_t& id) {
  listeners_.erase(id);
  id = 0;
}

void SessionCore::Lose() {
  if (lost_) return;
  lost_ = true;
  std::map<uint64_t, Engine::Work> listeners = std::move(listeners_);
  listeners_.clear();
  for (auto& [id, work] : listeners) engine_.Defer(std::move(work));
}

void SessionCore::Close(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  const std::shared_ptr<SessionCore> self = shared_from_this();  // the observer may let go of us
  engine_.leases().Forget(lease_);
  const bool was_lost = lost_;
  Lose();
  if (!was_lost) observer_(SessionHealth::kLost, deadline_);
  Revoke(deadline, 0, std::move(done));
}

void SessionCore::Revoke(Instant deadline, int failures,
                         absl::AnyInvocable<void(absl::Status)> done) {
  const Instant attempt = std::min(deadline, engine_.now() + kRevokeAttempt);
  calls::Revoke(
      engine_, lease_, attempt,
      [self = shared_from_this(), deadline, failures,
       done = std::move(done)](absl::StatusOr<int64_t> revoked) mutable {
        const absl::Status& status = revoked.status();
        // Gone is gone, whoever did it. And a lease of ours may be revoked twice without harm.
        if (status.ok() || absl::IsNotFound(status)) return done(absl::OkStatus());
        const Duration delay = FullJitter(failures, kRetryBase, kRetryCap, self->engine_.prng());
        if (!IsRetryable(status) || self->engine_.now() + delay >= deadline) {
          REACHED("client: a lease could not be revoked");
          return done(status);
        }
        Engine& engine = self->engine_;
        engine.After(
            delay, [self = std::move(self), deadline, failures, done = std::move(done)]() mutable {
              self->Revoke(deadline, failures + 1, std::move(done));
            });
      });
}

void SessionCore::Enqueue(const std::string& prefix, const std::shared_ptr<Contender>& contender) {
  queues_[prefix].push_back(contender);
}

void SessionCore::Dequeue(const std::string& prefix, Contender* contender) {
  auto found = queues_.find(prefix);
  if (found == queues_.end()) return;
  std::deque<std::shared_ptr<Contender>>& queue = found->second;
  const bool was_first = !queue.empty() && queue.front().get() == contender;
  std::erase_if(queue, [contender](const auto& each) { return each.get() == contender; });
  if (queue.empty()) {
    queues_.erase(found);
  } else if (was_first) {
    engine_.Defer([next = queue.front()] { next->OnTurn(); });
  }
}

Contender* SessionCore::First(const std::string& prefix) {
  auto found = queues_.find(prefix);
  return found == queues_.end() ? nullptr : found->second.front().get();
}

}  // namespace conclave
