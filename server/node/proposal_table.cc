#include "conclave/server/node/proposal_table.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::node {

void ProposalTable::Grow() {
  std::vector<Slot> ring(std::max<size_t>(64, ring_.size() * 2));
  for (uint64_t position = head_; position < tail_; ++position) {
    ring[position & (ring.size() - 1)] = std::move(At(position));
  }
  ring_ = std::move(ring);
}

ProposalTable::Slot* ProposalTable::Find(uint64_t sequence) {
  const uint64_t distance = sequence - base_;  // wraps for what is older than base_
  if (distance >= tail_ - head_) return nullptr;
  Slot& slot = At(head_ + distance);
  return slot.state == State::kDone ? nullptr : &slot;
}

void ProposalTable::Add(const Waiter& waiter, Bytes payload) {
  if (tail_ - head_ == ring_.size()) Grow();
  if (unsent_count_ == 0) next_unsent_ = next_sequence();
  Slot& slot = At(tail_++);
  slot.state = State::kUnsent;
  slot.waiter = waiter;
  slot.payload = std::move(payload);
  bytes_ += slot.payload.size();
  ++waiting_;
  ++unsent_count_;
}

void ProposalTable::Finish(Slot& slot) {
  if (slot.state == State::kUnsent) --unsent_count_;
  bytes_ -= slot.payload.size();
  slot.payload = Bytes();
  slot.state = State::kDone;
  --waiting_;
}

void ProposalTable::DropDone() {
  while (head_ < tail_ && At(head_).state == State::kDone) {
    ++head_;
    ++base_;
  }
}

bool ProposalTable::Take(uint64_t sequence, Waiter* waiter) {
  Slot* const slot = Find(sequence);
  if (slot == nullptr) return false;
  *waiter = slot->waiter;
  Finish(*slot);
  DropDone();
  return true;
}

void ProposalTable::TakeUnsent(size_t bytes_max, std::vector<Bytes>* payloads,
                               std::vector<uint64_t>* sequences) {
  payloads->clear();
  sequences->clear();
  size_t bytes = 0;
  // `next_unsent_` may lag behind base_ when what it named is done.
  uint64_t position = head_;
  if (const uint64_t skip = next_unsent_ - base_; skip <= tail_ - head_) position += skip;
  for (; position < tail_ && unsent_count_ > 0; ++position) {
    Slot& slot = At(position);
    if (slot.state != State::kUnsent) continue;
    bytes += slot.payload.size();
    if (bytes > bytes_max && !payloads->empty()) break;
    slot.state = State::kTaken;
    --unsent_count_;
    payloads->push_back(slot.payload);
    sequences->push_back(base_ + (position - head_));
  }
  next_unsent_ = base_ + (position - head_);
}

void ProposalTable::Handed(std::span<const uint64_t> sequences, raft::Term term,
                           raft::ProposalId forwarded) {
  for (const uint64_t sequence : sequences) {
    Slot* const slot = Find(sequence);
    CONCLAVE_CHECK(slot != nullptr && slot->state == State::kTaken);
    slot->state = State::kHanded;
    slot->term = term;
    slot->forwarded = forwarded;
  }
  if (!oldest_handed_) oldest_handed_ = term;
}

void ProposalTable::Unsend(Slot& slot, uint64_t position) {
  const uint64_t sequence = base_ + (position - head_);
  if (unsent_count_ == 0 || sequence - base_ < next_unsent_ - base_) next_unsent_ = sequence;
  slot.state = State::kUnsent;
  ++unsent_count_;
}

void ProposalTable::NotHanded(std::span<const uint64_t> sequences) {
  for (const uint64_t sequence : sequences) {
    Slot* const slot = Find(sequence);
    CONCLAVE_CHECK(slot != nullptr && slot->state == State::kTaken);
    Unsend(*slot, head_ + (sequence - base_));
  }
}

void ProposalTable::Refused(raft::ProposalId forwarded) {
  for (uint64_t position = head_; position < tail_; ++position) {
    Slot& slot = At(position);
    if (slot.state != State::kHanded || slot.forwarded != forwarded) continue;
    REACHED("node: the leader has refused proposals");
    Unsend(slot, position);
  }
}

void ProposalTable::TermApplied(raft::Term term) {
  if (!oldest_handed_ || oldest_handed_ > term) return;
  if (oldest_handed_ == term && !MUTANT("proposals-handed-over-twice")) return;
  oldest_handed_ = raft::Term();
  for (uint64_t position = head_; position < tail_; ++position) {
    Slot& slot = At(position);
    if (slot.state != State::kHanded) continue;
    if (slot.term < term || (slot.term == term && MUTANT("proposals-handed-over-twice"))) {
      REACHED("node: proposals of an earlier term are handed over again");
      Unsend(slot, position);
    } else if (!oldest_handed_ || slot.term < oldest_handed_) {
      oldest_handed_ = slot.term;
    }
  }
}

void ProposalTable::Expire(Instant latest, Ended ended) {
  DropDone();
  while (head_ < tail_ && At(head_).waiter.arrived <= latest) {
    const Waiter waiter = At(head_).waiter;
    const uint64_t sequence = base_;
    Finish(At(head_));
    ended(sequence, waiter);
    DropDone();
  }
}

void ProposalTable::FailHanded(Ended ended) {
  const uint64_t end = tail_;
  for (uint64_t position = head_; position < end; ++position) {
    if (At(position).state != State::kHanded) continue;
    const Waiter waiter = At(position).waiter;
    Finish(At(position));
    ended(base_ + (position - head_), waiter);
  }
  oldest_handed_ = raft::Term();
  DropDone();
}

void ProposalTable::FailAll(Ended ended) {
  const uint64_t end = tail_;
  for (uint64_t position = head_; position < end; ++position) {
    if (At(position).state == State::kDone) continue;
    const Waiter waiter = At(position).waiter;
    Finish(At(position));
    ended(base_ + (position - head_), waiter);
  }
  oldest_handed_ = raft::Term();
  DropDone();
}

Instant ProposalTable::oldest() const {
  for (uint64_t position = head_; position < tail_; ++position) {
    if (At(position).state != State::kDone) return At(position).waiter.arrived;
  }
  return kNever;
}

}  // namespace conclave::node
