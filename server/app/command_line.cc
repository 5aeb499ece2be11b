#include "conclave/server/app/command_line.h"

#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/str_split.h"

namespace conclave::app {
namespace {

constexpr char kHidden[] = "xxxxx";
// Flags whose values are secrets, or have them behind a colon.
constexpr std::string_view kSecret[] = {"discovery-password", "discovery-user"};

bool IsSecret(std::string_view flag) {
  for (const std::string_view name : kSecret) {
    if (flag == name) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> WithoutSecrets(std::vector<std::string> arguments) {
  bool hide_next = false;
  for (std::string& argument : arguments) {
    if (std::exchange(hide_next, false)) {
      argument = kHidden;
      continue;
    }
    std::string_view flag = argument;
    if (!flag.starts_with('-')) continue;
    flag.remove_prefix(flag.starts_with("--") ? 2 : 1);
    const size_t equals = flag.find('=');
    if (!IsSecret(flag.substr(0, equals))) continue;
    if (equals == flag.npos) {
      hide_next = true;
    } else {
      argument.resize(argument.find('=') + 1);
      argument += kHidden;
    }
  }
  return arguments;
}

std::vector<std::string> ShownCommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (content.ends_with('\0')) content.pop_back();
  return WithoutSecrets(absl::StrSplit(content, '\0'));
}

}  // namespace conclave::app
