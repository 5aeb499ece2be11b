#include "conclave/server/app/flags/values.h"

#include <cctype>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"

namespace conclave::app {
namespace {

// The digits' base, which the prefix tells; takes the prefix off.
uint64_t TakeBase(std::string_view* digits) {
  if (digits->size() < 2 || digits->front() != '0') return 10;
  const char letter = static_cast<char>(std::tolower(static_cast<unsigned char>((*digits)[1])));
  const uint64_t base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  digits->remove_prefix(base == 0 ? 1 : 2);
  return base == 0 ? 8 : base;
}

uint64_t DigitOf(char c) {
  if (c >= '0' && c <= '9') return static_cast<uint64_t>(c - '0');
  const char letter = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (letter >= 'a' && letter <= 'f') return static_cast<uint64_t>(letter - 'a' + 10);
  return 16;
}

// Go's integer literal with an optional sign; false if it is none, or does not fit.
bool ReadInteger(std::string_view text, int64_t* value) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  bool after_digit = text.starts_with('0');  // of a prefix: "0x_1" is Go's
  const uint64_t base = TakeBase(&text);
  if (text.empty()) return false;
  const uint64_t limit = uint64_t{std::numeric_limits<int64_t>::max()} + (negative ? 1 : 0);
  uint64_t magnitude = 0;
  for (const char c : text) {
    if (c == '_') {
      if (!after_digit) return false;
      after_digit = false;
      continue;
    }
    const uint64_t digit = DigitOf(c);
    if (digit >= base || magnitude > (limit - digit) / base) return false;
    magnitude = magnitude * base + digit;
    after_digit = true;
  }
  if (!after_digit) return false;
  *value = static_cast<int64_t>(negative ? 0 - magnitude : magnitude);
  return true;
}

}  // namespace

absl::Status InvalidValue(std::string_view why) {
  return absl::InvalidArgumentError(std::string(why));
}

absl::StatusOr<bool> ParseBool(std::string_view text) {
  for (const char* yes : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return InvalidValue("must be true or false");
}

absl::StatusOr<int64_t> ParseInt(std::string_view text, int64_t least, int64_t most,
                                 std::string_view example) {
  int64_t value = 0;
  if (!ReadInteger(text, &value)) {
    return InvalidValue(absl::StrCat("must be a whole number, for example ", std::string(example)));
  }
  if (value < least || value > most) {
    return InvalidValue(absl::StrCat("must be from ", least, " to ", most));
  }
  return value;
}

absl::StatusOr<Duration> ParseDuration(std::string_view text, Duration least) {
  // Go's durations are absl's, but for two more ways to write "us" and for absl's "inf".
  const std::string plain =
      absl::StrReplaceAll(std::string(text), {{"\xc2\xb5s", "us"}, {"\xce\xbcs", "us"}});
  absl::Duration value;
  if (!absl::ParseDuration(plain, &value) ||
      value > absl::Nanoseconds(std::numeric_limits<int64_t>::max()) ||
      value < absl::Nanoseconds(std::numeric_limits<int64_t>::min())) {
    return InvalidValue("must be a duration, for example 500ms or 1h30m");
  }
  const Duration result(absl::ToInt64Nanoseconds(value));
  if (result < least) {
    return InvalidValue(
        absl::StrCat("must be at least ", absl::FormatDuration(absl::Nanoseconds(least.count()))));
  }
  return result;
}

absl::Status CheckKind(FlagKind kind, std::string_view value) {
  switch (kind) {
    case FlagKind::kBool:
      return ParseBool(value).status();
    case FlagKind::kNumber:
      return ParseInt(value, std::numeric_limits<int64_t>::min(),
                      std::numeric_limits<int64_t>::max(), "100")
          .status();
    case FlagKind::kDuration:
      return ParseDuration(value, Duration::min()).status();
    case FlagKind::kText:
    case FlagKind::kList:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace conclave::app
