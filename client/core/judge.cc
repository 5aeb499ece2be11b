#include "conclave/client/core/judge.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr absl::string_view kDetailUrl = "type.conclave.dev/client.ErrorDetail";
constexpr absl::string_view kServerPrefix = "etcdserver: ";

// Texts of the protocol's errors by what they say about a write. They are matched whole.
constexpr absl::string_view kNoLeader = "etcdserver: no leader";
constexpr absl::string_view kTooManyRequests = "etcdserver: too many requests";
constexpr absl::string_view kLearner = "etcdserver: rpc not supported for learner";
constexpr absl::string_view kSpaceExceeded = "etcdserver: mvcc: database space exceeded";

absl::StatusCode CodeOf(const WireStatus& wire) {
  if (wire.code <= 0 || wire.code > 16) return absl::StatusCode::kUnknown;
  if (wire.message == kTooManyRequests) return absl::StatusCode::kResourceExhausted;
  return static_cast<absl::StatusCode>(wire.code);
}

// True for codes by which a server refuses a request before it does anything.
bool IsRefusal(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  absl::optional<absl::Cord> payload = status.GetPayload(kDetailUrl);
  if (!payload.has_value()) return std::nullopt;
  // Two flags, then the endpoint, a newline, and the server's text.
  const std::string text(*payload);
  const size_t newline = text.find('\n');
  if (text.size() < 3 || newline == std::string::npos) return std::nullopt;
  return ErrorDetail{.server_error = text.substr(newline + 1),
                     .endpoint = text.substr(2, newline - 2),
                     .retryable = text[0] == 'r',
                     .outcome = text[1] == 'u' ? Outcome::kUnknown : Outcome::kNotExecuted};
}

void SetErrorDetail(absl::Status& status, const ErrorDetail& detail) {
  status.SetPayload(kDetailUrl,
                    absl::Cord(absl::StrCat(detail.retryable ? "r" : "-",
                                            detail.outcome == Outcome::kUnknown ? "u" : "-",
                                            detail.endpoint, "\n", detail.server_error)));
}

bool IsRetryable(const absl::Status& status) {
  std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->retryable;
}

bool IsOutcomeUnknown(const absl::Status& status) {
  std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->outcome == Outcome::kUnknown;
}

Verdict Judge(CallKind kind, const WireStatus& wire, std::string_view endpoint) {
  const absl::StatusCode code = CodeOf(wire);
  const bool from_server = absl::StartsWith(wire.message, kServerPrefix);
  ErrorDetail detail{.server_error = from_server ? wire.message : std::string(),
                     .endpoint = std::string(endpoint)};
  const bool no_leader = wire.message == kNoLeader;
  const bool busy = wire.message == kTooManyRequests;
  const bool learner = wire.message == kLearner;
  const bool transient = code == absl::StatusCode::kUnavailable ||
                         code == absl::StatusCode::kDeadlineExceeded || busy || learner;
  // "database space exceeded" may come after the write was applied.
  const bool executed_nothing =
      !wire.sent || no_leader || busy || (IsRefusal(code) && wire.message != kSpaceExceeded);
  if (kind == CallKind::kWrite && !executed_nothing) detail.outcome = Outcome::kUnknown;
  detail.retryable = transient;
  Verdict verdict;
  verdict.try_again = transient && (kind == CallKind::kRead || executed_nothing);
  verdict.blame_endpoint = transient && !busy;
  verdict.status = absl::Status(
      code,
      absl::StrCat(wire.message, " (", absl::string_view(endpoint.data(), endpoint.size()), ")"));
  SetErrorDetail(verdict.status, detail);
  return verdict;
}

absl::Status StatusOfServerText(std::string_view text) {
  const absl::string_view reason(text.data(), text.size());
  absl::StatusCode code = absl::StatusCode::kUnknown;
  if (absl::StrContains(reason, "permission denied")) code = absl::StatusCode::kPermissionDenied;
  if (absl::StrContains(reason, "invalid auth token")) code = absl::StatusCode::kUnauthenticated;
  if (absl::StrContains(reason, "has been compacted")) code = absl::StatusCode::kOutOfRange;
  if (absl::StrContains(reason, "range is empty")) code = absl::StatusCode::kInvalidArgument;
  if (absl::StrContains(reason, "no leader")) code = absl::StatusCode::kUnavailable;
  absl::Status status(code, reason);
  SetErrorDetail(status, {.server_error = std::string(text),
                          .retryable = code == absl::StatusCode::kUnavailable});
  return status;
}

}  // namespace conclave
