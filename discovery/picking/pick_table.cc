#include "conclave/discovery/picking/pick_table.h"

#include <algorithm>
#include <utility>

#include "conclave/discovery/stable_hash.h"

namespace conclave::picking {
namespace {

// A number below `bound`, from 64 random bits.
uint64_t Scale(uint64_t random, uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * bound) >> 64);
}

}  // namespace

PickTable::PickTable(const Policy* policy, TurnCounter* turns, Roster::Candidates candidates,
                     std::shared_ptr<const HashRing> ring)
    : policy_(policy), turns_(turns), candidates_(std::move(candidates)), ring_(std::move(ring)) {
  std::vector<double> weights;
  for (const auto& backend : candidates_.backends) {
    ready_.push_back(backend.get());
    weights.push_back(backend->weight());
  }
  sequence_ = WeightedSequence(weights);
  if (ring_ == nullptr) return;
  for (uint32_t i = 0; i < candidates_.ring_index.size(); ++i) {
    const uint32_t at = candidates_.ring_index[i];
    if (at >= by_ring_index_.size()) by_ring_index_.resize(at + 1, kNone);
    by_ring_index_[at] = i;
  }
}

uint32_t PickTable::Pick(const PickArgs& args, std::span<const uint32_t> broken) const {
  if (ready_.empty()) return kNone;
  if (const auto* least = std::get_if<LeastRequest>(policy_)) {
    return LeastLoaded(least->choices, args.random);
  }
  if (const auto* ring = std::get_if<RingHash>(policy_)) return OnRing(*ring, args, broken);
  if (const auto* picker = std::get_if<std::shared_ptr<Picker>>(policy_)) {
    return Ask(**picker, args);
  }
  return NextTurn();
}

uint32_t PickTable::NextTurn() const {
  return sequence_.At(turns_->value.fetch_add(1, std::memory_order_relaxed));
}

// Drawn by weight, then compared by calls per weight: an idle fleet is called in proportion to the
// weights, a busy one levelled.
uint32_t PickTable::LeastLoaded(int choices, uint64_t random) const {
  uint32_t best = sequence_.At(Scale(random, sequence_.slots()));
  if (ready_.size() == 1) return best;
  for (int i = 1; i < choices; ++i) {
    random = MixBits(random + 0x9e3779b97f4a7c15u);
    uint32_t other = sequence_.At(Scale(random, sequence_.slots()));
    if (other == best) other = sequence_.At(Scale(random, sequence_.slots()) + 1);
    const Backend& a = *ready_[best];
    const Backend& b = *ready_[other];
    const auto load_a = static_cast<double>(a.in_flight()) * b.weight();
    const auto load_b = static_cast<double>(b.in_flight()) * a.weight();
    if (load_b < load_a) best = other;
  }
  return best;
}

uint32_t PickTable::OnRing(const RingHash& policy, const PickArgs& args,
                           std::span<const uint32_t> broken) const {
  uint64_t hash = args.random;
  if (policy.key != nullptr) {
    if (const std::string key = policy.key(args); !key.empty()) hash = StableHash(key);
  } else if (const auto key = args.Metadata(policy.header); key.has_value() && !key->empty()) {
    hash = StableHash(*key);
  }
  const uint32_t member = ring_->Find(hash, [this, broken](uint32_t at) {
    return at < by_ring_index_.size() && by_ring_index_[at] != kNone &&
           std::find(broken.begin(), broken.end(), by_ring_index_[at]) == broken.end();
  });
  // All that are ready have weight 0: better one of them than none.
  if (member == HashRing::kNone) return static_cast<uint32_t>(Scale(hash, ready_.size()));
  return by_ring_index_[member];
}

uint32_t PickTable::Ask(Picker& picker, const PickArgs& args) const {
  const Backend* picked = picker.Pick(args, ready_);
  if (picked == nullptr) return kNone;
  const auto found = std::find(ready_.begin(), ready_.end(), picked);
  // Not one of those it was given, so perhaps long gone.
  if (found == ready_.end()) return kNone;
  return static_cast<uint32_t>(found - ready_.begin());
}

}  // namespace conclave::picking
