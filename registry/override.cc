#include "conclave/registry/override.h"

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace conclave {
namespace {

constexpr size_t kShownMax = 40;

}  // namespace

std::string OverrideText(const Override& value) {
  switch (value.kind) {
    case Override::Kind::kOut:
      return "out";
    case Override::Kind::kDrain:
      return "drain";
    case Override::Kind::kWeight:
      return absl::StrCat("weight=", value.weight);
  }
  return "";
}

absl::StatusOr<Override> ParseOverride(std::string_view text) {
  if (text == "out") return Override{.kind = Override::Kind::kOut};
  if (text == "drain") return Override{.kind = Override::Kind::kDrain};
  absl::string_view number(text.data(), text.size());
  int64_t weight = 0;
  if (absl::ConsumePrefix(&number, "weight=") && absl::SimpleAtoi(number, &weight) && weight >= 0) {
    return Override{.kind = Override::Kind::kWeight, .weight = weight};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("an override is \"out\", \"drain\" or \"weight=N\", not \"",
                   absl::CHexEscape(std::string(text.substr(0, kShownMax))), "\""));
}

std::string OverrideKey(std::string_view prefix, std::string_view service, std::string_view name) {
  return absl::StrCat(std::string(prefix), std::string(service), "/", std::string(name));
}

}  // namespace conclave
