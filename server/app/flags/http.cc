// --help's group "HTTP": the JSON gateway and who may use it from a browser.
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

using enum FlagKind;

constexpr char kNotYet[] = "not there yet";

const FlagEntry kFlags[] = {
    Refused("listen-client-http-urls", kList, kNotYet),
    Refused("cors", kText, kNotYet),
    Refused("host-whitelist", kText, kNotYet),
};

}  // namespace

FlagGroup HttpFlags() { return {"HTTP", kFlags}; }

}  // namespace conclave::app
