// The format of etcd's own naming package, and ours. See registry/instance.h.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "conclave/registry/codec/codecs.h"

namespace conclave {
namespace {

class EtcdNaming final : public Codec {
 public:
  Format format() const override { return Format::kEtcdNaming; }
  std::string Prefix(std::string_view service) const override { return ServicePrefix(service); }
  std::string Key(const Instance& instance, LeaseId) const override {
    return InstanceKey(instance.service, instance.address);
  }
  std::string Encode(const Instance& instance) const override {
    return EncodeNamingValue(instance);
  }
  absl::StatusOr<Instance> Decode(std::string_view service, std::string_view key,
                                  std::string_view value) const override {
    absl::StatusOr<Instance> instance = DecodeNamingValue(value);
    if (!instance.ok()) return instance;
    // Any key under the prefix will do, but "team/greeter/h:1" is what the service "team/greeter"
    // calls its instance at h:1: no business of "team".
    const size_t prefix_size = service.size() + 1;
    const std::string_view rest =
        key.size() > prefix_size ? key.substr(prefix_size) : std::string_view();
    const std::string nested = absl::StrCat("/", instance->address);
    if (rest.size() > nested.size() &&
        rest.compare(rest.size() - nested.size(), nested.size(), nested) == 0) {
      return absl::NotFoundError(absl::StrCat(
          "belongs to service \"", std::string(key.substr(0, key.size() - nested.size())), "\""));
    }
    instance->service = std::string(service);
    return instance;
  }
  bool ShowsState() const override { return true; }
};

}  // namespace

const Codec& EtcdNamingCodec() {
  static const EtcdNaming codec;
  return codec;
}

}  // namespace conclave
