#include "conclave/client/core/endpoint_pool.h"

#include <algorithm>

#include "conclave/base/check.h"

namespace conclave {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kShunBase = milliseconds(200);
constexpr Duration kShunCap = seconds(10);
constexpr int kDoublingsMax = 20;

}  // namespace

EndpointPool::EndpointPool(size_t count, Prng& prng) : prng_(prng), members_(count) {
  CONCLAVE_CHECK(count > 0);
  next_ = prng_.Below(count);
}

size_t EndpointPool::Pick(Instant now) {
  for (size_t i = 0; i < members_.size(); ++i) {
    const size_t candidate = (next_ + i) % members_.size();
    if (members_[candidate].shunned_until <= now) {
      next_ = candidate + 1;
      return candidate;
    }
  }
  const auto soonest = std::min_element(
      members_.begin(), members_.end(),
      [](const Member& a, const Member& b) { return a.shunned_until < b.shunned_until; });
  return static_cast<size_t>(soonest - members_.begin());
}

void EndpointPool::Succeeded(size_t endpoint) { members_[endpoint] = Member{}; }

void EndpointPool::Failed(size_t endpoint, Instant now) {
  Member& member = members_[endpoint];
  member.shunned_until =
      now + kShunBase / 2 + FullJitter(member.failures, kShunBase, kShunCap, prng_);
  ++member.failures;
}

bool EndpointPool::AnyHealthy(Instant now) const {
  return std::any_of(members_.begin(), members_.end(),
                     [now](const Member& member) { return member.shunned_until <= now; });
}

Duration FullJitter(int failures, Duration base, Duration cap, Prng& prng) {
  const Duration bound = std::min(cap, base * (int64_t{1} << std::min(failures, kDoublingsMax)));
  return Duration(prng.Between(1, bound.count()));
}

}  // namespace conclave
