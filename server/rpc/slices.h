// Between gRPC's slices and our Bytes.
#pragma once

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include <cstddef>
#include <string_view>

#include "conclave/base/bytes.h"

namespace conclave::rpc {

// From this size on a reply's memory is handed to gRPC as it is; below, copying it is cheaper than counting
// references to it (two small allocations and an atomic decrement on another thread). Measured by
// tests/rpc/shell_benchmark.
inline constexpr size_t kZeroCopyBytesMin = 4096;

// Copies a received message into memory of our own, with `headroom` uninitialised bytes in front of it. Destroys
// `buffer`. An empty message, or a null buffer, is `headroom` bytes.
Bytes TakeMessage(grpc_byte_buffer* buffer, size_t headroom);

// A message to send: `prefix` followed by `shared`.
grpc_byte_buffer* MakeMessage(const Bytes& prefix, const Bytes& shared);

// The memory of `bytes`, kept alive by the slice, or a copy if it is small.
grpc_slice MakeSlice(const Bytes& bytes);

std::string_view SliceView(const grpc_slice& slice);

}  // namespace conclave::rpc
