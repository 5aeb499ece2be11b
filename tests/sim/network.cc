#include "conclave/tests/sim/network.h"

#include <algorithm>
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

Duration Network::Delay(const NetworkQuality& quality) {
  return Duration(prng_->Between(quality.delay_min.count(), quality.delay_max.count()));
}

bool Network::IsCut(const Link& link) const {
  if (core_.contains(link.first) && core_.contains(link.second)) return false;
  const auto found = cut_.find(link);
  return found != cut_.end() && (frozen_ || found->second > schedule_->now());
}

bool Network::Linked(size_t a, size_t b) const {
  return up_.contains(a) && up_.contains(b) && !IsCut({a, b}) && !IsCut({b, a});
}

void Network::Send(size_t from, size_t to, raft::NodeId from_id, node::PeerLane lane, Bytes frame) {
  const Link link(from, to);
  if (IsCut(link) || !up_.contains(to)) return;
  const NetworkQuality quality =
      core_.contains(from) && core_.contains(to) ? NetworkQuality() : quality_;
  if (prng_->Chance(quality.loss_permille, 1000)) return Count(Fault::kFrameLost);
  if (prng_->Chance(quality.garble_permille, 1000)) {
    std::string garbled = frame.ToString();
    garbled[prng_->Below(garbled.size())] ^= static_cast<char>(1 + prng_->Below(255));
    frame = Bytes::Copy(garbled);
    Count(Fault::kFrameGarbled);
  }
  const int copies = prng_->Chance(quality.repeat_permille, 1000) ? 2 : 1;
  if (copies > 1) Count(Fault::kFrameRepeated);
  const uint64_t epoch = epochs_[link];
  for (int i = 0; i < copies; ++i) {
    Duration delay = Delay(quality);
    Instant& last = last_arrival_[{link, lane}];
    last = std::max(last, schedule_->now() + delay);
    delay = last - schedule_->now();
    if (prng_->Chance(quality.reorder_permille, 1000)) {
      delay += Duration(prng_->Between(0, 20 * quality.delay_max.count()));
      Count(Fault::kFrameLate);
    }
    if (const auto clog = clogged_.find(link); clog != clogged_.end()) {
      delay = std::max(delay, clog->second - schedule_->now());
    }
    const auto arrive = [this, from, to, from_id, lane, frame, epoch] {
      if (epochs_[{from, to}] != epoch) return;
      deliver_(to, {from_id, lane, frame});
    };
    schedule_->After(delay, arrive);
    const auto echo = echoes_.find({link, lane});
    if (echo != echoes_.end() && schedule_->now() < echo->second.until) {
      schedule_->After(delay + echo->second.later, arrive);
    }
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

void Network::Cut(size_t from, size_t to, Duration time) {
  Instant& until = cut_[{from, to}];
  until = std::max(until, schedule_->now() + time);
  Review();
  schedule_->At(until, [this] { Review(); });
}

void Network::Clog(size_t from, size_t to, Duration time) {
  Instant& until = clogged_[{from, to}];
  until = std::max(until, schedule_->now() + time);
}

void Network::Echo(size_t from, size_t to, node::PeerLane lane, Duration time, Duration later) {
  echoes_[{{from, to}, lane}] = {schedule_->now() + time, later};
}

void Network::HealAmong(const std::set<size_t>& members) {
  // What is over already is not to be broken for ever.
  std::erase_if(cut_, [this](const auto& entry) { return entry.second <= schedule_->now(); });
  core_ = members;
  frozen_ = true;
  std::erase_if(clogged_, [&](const auto& entry) {
    return members.contains(entry.first.first) && members.contains(entry.first.second);
  });
  echoes_.clear();
  Review();
}

void Network::HealAll() {
  cut_.clear();
  clogged_.clear();
  echoes_.clear();
  core_.clear();
  frozen_ = false;
  quality_ = NetworkQuality();
  Review();
}

void Network::Reset(size_t a, size_t b) {
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
