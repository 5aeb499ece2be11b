// --help's group "Auth": users' tokens and passwords.
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

constexpr char kNoAuth[] = "users and roles are not there yet";

const FlagEntry kFlags[] = {
    Refused("auth-token", kText, kNoAuth),
    Refused("auth-token-ttl", kNumber, kNoAuth),
    Refused("bcrypt-cost", kNumber, kNoAuth),
};

}  // namespace

FlagGroup AuthFlags() { return {"Auth", kFlags}; }

}  // namespace conclave::app
