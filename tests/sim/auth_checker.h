// The oracle of authentication: whoever was told or did something had the permission for it, at
// some moment between asking and hearing. Pure; it knows nothing of how the product decides.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/tests/sim/checkers.h"

namespace conclave::sim {

struct KeyPermission {
  bool reads = false;
  bool writes = false;
  std::string key;
  std::string range_end;  // empty: the key alone; "\0": everything from it on
};

// What users could do since `from`, when the first member had applied it.
struct AuthMoment {
  Instant from;
  bool enabled = false;
  std::map<std::string, std::set<std::string>> roles_of;
  std::map<std::string, std::vector<KeyPermission>> permissions_of;  // roles
};
using AuthHistory = std::vector<AuthMoment>;  // in order; before the first everybody may do all

// Something that was answered with success, or an event that was told.
struct AuthDeed {
  std::string user;  // empty: nobody
  std::string what;
  Instant begin;                     // asked; of an event: when its revision was first applied
  Instant end;                       // heard
  std::vector<KeyPermission> needs;  // all of these, at one moment
};

// Whether a user may do all that at that moment.
bool Allows(const AuthMoment& moment, const std::string& user,
            const std::vector<KeyPermission>& needs);

Complaints CheckAuth(const AuthHistory& history, const std::vector<AuthDeed>& deeds);

}  // namespace conclave::sim
