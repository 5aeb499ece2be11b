// What two members say to each other below the node's frames.
//
// A lane is one TCP connection, opened by the member that sends. It begins with a Hello: the
// cluster, who calls and whom it means to call, and the version of this format. The other side
// answers with a Welcome, or with the reason why not, and closes. Then frames follow in one
// direction, each as a little-endian u32 length and its bytes; what they mean, and their checksums,
// are the node's.
//
// A question has the lane kQuestionLane, and neither cluster nor members: whoever asks may not know
// them. It is answered with a Welcome, the length and the bytes of the member's directory, and the
// end.
//
//   Hello    "CONCLAVE" | u32 version | u32 lane | u64 cluster | u64 from | u64 to |
//            u32 CRC32C of all before
//   Welcome  u32 0
//   refusal  u32 length of the text (at most kRefusalBytesMax) | text
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "conclave/base/bytes.h"
#include "conclave/server/node/io.h"

namespace conclave::rpc {

inline constexpr uint32_t kPeerVersion = 1;
inline constexpr size_t kHelloBytes = 44;
inline constexpr size_t kRefusalBytesMax = 1024;
inline constexpr uint32_t kQuestionLane = 2;
inline constexpr size_t kDirectoryBytesMax = 1u << 20;
// The reason for which a member that was removed is refused. It is not only to be read: who is told
// so stops for good, so it never changes.
inline constexpr std::string_view kRemovedRefusal =
    "the member has been permanently removed from the cluster";
// The largest frame that is accepted from a member that has shown its identity.
inline constexpr size_t kPeerFrameBytesMax = 64u << 20;
inline constexpr size_t kPeerLengthBytes = 4;

struct PeerIdentity {
  raft::NodeId member;
  uint64_t cluster_id = 0;
};

struct Hello {
  uint32_t version = kPeerVersion;
  node::PeerLane lane = node::PeerLane::kMessages;
  uint64_t cluster_id = 0;
  raft::NodeId from;
  raft::NodeId to;
  bool question = false;  // and no lane
};

std::string EncodeHello(const Hello& hello);
// `bytes` has kHelloBytes. Nothing if it is no Hello at all.
std::optional<Hello> DecodeHello(std::string_view bytes);

// Why `self` does not take this lane; empty: it does.
std::string CheckHello(const Hello& hello, const PeerIdentity& self);

std::string EncodeU32(uint32_t value);
uint32_t DecodeU32(std::string_view bytes);

std::string Hex(uint64_t value);

}  // namespace conclave::rpc
