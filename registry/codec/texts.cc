#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "conclave/registry/codec/codecs.h"

namespace conclave {

const std::string& IdOrAddress(const Instance& instance) {
  return instance.id.empty() ? instance.address : instance.id;
}

std::map<std::string, std::string> TextsOf(const Instance& instance) {
  std::map<std::string, std::string> texts = instance.attrs;
  if (!instance.zone.empty()) texts["zone"] = instance.zone;
  if (instance.weight.has_value()) texts["weight"] = absl::StrCat(*instance.weight);
  if (!instance.tags.empty()) texts["tags"] = absl::StrJoin(instance.tags, ",");
  return texts;
}

void ReadTexts(const nlohmann::ordered_json* texts, Instance& instance) {
  if (texts == nullptr || !texts->is_object()) return;
  for (const auto& [name, value] : texts->items()) {
    if (!value.is_string()) continue;
    const auto& text = value.get_ref<const std::string&>();
    int64_t weight = 0;
    if (name == "zone") {
      instance.zone = text;
    } else if (name == "weight" && absl::SimpleAtoi(text, &weight)) {
      instance.weight = weight;
    } else if (name == "tags") {
      instance.tags = absl::StrSplit(text, ',', absl::SkipEmpty());
    } else {
      instance.attrs[name] = text;
    }
  }
}

}  // namespace conclave
