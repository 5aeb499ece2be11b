#include "conclave/client/core/fence.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/core/error.h"

namespace conclave::fenced {
namespace {

absl::Status Fallen(int64_t revision) {
  absl::Status status = absl::AbortedError(
      absl::StrCat("fenced: at revision ", revision,
                   " what guards this client did not hold any more; nothing was written"));
  SetErrorDetail(status, {});
  return status;
}

template <typename Result>
CallId Send(Engine& engine, const Fence& fence, Op write, Instant deadline,
            calls::Done<Result> done) {
  const TxnRequest request{.conditions = *fence, .success = {std::move(write)}};
  return calls::Txn(engine, request, deadline,
                    [done = std::move(done)](absl::StatusOr<TxnResult> result) mutable {
                      if (!result.ok()) return done(result.status());
                      if (!result->succeeded) return done(Fallen(result->revision));
                      Result own = std::get<Result>(std::move(result->results.front()));
                      own.revision = result->revision;
                      done(std::move(own));
                    });
}

}  // namespace

CallId Put(Engine& engine, const Fence& fence, const PutRequest& request, Instant deadline,
           calls::Done<PutResult> done) {
  if (fence == nullptr) return calls::Put(engine, request, deadline, std::move(done));
  return Send<PutResult>(engine, fence, request, deadline, std::move(done));
}

CallId Delete(Engine& engine, const Fence& fence, const DeleteRequest& request, Instant deadline,
              calls::Done<DeleteResult> done) {
  if (fence == nullptr) return calls::Delete(engine, request, deadline, std::move(done));
  return Send<DeleteResult>(engine, fence, request, deadline, std::move(done));
}

CallId Txn(Engine& engine, const Fence& fence, const TxnRequest& request, Instant deadline,
           calls::Done<TxnResult> done) {
  if (fence == nullptr || !calls::HasWrites(request)) {
    return calls::Txn(engine, request, deadline, std::move(done));
  }
  return Send<TxnResult>(engine, fence, request, deadline, std::move(done));
}

}  // namespace conclave::fenced
