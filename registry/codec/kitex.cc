// Kitex: the address in key and value, a weight, and a map of tags.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "conclave/registry/codec/codecs.h"
#include "conclave/registry/go_json.h"

namespace conclave {
namespace {

constexpr char kNamespace[] = "kitex/registry-etcd/";

class Kitex final : public Codec {
 public:
  Format format() const override { return Format::kKitex; }
  std::string Prefix(std::string_view service) const override {
    return absl::StrCat(kNamespace, std::string(service), "/");
  }
  std::string Key(const Instance& instance, LeaseId) const override {
    return absl::StrCat(Prefix(instance.service), instance.address);
  }
  std::string Encode(const Instance& instance) const override {
    std::map<std::string, std::string> texts = TextsOf(instance);
    texts.erase("weight");
    if (!instance.id.empty()) texts["id"] = instance.id;
    if (!instance.version.empty()) texts["version"] = instance.version;
    nlohmann::ordered_json json;
    json["network"] = "tcp";
    json["address"] = instance.address;
    json["weight"] = instance.weight.value_or(0);  // 0: its readers take their default
    json["tags"] = texts.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(texts);
    return EncodeGoJson(json);
  }
  absl::StatusOr<Instance> Decode(std::string_view service, std::string_view,
                                  std::string_view value) const override {
    absl::StatusOr<nlohmann::ordered_json> json = ParseJsonObject(value);
    if (!json.ok()) return json.status();
    Instance instance{.service = std::string(service), .address = StringMember(*json, "address")};
    if (instance.address.empty()) return absl::InvalidArgumentError("no string \"address\"");
    ReadTexts(FindMember(*json, "tags"), instance);
    if (auto id = instance.attrs.extract("id")) instance.id = id.mapped();
    if (auto version = instance.attrs.extract("version")) instance.version = version.mapped();
    const nlohmann::ordered_json* weight = FindMember(*json, "weight");
    if (weight != nullptr && weight->is_number_integer() && weight->get<int64_t>() > 0) {
      instance.weight = weight->get<int64_t>();
    }
    return instance;
  }
};

}  // namespace

const Codec& KitexCodec() {
  static const Kitex codec;
  return codec;
}

}  // namespace conclave
