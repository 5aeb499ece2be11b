// EndpointPool: which member to talk to next.
//
// Round robin over the members that answer. A member that failed is shunned for a while, longer
// each time (exponential, full jitter), and is used again before that only if all others are
// shunned too.
#pragma once

#include <cstddef>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/base/time.h"

namespace conclave {

class EndpointPool {
 public:
  // count > 0.
  EndpointPool(size_t count, Prng& prng);

  size_t size() const { return members_.size(); }
  size_t Pick(Instant now);
  void Succeeded(size_t endpoint);
  void Failed(size_t endpoint, Instant now);
  bool AnyHealthy(Instant now) const;

 private:
  struct Member {
    int failures = 0;  // in a row
    Instant shunned_until{};
  };

  Prng& prng_;
  std::vector<Member> members_;
  size_t next_ = 0;
};

// A delay before the attempt after `failures` failures in a row: uniform in (0, base * 2^failures],
// the exponential capped.
Duration FullJitter(int failures, Duration base, Duration cap, Prng& prng);

}  // namespace conclave
