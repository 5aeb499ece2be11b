// ReadQueue: the linearizable reads of this member, from their arrival to the moment they may be
// served.
//
// All reads that arrive in one turn share one read round: `Ask` gives the whole open batch one
// ReadId. When Raft confirms it at some index, and the state machine has applied that index, the
// batch is served. While kRoundsInFlightMax rounds are under way, arriving reads gather in the open
// batch: so a busy member asks for as many rounds as the network carries, and no more.
//
// A read that Raft gives up (its leader is gone) joins the open batch again, in front, and is asked
// for under a new id when there is a leader: a read has no effect, so asking anew is always right.
// An old id is never used again, so an answer to a former question cannot pass for one to this.
//
// Thread: the node's. Limits: by the caller (size()).
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/base/bytes.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/who.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

class ReadQueue {
 public:
  static constexpr size_t kRoundsInFlightMax = 4;

  struct Read {
    CallId call;
    Method method = Method::kRange;
    uint8_t tag = 0;  // not 0: the node's own, for the purpose that it says
    Bytes request;
    Instant arrived;
    AskerRef who;
  };

  void Add(Read read) { open_.push_back(std::move(read)); }

  // True if the open batch should be asked for now.
  bool wants_round() const { return !open_.empty() && unconfirmed_ < kRoundsInFlightMax; }
  // The open batch is asked for under `id`, which is larger than all before.
  void Asked(raft::ReadId id, Instant now);
  // Raft could not take the question after all: the newest batch is open again.
  void NotAsked();

  void Confirmed(raft::ReadId id, raft::Index index);
  void Failed(raft::ReadId id);

  // Serves, in order of their asking, all batches that are confirmed at or below `applied`. `serve`
  // may not call back into the queue.
  void Serve(raft::Index applied, absl::FunctionRef<void(Read&, Instant asked)> serve);

  // Takes every read that arrived at or before `latest`.
  void Expire(Instant latest, absl::FunctionRef<void(const Read&)> ended);
  void FailAll(absl::FunctionRef<void(const Read&)> ended) { Expire(kNever, ended); }

  size_t size() const;
  // When the oldest arrived; kNever if there is none.
  Instant oldest() const;

 private:
  struct Batch {
    raft::ReadId id;
    raft::Index index;  // 0: not confirmed yet
    Instant asked;
    std::vector<Read> reads;  // in order of arrival
  };

  // The batch with that id, or the end.
  std::deque<Batch>::iterator Find(raft::ReadId id);
  void Recycle(std::vector<Read> reads);

  std::vector<Read> open_;
  std::deque<Batch> batches_;  // by id
  size_t unconfirmed_ = 0;
  std::vector<std::vector<Read>> spare_;  // emptied, for their capacity
};

}  // namespace conclave::node
