// The state on its way from a leader to a follower that has fallen behind the log.
//
//   leader                                       follower
//   SnapshotSender                               SnapshotReceiver
//     |-- chunk(transfer, meta, offset 0) ------>  | a fresh RestoreTask; pieces to the disk as
//     |-- ... all that stands before records --->  | they come
//     |<-------- ack(received, offset, has) -----  |
//     |   (records up to `has` are only named from here on)
//     |-- chunk(offset n) ... (window) --------->  |
//     |<--------------- ack(received, offset) ---  |
//     |   (no news for a while: the unacknowledged chunks again)
//     |-- chunk(..., last) --------------------->  | the state is whole; wait until the disk has it
//     (SnapshotSaved)
//     |<-------------------- ack(installed) -----  | swap the state, Raft starts behind it
//
// A chunk that was lost or overtaken is sent again from where the receiver stands. A connection
// that breaks is waited for, and the transfer goes on where it was.
//
// What the receiver has is not sent again, whoever sends: `has` tells of its own state, or of what
// an earlier transfer (another leader's, the same one's before it was started anew) had brought
// when it ended. The new one is made of both, shared in memory, and must have the digest that its
// sender says. If it has not, the next one is taken from nothing. What had come when the receiver's
// process ended is in the unfinished file on its disk, and is read from there at its start.
//
// Chunks travel in frames with checksums (peer_codec.h). They are read at bytes_per_second at most,
// so that clients do not notice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/mvcc/revision.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/server/node/peer_links.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

struct SnapshotLimits {
  uint64_t chunk_bytes = 256 << 10;
  uint64_t chunks_in_flight_max = 8;
  uint64_t bytes_per_second = 64 << 20;             // of the state, named records included
  Duration resend_after = std::chrono::seconds(1);  // without news from the receiver
  Duration give_up_after = std::chrono::seconds(10);
  Duration reconnect_within = std::chrono::seconds(30);
};

// What was given to the writer of snapshots and is not on the disk yet, whoever it is of: a
// snapshot that comes, one of our own. Who makes pieces waits while it is full, so that a disk that
// is slower than they come costs no memory. Thread: the node's. Limit: kBytesMax and one piece.
class UnwrittenPieces {
 public:
  static constexpr uint64_t kBytesMax = 16 << 20;

  void Put(SnapshotPiece piece, Effects* effects) {
    bytes_ += piece.data.size();
    effects->snapshot_pieces.push_back(std::move(piece));
  }
  void Written(uint64_t bytes) { bytes_ -= std::min(bytes, bytes_); }
  bool full() const { return bytes_ >= kBytesMax; }

 private:
  uint64_t bytes_ = 0;
};

// All transfers of a leader, one per follower at most. Thread: the node's. Memory: the window, per
// transfer; and what a compaction cannot free meanwhile. Must be stopped (StopAll) before the state
// is replaced.
class SnapshotSender {
 public:
  // A transfer has ended: `index` is where the follower stands now, nullopt: it failed.
  struct Outcome {
    raft::NodeId peer;
    std::optional<raft::Index> index;
    uint64_t sent_bytes = 0;     // each chunk counted once
    uint64_t covered_bytes = 0;  // that much of the state; more than was sent if records were named
  };

  explicit SnapshotSender(const SnapshotLimits& limits) : limits_(limits) {}

  // `meta` describes `state` as it is now.
  void Start(raft::NodeId peer, const raft::SnapshotMeta& meta, raft::Term term,
             apply::StateMachine* state, Instant now);
  void Acked(raft::NodeId peer, const SnapshotAck& ack, Instant now);
  // The lane to `peer` is down: what was under way on it is lost.
  void LaneDown(raft::NodeId peer, Instant now);
  void StopAll();

  // Sends what the windows and the pace allow.
  void Work(Instant now, PeerLinks* links);
  Instant NextDeadline() const;

  std::vector<Outcome> TakeOutcomes() { return std::exchange(outcomes_, {}); }
  // The lowest index that a transfer stands at, whose follower will need the entries behind it; 0:
  // none.
  raft::Index oldest_index() const;

 private:
  struct Transfer {
    raft::NodeId peer;
    uint64_t id = 0;
    raft::SnapshotMeta meta;
    raft::Term term;
    std::unique_ptr<apply::SnapshotTask> task;
    bool opening = true;  // what stands before the records is under way
    bool opening_read = false;
    mvcc::Revision has;   // of the receiver, as its last word was
    uint64_t offset = 0;  // of the next chunk that is read
    uint64_t acked = 0;
    std::deque<SnapshotChunk> window;  // read and not acknowledged
    size_t sent = 0;                   // of the window
    Instant next_read;
    Instant last_news;
    Instant last_sent;
    std::optional<Instant> down_since;

    bool all_read() const { return task->done(); }
  };

  void Stop(raft::NodeId peer);
  bool MayRead(const Transfer& transfer) const;
  void Read(Transfer& transfer, Instant now);
  void End(size_t which, std::optional<raft::Index> index);

  const SnapshotLimits limits_;
  uint64_t last_id_ = 0;
  std::vector<Transfer> transfers_;
  std::vector<Outcome> outcomes_;
};

// The follower's end: one transfer at a time. Thread: the node's.
class SnapshotReceiver {
 public:
  static constexpr Duration kPatience = std::chrono::seconds(60);

  // `unwritten` outlives it. `unfinished`: what the disk has of a transfer that a process before
  // this one did not bring to its end; null: nothing. It is kept for kPatience.
  SnapshotReceiver(const apply::StateMachineOptions& options, UnwrittenPieces* unwritten,
                   std::unique_ptr<apply::RestoreTask> unfinished, Instant now)
      : options_(options),
        unwritten_(unwritten),
        last_progress_(now),
        unfinished_(std::move(unfinished)) {}

  // Of a snapshot, to Raft: it could be installed; all of it is here already; or neither.
  enum class Use : uint8_t { kWanted, kHeld, kNone };

  // Takes a chunk; `use` is what Raft says of its snapshot. Pieces for the disk go to *effects;
  // while too much waits for it nothing more is taken, and who sends hears how far it has come. The
  // answer, if there is one to send now. `own` is what the member has (null: of no
  // use); it stays while something is being received.
  std::optional<SnapshotAck> Take(raft::NodeId from, SnapshotChunk chunk, Use use,
                                  const mvcc::Store* own, Instant now, Effects* effects);

  // The disk has it. If it is the one that is being received: its state, to be installed now.
  struct Ready {
    raft::NodeId from;
    SnapshotAck ack;  // to be sent when it is installed
    raft::SnapshotMeta meta;
    std::unique_ptr<apply::StateMachine> state;
  };
  std::optional<Ready> Saved(const raft::SnapshotMeta& meta);

  // The disk could not take it. If it is the one that is being received: who sends it is to hear
  // that this has come to nothing, and may try again.
  std::optional<std::pair<raft::NodeId, SnapshotAck>> NotSaved(const raft::SnapshotMeta& meta);

  // Gives up what is under way: at once, or if nothing new has come of it for kPatience (the sender
  // is gone, or the disk could not take it).
  void Abandon(Effects* effects);
  void Expire(Instant now, Effects* effects);

  bool active() const { return task_ != nullptr || state_ != nullptr; }

 private:
  void Begin(raft::NodeId from, const SnapshotChunk& chunk, const mvcc::Store* own,
             Effects* effects);
  SnapshotAck Received() const;
  SnapshotAck Refuse(const SnapshotChunk& chunk, Effects* effects);

  const apply::StateMachineOptions options_;
  UnwrittenPieces* const unwritten_;
  raft::NodeId from_;
  uint64_t transfer_ = 0;
  raft::Term term_;
  raft::SnapshotMeta meta_;
  uint64_t offset_ = 0;
  Instant last_progress_;
  bool pieces_begun_ = false;
  bool from_nothing_ = false;  // what was made of something old did not come out right
  std::unique_ptr<apply::RestoreTask> unfinished_;  // of an earlier process, until one begins
  std::unique_ptr<apply::RestoreTask> task_;        // while chunks come
  std::unique_ptr<apply::StateMachine> state_;      // when all have come, until the disk has them
};

}  // namespace conclave::node
