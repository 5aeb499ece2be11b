#include "conclave/client/core/calls.h"

#include <algorithm>
#include <utility>

#include "conclave/client/core/convert.h"
#include "conclave/client/core/error.h"

namespace conclave::calls {
namespace {

// An answer that is none. A write that was answered so may have happened.
absl::Status Undecodable(Engine& engine, std::string_view method, CallKind kind) {
  engine.OnNonsense("undecodable answer", method);
  absl::Status status = absl::InternalError("the answer is not of the protocol");
  SetErrorDetail(status,
                 {.outcome = kind == CallKind::kWrite ? Outcome::kUnknown : Outcome::kNotExecuted});
  return status;
}

// Encodes, calls, decodes; `convert` makes the result of the response message.
template <typename Response, typename Result, typename Convert>
CallId Send(Engine& engine, Engine::UnaryCall call, const google::protobuf::MessageLite& request,
            Done<Result> done, Convert convert) {
  call.request = request.SerializeAsString();
  const std::string_view method = call.method;  // a literal
  const CallKind kind = call.kind;
  return engine.Call(std::move(call), [&engine, method, kind, done = std::move(done),
                                       convert](absl::StatusOr<std::string> bytes) mutable {
    if (!bytes.ok()) return done(bytes.status());
    Response response;
    if (!response.ParseFromString(*bytes)) return done(Undecodable(engine, method, kind));
    engine.OnRevision(response.header().revision());
    done(convert(response));
  });
}

// Which alternative each operation, or each result, is. They stand in the same order in both
// variants.
template <typename Variant>
std::vector<size_t> KindsOf(const std::vector<Variant>& all) {
  std::vector<size_t> kinds;
  for (const Variant& each : all) kinds.push_back(each.index());
  return kinds;
}

bool Writes(const std::vector<Op>& ops) {
  return std::any_of(ops.begin(), ops.end(),
                     [](const Op& op) { return !std::holds_alternative<RangeRequest>(op); });
}

}  // namespace

CallId Range(Engine& engine, const RangeRequest& request, Instant deadline,
             Done<RangeResult> done) {
  return Send<etcdserverpb::RangeResponse>(
      engine,
      {.method = "/etcdserverpb.KV/Range",
       .deadline = deadline,
       .require_leader = !request.options.serializable},
      ToProto(request), std::move(done),
      [](etcdserverpb::RangeResponse& response) { return FromProto(response); });
}

CallId Put(Engine& engine, const PutRequest& request, Instant deadline, Done<PutResult> done) {
  return Send<etcdserverpb::PutResponse>(
      engine, {.method = "/etcdserverpb.KV/Put", .kind = CallKind::kWrite, .deadline = deadline},
      ToProto(request), std::move(done),
      [](etcdserverpb::PutResponse& response) { return FromProto(response); });
}

CallId Delete(Engine& engine, const DeleteRequest& request, Instant deadline,
              Done<DeleteResult> done) {
  return Send<etcdserverpb::DeleteRangeResponse>(
      engine,
      {.method = "/etcdserverpb.KV/DeleteRange", .kind = CallKind::kWrite, .deadline = deadline},
      ToProto(request), std::move(done),
      [](etcdserverpb::DeleteRangeResponse& response) { return FromProto(response); });
}

CallId Txn(Engine& engine, const TxnRequest& request, Instant deadline, Done<TxnResult> done) {
  const bool writes = Writes(request.success) || Writes(request.failure);
  const std::vector<size_t> success = KindsOf(request.success);
  const std::vector<size_t> failure = KindsOf(request.failure);
  return Send<etcdserverpb::TxnResponse>(
      engine,
      {.method = "/etcdserverpb.KV/Txn",
       .kind = writes ? CallKind::kWrite : CallKind::kRead,
       .deadline = deadline},
      ToProto(request), std::move(done),
      [&engine, success,
       failure](etcdserverpb::TxnResponse& response) -> absl::StatusOr<TxnResult> {
        TxnResult result = FromProto(response);
        // Callers take the results by their place and kind: nobody else checks what a server sent.
        if (KindsOf(result.results) != (result.succeeded ? success : failure)) {
          return Undecodable(engine, "/etcdserverpb.KV/Txn", CallKind::kWrite);
        }
        return result;
      });
}

CallId Compact(Engine& engine, int64_t revision, bool physical, Instant deadline,
               Done<int64_t> done) {
  etcdserverpb::CompactionRequest request;
  request.set_revision(revision);
  request.set_physical(physical);
  return Send<etcdserverpb::CompactionResponse>(
      engine,
      {.method = "/etcdserverpb.KV/Compact", .kind = CallKind::kWrite, .deadline = deadline},
      request, std::move(done),
      [](etcdserverpb::CompactionResponse& response) { return response.header().revision(); });
}

CallId Grant(Engine& engine, int64_t ttl, LeaseId id, CallKind kind, Instant deadline,
             Done<GrantResult> done) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(ttl);
  request.set_id(id);
  return Send<etcdserverpb::LeaseGrantResponse>(
      engine, {.method = "/etcdserverpb.Lease/LeaseGrant", .kind = kind, .deadline = deadline},
      request, std::move(done),
      [&engine](etcdserverpb::LeaseGrantResponse& response) -> absl::StatusOr<GrantResult> {
        if (response.id() == 0 || response.ttl() <= 0) {
          return Undecodable(engine, "/etcdserverpb.Lease/LeaseGrant", CallKind::kWrite);
        }
        return GrantResult{.id = response.id(),
                           .ttl = absl::Seconds(std::min(response.ttl(), kTtlSecondsMax))};
      });
}

CallId Revoke(Engine& engine, LeaseId lease, Instant deadline, Done<int64_t> done) {
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease);
  return Send<etcdserverpb::LeaseRevokeResponse>(
      engine,
      {.method = "/etcdserverpb.Lease/LeaseRevoke", .kind = CallKind::kWrite, .deadline = deadline},
      request, std::move(done),
      [](etcdserverpb::LeaseRevokeResponse& response) { return response.header().revision(); });
}

CallId TimeToLive(Engine& engine, LeaseId lease, bool keys, Instant deadline,
                  Done<TimeToLiveResult> done) {
  etcdserverpb::LeaseTimeToLiveRequest request;
  request.set_id(lease);
  request.set_keys(keys);
  return Send<etcdserverpb::LeaseTimeToLiveResponse>(
      engine, {.method = "/etcdserverpb.Lease/LeaseTimeToLive", .deadline = deadline}, request,
      std::move(done), [](etcdserverpb::LeaseTimeToLiveResponse& response) {
        TimeToLiveResult result{.id = response.id(),
                                .remaining = absl::Seconds(response.ttl()),
                                .granted = absl::Seconds(response.grantedttl())};
        for (std::string& key : *response.mutable_keys()) result.keys.push_back(std::move(key));
        return result;
      });
}

CallId KeepAliveOnce(Engine& engine, LeaseId lease, Instant deadline, Done<absl::Duration> done) {
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease);
  // A stream of one message each way looks on the wire as a unary call does. Renewing is safe to
  // repeat.
  return Send<etcdserverpb::LeaseKeepAliveResponse>(
      engine, {.method = "/etcdserverpb.Lease/LeaseKeepAlive", .deadline = deadline}, request,
      std::move(done),
      [](etcdserverpb::LeaseKeepAliveResponse& response) -> absl::StatusOr<absl::Duration> {
        if (response.ttl() > 0) return absl::Seconds(std::min(response.ttl(), kTtlSecondsMax));
        absl::Status status = absl::NotFoundError("etcdserver: requested lease not found");
        SetErrorDetail(status, {.server_error = std::string(status.message())});
        return status;
      });
}

CallId Leases(Engine& engine, Instant deadline, Done<std::vector<LeaseId>> done) {
  return Send<etcdserverpb::LeaseLeasesResponse>(
      engine, {.method = "/etcdserverpb.Lease/LeaseLeases", .deadline = deadline},
      etcdserverpb::LeaseLeasesRequest(), std::move(done),
      [](etcdserverpb::LeaseLeasesResponse& response) {
        std::vector<LeaseId> leases;
        for (const etcdserverpb::LeaseStatus& lease : response.leases()) {
          leases.push_back(lease.id());
        }
        return leases;
      });
}

CallId MemberList(Engine& engine, Instant deadline, Done<std::vector<Member>> done) {
  etcdserverpb::MemberListRequest request;
  request.set_linearizable(true);
  return Send<etcdserverpb::MemberListResponse>(
      engine, {.method = "/etcdserverpb.Cluster/MemberList", .deadline = deadline}, request,
      std::move(done), [](etcdserverpb::MemberListResponse& response) {
        std::vector<Member> members;
        for (const etcdserverpb::Member& member : response.members()) {
          members.push_back(
              {.id = member.id(),
               .name = member.name(),
               .peer_urls = {member.peerurls().begin(), member.peerurls().end()},
               .client_urls = {member.clienturls().begin(), member.clienturls().end()},
               .is_learner = member.islearner()});
        }
        return members;
      });
}

CallId Status(Engine& engine, size_t endpoint, Instant deadline, Done<MemberStatus> done) {
  return Send<etcdserverpb::StatusResponse>(
      engine,
      {.method = "/etcdserverpb.Maintenance/Status",
       .deadline = deadline,
       .require_leader = false,
       .endpoint = endpoint},
      etcdserverpb::StatusRequest(), std::move(done), [](etcdserverpb::StatusResponse& response) {
        return MemberStatus{.member_id = response.header().member_id(),
                            .version = response.version(),
                            .db_size = response.dbsize(),
                            .leader = response.leader(),
                            .raft_term = response.raftterm(),
                            .raft_index = response.raftindex(),
                            .revision = response.header().revision(),
                            .errors = {response.errors().begin(), response.errors().end()}};
      });
}

}  // namespace conclave::calls
