// PeerLinks: the lanes to the other members, as the node sees them: what this turn has for each,
// whether they are connected, and what went over them.
//
// Items are gathered during a turn and leave as one frame per peer and lane at its end (several, if
// they are large). What is for a lane that is down is dropped and counted; everybody who speaks
// over lanes is right under loss.
//
// Thread: the node's. Limits: kPeerFrameBytesSoftMax per frame; kItemsPerTurnMax per lane and turn,
// beyond which items are dropped as if the network had lost them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/function_ref.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/server/node/stats.h"

namespace conclave::node {

namespace peer_links_internal {

struct Lane {
  bool connected = false;
  Instant connected_at;  // the last time
  std::vector<PeerItem> items;
};
struct Peer {
  std::array<Lane, 2> lanes;
  PeerStats stats;
};

}  // namespace peer_links_internal

class PeerLinks {
 public:
  static constexpr size_t kItemsPerTurnMax = 1 << 16;

  explicit PeerLinks(raft::NodeId self) : self_(self) {}

  // The other members, from now on.
  bool Knows(raft::NodeId peer) const { return peers_.contains(peer); }
  void SetPeers(const std::vector<raft::NodeId>& peers);

  void Connected(const PeerConnection& connection, Instant now);
  bool connected(raft::NodeId peer, PeerLane lane) const;
  // For how long its messages have gone through without a break; below zero: they do not now.
  Duration ConnectedFor(raft::NodeId peer, Instant now) const;

  // False if the lane is down or nobody's: the item is lost.
  bool Send(raft::NodeId to, PeerLane lane, PeerItem item);
  // Everything that was said since the last time, as frames.
  void Flush(Effects* effects);

  // Decodes a frame; false if it was refused.
  bool Receive(const PeerFrame& frame, std::vector<PeerItem>* items);

  // `beacon_for` gives what is to be said to a peer, but for the time.
  void SendBeacons(Instant now, absl::FunctionRef<Beacon(raft::NodeId)> beacon_for);
  void RoundTrip(raft::NodeId peer, Duration time);

  std::vector<PeerStats> stats() const;
  uint64_t frames_refused() const { return frames_refused_; }

 private:
  using Lane = peer_links_internal::Lane;
  using Peer = peer_links_internal::Peer;

  static size_t LaneOf(PeerLane lane) { return lane == PeerLane::kMessages ? 0 : 1; }
  void FlushLane(raft::NodeId to, PeerLane lane, Peer& peer, Effects* effects);

  const raft::NodeId self_;
  absl::btree_map<raft::NodeId, Peer> peers_;
  uint64_t frames_refused_ = 0;
};

}  // namespace conclave::node
