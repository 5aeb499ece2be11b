#include "conclave/discovery/picking/policy.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace conclave::picking {
namespace {

constexpr int kChoicesMax = 16;
constexpr size_t kHeaderBytesMax = 256;

bool IsMetadataKey(const std::string& key) {
  if (key.size() > kHeaderBytesMax) return false;
  for (const char c : key) {
    if (!absl::ascii_islower(static_cast<unsigned char>(c)) &&
        !absl::ascii_isdigit(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') {
      return false;
    }
  }
  return !key.empty();
}

struct Validate {
  absl::Status operator()(const RoundRobin&) const { return absl::OkStatus(); }
  absl::Status operator()(const WeightedRoundRobin&) const { return absl::OkStatus(); }
  absl::Status operator()(const LeastRequest& policy) const {
    if (policy.choices < 2 || policy.choices > kChoicesMax) {
      return absl::InvalidArgumentError(absl::StrCat("LeastRequest.choices must be in 2..",
                                                     kChoicesMax, ", not ", policy.choices));
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const RingHash& policy) const {
    if (policy.header.empty() == (policy.key == nullptr)) {
      return absl::InvalidArgumentError("RingHash needs either a header or a key function");
    }
    if (policy.key == nullptr && !IsMetadataKey(policy.header)) {
      return absl::InvalidArgumentError(
          "RingHash.header is no metadata key: those are of a-z, 0-9, '-', '_', '.' only");
    }
    return absl::OkStatus();
  }
  absl::Status operator()(const std::shared_ptr<Picker>& policy) const {
    if (policy == nullptr) return absl::InvalidArgumentError("the Picker is null");
    return absl::OkStatus();
  }
};

}  // namespace

absl::Status ValidatePolicy(const Policy& policy) { return std::visit(Validate{}, policy); }

absl::Status ValidateOutlier(const Outlier& outlier) {
  if (outlier.consecutive_failures < 1) {
    return absl::InvalidArgumentError("Outlier.consecutive_failures must be at least 1");
  }
  if (outlier.base_ejection < absl::Milliseconds(1) ||
      outlier.max_ejection < outlier.base_ejection || outlier.max_ejection > absl::Hours(24)) {
    return absl::InvalidArgumentError(
        "Outlier needs 1 ms <= base_ejection <= max_ejection <= 24 h");
  }
  if (outlier.max_ejection_percent < 0 || outlier.max_ejection_percent > 100) {
    return absl::InvalidArgumentError("Outlier.max_ejection_percent must be in 0..100");
  }
  return absl::OkStatus();
}

}  // namespace conclave::picking
