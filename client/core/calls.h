// The typed calls over Engine::Call: what clients and recipes ask of the cluster. `done` runs once,
// on the engine's thread, never from within. A request that cannot be meant (see validate.h) is
// answered with InvalidArgument and not sent.
#pragma once

#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave::calls {

template <typename Result>
using Done = absl::AnyInvocable<void(absl::StatusOr<Result>)>;

CallId Range(Engine& engine, const RangeRequest& request, Instant deadline, Done<RangeResult> done);
CallId Put(Engine& engine, const PutRequest& request, Instant deadline, Done<PutResult> done);
CallId Delete(Engine& engine, const DeleteRequest& request, Instant deadline,
              Done<DeleteResult> done);
// Whether it puts or deletes anything, in whatever branch and depth.
bool HasWrites(const TxnRequest& request);
// A transaction without puts and deletes is a read, and retried like one.
CallId Txn(Engine& engine, const TxnRequest& request, Instant deadline, Done<TxnResult> done);
// The answer: the revision of the store.
CallId Compact(Engine& engine, int64_t revision, bool physical, Instant deadline,
               Done<int64_t> done);

// ttl in whole seconds. kRead: also retried when an attempt may have granted a lease already, for
// such a lease ends by itself.
CallId Grant(Engine& engine, int64_t ttl, LeaseId id, CallKind kind, Instant deadline,
             Done<GrantResult> done);
CallId Revoke(Engine& engine, LeaseId lease, Instant deadline, Done<int64_t> done);
CallId TimeToLive(Engine& engine, LeaseId lease, bool keys, Instant deadline,
                  Done<TimeToLiveResult> done);
// NotFound for a lease that is gone.
CallId KeepAliveOnce(Engine& engine, LeaseId lease, Instant deadline, Done<absl::Duration> done);
CallId Leases(Engine& engine, Instant deadline, Done<std::vector<LeaseId>> done);

CallId MemberList(Engine& engine, Instant deadline, Done<std::vector<Member>> done);
CallId Status(Engine& engine, size_t endpoint, Instant deadline, Done<MemberStatus> done);

}  // namespace conclave::calls
