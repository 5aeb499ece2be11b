// What members say to each other, as bytes: the frames of PeerSend and PeerFrame.
//
// A frame holds all that one turn has for one peer on one lane:
//
//   offset  size
//        0     4  CRC32C of everything behind it, little-endian
//        4     1  version of the format, 1
//        5     8  who sends it, little-endian
//       13     8  whom it is for: a frame that reaches another member (an address was given away)
//       is refused 21     -  items: one byte of kind, then its fields
//
// Numbers in items are varints (7 bits a byte, low bits first, at most 10 bytes), byte strings
// carry their length before them. The cluster's id is the transport's concern. Payloads of decoded
// items share the frame's memory.
//
// Decoding trusts nothing: a wrong checksum, version, kind, length, flag or address, a list that
// claims more elements than bytes are left, or bytes behind the last item give InvalidArgument, and
// nothing is delivered of that frame.
#pragma once

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "conclave/base/bytes.h"
#include "conclave/base/time.h"
#include "conclave/server/auth/store.h"
#include "conclave/server/raft/message.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

inline constexpr uint8_t kPeerFrameVersion = 1;
// A frame is closed when it holds this much; one item more may exceed it.
inline constexpr size_t kPeerFrameBytesSoftMax = 4u << 20;

// A request that only the leader can answer, on its way there. Lost ones are the asker's to time
// out.
struct ForwardedRequest {
  enum class Kind : uint8_t {
    kKeepAlive = 1,     // body: the lease's id, as 8 bytes little-endian
    kTimeToLive = 2,    // body: an encoded LeaseTimeToLiveRequest
    kMemberChange = 3,  // body: MemberDesk's; answered only if it is refused
  };
  uint64_t id = 0;  // of the asker
  Kind kind = Kind::kKeepAlive;
  Bytes body;
  auth::Identity who;  // on whose behalf, as the asker has found out; nobody
  friend bool operator==(const ForwardedRequest&, const ForwardedRequest&) = default;
};

struct ForwardedAnswer {
  uint64_t id = 0;
  int code = 0;         // of gRPC, 0: OK
  std::string message;  // of the error
  Bytes body;           // the encoded response
  friend bool operator==(const ForwardedAnswer&, const ForwardedAnswer&) = default;
};

// A piece of the state on its way to a follower. Chunks of one transfer are offered in order;
// `offset` counts the bytes before it.
struct SnapshotChunk {
  uint64_t transfer = 0;  // of the sender, grows
  raft::Term term;        // of the sender
  raft::SnapshotMeta meta;
  uint64_t offset = 0;
  bool last = false;
  Bytes data;
  friend bool operator==(const SnapshotChunk&, const SnapshotChunk&) = default;
};

struct SnapshotAck {
  enum class Result : uint8_t {
    kReceived = 1,   // all before `offset` has arrived
    kInstalled = 2,  // or there already
    kRefused = 3,    // the transfer is over: not wanted, out of order or malformed
    kUnknown = 4,    // the receiver knows of no such transfer: it has been started anew, say
  };
  uint64_t transfer = 0;
  Result result = Result::kReceived;
  uint64_t offset = 0;
  // The receiver has the records up to there: they need only be named (apply/snapshot.h). 0: none.
  int64_t has_revision = 0;
  int64_t has_sub = 0;
  friend bool operator==(const SnapshotAck&, const SnapshotAck&) = default;
};

// Said to every peer now and then: measures the round trip, and compares the states.
//
// `disputed` is the first index at which the receiver's state was found to be another than the
// sender's (0: none); `agreeing` the number of voters, the sender among them, whose states were
// found equal to the sender's there or behind. If these are a majority, it is the receiver's state
// that is wrong: of two that differ at an index and behind it, a third agrees with one at most.
struct Beacon {
  uint64_t sent_at = 0;  // the sender's clock; comes back as it is
  raft::Index index;     // `digest` is of the state at this index; 0: none
  uint64_t digest = 0;
  raft::Index disputed;
  uint64_t agreeing = 0;
  bool slow_disk = false;  // the sender's
  friend bool operator==(const Beacon&, const Beacon&) = default;
};
struct BeaconEcho {
  uint64_t sent_at = 0;
  friend bool operator==(const BeaconEcho&, const BeaconEcho&) = default;
};

// Said first on a connection: who has been away while all that it knew were replaced can answer.
struct Introduction {
  std::vector<std::string> peer_urls;  // of the sender, at most kIntroducedUrlsMax
  friend bool operator==(const Introduction&, const Introduction&) = default;
};
inline constexpr size_t kIntroducedUrlsMax = 16;

using PeerItem = std::variant<raft::Envelope, ForwardedRequest, ForwardedAnswer, SnapshotChunk,
                              SnapshotAck, Beacon, BeaconEcho, Introduction>;

// An upper bound of the item's encoded size.
[[nodiscard]] size_t EncodedSizeBound(const PeerItem& item);

[[nodiscard]] Bytes EncodeFrame(raft::NodeId from, raft::NodeId to,
                                std::span<const PeerItem> items);

// Appends the frame's items to *items, or nothing.
[[nodiscard]] absl::Status DecodeFrame(const Bytes& frame, raft::NodeId from, raft::NodeId self,
                                       std::vector<PeerItem>* items);

}  // namespace conclave::node
