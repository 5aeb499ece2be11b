// go-zero: a key per lease, and the bare address.
#include "absl/strings/str_cat.h"
#include "conclave/registry/codec/codecs.h"

namespace conclave {
namespace {

class GoZero final : public Codec {
 public:
  Format format() const override { return Format::kGoZero; }
  std::string Prefix(std::string_view service) const override { return ServicePrefix(service); }
  std::string Key(const Instance& instance, LeaseId lease) const override {
    return absl::StrCat(ServicePrefix(instance.service), lease);
  }
  std::string Encode(const Instance& instance) const override { return instance.address; }
  absl::StatusOr<Instance> Decode(std::string_view service, std::string_view,
                                  std::string_view value) const override {
    if (absl::Status status = ValidateAddress(value); !status.ok()) return status;
    return Instance{.service = std::string(service), .address = std::string(value)};
  }
  bool LeaseInKey() const override { return true; }
};

}  // namespace

const Codec& GoZeroCodec() {
  static const GoZero codec;
  return codec;
}

}  // namespace conclave
