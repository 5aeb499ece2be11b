#include "conclave/server/rpc/slices.h"

#include <grpc/byte_buffer_reader.h>

#include <cstring>

#include "conclave/base/check.h"

namespace conclave::rpc {

std::string_view SliceView(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

Bytes TakeMessage(grpc_byte_buffer* buffer, size_t headroom) {
  const size_t size = buffer == nullptr ? 0 : grpc_byte_buffer_length(buffer);
  char* out = nullptr;
  Bytes bytes = Bytes::Uninitialized(headroom + size, &out);
  out += headroom;
  if (buffer == nullptr) return bytes;
  grpc_byte_buffer_reader reader;
  // The reader only fails for a compressed buffer that it cannot inflate; gRPC's own filter has done that.
  CONCLAVE_CHECK(grpc_byte_buffer_reader_init(&reader, buffer));
  grpc_slice* slice = nullptr;
  while (grpc_byte_buffer_reader_peek(&reader, &slice)) {
    std::memcpy(out, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
    out += GRPC_SLICE_LENGTH(*slice);
  }
  grpc_byte_buffer_reader_destroy(&reader);
  grpc_byte_buffer_destroy(buffer);
  return bytes;
}

grpc_slice MakeSlice(const Bytes& bytes) {
  if (bytes.size() < kZeroCopyBytesMin) {
    return grpc_slice_from_copied_buffer(bytes.data(), bytes.size());
  }
  return grpc_slice_new_with_user_data(
      const_cast<char*>(bytes.data()), bytes.size(),
      [](void* kept) { delete static_cast<Bytes*>(kept); }, new Bytes(bytes));
}

grpc_byte_buffer* MakeMessage(const Bytes& prefix, const Bytes& shared) {
  grpc_slice slices[2];
  size_t count = 0;
  if (!prefix.empty()) slices[count++] = MakeSlice(prefix);
  if (!shared.empty()) slices[count++] = MakeSlice(shared);
  grpc_byte_buffer* buffer = grpc_raw_byte_buffer_create(slices, count);
  // The buffer holds references of its own.
  for (size_t i = 0; i < count; ++i) grpc_slice_unref(slices[i]);
  return buffer;
}

}  // namespace conclave::rpc
