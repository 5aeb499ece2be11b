#include "conclave/tests/sim/plan.h"

#include <chrono>

#include "absl/strings/str_cat.h"

namespace conclave::sim {

std::string Plan::Flags() const {
  std::string flags;
  if (guests == Guests::kRecipes) flags += " --recipes";
  if (guests == Guests::kStorm) flags += " --storm";
  if (guests == Guests::kAuth) flags += " --auth";
  for (size_t i = 0; i < kFaults; ++i) {
    if (without_faults.test(i)) absl::StrAppend(&flags, " --without ", kFaultNames[i]);
  }
  for (size_t i = 0; i < kParts; ++i) {
    if (without_parts.test(i)) absl::StrAppend(&flags, " --without ", kPartNames[i]);
  }
  if (chaos_max != Plan().chaos_max) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(chaos_max).count();
    absl::StrAppend(&flags, " --chaos-ms ", ms);
  }
  if (clients.has_value()) absl::StrAppend(&flags, " --clients ", *clients);
  return flags;
}

bool Plan::LeaveOut(const std::string& name) {
  for (size_t i = 0; i < kFaults; ++i) {
    if (name == kFaultNames[i]) return without_faults.set(i), true;
  }
  for (size_t i = 0; i < kParts; ++i) {
    if (name == kPartNames[i]) return without_parts.set(i), true;
  }
  return false;
}

}  // namespace conclave::sim
