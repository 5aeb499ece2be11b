// RegState: how far a registration has come.
#pragma once

#include <string_view>

namespace conclave {

enum class RegState {
  kStarting,       // not registered yet
  kRegistered,     // it stands in the registry as wanted
  kSuspect,        // renewals go unanswered; the key is still there, as far as we know
  kLost,           // the lease is gone or cannot be shown to live
  kReregistering,  // on the way back
  kDraining,       // as wanted, and what is wanted is no new calls
  kGone,           // deregistered for good
};

std::string_view RegStateName(RegState state);

}  // namespace conclave
