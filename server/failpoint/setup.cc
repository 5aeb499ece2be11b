#include "conclave/server/failpoint/setup.h"

#include "conclave/base/failpoint.h"

#ifdef CONCLAVE_FAILPOINTS

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "absl/strings/str_cat.h"
#include "conclave/server/failpoint/door.h"
#include "conclave/server/failpoint/registry.h"

namespace conclave::failpoint {
namespace {

constexpr int kExitPanic = 2;  // Go's

// Both live as long as the process.
Registry* registry = nullptr;
Door* door = nullptr;

absl::Status Of(const char* variable, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(variable, ": ", std::string(status.message())));
}

}  // namespace

absl::Status SetUp(const std::map<std::string, std::string>& environment) {
  Registry::Options options;
  options.seed = std::random_device()();
  options.print = [](std::string_view line) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  };
  options.end_process = [] { std::_Exit(kExitPanic); };
  registry = new Registry(std::move(options));
  if (const auto text = environment.find("GOFAIL_FAILPOINTS"); text != environment.end()) {
    const absl::Status status = registry->ArmAll(text->second);
    if (!status.ok()) return Of("GOFAIL_FAILPOINTS", status);
  }
  if (const auto address = environment.find("GOFAIL_HTTP"); address != environment.end()) {
    auto opened = Door::Open(address->second, registry);
    if (!opened.ok()) return Of("GOFAIL_HTTP", opened.status());
    door = opened->release();
  }
  failpoint_hook = [](const char* name) { registry->Hit(name); };
  return absl::OkStatus();
}

}  // namespace conclave::failpoint

#else

namespace conclave::failpoint {

absl::Status SetUp(const std::map<std::string, std::string>& /*environment*/) {
  return absl::OkStatus();
}

}  // namespace conclave::failpoint

#endif
