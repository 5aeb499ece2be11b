#include "conclave/lock/naming.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/base/utf8.h"

namespace conclave {
namespace {

constexpr size_t kHostNameMax = 256;

absl::Status Bad(std::string_view what, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(absl::string_view(what.data(), what.size()), " ",
                                                 absl::string_view(why.data(), why.size())));
}

}  // namespace

absl::Status CheckLockName(std::string_view name) {
  constexpr std::string_view kWhat = "the name of a lock";
  if (name.empty()) return Bad(kWhat, "must not be empty");
  if (name.size() > kLockNameBytesMax) {
    return Bad(kWhat, absl::StrCat("has at most ", kLockNameBytesMax, " bytes"));
  }
  if (name.front() == '/' || name.back() == '/' || name.find("//") != std::string_view::npos) {
    return Bad(kWhat,
               "must not begin or end with a slash, nor have two in a row: the keys of a "
               "lock are its name, a slash, and who");
  }
  for (char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return Bad(kWhat, "must not have control characters");
    }
  }
  if (!IsUtf8(name)) return Bad(kWhat, "must be UTF-8: it is shown in logs and in JSON");
  return absl::OkStatus();
}

absl::Status CheckLockInfo(std::string_view info) {
  if (info.size() <= kLockInfoBytesMax) return absl::OkStatus();
  return Bad("the info of a lock", absl::StrCat("has at most ", kLockInfoBytesMax, " bytes"));
}

std::string HostAndPid() {
  char host[kHostNameMax] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return absl::StrCat(host, ":", getpid());
}

std::string DescribeHolder(const std::string& holder, const std::string& info) {
  nlohmann::ordered_json json;
  json["holder"] = holder;
  json["since"] = absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone());
  if (!info.empty()) json["info"] = info;
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

LockInfo LockInfoOf(const KeyValue& kv) {
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

std::string LeaseKey(std::string_view name, LeaseId lease) {
  return absl::StrCat(absl::string_view(name.data(), name.size()), "/", absl::Hex(lease));
}

std::string ReleaseMarkerKey(std::string_view name) {
  return absl::StrCat(absl::string_view(name.data(), name.size()), "~revoke");
}

absl::StatusOr<std::vector<LockInfo>> ReadQueue(const std::shared_ptr<SessionRep>& session,
                                                const KeyRange& range, const CallOptions& call) {
  if (session == nullptr) return absl::AbortedError("no session");
  absl::StatusOr<RangeResult> result =
      Client(session->impl())
          .Range(range,
                 {.sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision},
                 call);
  if (!result.ok()) return result.status();
  std::vector<LockInfo> queue;
  for (const KeyValue& kv : result->kvs) queue.push_back(LockInfoOf(kv));
  return queue;
}

CallOptions Bounded(const std::shared_ptr<SessionRep>& session, const CallOptions& call) {
  CallOptions bounded = call;
  if (session != nullptr && !call.timeout.has_value()) {
    bounded.timeout = session->impl()->options().request_timeout;
  }
  return bounded;
}

}  // namespace conclave
