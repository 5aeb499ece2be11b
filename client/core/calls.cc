#include "conclave/client/core/calls.h"

#include <algorithm>
#include <utility>

#include "conclave/client/core/convert.h"
#include "conclave/client/core/send.h"
#include "conclave/client/core/validate.h"

namespace conclave::calls {
namespace {

bool Writes(const std::vector<Op>& ops) {
  return std::any_of(ops.begin(), ops.end(), [](const Op& op) {
    const auto* nested = std::get_if<TxnRequest>(&op);
    return nested == nullptr ? !std::holds_alternative<RangeRequest>(op) : HasWrites(*nested);
  });
}

// What kinds of results a transaction has: callers take them by their place and kind, and nobody
// else checks what a server sent.
struct Shape {
  // The alternative of each operation and result; they stand in the same order in both variants.
  std::vector<size_t> kinds{};
  std::vector<std::pair<Shape, Shape>> nested{};  // success and failure, in the order of kinds
};

Shape ShapeOf(const std::vector<Op>& ops) {
  Shape shape;
  for (const Op& op : ops) {
    shape.kinds.push_back(op.index());
    const auto* nested = std::get_if<TxnRequest>(&op);
    if (nested == nullptr) continue;
    shape.nested.emplace_back(ShapeOf(nested->success), ShapeOf(nested->failure));
  }
  return shape;
}

bool Fits(const std::vector<OpResult>& results, const Shape& shape) {
  if (results.size() != shape.kinds.size()) return false;
  size_t nested = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].index() != shape.kinds[i]) return false;
    const auto* txn = std::get_if<TxnResult>(&results[i]);
    if (txn == nullptr) continue;
    const auto& [success, failure] = shape.nested[nested++];
    if (!Fits(txn->results, txn->succeeded ? success : failure)) return false;
  }
  return true;
}

}  // namespace

bool HasWrites(const TxnRequest& request) {
  return Writes(request.success) || Writes(request.failure);
}

CallId Range(Engine& engine, const RangeRequest& request, Instant deadline,
             Done<RangeResult> done) {
  if (absl::Status bad = Validate(request); !bad.ok()) return Refuse(engine, bad, std::move(done));
  const NameSpace& space = engine.options().name_space;
  return Send<etcdserverpb::RangeResponse>(
      engine,
      {.method = "/etcdserverpb.KV/Range",
       .deadline = deadline,
       .require_leader = !request.options.serializable},
      ToProto(request, space), std::move(done),
      [&space](etcdserverpb::RangeResponse& response) { return FromProto(response, space); });
}

CallId Put(Engine& engine, const PutRequest& request, Instant deadline, Done<PutResult> done) {
  if (absl::Status bad = Validate(request); !bad.ok()) return Refuse(engine, bad, std::move(done));
  const NameSpace& space = engine.options().name_space;
  return Send<etcdserverpb::PutResponse>(
      engine, {.method = "/etcdserverpb.KV/Put", .kind = CallKind::kWrite, .deadline = deadline},
      ToProto(request, space), std::move(done),
      [&space](etcdserverpb::PutResponse& response) { return FromProto(response, space); });
}

CallId Delete(Engine& engine, const DeleteRequest& request, Instant deadline,
              Done<DeleteResult> done) {
  if (absl::Status bad = Validate(request); !bad.ok()) return Refuse(engine, bad, std::move(done));
  const NameSpace& space = engine.options().name_space;
  return Send<etcdserverpb::DeleteRangeResponse>(
      engine,
      {.method = "/etcdserverpb.KV/DeleteRange", .kind = CallKind::kWrite, .deadline = deadline},
      ToProto(request, space), std::move(done),
      [&space](etcdserverpb::DeleteRangeResponse& response) { return FromProto(response, space); });
}

CallId Txn(Engine& engine, const TxnRequest& request, Instant deadline, Done<TxnResult> done) {
  if (absl::Status bad = Validate(request); !bad.ok()) return Refuse(engine, bad, std::move(done));
  const NameSpace& space = engine.options().name_space;
  const CallKind kind = HasWrites(request) ? CallKind::kWrite : CallKind::kRead;
  return Send<etcdserverpb::TxnResponse>(
      engine, {.method = "/etcdserverpb.KV/Txn", .kind = kind, .deadline = deadline},
      ToProto(request, space), std::move(done),
      [&engine, &space, kind, success = ShapeOf(request.success),
       failure = ShapeOf(request.failure)](
          etcdserverpb::TxnResponse& response) -> absl::StatusOr<TxnResult> {
        TxnResult result = FromProto(response, space);
        if (!Fits(result.results, result.succeeded ? success : failure)) {
          return Undecodable(engine, "/etcdserverpb.KV/Txn", kind);
        }
        return result;
      });
}

CallId Compact(Engine& engine, int64_t revision, bool physical, Instant deadline,
               Done<int64_t> done) {
  if (revision <= 0) {
    return Refuse(engine, InvalidRequest("history is compacted at a revision greater than 0"),
                  std::move(done));
  }
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
      std::move(done),
      [&space = engine.options().name_space](etcdserverpb::LeaseTimeToLiveResponse& response) {
        TimeToLiveResult result{.id = response.id(),
                                .remaining = absl::Seconds(response.ttl()),
                                .granted = absl::Seconds(response.grantedttl())};
        for (std::string& key : *response.mutable_keys()) {
          if (space.Strip(key)) result.keys.push_back(std::move(key));
        }
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
      std::move(done),
      [](etcdserverpb::MemberListResponse& response) { return MembersOf(response.members()); });
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
                            .errors = {response.errors().begin(), response.errors().end()},
                            .db_size_in_use = response.dbsizeinuse(),
                            .db_size_quota = response.dbsizequota(),
                            .is_learner = response.islearner(),
                            .raft_applied_index = response.raftappliedindex(),
                            .storage_version = response.storageversion(),
                            .downgrade_target = response.downgradeinfo().targetversion()};
      });
}

}  // namespace conclave::calls
