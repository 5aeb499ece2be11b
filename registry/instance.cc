#include "conclave/registry/instance.h"

#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/registry/go_json.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kNestingMax = 64;
constexpr size_t kServiceNameSizeMax = 512;

// Parses without exceptions; refuses what nests so deep that walking it could exhaust the stack.
absl::StatusOr<Json> Parse(std::string_view text) {
  bool too_deep = false;
  Json json = Json::parse(
      text.begin(), text.end(),
      [&too_deep](int depth, Json::parse_event_t, Json&) {
        if (depth > kNestingMax) too_deep = true;
        return !too_deep;
      },
      /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError("JSON nests too deep");
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON");
  return json;
}

// The member called `name` in any case. As in Go the last one in the text wins.
const Json* FindMember(const Json& object, std::string_view name) {
  const Json* found = nullptr;
  for (const auto& [key, value] : object.items()) {
    if (absl::EqualsIgnoreCase(absl::string_view(key.data(), key.size()),
                               absl::string_view(name.data(), name.size()))) {
      found = &value;
    }
  }
  return found;
}

std::string StringMember(const Json& object, std::string_view name) {
  const Json* member = FindMember(object, name);
  return member != nullptr && member->is_string() ? member->get<std::string>() : std::string();
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
  absl::StatusOr<Json> json = Parse(value);
  if (!json.ok()) return json.status();
  if (!json->is_object()) return absl::InvalidArgumentError("not a JSON object");
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
  for (unsigned char c : service) {
    if (c < 0x20 || c == 0x7f) {
      return absl::InvalidArgumentError("the service name has a control character");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateAddress(std::string_view address) {
  const absl::string_view text(address.data(), address.size());
  const auto wrong = [text](const char* why) {
    return absl::InvalidArgumentError(absl::StrCat("address \"", text, "\": ", why));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return wrong("wants host:port");
  const std::string_view host = address.substr(0, colon);
  const std::string_view port = address.substr(colon + 1);
  if (host.empty()) return wrong("the host is empty");
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (!bracketed && host.find(':') != std::string_view::npos) {
    return wrong("an IPv6 address stands in brackets, [::1]:80");
  }
  for (unsigned char c : address) {
    if (c <= 0x20 || c == 0x7f || c == '/') return wrong("has a character that no host has");
  }
  int number = 0;
  if (!absl::SimpleAtoi(absl::string_view(port.data(), port.size()), &number) || number < 1 ||
      number > 65535 || !absl::ascii_isdigit(static_cast<unsigned char>(port.front()))) {
    return wrong("the port is not in 1..65535");
  }
  if (host == "0.0.0.0" || host == "[::]" || host == "*") {
    return wrong("that is for listening; register an address that others can reach");
  }
  return absl::OkStatus();
}

}  // namespace conclave
