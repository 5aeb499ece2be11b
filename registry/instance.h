// Instance: one running copy of a service, as it stands in the registry. And its two faces there:
// the key "<service>/<address>" and the value, which is etcd's naming JSON.
//
// The value is {"Op":0,"Addr":"host:port","Metadata":...}, byte for byte what Go's encoding/json
// makes of the naming package's endpoint, so that Go clients, etcdctl and we read each other's
// entries. Metadata is null, a string, or an object; ours is an object with the members of Instance
// that are set, its keys sorted as Go sorts a map:
//   {"attrs":{"proto":"h2"},"id":"i-1","state":"draining","tags":["canary"],"version":"1.4.2",
//    "weight":100,"zone":"eu-1a"}
// Reading is lenient where Go is: member names match in any case, unknown ones are ignored, also in
// the metadata.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace conclave {

// What an instance says of itself; anything but kServing takes it out of new calls.
enum class InstanceState { kServing, kDraining, kDown };

struct Instance {
  std::string service{};
  std::string id{};       // tells incarnations apart; empty: whoever has the address
  std::string address{};  // "host:port", IPv6 in brackets
  std::string version{};
  std::string zone{};
  std::optional<int64_t>
      weight{};  // relative share of calls; unset counts as 100 among weighted ones
  std::vector<std::string> tags{};
  InstanceState state = InstanceState::kServing;
  std::map<std::string, std::string> attrs{};
  // Metadata that is not such an object: its JSON text ("\"text\"", "[1]"). If set when written, it
  // stands in place of everything above but the address.
  std::string raw_metadata{};

  friend bool operator==(const Instance&, const Instance&) = default;
};

// The value to store.
std::string EncodeNamingValue(const Instance& instance);

// The instance in a stored value; `service` stays empty. InvalidArgument says what is wrong with
// it. Never throws and never reads past `value`, whatever that holds; nesting deeper than 64 is
// refused.
absl::StatusOr<Instance> DecodeNamingValue(std::string_view value);

// "<service>/<address>". And the prefix of all instances, "<service>/": with the slash, so that "a"
// never shows instances of "ab".
std::string InstanceKey(std::string_view service, std::string_view address);
std::string ServicePrefix(std::string_view service);

// OK if `service` may be registered: not empty, no slash at its ends, no empty part between
// slashes, no control characters, UTF-8, at most 512 bytes. Slashes within are parts of a path
// ("team/greeter").
absl::Status ValidateServiceName(std::string_view service);

// OK for "host:port", "1.2.3.4:80", "[::1]:80" with a port in 1..65535 and a host that others can
// reach: not 0.0.0.0, not [::], no IPv6 scope. A host name need not resolve here: it is the
// readers who will resolve it.
absl::Status ValidateAddress(std::string_view address);

// OK if all of it may be registered: the name, the address, an id without slashes, a weight that is
// not negative, at most 64 KiB of metadata.
absl::Status ValidateInstance(const Instance& instance);

std::string_view InstanceStateName(InstanceState state);

}  // namespace conclave
