#include "conclave/server/app/flags/config_file.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "conclave/base/status.h"
#include "conclave/server/app/flags/table.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

// Of one file: where messages point to, and what it sets.
class Applier {
 public:
  Applier(std::string_view path, Config* config, std::vector<std::string>* warnings)
      : path_(path), config_(config), warnings_(warnings) {}

  absl::Status Apply(const YAML::Node& root) {
    if (root.IsNull()) return absl::OkStatus();
    if (!root.IsMap()) return Wrong(root, "the file must hold keys and values, as in \"name: m1\"");
    return ApplyMap(root, "");
  }

  absl::Status Wrong(const YAML::Node& node, std::string_view why) const {
    return WrongAt(node.Mark(), why);
  }
  absl::Status WrongAt(const YAML::Mark& mark, std::string_view why) const {
    return absl::InvalidArgumentError(absl::StrCat(
        "--config-file: ", path_, mark.is_null() ? "" : absl::StrCat(":", mark.line + 1), ": ",
        std::string(why)));
  }

 private:
  absl::Status ApplyMap(const YAML::Node& map, const std::string& section) {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      if (!entry.first.IsScalar()) return Wrong(entry.first, "a key must be a word");
      const std::string key = entry.first.Scalar();
      const std::string full = section.empty() ? key : absl::StrCat(section, ".", key);
      if (!seen.insert(key).second) {
        return Wrong(entry.first, absl::StrCat("\"", full, "\" stands twice"));
      }
      if (section.empty() && IsFileSection(key)) {
        if (entry.second.IsNull()) continue;
        if (!entry.second.IsMap()) {
          return Wrong(entry.second, absl::StrCat("\"", key, "\" must hold keys and values"));
        }
        CONCLAVE_RETURN_IF_ERROR(ApplyMap(entry.second, key));
        continue;
      }
      CONCLAVE_RETURN_IF_ERROR(ApplyKey(section, key, full, entry.second));
    }
    return absl::OkStatus();
  }

  absl::Status ApplyKey(const std::string& section, const std::string& key, const std::string& full,
                        const YAML::Node& value) {
    const FlagEntry* flag = FindFileKey(section, key);
    if (flag == nullptr) {
      const FlagEntry* elsewhere = FindFlag(key);
      warnings_->push_back(
          absl::StrCat(path_, ": unknown key \"", full, "\" is ignored",
                       elsewhere != nullptr && elsewhere->file_key != nullptr
                           ? absl::StrCat("; did you mean ", elsewhere->file_section, ".",
                                          elsewhere->file_key, "?")
                           : ""));
      return absl::OkStatus();
    }
    if (value.IsNull()) return absl::OkStatus();
    std::string text;
    CONCLAVE_RETURN_IF_ERROR(ReadValue(*flag, full, value, &text));
    if (text.empty()) return absl::OkStatus();
    return ApplyFlag(*flag, absl::StrCat("\"", full, "\" in ", path_, ":", value.Mark().line + 1),
                     text, config_, warnings_);
  }

  absl::Status ReadValue(const FlagEntry& flag, const std::string& full, const YAML::Node& value,
                         std::string* text) const {
    if (value.IsSequence() && flag.kind == FlagKind::kList) {
      std::vector<std::string> parts;
      for (const YAML::Node& part : value) {
        if (!part.IsScalar()) return Wrong(part, absl::StrCat("\"", full, "\" lists words"));
        parts.push_back(part.Scalar());
      }
      *text = absl::StrJoin(parts, ",");
      return absl::OkStatus();
    }
    if (!value.IsScalar()) {
      return Wrong(value, absl::StrCat("\"", full, "\" must have a single value"));
    }
    *text = value.Scalar();
    int64_t count = 0;
    bool on = false;
    if (flag.kind == FlagKind::kDuration && absl::SimpleAtoi(*text, &count)) {
      absl::StrAppend(text, "ns");
    } else if (flag.kind == FlagKind::kBool && YAML::convert<bool>::decode(value, on)) {
      *text = on ? "true" : "false";
    }
    return absl::OkStatus();
  }

  const std::string path_;
  Config* const config_;
  std::vector<std::string>* const warnings_;
};

}  // namespace

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kConfigFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  // A file that is shorter than the buffer ends with eof and fail; a directory, or a broken disk,
  // without eof.
  if (!file.eof() && !file.good()) {
    return InvalidValue(
        absl::StrCat("--config-file: cannot read ", path, ": ", std::strerror(errno)));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kConfigFileBytesMax) {
    return InvalidValue(
        absl::StrCat("--config-file: ", path, " is larger than ", kConfigFileBytesMax, " bytes"));
  }
  return text;
}

absl::Status ApplyConfigText(std::string_view text, std::string_view path, Config* config,
                             std::vector<std::string>* warnings) {
  Applier applier(path, config, warnings);
  try {
    return applier.Apply(YAML::Load(std::string(text)));
  } catch (const YAML::Exception& error) {
    return applier.WrongAt(error.mark, error.msg);
  }
}

}  // namespace conclave::app
