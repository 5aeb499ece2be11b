#include "conclave/registry/registration_state.h"

namespace conclave {

std::string_view RegStateName(RegState state) {
  switch (state) {
    case RegState::kStarting:
      return "starting";
    case RegState::kRegistered:
      return "registered";
    case RegState::kSuspect:
      return "suspect";
    case RegState::kLost:
      return "lost";
    case RegState::kReregistering:
      return "reregistering";
    case RegState::kDraining:
      return "draining";
    case RegState::kGone:
      return "gone";
  }
  return "?";
}

}  // namespace conclave
