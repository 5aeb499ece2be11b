// Kratos (v2): one JSON object per instance, whose addresses are URLs.
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "conclave/registry/codec/codecs.h"
#include "conclave/registry/go_json.h"

namespace conclave {
namespace {

constexpr char kNamespace[] = "/microservices/";
constexpr char kGrpcScheme[] = "grpc://";

// "grpc://h:1?isSecure=false" -> "h:1". Empty if it is no such URL.
std::string AddressOfUrl(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos) return "";
  const size_t begin = scheme + 3;
  return url.substr(begin, url.find_first_of("/?#", begin) - begin);
}

class Kratos final : public Codec {
 public:
  Format format() const override { return Format::kKratos; }
  std::string Prefix(std::string_view service) const override {
    return absl::StrCat(kNamespace, std::string(service), "/");
  }
  std::string Key(const Instance& instance, LeaseId) const override {
    return absl::StrCat(Prefix(instance.service), IdOrAddress(instance));
  }
  std::string Encode(const Instance& instance) const override {
    nlohmann::ordered_json json;
    json["id"] = IdOrAddress(instance);
    json["name"] = instance.service;
    json["version"] = instance.version;
    const std::map<std::string, std::string> texts = TextsOf(instance);
    json["metadata"] = texts.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(texts);
    json["endpoints"] = {absl::StrCat(kGrpcScheme, instance.address)};
    return EncodeGoJson(json);
  }
  absl::StatusOr<Instance> Decode(std::string_view service, std::string_view,
                                  std::string_view value) const override {
    absl::StatusOr<nlohmann::ordered_json> json = ParseJsonObject(value);
    if (!json.ok()) return json.status();
    Instance instance{.service = std::string(service),
                      .id = StringMember(*json, "id"),
                      .version = StringMember(*json, "version")};
    if (const std::string name = StringMember(*json, "name"); name != service) {
      return absl::NotFoundError(absl::StrCat("belongs to service \"", name, "\""));
    }
    const nlohmann::ordered_json* endpoints = FindMember(*json, "endpoints");
    if (endpoints == nullptr || !endpoints->is_array()) {
      return absl::InvalidArgumentError("no list \"endpoints\"");
    }
    bool grpc = false;  // of several endpoints that of gRPC, or the first
    for (const nlohmann::ordered_json& each : *endpoints) {
      if (!each.is_string() || grpc) continue;
      const auto& url = each.get_ref<const std::string&>();
      const std::string address = AddressOfUrl(url);
      grpc = absl::StartsWith(url, kGrpcScheme) && !address.empty();
      if (grpc || instance.address.empty()) instance.address = address;
    }
    if (instance.address.empty()) return absl::InvalidArgumentError("no address in \"endpoints\"");
    if (instance.id == instance.address) instance.id.clear();
    ReadTexts(FindMember(*json, "metadata"), instance);
    return instance;
  }
};

}  // namespace

const Codec& KratosCodec() {
  static const Kratos codec;
  return codec;
}

}  // namespace conclave
