// SkyDNS, which CoreDNS's etcd plugin reads as well: the service is a domain name, whose labels
// stand in the key from the top down, and the instance is a label below it.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "conclave/registry/codec/codecs.h"
#include "conclave/registry/go_json.h"

namespace conclave {
namespace {

constexpr char kRoot[] = "/skydns/";
constexpr size_t kLabelSizeMax = 63;
constexpr size_t kDomainSizeMax = 253;

bool InLabel(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
}

class SkyDns final : public Codec {
 public:
  Format format() const override { return Format::kSkyDns; }
  std::string Prefix(std::string_view service) const override {
    std::vector<std::string> labels = absl::StrSplit(std::string(service), '.');
    std::reverse(labels.begin(), labels.end());
    return absl::StrCat(kRoot, absl::StrJoin(labels, "/"), "/");
  }
  std::string Key(const Instance& instance, LeaseId) const override {
    std::string label = IdOrAddress(instance);
    std::replace_if(
        label.begin(), label.end(), [](char c) { return !InLabel(c); }, '-');
    return absl::StrCat(Prefix(instance.service), label);
  }
  std::string Encode(const Instance& instance) const override {
    const size_t colon = instance.address.rfind(':');
    std::string host = instance.address.substr(0, colon);
    if (absl::StartsWith(host, "[")) host = host.substr(1, host.size() - 2);
    int port = 0;
    (void)absl::SimpleAtoi(instance.address.substr(colon + 1), &port);
    nlohmann::ordered_json json;
    json["host"] = host;
    json["port"] = port;
    if (instance.weight.value_or(0) > 0) json["weight"] = *instance.weight;
    return EncodeGoJson(json);
  }
  absl::StatusOr<Instance> Decode(std::string_view service, std::string_view,
                                  std::string_view value) const override {
    absl::StatusOr<nlohmann::ordered_json> json = ParseJsonObject(value);
    if (!json.ok()) return json.status();
    const std::string host = StringMember(*json, "host");
    const nlohmann::ordered_json* port = FindMember(*json, "port");
    if (host.empty()) return absl::InvalidArgumentError("no string \"host\"");
    if (port == nullptr || !port->is_number_integer()) {
      return absl::InvalidArgumentError("no number \"port\"");
    }
    const bool ipv6 = absl::StrContains(host, ":");
    Instance instance{
        .service = std::string(service),
        .address = absl::StrCat(ipv6 ? "[" : "", host, ipv6 ? "]:" : ":", port->get<int64_t>())};
    if (absl::Status status = ValidateAddress(instance.address); !status.ok()) return status;
    const nlohmann::ordered_json* weight = FindMember(*json, "weight");
    if (weight != nullptr && weight->is_number_integer()) instance.weight = weight->get<int64_t>();
    return instance;
  }
  absl::Status Validate(const Instance& instance) const override {
    for (absl::string_view label : absl::StrSplit(instance.service, '.')) {
      if (label.empty() || label.size() > kLabelSizeMax ||
          !std::all_of(label.begin(), label.end(), InLabel)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "service \"", instance.service,
            "\": for SkyDNS it is a domain name, labels of letters, digits and dashes"));
      }
    }
    if (instance.service.size() > kDomainSizeMax || IdOrAddress(instance).size() > kLabelSizeMax) {
      return absl::InvalidArgumentError("the service or the id is too long for a domain name");
    }
    return absl::OkStatus();
  }
};

}  // namespace

const Codec& SkyDnsCodec() {
  static const SkyDns codec;
  return codec;
}

}  // namespace conclave
