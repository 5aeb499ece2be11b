// KV.RangeStream: a range in chunks, all of them at the revision of the first one.
//
// As etcd cuts it: ten keys at first, then twice as many as long as a chunk stays below half of the
// target size, and half as many after one above twice of it. Such a size also ends a chunk. Header,
// more and count stand in the last message only; of count_only there is just that.
#pragma once

#include <memory>

#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/responses.h"
#include "conclave/server/apply/stream_task.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::apply {

// What RangeStream refuses beyond Range: it gives keys in their own order only, and all of them.
[[nodiscard]] const wire::Error* CheckRangeStream(const wire::RangeRequest& request);

// `revision` is a resolved one; the request's views need not outlive the call.
[[nodiscard]] std::unique_ptr<StreamTask> MakeRangeStream(mvcc::Store* store,
                                                          const wire::RangeRequest& request,
                                                          int64_t revision,
                                                          const wire::ResponseHeader& header,
                                                          size_t chunk_bytes_target);

}  // namespace conclave::apply
