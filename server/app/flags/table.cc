#include "conclave/server/app/flags/table.h"

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

constexpr std::string_view kExperimental = "experimental-";

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

template <typename Predicate>
const FlagEntry* Find(Predicate wanted) {
  for (const FlagGroup& group : FlagGroups()) {
    for (const FlagEntry& flag : group.flags) {
      if (wanted(flag)) return &flag;
    }
  }
  return nullptr;
}

}  // namespace

std::span<const FlagGroup> FlagGroups() {
  static const FlagGroup groups[] = {
      MemberFlags(), ClusteringFlags(), LimitFlags(),   CompactionFlags(), SecurityFlags(),
      AuthFlags(),   HttpFlags(),       LoggingFlags(), UpkeepFlags(),     ConclaveFlags()};
  return groups;
}

const FlagEntry* FindFlag(std::string_view name) {
  const bool experimental = name.starts_with(kExperimental);
  const std::string_view plain = experimental ? name.substr(kExperimental.size()) : name;
  return Find([&](const FlagEntry& flag) {
    return name == flag.name || (experimental && flag.had_experimental_name && plain == flag.name);
  });
}

const FlagEntry* NearestFlag(std::string_view name) {
  constexpr size_t kDistanceMax = 3;  // further away is not what was meant
  constexpr size_t kLengthMax = 128;  // no flag is so long
  if (name.size() > kLengthMax) return nullptr;
  const FlagEntry* nearest = nullptr;
  size_t distance = kDistanceMax + 1;
  for (const FlagGroup& group : FlagGroups()) {
    for (const FlagEntry& flag : group.flags) {
      const size_t d = EditDistance(name, flag.name);
      if (d < distance) {
        distance = d;
        nearest = &flag;
      }
    }
  }
  return nearest;
}

std::string VariableOf(std::string_view flag) {
  std::string name = "ETCD_";
  for (const char c : flag) {
    name.push_back(c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  }
  return name;
}

const FlagEntry* FindVariable(std::string_view variable) {
  return Find([&](const FlagEntry& flag) {
    return variable == VariableOf(flag.name) ||
           (flag.had_experimental_name &&
            variable == VariableOf(absl::StrCat(std::string(kExperimental), flag.name)));
  });
}

const FlagEntry* FindFileKey(std::string_view section, std::string_view key) {
  if (section.empty()) {
    const FlagEntry* flag = FindFlag(key);
    return flag != nullptr && flag->file_key == nullptr ? flag : nullptr;
  }
  return Find([&](const FlagEntry& flag) {
    return flag.file_key != nullptr && section == flag.file_section && key == flag.file_key;
  });
}

bool IsFileSection(std::string_view section) {
  return !section.empty() &&
         Find([&](const FlagEntry& flag) { return section == flag.file_section; }) != nullptr;
}

absl::Status ApplyFlag(const FlagEntry& flag, std::string_view source, std::string_view value,
                       Config* config, std::vector<std::string>* warnings) {
  if (flag.fate == FlagFate::kRefused) {
    // A switch that is off, and no value at all, ask for nothing.
    const bool asks = flag.is_bool() ? ParseBool(value).value_or(true) : !value.empty();
    if (!asks) return absl::OkStatus();
    return InvalidValue(
        absl::StrCat(std::string(source), " cannot be used: ", flag.help, "; leave it out"));
  }
  const absl::Status status =
      flag.fate == FlagFate::kWorks ? flag.set(value, config) : CheckKind(flag.kind, value);
  if (!status.ok()) {
    return InvalidValue(absl::StrCat("invalid value \"", std::string(value), "\" for ",
                                     std::string(source), ": ", std::string(status.message())));
  }
  if (flag.fate == FlagFate::kIgnored) {
    warnings->push_back(absl::StrCat(std::string(source), " is ignored: ", flag.help));
  }
  return absl::OkStatus();
}

}  // namespace conclave::app
