// Health of a registered instance: who says whether it may get calls, and how hard that is
// believed.
//
//   registry.Register(instance, {.health = CustomCheck([&] { return database.Ping(); })});
//   registry.Register(instance, {.health = GrpcHealth(channel, "my-service")});   // grpc/health.h
//
// While the health says no, the instance stands in the registry as "down" (in formats whose readers
// do not know that, it does not stand there at all); the registration itself goes on. It begins as
// down, until the first good check.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace conclave {

// Something that watches a health and reports it, from whatever thread it likes. It starts when it
// is made; after its destructor has returned it reports no more.
class HealthSource {
 public:
  virtual ~HealthSource() = default;
};

// What Register takes. Made by CustomCheck, GrpcHealth, or with a source of one's own.
struct HealthCheck {
  using Report = std::function<void(const absl::Status& health)>;  // OK: it may get calls

  // Either: makes the source.
  std::function<std::unique_ptr<HealthSource>(Report report)> source{};
  // Or: is asked every `interval`. A check that has not answered within `timeout` counts as a bad
  // one, and once more with every interval that it goes on hanging.
  std::function<absl::Status()> check{};
  absl::Duration interval = absl::Seconds(5);
  absl::Duration timeout = absl::Seconds(1);

  // Down after this many bad answers in a row, up again after this many good ones, and after no bad
  // one for `hold`.
  int fall = 3;
  int rise = 2;
  absl::Duration hold = absl::ZeroDuration();
};

struct CustomCheckOptions {
  absl::Duration interval = absl::Seconds(5);
  absl::Duration timeout = absl::Seconds(1);
  int fall = 3;
  int rise = 2;
  absl::Duration hold = absl::ZeroDuration();
};

// `check` runs on a thread of the Registry's, one for all of its registrations: a check that hangs
// holds up the others, and the end of its registration.
HealthCheck CustomCheck(std::function<absl::Status()> check,
                        const CustomCheckOptions& options = {});

// InvalidArgument for intervals, timeouts and thresholds that make no sense.
absl::Status ValidateHealthCheck(const HealthCheck& health);

}  // namespace conclave
