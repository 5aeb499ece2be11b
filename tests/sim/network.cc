#include "conclave/tests/sim/network.h"

#include <string>
#include <utility>

namespace conclave::sim {

using std::chrono::microseconds;
using std::chrono::milliseconds;

Network::Network(Schedule* schedule, Prng* prng, size_t members, Deliver deliver, Tell tell)
    : schedule_(schedule),
      prng_(prng),
      members_(members),
      deliver_(std::move(deliver)),
      tell_(std::move(tell)) {}

Duration Network::Delay() {
  return Duration(prng_->Between(quality_.delay_min.count(), quality_.delay_max.count()));
}

bool Network::Linked(size_t a, size_t b) const {
  return up_.contains(a) && up_.contains(b) && !cut_.contains({a, b}) && !cut_.contains({b, a});
}

void Network::Send(size_t from, size_t to, raft::NodeId from_id, node::PeerLane lane, Bytes frame) {
  if (cut_.contains({from, to}) || !up_.contains(to)) return;
  if (prng_->Chance(quality_.loss_permille, 1000)) {
    ++faults_;
    return;
  }
  if (prng_->Chance(quality_.garble_permille, 1000)) {
    std::string garbled = frame.ToString();
    garbled[prng_->Below(garbled.size())] ^= static_cast<char>(1 + prng_->Below(255));
    frame = Bytes::Copy(garbled);
    ++faults_;
  }
  const int copies = prng_->Chance(quality_.repeat_permille, 1000) ? 2 : 1;
  if (copies > 1) ++faults_;
  const uint64_t epoch = epochs_[{from, to}];
  for (int i = 0; i < copies; ++i) {
    Duration delay = Delay();
    if (prng_->Chance(quality_.reorder_permille, 1000)) {
      delay += Duration(prng_->Between(0, 20 * quality_.delay_max.count()));
      ++faults_;
    }
    schedule_->After(delay, [this, from, to, from_id, lane, frame, epoch] {
      if (epochs_[{from, to}] != epoch) return;
      deliver_(to, {from_id, lane, frame});
    });
  }
}

// Tells of connections that have come or gone, a little later, if it is still so.
void Network::Review() {
  for (size_t a = 0; a < members_; ++a) {
    for (size_t b = 0; b < members_; ++b) {
      if (a == b || !up_.contains(a) || Linked(a, b) == connected_.contains({a, b})) continue;
      // A peer that died is noticed at once (its host says so), one that is cut off after a while.
      const Duration notice = up_.contains(b) ? milliseconds(prng_->Between(1, 3000))
                                              : milliseconds(prng_->Between(1, 20));
      schedule_->After(notice, [this, a, b] {
        const bool linked = Linked(a, b);
        if (!up_.contains(a) || linked == connected_.contains({a, b})) return;
        if (linked) {
          connected_.insert({a, b});
        } else {
          connected_.erase({a, b});
        }
        tell_(a, b, linked);
      });
    }
  }
}

void Network::Cut(size_t from, size_t to) {
  ++faults_;
  cut_.insert({from, to});
  Review();
}

void Network::HealAll() {
  cut_.clear();
  quality_ = NetworkQuality();
  Review();
}

void Network::Reset(size_t a, size_t b) {
  ++faults_;
  Break(a, b);
  Break(b, a);
}

void Network::Break(size_t from, size_t to) {
  ++epochs_[{from, to}];
  if (connected_.erase({from, to}) > 0) tell_(from, to, false);
  Review();
}

void Network::Up(size_t member) {
  up_.insert(member);
  Review();
}

void Network::Down(size_t member) {
  up_.erase(member);
  for (size_t other = 0; other < members_; ++other) {
    ++epochs_[{member, other}];
    ++epochs_[{other, member}];
    connected_.erase({member, other});
  }
  Review();
}

}  // namespace conclave::sim
