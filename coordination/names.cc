#include "conclave/coordination/names.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::Status CheckName(std::string_view what, std::string_view name) {
  if (name.empty()) return absl::InvalidArgumentError(absl::StrCat(View(what), " wants a name"));
  if (name.size() > kNameMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of ", View(what), " is longer than ", kNameMax, " bytes"));
  }
  if (name.back() == '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("the name of ", View(what), " ends in a slash: ", absl::CEscape(View(name))));
  }
  return absl::OkStatus();
}

absl::Status CheckId(std::string_view what, std::string_view id) {
  const bool plain = std::none_of(id.begin(), id.end(), [](char c) {
    return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (plain && !id.empty() && id.size() <= kIdMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the id of ", View(what), " is 1 to ", kIdMax,
                                                 " bytes without slashes and control characters: ",
                                                 absl::CEscape(View(id.substr(0, kIdMax)))));
}

}  // namespace conclave
