// Fence: conditions that every write of a client must satisfy, such as "the lock is still ours".
//
// A fenced write is one transaction: if the conditions hold, the write, else nothing. What the user
// conditioned himself is a transaction within it, so that a failed fence never runs his
// else-branch. A failed fence is Aborted (as of a lost lock), and nothing was written. Reads are
// not fenced.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave::fenced {

using Fence = std::shared_ptr<const std::vector<Compare>>;  // null: none

CallId Put(Engine& engine, const Fence& fence, const PutRequest& request, Instant deadline,
           calls::Done<PutResult> done);
CallId Delete(Engine& engine, const Fence& fence, const DeleteRequest& request, Instant deadline,
              calls::Done<DeleteResult> done);
CallId Txn(Engine& engine, const Fence& fence, const TxnRequest& request, Instant deadline,
           calls::Done<TxnResult> done);

}  // namespace conclave::fenced
