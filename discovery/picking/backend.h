// What a balancing policy sees of the world: backends that can take a call, and the call. No gRPC.
//
// A Backend is immutable, but for its counters, which all calls of all threads keep up to date.
// When an instance changes (its weight, say), a new Backend takes the place of the old one and
// shares its counters.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "conclave/registry/instance.h"

namespace conclave::picking {

// What is counted of one backend. Written by the threads that make calls, without any lock.
struct alignas(64) BackendLoad {
  std::atomic<int64_t> in_flight = 0;
  std::atomic<uint64_t> picks = 0;
  std::atomic<uint64_t> failures = 0;  // calls that ended with a status that speaks against it
  std::atomic<int> consecutive_failures = 0;
};

class Backend {
 public:
  Backend(Instance instance, double weight, std::shared_ptr<BackendLoad> load)
      : instance_(std::move(instance)), weight_(weight), load_(std::move(load)) {}

  const Instance& instance() const { return instance_; }
  const std::string& address() const { return instance_.address; }
  // Its share of calls relative to the others: the instance's weight if the policy goes by weights
  // (else 1), less while it starts slowly.
  double weight() const { return weight_; }
  int64_t in_flight() const { return load_->in_flight.load(std::memory_order_relaxed); }
  uint64_t picks() const { return load_->picks.load(std::memory_order_relaxed); }
  uint64_t failures() const { return load_->failures.load(std::memory_order_relaxed); }

  const std::shared_ptr<BackendLoad>& load() const { return load_; }

 private:
  const Instance instance_;
  const double weight_;
  const std::shared_ptr<BackendLoad> load_;
};

// The call that is to be given to a backend. Valid during the pick only.
struct PickArgs {
  std::string_view method{};  // "/package.Service/Method"
  uint64_t random = 0;        // uniformly distributed, another one for each pick
  // What the client sends with the call; keys in lower case. Null: nothing.
  const std::multimap<std::string, std::string>* metadata = nullptr;

  // The first value of a key.
  std::optional<std::string_view> Metadata(const std::string& key) const {
    if (metadata == nullptr) return std::nullopt;
    const auto found = metadata->find(key);
    if (found == metadata->end()) return std::nullopt;
    return found->second;
  }
};

// A balancing policy of the application's own.
class Picker {
 public:
  virtual ~Picker() = default;
  // One of `ready`, which is not empty and in the order of addresses; or null, for a call that no
  // backend shall have: it fails with UNAVAILABLE. (Calls that begin while none is ready are not
  // asked about: they wait, and then go to any.) Called by any number of threads at a time, within
  // the start of a call: it must not block, make calls on its channel or destroy it.
  virtual const Backend* Pick(const PickArgs& args, std::span<const Backend* const> ready) = 0;
};

}  // namespace conclave::picking
