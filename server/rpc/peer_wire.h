// What two members say to each other below the node's frames.
//
// A lane is one gRPC stream, opened by the member that sends. Its metadata is the handshake: the cluster, who calls and
// whom it means to call, and the version of this format. The other side answers with its headers, and the lane is up; or
// with a status, and the lane is refused. A gRPC message carries one or more frames, each as a little-endian u32 length
// and its bytes: what has piled up while a write was under way leaves as one message.
#pragma once

#include <grpc/byte_buffer.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/server/node/io.h"

namespace conclave::rpc {

inline constexpr char kPeerMessagesPath[] = "/conclave.peer.Peer/Messages";
inline constexpr char kPeerSnapshotPath[] = "/conclave.peer.Peer/Snapshot";

inline constexpr char kClusterKey[] = "conclave-cluster";
inline constexpr char kFromKey[] = "conclave-from";
inline constexpr char kToKey[] = "conclave-to";
inline constexpr char kVersionKey[] = "conclave-peer-version";
inline constexpr char kPeerVersion[] = "1";

// A message takes further frames up to this size; a single frame may be larger.
inline constexpr size_t kPeerMessageBytes = 1 << 20;
// Frames that wait for their lane; the oldest go first when it is full.
inline constexpr size_t kPeerOutboxBytesMax = 64u << 20;

// Takes frames from the front of *frames until the message is full.
grpc_byte_buffer* JoinFrames(std::deque<Bytes>* frames, size_t* bytes);

// The frames of a received message, as slices of it. False if the lengths do not add up.
[[nodiscard]] bool SplitFrames(const Bytes& message, std::vector<Bytes>* frames);

std::string Hex(uint64_t value);

}  // namespace conclave::rpc
