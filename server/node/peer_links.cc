#include "conclave/server/node/peer_links.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/reached.h"

namespace conclave::node {

void PeerLinks::SetPeers(const std::vector<raft::NodeId>& peers) {
  for (auto it = peers_.begin(); it != peers_.end();) {
    const bool stays = std::find(peers.begin(), peers.end(), it->first) != peers.end();
    it = stays ? std::next(it) : peers_.erase(it);
  }
  for (const raft::NodeId peer : peers) {
    if (peer != self_) peers_[peer].stats.id = peer;
  }
}

void PeerLinks::Connected(const PeerConnection& connection, Instant now) {
  const auto found = peers_.find(connection.peer);
  if (found == peers_.end()) return;
  Lane& lane = found->second.lanes[LaneOf(connection.lane)];
  if (connection.connected && !lane.connected) lane.connected_at = now;
  lane.connected = connection.connected;
  if (connection.lane == PeerLane::kMessages) found->second.stats.connected = connection.connected;
}

bool PeerLinks::connected(raft::NodeId peer, PeerLane lane) const {
  const auto found = peers_.find(peer);
  return found != peers_.end() && found->second.lanes[LaneOf(lane)].connected;
}

Duration PeerLinks::ConnectedFor(raft::NodeId peer, Instant now) const {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return Duration(-1);
  const Lane& lane = found->second.lanes[LaneOf(PeerLane::kMessages)];
  return lane.connected ? now - lane.connected_at : Duration(-1);
}

bool PeerLinks::Send(raft::NodeId to, PeerLane lane, PeerItem item) {
  const auto found = peers_.find(to);
  if (found == peers_.end()) return false;
  Lane& out = found->second.lanes[LaneOf(lane)];
  if (!out.connected || out.items.size() >= kItemsPerTurnMax) {
    REACHED("node: nothing can be sent to a peer now");
    ++found->second.stats.sent_failures;
    return false;
  }
  out.items.push_back(std::move(item));
  return true;
}

void PeerLinks::FlushLane(raft::NodeId to, PeerLane lane, Peer& peer, Effects* effects) {
  std::vector<PeerItem>& items = peer.lanes[LaneOf(lane)].items;
  size_t begin = 0;
  size_t bytes = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    bytes += EncodedSizeBound(items[i]);
    if (bytes < kPeerFrameBytesSoftMax && i + 1 < items.size()) continue;
    Bytes frame = EncodeFrame(self_, to, std::span(items).subspan(begin, i + 1 - begin));
    peer.stats.sent_bytes += frame.size();
    effects->peer_sends.push_back({to, lane, std::move(frame)});
    begin = i + 1;
    bytes = 0;
  }
  items.clear();
}

void PeerLinks::Flush(Effects* effects) {
  for (auto& [id, peer] : peers_) {
    FlushLane(id, PeerLane::kMessages, peer, effects);
    FlushLane(id, PeerLane::kSnapshot, peer, effects);
  }
}

bool PeerLinks::Receive(const PeerFrame& frame, std::vector<PeerItem>* items) {
  const auto found = peers_.find(frame.from);
  if (found == peers_.end() || !DecodeFrame(frame.frame, frame.from, self_, items).ok()) {
    ++frames_refused_;
    return false;
  }
  found->second.stats.received_bytes += frame.frame.size();
  return true;
}

void PeerLinks::SendBeacons(Instant now, absl::FunctionRef<Beacon(raft::NodeId)> beacon_for) {
  const auto sent_at = static_cast<uint64_t>(now.time_since_epoch().count());
  for (auto& [id, peer] : peers_) {
    Lane& lane = peer.lanes[LaneOf(PeerLane::kMessages)];
    if (!lane.connected) continue;
    Beacon beacon = beacon_for(id);
    beacon.sent_at = sent_at;
    lane.items.push_back(beacon);
  }
}

void PeerLinks::RoundTrip(raft::NodeId peer, Duration time) {
  const auto found = peers_.find(peer);
  if (found != peers_.end()) found->second.stats.round_trip.Record(time);
}

std::vector<PeerStats> PeerLinks::stats() const {
  std::vector<PeerStats> all;
  for (const auto& [id, peer] : peers_) all.push_back(peer.stats);
  return all;
}

}  // namespace conclave::node
