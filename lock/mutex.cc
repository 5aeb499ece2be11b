#include "conclave/lock/mutex.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"

namespace conclave {
namespace {

constexpr size_t kHostNameMax = 256;

std::string HostAndPid() {
  char host[kHostNameMax] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return absl::StrCat(host, ":", getpid());
}

// What others may read about a holder. Other clients ignore the value, and store what they like.
std::string Describe(const std::string& info) {
  nlohmann::ordered_json json;
  json["holder"] = HostAndPid();
  json["since"] = absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone());
  if (!info.empty()) json["info"] = info;
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

LockInfo InfoOf(const KeyValue& kv) {
  LockInfo info{.key = kv.key, .lease = kv.lease, .token = kv.create_revision};
  const auto json = nlohmann::json::parse(kv.value, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return info;
  const auto member = [&json](const char* name) {
    auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  info.holder = member("holder");
  info.since = member("since");
  info.info = member("info");
  return info;
}

}  // namespace

bool IsLost(const absl::Status& status) { return absl::IsAborted(status); }

LockGuard::LockGuard(std::shared_ptr<Claim> claim) : claim_(std::move(claim)) {}
LockGuard::LockGuard(LockGuard&&) noexcept = default;
LockGuard& LockGuard::operator=(LockGuard&& other) noexcept {
  std::swap(claim_, other.claim_);
  return *this;
}
LockGuard::~LockGuard() {
  if (claim_ != nullptr) claim_->ReleaseAsync();
}

int64_t LockGuard::token() const { return claim_->token(); }
const std::string& LockGuard::key() const { return claim_->key(); }
Compare LockGuard::StillHeld() const { return claim_->StillHeld(); }
bool LockGuard::held() const { return claim_ != nullptr && claim_->held(); }
std::stop_token LockGuard::stop_token() const { return claim_->stop_token(); }
absl::Status LockGuard::Unlock(const CallOptions& call) { return claim_->Release(call); }

Mutex::Mutex(const Session& session, std::string_view name, const MutexOptions& options)
    : session_(session.rep()), name_(name), info_(options.info) {}

absl::StatusOr<LockGuard> Mutex::Lock(const CallOptions& call) {
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session_, {.name = name_, .value = Describe(info_)}, call);
  if (!attempt.ok()) return attempt.status();
  return LockGuard(std::move(attempt->claim));
}

absl::StatusOr<TryLockResult> Mutex::TryLock(const CallOptions& call) {
  CallOptions bounded = call;
  if (session_ != nullptr && !call.timeout.has_value()) {
    bounded.timeout = session_->impl()->options().request_timeout;
  }
  absl::StatusOr<Claim::Attempt> attempt = Claim::Acquire(
      session_, {.name = name_, .value = Describe(info_), .only_try = true}, bounded);
  if (!attempt.ok()) return attempt.status();
  TryLockResult result;
  if (attempt->claim != nullptr) result.guard = LockGuard(std::move(attempt->claim));
  if (attempt->owner.has_value()) result.holder = InfoOf(*attempt->owner);
  return result;
}

absl::StatusOr<std::vector<LockInfo>> Mutex::Queue(const CallOptions& call) {
  if (session_ == nullptr) return absl::FailedPreconditionError("no session");
  absl::StatusOr<RangeResult> range =
      Client(session_->impl())
          .Range(Prefix(absl::StrCat(name_, "/")),
                 {.sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision},
                 call);
  if (!range.ok()) return range.status();
  std::vector<LockInfo> queue;
  for (const KeyValue& kv : range->kvs) queue.push_back(InfoOf(kv));
  return queue;
}

}  // namespace conclave
