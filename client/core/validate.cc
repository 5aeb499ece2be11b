#include "conclave/client/core/validate.h"

#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

absl::Status Validate(const TxnRequest& request, int depth);

absl::Status ValidateAll(const std::vector<Op>& ops, int depth) {
  for (const Op& op : ops) {
    absl::Status status = std::visit(
        [depth](const auto& each) {
          if constexpr (std::is_same_v<std::decay_t<decltype(each)>, TxnRequest>) {
            return Validate(each, depth + 1);
          } else {
            return conclave::Validate(each);
          }
        },
        op);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Validate(const TxnRequest& request, int depth) {
  if (depth > kTxnDepthMax) {
    return InvalidRequest(
        absl::StrCat("transactions are nested deeper than ", kTxnDepthMax, " levels"));
  }
  for (const Compare& compare : request.conditions) {
    if (compare.range.key.empty()) return InvalidRequest("the key of a condition is empty");
  }
  if (absl::Status status = ValidateAll(request.success, depth); !status.ok()) return status;
  return ValidateAll(request.failure, depth);
}

}  // namespace

absl::Status InvalidRequest(std::string_view what) {
  absl::Status status = absl::InvalidArgumentError(absl::string_view(what.data(), what.size()));
  SetErrorDetail(status, {});
  return status;
}

absl::Status Validate(const KeyRange& range) {
  if (!range.key.empty()) return absl::OkStatus();
  return InvalidRequest(
      "the key is empty; all keys are AllKeys(), those from the first one on "
      "begin with \"\\0\"");
}

absl::Status Validate(const RangeRequest& request) {
  const RangeOptions& options = request.options;
  if (options.limit < 0) return InvalidRequest("the limit is negative; 0 is no limit");
  if (options.revision < 0) return InvalidRequest("the revision is negative; 0 is the latest");
  if (options.min_mod_revision < 0 || options.max_mod_revision < 0 ||
      options.min_create_revision < 0 || options.max_create_revision < 0) {
    return InvalidRequest("a bound of revisions is negative; 0 is no bound");
  }
  return Validate(request.range);
}

absl::Status Validate(const PutRequest& request) {
  if (request.key.empty()) return InvalidRequest("the key of a put is empty");
  if (request.options.ignore_value && !request.value.empty()) {
    return InvalidRequest("ignore_value keeps the old value, but a new one is given");
  }
  if (request.options.ignore_lease && request.options.lease != 0) {
    return InvalidRequest("ignore_lease keeps the old lease, but a new one is given");
  }
  return absl::OkStatus();
}

absl::Status Validate(const DeleteRequest& request) { return Validate(request.range); }

absl::Status Validate(const TxnRequest& request) { return Validate(request, 1); }

}  // namespace conclave
