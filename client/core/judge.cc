#include "conclave/client/core/judge.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr absl::string_view kDetailUrl = "type.conclave.dev/client.ErrorDetail";
constexpr absl::string_view kServerPrefix = "etcdserver: ";

constexpr absl::string_view kCompacted = "etcdserver: mvcc: required revision has been compacted";
constexpr absl::string_view kFutureRevision =
    "etcdserver: mvcc: required revision is a future revision";

// What the protocol's error texts say beyond their codes. They are matched whole. Texts that are
// absent here are judged by their code alone.
enum class Meaning {
  kByCode,
  kRefused,      // nothing was done; trying again is no use
  kBusy,         // nothing was done; later it may be, by the same member too
  kWrongMember,  // nothing was done; another member may do it
  kMaybeDone,    // the code looks like a refusal, but it may have been done
};

struct KnownText {
  absl::string_view text;
  absl::StatusCode code;  // what the caller gets: servers send some of these as Unknown
  Meaning meaning;
};

constexpr KnownText kKnownTexts[] = {
    {"etcdserver: no leader", absl::StatusCode::kUnavailable, Meaning::kWrongMember},
    {"etcdserver: rpc not supported for learner", absl::StatusCode::kFailedPrecondition,
     Meaning::kWrongMember},
    {"etcdserver: not leader", absl::StatusCode::kFailedPrecondition, Meaning::kWrongMember},
    {"not a primary lessor", absl::StatusCode::kUnavailable, Meaning::kWrongMember},
    {"etcdserver: too many requests", absl::StatusCode::kResourceExhausted, Meaning::kBusy},
    // Comes before the reconfiguration is proposed, with a code that otherwise leaves it open.
    {"etcdserver: unhealthy cluster", absl::StatusCode::kUnavailable, Meaning::kBusy},
    {"etcdserver: re-configuration failed due to not enough started members",
     absl::StatusCode::kFailedPrecondition, Meaning::kRefused},
    // The deadline that came with the call, as etcd reports it when it waits for a linearizable
    // read.
    {"context deadline exceeded", absl::StatusCode::kDeadlineExceeded, Meaning::kByCode},
    {"etcdserver: corrupt cluster", absl::StatusCode::kDataLoss, Meaning::kRefused},
    // The check when the write is applied comes too late to prevent it.
    {"etcdserver: mvcc: database space exceeded", absl::StatusCode::kResourceExhausted,
     Meaning::kMaybeDone},
};

const KnownText* Find(absl::string_view text) {
  for (const KnownText& known : kKnownTexts) {
    if (known.text == text) return &known;
  }
  return nullptr;
}

absl::StatusCode CodeOf(const WireStatus& wire) {
  if (wire.code <= 0 || wire.code > 16) return absl::StatusCode::kUnknown;
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

bool IsCompacted(const absl::Status& status) {
  std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->server_error == kCompacted;
}

bool IsFutureRevision(const absl::Status& status) {
  std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->server_error == kFutureRevision;
}

Verdict Judge(CallKind kind, const WireStatus& wire, std::string_view endpoint) {
  const KnownText* known = Find(wire.message);
  const absl::StatusCode code = known == nullptr ? CodeOf(wire) : known->code;
  const Meaning meaning = known == nullptr ? Meaning::kByCode : known->meaning;
  const bool from_server = known != nullptr || absl::StartsWith(wire.message, kServerPrefix);
  ErrorDetail detail{.server_error = from_server ? wire.message : std::string(),
                     .endpoint = std::string(endpoint)};
  const bool transient =
      meaning == Meaning::kBusy || meaning == Meaning::kWrongMember ||
      (meaning == Meaning::kByCode &&
       (code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kDeadlineExceeded));
  const bool executed_nothing =
      !wire.sent ||
      (meaning == Meaning::kByCode ? IsRefusal(code) : meaning != Meaning::kMaybeDone);
  if (kind == CallKind::kWrite && !executed_nothing) detail.outcome = Outcome::kUnknown;
  detail.retryable = transient;
  Verdict verdict;
  if (detail.outcome == Outcome::kUnknown) REACHED("client: the outcome of a write is unknown");
  verdict.try_again = transient && (kind == CallKind::kRead || executed_nothing ||
                                    MUTANT("write-of-unknown-outcome-repeated"));
  verdict.blame_endpoint = transient && meaning != Meaning::kBusy;
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
