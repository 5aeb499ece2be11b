#include "conclave/server/http/json_codec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/type_resolver.h>
#include <google/protobuf/util/type_resolver_util.h>

#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "conclave/api/election.pb.h"
#include "conclave/api/lock.pb.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"

namespace conclave::http {
namespace {

constexpr char kTypePrefix[] = "type.googleapis.com";
// The paths are below these.
constexpr std::string_view kPrefixes[] = {"/v3/", "/v3beta/"};

struct Entry {
  std::string_view path;
  const char* method;
};

constexpr Entry kEntries[] = {
    {"kv/range", "etcdserverpb.KV.Range"},
    {"kv/put", "etcdserverpb.KV.Put"},
    {"kv/deleterange", "etcdserverpb.KV.DeleteRange"},
    {"kv/txn", "etcdserverpb.KV.Txn"},
    {"kv/compaction", "etcdserverpb.KV.Compact"},
    {"watch", "etcdserverpb.Watch.Watch"},
    {"lease/grant", "etcdserverpb.Lease.LeaseGrant"},
    {"lease/revoke", "etcdserverpb.Lease.LeaseRevoke"},
    {"kv/lease/revoke", "etcdserverpb.Lease.LeaseRevoke"},
    {"lease/keepalive", "etcdserverpb.Lease.LeaseKeepAlive"},
    {"lease/timetolive", "etcdserverpb.Lease.LeaseTimeToLive"},
    {"kv/lease/timetolive", "etcdserverpb.Lease.LeaseTimeToLive"},
    {"lease/leases", "etcdserverpb.Lease.LeaseLeases"},
    {"kv/lease/leases", "etcdserverpb.Lease.LeaseLeases"},
    {"cluster/member/add", "etcdserverpb.Cluster.MemberAdd"},
    {"cluster/member/remove", "etcdserverpb.Cluster.MemberRemove"},
    {"cluster/member/update", "etcdserverpb.Cluster.MemberUpdate"},
    {"cluster/member/list", "etcdserverpb.Cluster.MemberList"},
    {"cluster/member/promote", "etcdserverpb.Cluster.MemberPromote"},
    {"maintenance/alarm", "etcdserverpb.Maintenance.Alarm"},
    {"maintenance/status", "etcdserverpb.Maintenance.Status"},
    {"maintenance/defragment", "etcdserverpb.Maintenance.Defragment"},
    {"maintenance/hash", "etcdserverpb.Maintenance.Hash"},
    {"maintenance/hashkv", "etcdserverpb.Maintenance.HashKV"},
    {"maintenance/snapshot", "etcdserverpb.Maintenance.Snapshot"},
    {"maintenance/transfer-leadership", "etcdserverpb.Maintenance.MoveLeader"},
    {"maintenance/downgrade", "etcdserverpb.Maintenance.Downgrade"},
    {"auth/enable", "etcdserverpb.Auth.AuthEnable"},
    {"auth/disable", "etcdserverpb.Auth.AuthDisable"},
    {"auth/status", "etcdserverpb.Auth.AuthStatus"},
    {"auth/authenticate", "etcdserverpb.Auth.Authenticate"},
    {"auth/user/add", "etcdserverpb.Auth.UserAdd"},
    {"auth/user/get", "etcdserverpb.Auth.UserGet"},
    {"auth/user/list", "etcdserverpb.Auth.UserList"},
    {"auth/user/delete", "etcdserverpb.Auth.UserDelete"},
    {"auth/user/changepw", "etcdserverpb.Auth.UserChangePassword"},
    {"auth/user/grant", "etcdserverpb.Auth.UserGrantRole"},
    {"auth/user/revoke", "etcdserverpb.Auth.UserRevokeRole"},
    {"auth/role/add", "etcdserverpb.Auth.RoleAdd"},
    {"auth/role/get", "etcdserverpb.Auth.RoleGet"},
    {"auth/role/list", "etcdserverpb.Auth.RoleList"},
    {"auth/role/delete", "etcdserverpb.Auth.RoleDelete"},
    {"auth/role/grant", "etcdserverpb.Auth.RoleGrantPermission"},
    {"auth/role/revoke", "etcdserverpb.Auth.RoleRevokePermission"},
    {"lock/lock", "v3lockpb.Lock.Lock"},
    {"lock/unlock", "v3lockpb.Lock.Unlock"},
    {"election/campaign", "v3electionpb.Election.Campaign"},
    {"election/proclaim", "v3electionpb.Election.Proclaim"},
    {"election/leader", "v3electionpb.Election.Leader"},
    {"election/observe", "v3electionpb.Election.Observe"},
    {"election/resign", "v3electionpb.Election.Resign"},
};

using Methods = absl::flat_hash_map<std::string_view, GatewayMethod>;

Methods* MakeMethods() {
  // Names the files, so that the linker keeps their descriptors.
  const google::protobuf::DescriptorPool* const pool =
      etcdserverpb::RangeRequest::descriptor()->file()->pool();
  CONCLAVE_CHECK(v3lockpb::LockRequest::descriptor()->file()->pool() == pool &&
                 v3electionpb::LeaderRequest::descriptor()->file()->pool() == pool);
  auto* methods = new Methods;
  for (const Entry& entry : kEntries) {
    const google::protobuf::MethodDescriptor* const found = pool->FindMethodByName(entry.method);
    CONCLAVE_CHECK(found != nullptr, entry.method);
    methods->emplace(
        entry.path,
        GatewayMethod{absl::StrCat("/", found->service()->full_name(), "/", found->name()),
                      absl::StrCat(kTypePrefix, "/", found->input_type()->full_name()),
                      absl::StrCat(kTypePrefix, "/", found->output_type()->full_name()),
                      found->client_streaming(), found->server_streaming()});
  }
  return methods;
}

google::protobuf::util::TypeResolver* Types() {
  static auto* const types = google::protobuf::util::NewTypeResolverForDescriptorPool(
      kTypePrefix, google::protobuf::DescriptorPool::generated_pool());
  return types;
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

const GatewayMethod* FindGatewayMethod(std::string_view path) {
  static const Methods* const methods = MakeMethods();
  for (const std::string_view prefix : kPrefixes) {
    if (!path.starts_with(prefix)) continue;
    const auto found = methods->find(path.substr(prefix.size()));
    return found == methods->end() ? nullptr : &found->second;
  }
  return nullptr;
}

absl::StatusOr<std::string> RequestOfJson(const GatewayMethod& method, std::string_view json) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  std::string message;
  const auto status = google::protobuf::util::JsonToBinaryString(
      Types(), method.request_type, {json.data(), json.size()}, &message, options);
  if (!status.ok()) return absl::InvalidArgumentError(status.message().ToString());
  return message;
}

absl::StatusOr<std::string> JsonOfResponse(const GatewayMethod& method,
                                           const std::string& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::BinaryToJsonString(Types(), method.response_type,
                                                                 message, &json, options);
  if (!status.ok()) return absl::InternalError(status.message().ToString());
  return json;
}

absl::Status JsonSplitter::Feed(std::string_view piece, size_t object_bytes_max) {
  size_t begin = 0;  // of what belongs to part_ and is not there yet
  for (size_t i = 0; i < piece.size(); ++i) {
    const char c = piece[i];
    if (depth_ == 0) {
      begin = i;
      if (IsSpace(c)) continue;
      if (c != '{') {
        return absl::InvalidArgumentError(absl::StrCat(
            "invalid character ", JsonText(piece.substr(i, 1)), " where an object should begin"));
      }
      depth_ = 1;
      continue;
    }
    if (in_text_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_text_ = false;
      }
      continue;
    }
    if (c == '"') in_text_ = true;
    if ((c == '{' || c == '[') && ++depth_ > kJsonDepthMax) {
      return absl::InvalidArgumentError("exceeded max depth");
    }
    if (c != '}' && c != ']') continue;
    if (--depth_ > 0) continue;
    part_.append(piece.substr(begin, i + 1 - begin));
    bytes_ += i + 1 - begin;
    begin = i + 1;
    if (part_.size() > object_bytes_max) break;
    objects_.push_back(std::exchange(part_, {}));
  }
  if (depth_ > 0) {
    part_.append(piece.substr(begin));
    bytes_ += piece.size() - begin;
  }
  if (part_.size() <= object_bytes_max) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("grpc: received message larger than max (",
                                                   part_.size(), " vs. ", object_bytes_max, ")"));
}

std::optional<std::string> JsonSplitter::Next() {
  if (objects_.empty()) return std::nullopt;
  std::string object = std::move(objects_.front());
  objects_.pop_front();
  bytes_ -= object.size();
  return object;
}

std::string JsonText(std::string_view text) {
  std::string json = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      // Of our own texts all are ASCII; what a client sent need not be text at all.
      absl::StrAppendFormat(&json, "\\u%04x", c);
    } else {
      json += static_cast<char>(c);
    }
  }
  json += '"';
  return json;
}

}  // namespace conclave::http
