// The network between simulated members: frames are lost, delayed, reordered and repeated; links
// are cut in one direction or both; connections are reset.
//
// A lane tells both ends when it goes up and down, as a transport would, but late and not always
// before frames are lost: so what is said here is a hint, as in the world.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "conclave/base/bytes.h"
#include "conclave/base/prng.h"
#include "conclave/server/node/io.h"
#include "conclave/tests/sim/faults.h"
#include "conclave/tests/sim/schedule.h"

namespace conclave::sim {

struct NetworkQuality {
  Duration delay_min = std::chrono::microseconds(50);
  Duration delay_max = std::chrono::microseconds(500);
  uint32_t loss_permille = 0;
  uint32_t repeat_permille = 0;
  uint32_t garble_permille = 0;   // frames that arrive with a byte changed
  uint32_t reorder_permille = 0;  // frames that are delayed for much longer
};

class Network {
 public:
  // Delivers a frame, or tells of a connection; both to member number `to`.
  using Deliver = std::function<void(size_t to, node::PeerFrame frame)>;
  using Tell = std::function<void(size_t to, size_t peer, bool connected)>;

  // What happens to frames is counted in *counts, once it is set.
  Network(Schedule* schedule, Prng* prng, size_t members, Deliver deliver, Tell tell);
  void set_counts(FaultCounts* counts) { counts_ = counts; }

  // One more, which is down.
  void AddMember() { ++members_; }

  void Send(size_t from, size_t to, raft::NodeId from_id, node::PeerLane lane, Bytes frame);

  void set_quality(const NetworkQuality& quality) { quality_ = quality; }
  // For a while, nothing from `from` reaches `to`.
  void Cut(size_t from, size_t to, Duration time);
  // For a while, what `from` sends to `to` waits; then it comes all at once.
  void Clog(size_t from, size_t to, Duration time);
  // For a while, what `from` sends to `to` on this lane comes a second time, so much later.
  void Echo(size_t from, size_t to, node::PeerLane lane, Duration time, Duration later);
  // What is between these is put right, and stays so; what is broken elsewhere stays broken.
  void HealAmong(const std::set<size_t>& members);
  void HealAll();
  // Both ends see the connection break and come back; what was under way is lost.
  void Reset(size_t a, size_t b);
  // The connection that `from` has opened to `to` breaks.
  void Break(size_t from, size_t to);
  // A process has started (its lanes come up) or died.
  void Up(size_t member);
  void Down(size_t member);

  // Whether this member was told so.
  bool connected(size_t member, size_t peer) const { return connected_.contains({member, peer}); }

 private:
  using Link = std::pair<size_t, size_t>;  // from, to
  bool IsCut(const Link& link) const;
  bool Linked(size_t a, size_t b) const;
  void Review();
  Duration Delay(const NetworkQuality& quality);
  void Count(Fault fault) {
    if (counts_ != nullptr) counts_->Add(fault);
  }

  Schedule* const schedule_;
  Prng* const prng_;
  size_t members_;
  const Deliver deliver_;
  const Tell tell_;
  NetworkQuality quality_;
  std::map<Link, Instant> cut_;      // until when
  std::map<Link, Instant> clogged_;  // likewise
  struct Echoing {
    Instant until;
    Duration later{};
  };
  std::map<std::pair<Link, node::PeerLane>, Echoing> echoes_;
  // A connection keeps its order, but for frames that are late.
  std::map<std::pair<Link, node::PeerLane>, Instant> last_arrival_;
  std::set<size_t> core_;  // HealAmong these
  bool frozen_ = false;    // what is cut stays cut
  std::set<size_t> up_;
  std::set<std::pair<size_t, size_t>> connected_;  // told so
  std::map<std::pair<size_t, size_t>, uint64_t>
      epochs_;  // of connections: frames of old ones are lost
  FaultCounts* counts_ = nullptr;
};

}  // namespace conclave::sim
