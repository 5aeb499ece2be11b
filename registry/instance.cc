#include "conclave/registry/instance.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/utf8.h"
#include "conclave/registry/go_json.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kServiceNameSizeMax = 512;
constexpr size_t kAddressSizeMax = 253 + sizeof("[]:65535");
constexpr size_t kIdSizeMax = 256;
constexpr size_t kMetadataSizeMax = size_t{64} << 10;
constexpr size_t kShownMax = 80;  // of a bad address, in the message

bool HasControlCharacter(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

// In whatever form the address is written: "[0:0::0]" listens on everything just as "[::]" does.
bool IsUnspecified(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  if (inet_aton(host.c_str(), &v4) != 0) return v4.s_addr == INADDR_ANY;
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return host == "*";
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    return std::all_of(v6.s6_addr + 12, v6.s6_addr + 16, [](uint8_t byte) { return byte == 0; });
  }
  return IN6_IS_ADDR_UNSPECIFIED(&v6);
}

template <typename Wrong>
absl::Status ValidateHost(std::string_view host, const Wrong& wrong) {
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find_first_of(":[]") != std::string_view::npos) {
    return wrong("an IPv6 address stands in brackets, [::1]:80");
  }
  const std::string name(bracketed ? host.substr(1, host.size() - 2) : host);
  in6_addr v6{};
  if (bracketed && name.find('%') != std::string::npos) {
    return wrong("a scope such as %eth0 means something on this machine only");
  }
  if (bracketed && inet_pton(AF_INET6, name.c_str(), &v6) != 1) {
    return wrong("what stands in the brackets is no IPv6 address");
  }
  if (IsUnspecified(name)) {
    return wrong("that is for listening; register an address that others can reach");
  }
  return absl::OkStatus();
}

void ReadMetadata(const Json& metadata, Instance& instance) {
  if (metadata.is_null()) return;
  if (!metadata.is_object()) {
    instance.raw_metadata = EncodeGoJson(metadata);
    return;
  }
  instance.id = StringMember(metadata, "id");
  instance.version = StringMember(metadata, "version");
  instance.zone = StringMember(metadata, "zone");
  const Json* weight = FindMember(metadata, "weight");
  if (weight != nullptr && weight->is_number_integer()) instance.weight = weight->get<int64_t>();
  const Json* tags = FindMember(metadata, "tags");
  if (tags != nullptr && tags->is_array()) {
    for (const Json& tag : *tags) {
      if (tag.is_string()) instance.tags.push_back(tag.get<std::string>());
    }
  }
  const std::string state = StringMember(metadata, "state");
  if (state == InstanceStateName(InstanceState::kDraining)) {
    instance.state = InstanceState::kDraining;
  } else if (state == InstanceStateName(InstanceState::kDown)) {
    instance.state = InstanceState::kDown;
  }
  const Json* attrs = FindMember(metadata, "attrs");
  if (attrs != nullptr && attrs->is_object()) {
    for (const auto& [name, value] : attrs->items()) {
      if (value.is_string()) instance.attrs[name] = value.get<std::string>();
    }
  }
}

// Null if nothing is set. A sorted map, for Go sorts the keys of a map.
nlohmann::json MetadataOf(const Instance& instance) {
  nlohmann::json metadata;
  if (!instance.attrs.empty()) metadata["attrs"] = instance.attrs;
  if (!instance.id.empty()) metadata["id"] = instance.id;
  if (instance.state != InstanceState::kServing) {
    metadata["state"] = std::string(InstanceStateName(instance.state));
  }
  if (!instance.tags.empty()) metadata["tags"] = instance.tags;
  if (!instance.version.empty()) metadata["version"] = instance.version;
  if (instance.weight.has_value()) metadata["weight"] = *instance.weight;
  if (!instance.zone.empty()) metadata["zone"] = instance.zone;
  return metadata;
}

}  // namespace

std::string_view InstanceStateName(InstanceState state) {
  switch (state) {
    case InstanceState::kServing:
      return "serving";
    case InstanceState::kDraining:
      return "draining";
    case InstanceState::kDown:
      return "down";
  }
  return "?";
}

std::string EncodeNamingValue(const Instance& instance) {
  std::string metadata = instance.raw_metadata;
  if (metadata.empty()) metadata = EncodeGoJson(MetadataOf(instance));
  return absl::StrCat("{\"Op\":0,\"Addr\":", GoJsonString(instance.address),
                      ",\"Metadata\":", metadata, "}");
}

absl::StatusOr<Instance> DecodeNamingValue(std::string_view value) {
  absl::StatusOr<Json> json = ParseJsonObject(value);
  if (!json.ok()) return json.status();
  const Json* address = FindMember(*json, "Addr");
  if (address == nullptr || !address->is_string()) {
    return absl::InvalidArgumentError("no string member \"Addr\"");
  }
  Instance instance;
  instance.address = address->get<std::string>();
  if (instance.address.empty()) return absl::InvalidArgumentError("\"Addr\" is empty");
  if (const Json* metadata = FindMember(*json, "Metadata"); metadata != nullptr) {
    ReadMetadata(*metadata, instance);
  }
  return instance;
}

std::string ServicePrefix(std::string_view service) {
  return absl::StrCat(absl::string_view(service.data(), service.size()), "/");
}

std::string InstanceKey(std::string_view service, std::string_view address) {
  return ServicePrefix(service).append(address);
}

absl::Status ValidateServiceName(std::string_view service) {
  if (service.empty()) return absl::InvalidArgumentError("the service name is empty");
  if (service.size() > kServiceNameSizeMax) {
    return absl::InvalidArgumentError("the service name is longer than 512 bytes");
  }
  if (service.front() == '/' || service.back() == '/') {
    return absl::InvalidArgumentError("a service name neither begins nor ends with a slash");
  }
  if (service.find("//") != std::string_view::npos) {
    return absl::InvalidArgumentError("the service name has an empty part between slashes");
  }
  if (HasControlCharacter(service)) {
    return absl::InvalidArgumentError("the service name has a control character");
  }
  if (!IsUtf8(service)) return absl::InvalidArgumentError("the service name is not UTF-8");
  return absl::OkStatus();
}

absl::Status ValidateAddress(std::string_view address) {
  const auto wrong = [address](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat(
        "address \"", absl::CHexEscape(std::string(address.substr(0, kShownMax))), "\": ", why));
  };
  if (address.size() > kAddressSizeMax) return wrong("is longer than a host name can be");
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return wrong("wants host:port");
  const std::string_view host = address.substr(0, colon);
  const std::string_view port = address.substr(colon + 1);
  if (host.empty()) return wrong("the host is empty");
  for (unsigned char c : address) {
    if (c <= 0x20 || c == 0x7f || c == '/') return wrong("has a character that no host has");
  }
  if (!IsUtf8(address)) return wrong("is not UTF-8");
  const auto digit = [](unsigned char c) { return absl::ascii_isdigit(c); };
  int number = 0;
  if (!std::all_of(port.begin(), port.end(), digit) ||
      !absl::SimpleAtoi(absl::string_view(port.data(), port.size()), &number) || number < 1 ||
      number > 65535) {
    return wrong("the port is not in 1..65535");
  }
  return ValidateHost(host, wrong);
}

absl::Status ValidateInstance(const Instance& instance) {
  if (absl::Status status = ValidateServiceName(instance.service); !status.ok()) return status;
  if (absl::Status status = ValidateAddress(instance.address); !status.ok()) return status;
  if (instance.id.size() > kIdSizeMax) {
    return absl::InvalidArgumentError("the id is longer than 256 bytes");
  }
  if (HasControlCharacter(instance.id) || instance.id.find('/') != std::string::npos ||
      !IsUtf8(instance.id)) {
    return absl::InvalidArgumentError(
        "the id has a slash, a control character, or is not UTF-8: it is part of a key");
  }
  if (instance.weight.value_or(0) < 0) return absl::InvalidArgumentError("the weight is negative");
  size_t size = instance.version.size() + instance.zone.size() + instance.raw_metadata.size();
  for (const std::string& tag : instance.tags) size += tag.size();
  for (const auto& [name, value] : instance.attrs) size += name.size() + value.size();
  if (size > kMetadataSizeMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the metadata has ", size, " bytes, more than ", kMetadataSizeMax,
                     ": every reader of the service gets it with every change"));
  }
  if (!instance.raw_metadata.empty() && !ParseJson(instance.raw_metadata).ok()) {
    return absl::InvalidArgumentError("raw_metadata is not JSON");
  }
  return absl::OkStatus();
}

}  // namespace conclave
