#include "conclave/lock/guard.h"

#include <mutex>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"

namespace conclave {

// Watches for the marker, once somebody wants to know.
struct LockGuard::ReleaseRequests {
  const std::string marker;
  std::once_flag once{};
  std::stop_source requested{};
  Watch watch{};

  void Begin(const Claim& claim) {
    const std::string wanted = std::to_string(claim.token());
    watch = Client(claim.session()->impl())
                .Watch(marker, {.list_first = true, .no_deletes = true},
                       [wanted, stop = requested](const WatchBatch& batch) mutable {
                         for (const KeyValue& kv : batch.state) {
                           if (kv.value == wanted) stop.request_stop();
                         }
                         for (const WatchEvent& event : batch.events) {
                           if (event.kv.value == wanted) stop.request_stop();
                         }
                       });
  }
};

bool IsLost(const absl::Status& status) { return absl::IsAborted(status); }

LockGuard::LockGuard(std::shared_ptr<Claim> claim, const std::string& marker)
    : claim_(std::move(claim)) {
  if (!marker.empty()) requests_.reset(new ReleaseRequests{.marker = marker});
}
LockGuard::LockGuard(LockGuard&&) noexcept = default;
LockGuard& LockGuard::operator=(LockGuard&& other) noexcept {
  std::swap(claim_, other.claim_);
  std::swap(requests_, other.requests_);
  return *this;
}
LockGuard::~LockGuard() {
  if (claim_ != nullptr) claim_->ReleaseAsync();
}

int64_t LockGuard::token() const { return claim_->token(); }
const std::string& LockGuard::key() const { return claim_->key(); }
Compare LockGuard::StillHeld() const { return claim_->StillHeld(); }
bool LockGuard::held() const { return claim_ != nullptr && claim_->held(); }
std::stop_token LockGuard::stop_token() const { return claim_->stop_token(); }

std::stop_token LockGuard::release_requested() const {
  if (requests_ == nullptr) return {};
  std::call_once(requests_->once, [this] { requests_->Begin(*claim_); });
  return requests_->requested.get_token();
}

absl::Status LockGuard::Unlock(const CallOptions& call) {
  if (claim_ == nullptr) return absl::AbortedError("it was given up before");
  return claim_->Release(call);
}

}  // namespace conclave
