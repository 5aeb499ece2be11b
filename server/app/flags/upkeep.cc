// --help's group "Upkeep": checks of the data, features that can be switched, and what older
// servers had.
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

constexpr char kAlwaysCompared[] = "members compare their state all the time";

const FlagEntry kFlags[] = {
    Refused("config-file", kText, "not there yet"),
    Refused("feature-gates", kText, "not there yet"),
    Ignored("corrupt-check-time", kDuration, kAlwaysCompared).OnceExperimental(),
    Ignored("compact-hash-check-time", kDuration, kAlwaysCompared).OnceExperimental(),
    Ignored("compact-hash-check-enabled", kBool, kAlwaysCompared).OnceExperimental(),
    Ignored("initial-corrupt-check", kBool, kAlwaysCompared).OnceExperimental(),
    Ignored("enable-v2", kBool, "there is no v2 API"),
    Ignored("proxy", kText, "there is no v2 proxy"),
};

}  // namespace

FlagGroup UpkeepFlags() { return {"Upkeep", kFlags}; }

}  // namespace conclave::app
