// ProposalTable: the calls of this member that wait for their entry to be applied.
//
// Each waiting command has a sequence number, which stands in its entry's header together with this
// member's id; so it is known again when the entry comes back committed, whoever led when it was
// appended. Sequences start at a random number, so that an entry of this member's earlier life is
// not taken for one of this.
//
// When the leader changes. A command is handed to Raft in some term, here or by way of the leader
// of that term, and only that term's leader can append it (messages of older terms are ignored). So
// as soon as an entry of a later term is applied, a command of an earlier term that has not come by
// never will: it is certainly not in the log, and is handed over again under the same sequence. So
// a call survives a change of leader without anybody being told that the outcome is unknown. Only
// what is neither applied nor certainly lost when its time is up ends as a timeout.
//
// All waiting calls have the same patience, so deadlines are in the order of sequences, and the
// oldest stands in front: a ring, no timer per call, no allocation per call.
//
// Thread: the node's. Limits: by the caller (size(), bytes()).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/base/bytes.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

// Who waits for the outcome.
struct Waiter {
  enum class Kind : uint8_t {
    kCall,      // a client's unary call
    kInternal,  // the node itself; `tag` says what for
  };
  Kind kind = Kind::kCall;
  Method method = Method::kRange;
  uint8_t tag = 0;
  CallId call;
  Instant arrived;
  size_t bytes = 0;  // of the request
};

class ProposalTable {
 public:
  explicit ProposalTable(uint64_t first_sequence)
      : base_(first_sequence), next_unsent_(first_sequence) {}

  // The number of the next Add, which the command's header must carry.
  uint64_t next_sequence() const { return base_ + (tail_ - head_); }

  // `payload` is the complete entry; it is handed to Raft by the next TakeUnsent.
  void Add(const Waiter& waiter, Bytes payload);

  // The outcome of an entry: true, and who waits for it, once; false if nobody does.
  bool Take(uint64_t sequence, Waiter* waiter);

  // ---- On their way

  bool has_unsent() const { return unsent_count_ > 0; }
  // The payloads (shared) and sequences of what is to be handed over, oldest first, up to
  // `bytes_max` (but at least one).
  void TakeUnsent(size_t bytes_max, std::vector<Bytes>* payloads, std::vector<uint64_t>* sequences);
  // They were handed over in `term`; `forwarded` is 0 if to our own log.
  void Handed(std::span<const uint64_t> sequences, raft::Term term, raft::ProposalId forwarded);
  // They could not be: another time.
  void NotHanded(std::span<const uint64_t> sequences);
  // The leader has refused a forwarded batch: to be handed over again.
  void Refused(raft::ProposalId forwarded);
  // An entry of `term` was applied: what was handed over in an earlier one and has not come by is
  // lost.
  void TermApplied(raft::Term term);

  // ---- Endings. `ended` must not call back into the table, but for Add.

  using Ended = absl::FunctionRef<void(uint64_t sequence, const Waiter&)>;

  // Takes everything that arrived at or before `latest`.
  void Expire(Instant latest, Ended ended);
  // Takes everything that is on its way, whose outcome can no longer be told (the state was
  // replaced).
  void FailHanded(Ended ended);
  // Takes everything.
  void FailAll(Ended ended);

  size_t size() const { return waiting_; }
  uint64_t bytes() const { return bytes_; }
  // When the oldest arrived; kNever if there is none.
  Instant oldest() const;

 private:
  enum class State : uint8_t { kDone, kUnsent, kTaken, kHanded };
  struct Slot {
    State state = State::kDone;
    Waiter waiter;
    raft::Term term;
    raft::ProposalId forwarded;
    Bytes payload;
  };

  // Slots in [head_, tail_) of a ring whose size is a power of two; the slot at head_ has sequence
  // base_.
  Slot& At(uint64_t position) { return ring_[position & (ring_.size() - 1)]; }
  const Slot& At(uint64_t position) const { return ring_[position & (ring_.size() - 1)]; }
  Slot* Find(uint64_t sequence);
  void Grow();
  void Unsend(Slot& slot, uint64_t position);
  void Finish(Slot& slot);
  void DropDone();

  uint64_t base_;
  uint64_t head_ = 0;
  uint64_t tail_ = 0;
  std::vector<Slot> ring_;
  size_t waiting_ = 0;
  size_t unsent_count_ = 0;
  uint64_t bytes_ = 0;
  // No slot with a lower sequence is unsent.
  uint64_t next_unsent_;
  // No waiting slot was handed over in an earlier term; 0: none is on its way.
  raft::Term oldest_handed_;
};

}  // namespace conclave::node
