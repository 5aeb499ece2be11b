// go-micro: a service object per node, with that one node in it. Slashes in names become dashes in
// keys.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "conclave/registry/codec/codecs.h"
#include "conclave/registry/go_json.h"

namespace conclave {
namespace {

constexpr char kNamespace[] = "/micro/registry/";

std::string Part(std::string_view name) {
  return absl::StrReplaceAll(std::string(name), {{"/", "-"}});
}

class GoMicro final : public Codec {
 public:
  Format format() const override { return Format::kGoMicro; }
  std::string Prefix(std::string_view service) const override {
    return absl::StrCat(kNamespace, Part(service), "/");
  }
  std::string Key(const Instance& instance, LeaseId) const override {
    return absl::StrCat(Prefix(instance.service), Part(IdOrAddress(instance)));
  }
  std::string Encode(const Instance& instance) const override {
    nlohmann::ordered_json node;
    node["id"] = IdOrAddress(instance);
    node["address"] = instance.address;
    const std::map<std::string, std::string> texts = TextsOf(instance);
    node["metadata"] = texts.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(texts);
    nlohmann::ordered_json json;
    json["name"] = instance.service;
    json["version"] = instance.version;
    json["metadata"] = nullptr;
    json["endpoints"] = nullptr;
    json["nodes"] = nlohmann::ordered_json::array({std::move(node)});
    return EncodeGoJson(json);
  }
  absl::StatusOr<Instance> Decode(std::string_view service, std::string_view,
                                  std::string_view value) const override {
    absl::StatusOr<nlohmann::ordered_json> json = ParseJsonObject(value);
    if (!json.ok()) return json.status();
    if (const std::string name = StringMember(*json, "name"); name != service) {
      return absl::NotFoundError(absl::StrCat("belongs to service \"", name, "\""));
    }
    const nlohmann::ordered_json* nodes = FindMember(*json, "nodes");
    if (nodes == nullptr || !nodes->is_array() || nodes->empty() || !nodes->front().is_object()) {
      return absl::InvalidArgumentError("no node in \"nodes\"");
    }
    const nlohmann::ordered_json& node = nodes->front();
    Instance instance{.service = std::string(service),
                      .id = StringMember(node, "id"),
                      .address = StringMember(node, "address"),
                      .version = StringMember(*json, "version")};
    if (instance.address.empty()) return absl::InvalidArgumentError("the node has no \"address\"");
    if (instance.id == instance.address) instance.id.clear();
    ReadTexts(FindMember(node, "metadata"), instance);
    return instance;
  }
};

}  // namespace

const Codec& GoMicroCodec() {
  static const GoMicro codec;
  return codec;
}

}  // namespace conclave
