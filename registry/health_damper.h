// HealthDamper: what a row of checks says of an instance, without its flapping. Pure.
//
// Down after `fall` bad checks in a row; up again after `rise` good ones in a row and no bad one
// for `hold`. Before the first good check it is down: an instance that never worked gets no calls;
// the first good one counts at once.
//
// Thread: the engine's.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "conclave/client/core/engine.h"

namespace conclave {

class HealthDamper : public std::enable_shared_from_this<HealthDamper> {
 public:
  struct Options {
    int fall = 3;
    int rise = 2;
    Duration hold{};
  };

  // `publish` hears every change, and the reason of it: OK is up.
  HealthDamper(Engine& engine, const Options& options,
               std::function<void(const absl::Status&)> publish);

  void Report(const absl::Status& check);
  void Stop();
  bool up() const { return up_; }

 private:
  void Rise();

  Engine& engine_;
  const Options options_;
  std::function<void(const absl::Status&)> publish_;
  bool up_ = false;
  bool ever_up_ = false;
  int good_ = 0;  // in a row
  int bad_ = 0;   // in a row
  TimerId hold_{};
};

}  // namespace conclave
