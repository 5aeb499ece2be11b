// One row of the flags table. Rows are written with the builders below, one file per group
// (member.cc, clustering.cc, ...); table.h joins the groups. The command line, the environment, the
// config file, --help and docs/configuration.md all follow from the rows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "conclave/server/app/config.h"

namespace conclave::app {

// It works; or it is accepted and logged as ignored, because it tunes what does not exist here; or
// it is refused, because the server would not do what it asks for.
enum class FlagFate : uint8_t { kWorks, kIgnored, kRefused };

// What a value looks like, for the config file and for flags that are only checked.
enum class FlagKind : uint8_t { kText, kNumber, kBool, kDuration, kList };

// Sets the value. The status says what is wrong with it and what would be right.
using FlagSetter = absl::Status (*)(std::string_view value, Config* config);

struct FlagEntry {
  const char* name;
  FlagFate fate;
  FlagKind kind;
  const char* default_text;
  const char* help;  // of a flag that does not work: why
  FlagSetter set = nullptr;
  // "experimental-NAME" is an older spelling of it.
  bool had_experimental_name = false;
  // Where it stands in the config file; at the top and under its own name unless told otherwise.
  const char* file_section = "";
  const char* file_key = nullptr;

  constexpr bool is_bool() const { return kind == FlagKind::kBool; }
  constexpr FlagEntry OnceExperimental() const {
    FlagEntry entry = *this;
    entry.had_experimental_name = true;
    return entry;
  }
  constexpr FlagEntry InFile(const char* section, const char* key) const {
    FlagEntry entry = *this;
    entry.file_section = section;
    entry.file_key = key;
    return entry;
  }
};

constexpr FlagEntry Works(const char* name, FlagKind kind, const char* default_text,
                          const char* help, FlagSetter set) {
  return {name, FlagFate::kWorks, kind, default_text, help, set};
}
constexpr FlagEntry Ignored(const char* name, FlagKind kind, const char* why) {
  return {name, FlagFate::kIgnored, kind, "", why};
}
constexpr FlagEntry Refused(const char* name, FlagKind kind, const char* why) {
  return {name, FlagFate::kRefused, kind, "", why};
}

struct FlagGroup {
  const char* title;
  std::span<const FlagEntry> flags;
};

}  // namespace conclave::app
