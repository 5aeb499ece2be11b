#include "conclave/tests/crash/client.h"

#include <algorithm>
#include <utility>

#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/base/concat.h"

namespace conclave::crash {
namespace {

namespace pb = etcdserverpb;
using node::Method;

// Lists have all members: those that founded it have names, and are left out.
bool IsFounder(const pb::Member& member, size_t founders) {
  for (size_t i = 0; i < founders; ++i) {
    if (member.peerurls_size() == 1 && member.peerurls(0) == Concat("http://10.0.0.", i, ":1")) {
      return true;
    }
  }
  return false;
}

void WriteKey(Contents& contents, const std::string& key, const std::string& value,
              int64_t revision, int64_t lease = 0) {
  Contents::Key& kept = contents.keys[key];
  if (kept.version == 0) kept.create_revision = revision;
  kept.value = value;
  kept.mod_revision = revision;
  ++kept.version;
  kept.lease = lease;
}

template <typename Response>
absl::StatusOr<Response> Ask(Cluster& cluster, size_t member, Method method,
                             const std::string& request) {
  const auto reply = cluster.Call(member, method, request);
  if (!reply.has_value()) return absl::UnavailableError("no answer");
  if (reply->error != nullptr) return absl::UnknownError(reply->error->message);
  Response response;
  if (!response.ParseFromString(reply->body.ToString())) return absl::DataLossError("no response");
  return response;
}

}  // namespace

std::string Describe(const Contents& contents) {
  std::string text = Concat("revision ", contents.revision);
  for (const auto& [key, kept] : contents.keys) {
    text += Concat(", ", key, " = ", kept.value.substr(0, 10), " (", kept.create_revision, " ",
                   kept.mod_revision, " ", kept.version, " ", kept.lease, ")");
  }
  for (const auto& [lease, ttl] : contents.leases)
    text += Concat(", lease ", lease, " ", ttl, " s");
  for (const auto& [url, learner] : contents.members) {
    text += Concat(", ", learner ? "learner " : "voter ", url);
  }
  return text;
}

void Client::MoveTo(size_t member) {
  through_ = member;
  in_doubt_ = false;
}

std::optional<std::string> Client::Do(Method method, const std::string& request,
                                      const Effect& effect) {
  if (in_doubt_) return std::nullopt;
  const auto reply = cluster_->running(through_) ? cluster_->Call(through_, method, request)
                                                 : std::optional<node::Reply>();
  const bool acknowledged = reply.has_value() && reply->error == nullptr;
  in_doubt_ = !acknowledged;
  std::vector<Contents> possible = possible_;
  for (Contents& contents : possible) effect(contents);
  if (!acknowledged) possible.insert(possible.end(), possible_.begin(), possible_.end());
  possible_ = std::move(possible);
  if (!acknowledged) return std::nullopt;
  return reply->body.ToString();
}

void Client::Put(const std::string& key, const std::string& value, int64_t lease) {
  pb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  request.set_lease(lease);
  const auto body = Do(Method::kPut, request.SerializeAsString(), [&](Contents& contents) {
    WriteKey(contents, key, value, ++contents.revision, lease);
  });
  if (!body.has_value()) return;
  // The answer decides which of the possible stores it was.
  pb::PutResponse response;
  if (!response.ParseFromString(*body)) complaint_ = "an illegible answer";
  std::erase_if(possible_, [&](const Contents& contents) {
    return contents.revision != response.header().revision();
  });
  if (possible_.empty()) {
    complaint_ = Concat("a put at revision ", response.header().revision(), ", which cannot be");
    possible_.emplace_back();
  }
}

void Client::Delete(const std::string& key) {
  pb::DeleteRangeRequest request;
  request.set_key(key);
  Do(Method::kDeleteRange, request.SerializeAsString(), [&](Contents& contents) {
    if (contents.keys.erase(key) > 0) ++contents.revision;
  });
}

void Client::PutBothIf(const std::string& key, const std::string& other, const std::string& value) {
  pb::TxnRequest request;
  pb::Compare& compare = *request.add_compare();
  compare.set_target(pb::Compare::VERSION);
  compare.set_result(pb::Compare::GREATER);
  compare.set_key(key);
  compare.set_version(0);
  for (const std::string& each : {key, other}) {
    pb::PutRequest& put = *request.add_success()->mutable_request_put();
    put.set_key(each);
    put.set_value(value);
  }
  Do(Method::kTxn, request.SerializeAsString(), [&](Contents& contents) {
    if (!contents.keys.contains(key)) return;
    const int64_t revision = ++contents.revision;
    WriteKey(contents, key, value, revision);
    WriteKey(contents, other, value, revision);
  });
}

void Client::Grant(int64_t lease, int64_t ttl_seconds) {
  pb::LeaseGrantRequest request;
  request.set_id(lease);
  request.set_ttl(ttl_seconds);
  Do(Method::kLeaseGrant, request.SerializeAsString(),
     [&](Contents& contents) { contents.leases[lease] = ttl_seconds; });
}

void Client::Revoke(int64_t lease) {
  pb::LeaseRevokeRequest request;
  request.set_id(lease);
  Do(Method::kLeaseRevoke, request.SerializeAsString(), [&](Contents& contents) {
    contents.leases.erase(lease);
    const size_t gone = std::erase_if(
        contents.keys, [&](const auto& entry) { return entry.second.lease == lease; });
    if (gone > 0) ++contents.revision;
  });
}

void Client::Compact(int64_t revision) {
  pb::CompactionRequest request;
  request.set_revision(revision);
  if (Do(Method::kCompact, request.SerializeAsString(), [](Contents&) {})) compacted_ = revision;
}

uint64_t Client::AddLearner(const std::string& url) {
  pb::MemberAddRequest request;
  request.add_peerurls(url);
  request.set_islearner(true);
  const auto body = Do(Method::kMemberAdd, request.SerializeAsString(),
                       [&](Contents& contents) { contents.members[url] = true; });
  pb::MemberAddResponse response;
  if (body.has_value() && !response.ParseFromString(*body)) complaint_ = "an illegible answer";
  return response.member().id();
}

void Client::UpdateMember(uint64_t id, const std::string& from, const std::string& to) {
  pb::MemberUpdateRequest request;
  request.set_id(id);
  request.add_peerurls(to);
  Do(Method::kMemberUpdate, request.SerializeAsString(), [&](Contents& contents) {
    auto node = contents.members.extract(from);
    node.key() = to;
    contents.members.insert(std::move(node));
  });
}

void Client::RemoveMember(uint64_t id, const std::string& url) {
  pb::MemberRemoveRequest request;
  request.set_id(id);
  Do(Method::kMemberRemove, request.SerializeAsString(),
     [&](Contents& contents) { contents.members.erase(url); });
}

void Client::Promote(uint64_t id, const std::string& url) {
  pb::MemberPromoteRequest request;
  request.set_id(id);
  Do(Method::kMemberPromote, request.SerializeAsString(),
     [&](Contents& contents) { contents.members[url] = false; });
}

// ---- What is there ------------------------------------------------------------------------------

absl::StatusOr<Contents> Read(Cluster& cluster, size_t member, size_t founders) {
  pb::RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  const auto range =
      Ask<pb::RangeResponse>(cluster, member, Method::kRange, request.SerializeAsString());
  if (!range.ok()) return range.status();
  Contents contents{.revision = range->header().revision()};
  for (const mvccpb::KeyValue& kv : range->kvs()) {
    contents.keys[kv.key()] = {.value = kv.value(),
                               .create_revision = kv.create_revision(),
                               .mod_revision = kv.mod_revision(),
                               .version = kv.version(),
                               .lease = kv.lease()};
  }
  const auto leases = Ask<pb::LeaseLeasesResponse>(cluster, member, Method::kLeaseLeases, "");
  if (!leases.ok()) return leases.status();
  for (const pb::LeaseStatus& lease : leases->leases()) {
    pb::LeaseTimeToLiveRequest ask;
    ask.set_id(lease.id());
    const auto left = Ask<pb::LeaseTimeToLiveResponse>(cluster, member, Method::kLeaseTimeToLive,
                                                       ask.SerializeAsString());
    if (!left.ok()) return left.status();
    contents.leases[lease.id()] = left->grantedttl();
  }
  const auto list = Ask<pb::MemberListResponse>(cluster, member, Method::kMemberList, "");
  if (!list.ok()) return list.status();
  for (const pb::Member& each : list->members()) {
    if (!IsFounder(each, founders)) contents.members[each.peerurls(0)] = each.islearner();
  }
  return contents;
}

bool IsCompactedAt(Cluster& cluster, size_t member, int64_t revision) {
  pb::RangeRequest request;
  request.set_key("a");
  request.set_revision(revision);
  const auto reply = cluster.Call(member, Method::kRange, request.SerializeAsString());
  return reply.has_value() && reply->error != nullptr &&
         reply->error->message == wire::kErrCompacted.message;
}

}  // namespace conclave::crash
