// EndpointPool: which member to talk to next.
//
// Round robin over the members that answer. A member that failed is shunned for a while, longer
// each time (exponential, full jitter), and is used again before that only if all others are
// shunned too: then it goes round all of them. Fallback members are used while all the others are
// shunned.
//
// The set may change at any time. An endpoint has an id, which is never used twice; to blame or
// praise one that has gone does nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/base/prng.h"
#include "conclave/base/time.h"

namespace conclave {

class EndpointPool {
 public:
  struct Endpoint {
    std::string name{};  // "host:port"
    bool fallback = false;

    friend bool operator==(const Endpoint&, const Endpoint&) = default;
  };
  struct Change {
    std::vector<size_t> added{};
    std::vector<size_t> removed{};

    bool empty() const { return added.empty() && removed.empty(); }
  };

  // The ids are 0, 1, ... in the order of `names`.
  EndpointPool(const std::vector<std::string>& names, Prng& prng);

  size_t size() const { return members_.size(); }
  // nullopt only when the pool is empty.
  std::optional<size_t> Pick(Instant now);
  void Succeeded(size_t endpoint);
  void Failed(size_t endpoint, Instant now);
  bool AnyHealthy(Instant now) const;

  // Those that stay keep their ids and what is known of them. The names are distinct.
  Change Set(const std::vector<Endpoint>& endpoints);
  bool Contains(size_t endpoint) const { return members_.contains(endpoint); }
  std::string_view NameOf(size_t endpoint) const;  // "" for one that has gone
  std::optional<size_t> Find(std::string_view name) const;

  struct State {
    size_t id = 0;
    std::string name{};
    bool fallback = false;
    Instant shunned_until{};
  };
  std::vector<State> States() const;  // in the order of ids
  // Grows with every change that States() shows.
  uint64_t version() const { return version_; }

 private:
  struct Member {
    Endpoint endpoint;
    int failures = 0;  // in a row
    Instant shunned_until{};
  };
  using Members = std::map<size_t, Member>;

  std::optional<size_t> PickNext(absl::FunctionRef<bool(const Member&)> may);

  Prng& prng_;
  Members members_;
  size_t next_id_ = 0;
  size_t turn_ = 0;  // the id from which on the next one is looked for
  uint64_t version_ = 1;
};

// A delay before the attempt after `failures` failures in a row: uniform in (0, base * 2^failures],
// the exponential capped.
Duration FullJitter(int failures, Duration base, Duration cap, Prng& prng);

}  // namespace conclave
