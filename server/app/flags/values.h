// What the values of flags look like, and the setters that most flags share.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/base/status.h"
#include "conclave/base/time.h"
#include "conclave/server/app/config.h"
#include "conclave/server/app/flags/entry.h"

namespace conclave::app {

absl::Status InvalidValue(std::string_view why);

// As Go's strconv and time packages read them; the statuses say what would be right.
absl::StatusOr<bool> ParseBool(std::string_view text);
// Decimal, or with 0x, 0o, 0b or a leading 0 for octal; '_' between digits.
absl::StatusOr<int64_t> ParseInt(std::string_view text, int64_t least, int64_t most,
                                 std::string_view example);
// "1h0m0s", "100ms", "0"
absl::StatusOr<Duration> ParseDuration(std::string_view text, Duration least);

// Whether `value` is of that kind; for flags that take it and do nothing with it.
absl::Status CheckKind(FlagKind kind, std::string_view value);

template <bool Config::*kField>
absl::Status SetBool(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->*kField, ParseBool(value));
  return absl::OkStatus();
}

template <std::string Config::*kField>
absl::Status SetText(std::string_view value, Config* config) {
  config->*kField = std::string(value);
  return absl::OkStatus();
}

// An empty value leaves the default.
template <std::vector<Url> Config::*kField>
absl::Status SetUrls(std::string_view value, Config* config) {
  if (value.empty()) return absl::OkStatus();
  CONCLAVE_ASSIGN_OR_RETURN(config->*kField, ParseUrls(value));
  return absl::OkStatus();
}

// A whole number in [kLeast, kMost].
template <auto kField, int64_t kLeast, int64_t kMost>
absl::Status SetNumber(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t number, ParseInt(value, kLeast, kMost, "100"));
  config->*kField = static_cast<std::remove_reference_t<decltype(config->*kField)>>(number);
  return absl::OkStatus();
}

template <Duration Config::*kField>
absl::Status SetMilliseconds(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(const int64_t count,
                            ParseInt(value, 1, 3'600'000, "100 (milliseconds)"));
  config->*kField = std::chrono::milliseconds(count);
  return absl::OkStatus();
}

template <Duration Config::*kField, int64_t kLeastMilliseconds = 0>
absl::Status SetDuration(std::string_view value, Config* config) {
  CONCLAVE_ASSIGN_OR_RETURN(config->*kField,
                            ParseDuration(value, std::chrono::milliseconds(kLeastMilliseconds)));
  return absl::OkStatus();
}

}  // namespace conclave::app
