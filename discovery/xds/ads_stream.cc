#include "conclave/discovery/xds/ads_stream.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conclave/discovery/xds/resources.h"
#include "conclave/discovery/xds/xds.pb.h"

namespace conclave::xds {
namespace {

constexpr std::array<std::string_view, 3> kTypeUrls = {kListenerType, kClusterType, kEndpointType};

}  // namespace

absl::StatusOr<AdsStream::Heard> AdsStream::OnRequest(const DiscoveryRequest& request) {
  const auto url = std::find(kTypeUrls.begin(), kTypeUrls.end(), request.type_url());
  if (url == kTypeUrls.end()) return Heard::kUnknownType;
  TypeState& state = types_[static_cast<size_t>(url - kTypeUrls.begin())];

  std::set<std::string> names(request.resource_names().begin(), request.resource_names().end());
  if (names.size() > kNamesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kNamesMax, " resources of type ", request.type_url()));
  }
  for (const std::string& name : names) {
    if (name.empty() || name.size() > kNameBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("a resource name must have 1 to ", kNameBytesMax, " bytes"));
    }
  }
  // Requests come in order and each has all the names that the client wants, so the newest request
  // is right about them even if it answers an older response. Passing over such a request would be
  // wrong: the client may drop and take up a name while a response without it is on its way, and
  // then it waits for that name.
  const bool changed = !state.asked || names != state.names;
  state.asked = true;
  state.names = std::move(names);
  // A client forgets what it no longer asks for: should it ask again, it is sent again.
  std::erase_if(state.sent,
                [&state](const auto& entry) { return !state.names.contains(entry.first); });

  // Only the first request of a stream comes without a nonce.
  const bool answers_newest =
      state.nonce == 0 || request.response_nonce() == absl::StrCat(state.nonce);
  if (answers_newest && request.has_error_detail()) {
    nack_detail_ = request.error_detail().message();
    return Heard::kNack;
  }
  if (changed) return Heard::kSubscription;
  return answers_newest ? Heard::kAck : Heard::kStale;
}

AdsStream::Wanted AdsStream::Want(Type type, const std::string& name) const {
  switch (type) {
    case kLds: {
      const auto listener = catalog_->FindListener(name);
      return {.version = listener.has_value() ? listener->version : 0};
    }
    case kCds: {
      const auto cluster = catalog_->FindCluster(name);
      return {.version = cluster.has_value() ? cluster->version : 0};
    }
    default: {
      if (sees_ != nullptr) {
        const std::optional<bool> sees = sees_(name);
        if (sees != true) return {.known = sees.has_value(), .version = kHidden};
      }
      const Catalog::Assignment* assignment = catalog_->FindEndpoints(name);
      return {.known = assignment != nullptr,
              .version = assignment != nullptr ? assignment->version : 0};
    }
  }
}

// Whether the client lacks something of this type; *fresh: something that it never had.
bool AdsStream::Lacks(Type type, bool* fresh) const {
  const TypeState& state = types_[type];
  bool lacks = false;
  *fresh = false;
  for (const std::string& name : state.names) {
    const Wanted wanted = Want(type, name);
    const auto sent = state.sent.find(name);
    if (!wanted.known || (sent != state.sent.end() && sent->second == wanted.version)) continue;
    lacks = true;
    if (sent == state.sent.end()) *fresh = true;
  }
  return lacks;
}

bool AdsStream::Next(Instant now, DiscoveryResponse* out) {
  for (size_t index = 0; index < kTypes; ++index) {
    const Type type = static_cast<Type>(index);
    bool fresh = false;
    if (!Lacks(type, &fresh)) continue;
    TypeState& state = types_[type];
    const bool quiet = state.nonce == 0 || now - coalesce_ >= state.sent_at;
    if (!fresh && !quiet) continue;
    Fill(type, out);
    state.nonce = ++nonces_;
    state.sent_at = now;
    out->set_nonce(absl::StrCat(state.nonce));
    return true;
  }
  return false;
}

// Listeners and clusters: all of them, since absence from a response means deletion. Endpoints:
// what has changed, since there absence means nothing.
void AdsStream::Fill(Type type, DiscoveryResponse* out) {
  out->Clear();
  out->set_version_info(absl::StrCat(catalog_->version()));
  out->set_type_url(std::string(kTypeUrls[type]));
  TypeState& state = types_[type];
  size_t bytes = 0;
  for (const std::string& name : state.names) {
    const Wanted wanted = Want(type, name);
    if (!wanted.known) continue;
    if (type == kEds) {
      const auto sent = state.sent.find(name);
      if (sent != state.sent.end() && sent->second == wanted.version) continue;
      if (bytes >= kResponseBytesMax) break;
      *out->add_resources() = EndpointResource(
          name,
          wanted.version == kHidden ? EndpointSet() : catalog_->FindEndpoints(name)->endpoints);
      bytes += out->resources().rbegin()->value().size();
    } else if (wanted.version != 0) {
      if (type == kCds) {
        *out->add_resources() = ClusterResource(name, catalog_->FindCluster(name)->policy);
      } else {
        const auto listener = catalog_->FindListener(name);
        *out->add_resources() = ListenerResource(name, listener->cluster, listener->policy);
      }
    }
    state.sent[name] = wanted.version;
  }
}

Instant AdsStream::NextDeadline() const {
  Instant deadline = kNever;
  for (size_t index = 0; index < kTypes; ++index) {
    bool fresh = false;
    if (!Lacks(static_cast<Type>(index), &fresh)) continue;
    deadline = std::min(deadline, types_[index].sent_at + coalesce_);
  }
  return deadline;
}

}  // namespace conclave::xds
