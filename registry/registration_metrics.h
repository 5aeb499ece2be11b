// What one registration shows in the user's registry of metrics:
//   conclave_registration_registered{service,address}      1 while it stands in the registry, else
//   0 conclave_registration_reregistrations_total{service}   it came back on another lease
//   conclave_registration_repairs_total{service}           its key was deleted or changed by others
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>

#include "conclave/registry/registrar.h"

namespace prometheus {
class Registry;
}

namespace conclave {

class RegistrationMetrics {
 public:
  // `registry` may be null: then nothing is counted.
  RegistrationMetrics(std::shared_ptr<prometheus::Registry> registry, const Instance& instance);
  ~RegistrationMetrics();  // the gauge says 0
  RegistrationMetrics(const RegistrationMetrics&) = delete;
  RegistrationMetrics& operator=(const RegistrationMetrics&) = delete;

  void OnEvent(const Registrar::Event& event);

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace conclave
