#include "conclave/client/core/endpoint_sync.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/endpoint_name.h"

namespace conclave {
namespace {

constexpr Duration kSyncTimeout = std::chrono::seconds(10);

// An address to listen on, not one to connect to.
bool IsWildcard(const std::string& endpoint) {
  return absl::StartsWith(endpoint, "0.0.0.0:") || absl::StartsWith(endpoint, "[::]:");
}

}  // namespace

EndpointSync::EndpointSync(Engine& engine, std::vector<std::string> given, Duration interval,
                           bool uses_tls, OnChange on_change)
    : engine_(engine),
      interval_(interval),
      uses_tls_(uses_tls),
      on_change_(std::move(on_change)),
      given_(std::move(given)) {
  for (const std::string& name : given_) applied_.push_back({.name = name});
  // The first time soon: the user may have given one of three.
  if (interval_ > Duration(0)) {
    engine_.Defer([this] {
      Sync(engine_.now() + kSyncTimeout, [](const absl::Status&) {});
      Arm();
    });
  }
}

void EndpointSync::Arm() {
  // A tenth early or late, so that the clients of a fleet do not ask all at once.
  const Duration jitter(engine_.prng().Between(-interval_.count() / 10, interval_.count() / 10));
  engine_.After(interval_ + jitter, [this] {
    Sync(engine_.now() + kSyncTimeout, [](const absl::Status&) {});
    Arm();
  });
}

CallId EndpointSync::Sync(Instant deadline, absl::AnyInvocable<void(absl::Status)> done) {
  return calls::MemberList(
      engine_, deadline,
      [this, done = std::move(done)](absl::StatusOr<std::vector<Member>> members) mutable {
        if (!members.ok()) {
          engine_.Log(LogLevel::kInfo,
                      absl::StrCat("the endpoints stay as they are, because the members cannot be "
                                   "listed: ",
                                   members.status().message()));
          return done(members.status());
        }
        std::vector<std::string> addresses = AddressesOf(*members, uses_tls_);
        if (addresses.empty()) {
          return done(absl::NotFoundError(
              "no member has an address for clients that this client can use (http://host:port, or "
              "https:// for one with TLS); "
              "the endpoints stay as they are"));
        }
        members_ = std::move(addresses);
        Apply();
        done(absl::OkStatus());
      });
}

std::vector<std::string> EndpointSync::AddressesOf(const std::vector<Member>& members,
                                                   bool uses_tls) {
  std::vector<std::string> addresses;
  for (const Member& member : members) {
    if (member.is_learner) continue;
    for (const std::string& url : member.client_urls) {
      if (addresses.size() == kEndpointsMax) return addresses;
      absl::StatusOr<std::string> endpoint = ParseEndpoint(url, uses_tls);
      // A path means something on the member's own machine only.
      if (!endpoint.ok() || IsWildcard(*endpoint) || absl::StartsWith(*endpoint, "unix:")) continue;
      if (std::find(addresses.begin(), addresses.end(), *endpoint) != addresses.end()) continue;
      addresses.push_back(*std::move(endpoint));
    }
  }
  return addresses;
}

void EndpointSync::SetGiven(std::vector<std::string> given) {
  given_ = std::move(given);
  Apply();
}

void EndpointSync::Apply() {
  std::vector<EndpointPool::Endpoint> endpoints;
  const auto add = [&endpoints](const std::string& name, bool fallback) {
    const bool known = std::any_of(endpoints.begin(), endpoints.end(),
                                   [&name](const auto& each) { return each.name == name; });
    if (!known && endpoints.size() < kEndpointsMax) {
      endpoints.push_back({.name = name, .fallback = fallback});
    }
  };
  for (const std::string& name : members_) add(name, false);
  for (const std::string& name : given_) add(name, !members_.empty());
  if (endpoints.empty() || endpoints == applied_) return;
  applied_ = endpoints;
  engine_.Log(LogLevel::kInfo,
              absl::StrCat("endpoints: ",
                           absl::StrJoin(endpoints, ", ", [](std::string* out, const auto& each) {
                             absl::StrAppend(out, each.name, each.fallback ? " (fallback)" : "");
                           })));
  engine_.SetEndpoints(endpoints);
  on_change_(endpoints);
}

}  // namespace conclave
