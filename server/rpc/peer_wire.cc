#include "conclave/server/rpc/peer_wire.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "conclave/server/rpc/slices.h"

namespace conclave::rpc {
namespace {

constexpr size_t kLengthBytes = sizeof(uint32_t);
static_assert(std::endian::native == std::endian::little, "lengths are copied as they are");

}  // namespace

grpc_byte_buffer* JoinFrames(std::deque<Bytes>* frames, size_t* bytes) {
  std::vector<grpc_slice> slices;
  *bytes = 0;
  while (!frames->empty() &&
         (slices.empty() || *bytes + frames->front().size() <= kPeerMessageBytes)) {
    const Bytes& frame = frames->front();
    const auto length = static_cast<uint32_t>(frame.size());
    slices.push_back(grpc_slice_from_copied_buffer(reinterpret_cast<const char*>(&length),
                                                   kLengthBytes));
    slices.push_back(MakeSlice(frame));
    *bytes += kLengthBytes + frame.size();
    frames->pop_front();
  }
  grpc_byte_buffer* message = grpc_raw_byte_buffer_create(slices.data(), slices.size());
  for (grpc_slice& slice : slices) grpc_slice_unref(slice);
  return message;
}

bool SplitFrames(const Bytes& message, std::vector<Bytes>* frames) {
  size_t offset = 0;
  while (offset < message.size()) {
    uint32_t length = 0;
    if (message.size() - offset < kLengthBytes) return false;
    std::memcpy(&length, message.data() + offset, kLengthBytes);
    offset += kLengthBytes;
    if (message.size() - offset < length) return false;
    frames->push_back(message.Slice(offset, length));
    offset += length;
  }
  return true;
}

std::string Hex(uint64_t value) { return absl::StrCat(absl::Hex(value)); }

}  // namespace conclave::rpc
