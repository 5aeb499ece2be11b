// Registry: which failpoints are armed, and what happens at them.
//
// Thread-safe. A thread that sleeps at a failpoint wakes up when that one is armed anew or
// disarmed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "conclave/base/prng.h"
#include "conclave/server/failpoint/terms.h"

namespace conclave::failpoint {

class Registry {
 public:
  // `print` gets the lines of print and panic; `end_process` ends the process, at panic.
  struct Options {
    uint64_t seed = 1;
    std::function<void(std::string_view line)> print;
    std::function<void()> end_process;
  };
  explicit Registry(Options options) : options_(std::move(options)), prng_(options_.seed) {}

  // NotFound: there is no such failpoint.
  static absl::Status CheckName(std::string_view name);

  void Arm(std::string_view name, Terms terms);
  // "a=panic;b=sleep(10)". All of them, or none and InvalidArgument or NotFound.
  absl::Status ArmAll(std::string_view text);
  // False if it was not armed.
  bool Disarm(std::string_view name);

  // nullopt if it is not armed.
  std::optional<std::string> TermsOf(std::string_view name) const;
  uint64_t EvaluationsOf(std::string_view name) const;
  // All failpoints, one "name=terms" a line; of one that is not armed, "name=".
  std::string List() const;

  // A thread comes by.
  void Hit(std::string_view name);

 private:
  struct Armed {
    Terms terms;
    uint64_t generation = 0;
  };

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Prng prng_;
  uint64_t last_generation_ = 0;
  std::map<std::string, Armed, std::less<>> armed_;
};

}  // namespace conclave::failpoint
