// LeaseDesk: lease requests that only the leader can answer, at every member: keep-alives of this
// member's streams, those that other members forward, and time-to-live calls that this member
// forwards.
//
//   on the leader    renew at once, if the leadership is verified (below); answer
//   on a follower    forward to the leader, again when it changes or the network may have lost it;
//                    answer with what it says
//   no leader        wait, until the call's time is up
//
// A renewal is acknowledged only if no other member may have ended the lease meanwhile, or may end
// it early afterwards. Therefore:
// - the leader must have heard from a quorum within VerifiedFor (settings.h), or asks for a read
//   round first: a leader that was elected meanwhile gives all leases that much more time;
// - if the replicated remaining time of the lease is shorter than its TTL, the renewal goes through
//   the log first; by the time it is through, the lease may have run out again, or another member
//   leads, who is asked then;
// - that a lease is gone is said only by who was asked for a read round after that request had
//   come: followers whose connections break elect at once, and another leader may have granted it;
// - a lease that has run out but is not revoked yet is not renewed: its answer waits for the
//   revocation, and is TTL 0.
//
// Thread: the node's. Limits: kWaitingMax requests; beyond it, `too many requests`.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/responses.h"
#include "conclave/base/time.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/server/node/peer_links.h"
#include "conclave/server/node/who.h"

namespace conclave::node {

// Where the node stands in this turn.
struct LeaseTurn {
  Instant now;
  apply::StateMachine* state = nullptr;
  raft::Term term;
  raft::NodeId leader;    // 0: none known
  bool primary = false;   // this member decides about expiry
  bool verified = false;  // and no other can, for the time being
  Instant confirmed;      // a quorum has followed this member then
  PeerLinks* links = nullptr;
  Effects* effects = nullptr;
};

namespace lease_desk_internal {

struct Request {
  enum class Kind : uint8_t { kStreamKeepAlive, kPeerKeepAlive, kTimeToLive };
  Kind kind = Kind::kStreamKeepAlive;
  CallId call;        // the stream, or the call
  raft::NodeId peer;  // kPeerKeepAlive: who asks, under which id
  uint64_t peer_id = 0;
  int64_t lease = 0;
  int64_t ttl = 0;  // being replicated: the answer
  Bytes request;    // kTimeToLive
  Instant arrived;
  AskerRef who;
};
struct Stream {
  uint64_t waiting = 0;
  bool half_closed = false;
};
struct Forwarded {
  Request request;
  raft::NodeId to;
  Instant sent;
};
struct Replicating {
  raft::Term term;  // in which they were renewed here
  std::vector<Request> requests;
};

}  // namespace lease_desk_internal

class LeaseDesk {
 public:
  static constexpr size_t kWaitingMax = 1'000'000;

  // Forwarded requests are numbered from `first_forwarded` on: a random number, so that an answer
  // to an earlier life of this member is not taken for one to this.
  LeaseDesk(raft::NodeId self, Duration patience, uint64_t first_forwarded)
      : self_(self), patience_(patience), last_forwarded_(first_forwarded) {}

  // ---- Keep-alive streams of this member's clients

  void Open(CallId stream) { streams_[stream]; }
  // One encoded LeaseKeepAliveRequest. False if it is malformed.
  [[nodiscard]] bool Message(CallId stream, std::string_view message, Instant now, AskerRef who);
  // Ends the stream when all its requests are answered.
  void HalfClosed(CallId stream, Effects* effects);
  // Forgets the stream without a word. False if there is no such stream.
  bool Close(CallId stream);
  bool Contains(CallId stream) const { return streams_.contains(stream); }
  void EndAll(const wire::Error& error, Effects* effects);

  // ---- Other requests

  // A LeaseTimeToLive call to this member, which does not lead.
  void ForwardTimeToLive(CallId call, Bytes request, Instant now, AskerRef who);
  // A keep-alive that `peer` forwards to us.
  void KeepAliveFrom(raft::NodeId peer, const ForwardedRequest& request, Instant now);
  void Answered(const LeaseTurn& turn, raft::NodeId peer, const ForwardedAnswer& answer);

  // ---- Once a turn

  struct Wishes {
    bool verify = false;  // a read round is to confirm that we lead
    // Renewals to be replicated, then Replicating, and Replicated or NotReplicated.
    std::vector<apply::LeaseRemaining> replicate;
  };
  [[nodiscard]] Wishes Work(const LeaseTurn& turn);
  void Replicating(const LeaseTurn& turn, uint64_t sequence);
  void Replicated(const LeaseTurn& turn, uint64_t sequence);
  void NotReplicated(uint64_t sequence);

  // Calls (not streams) that are over: to be answered by the node.
  struct Ended {
    CallId call;
    Instant arrived;
    const wire::Error* error = nullptr;  // null: `response`
    int code = 0;                        // or an error in the leader's words
    std::string message;
    Bytes response;
    bool ask_again = false;  // we lead now: to be read here
    Bytes request;
    AskerRef who;
  };
  std::vector<Ended> TakeEnded() { return std::exchange(ended_, {}); }

  Instant NextDeadline() const;
  bool full() const { return waiting_.size() + forwarded_.size() >= kWaitingMax; }
  size_t streams() const { return streams_.size(); }
  uint64_t renewed() const { return renewed_; }

 private:
  using Request = lease_desk_internal::Request;
  using Stream = lease_desk_internal::Stream;
  using Forwarded = lease_desk_internal::Forwarded;
  using ReplicatingMap = absl::btree_map<uint64_t, lease_desk_internal::Replicating>;

  static constexpr Duration kScanInterval = std::chrono::milliseconds(100);
  static constexpr Duration kForwardAgainAfter = std::chrono::milliseconds(500);

  void Renew(const LeaseTurn& turn, Request request, Wishes* wishes);
  void Forward(const LeaseTurn& turn, uint64_t id, Forwarded& forwarded);
  void AskAgain(ReplicatingMap::iterator renewals);
  void AnswerEnding(const LeaseTurn& turn);
  void ForwardAgain(const LeaseTurn& turn);
  void Expire(const LeaseTurn& turn);
  // The answers: a TTL, or an error (which ends a stream).
  void Answer(const LeaseTurn& turn, const Request& request, int64_t ttl);
  void Fail(const LeaseTurn& turn, const Request& request, int code, std::string_view message);
  void Fail(const LeaseTurn& turn, const Request& request, const wire::Error& error) {
    Fail(turn, request, static_cast<int>(error.code), error.message);
  }
  bool idle() const {
    return waiting_.empty() && forwarded_.empty() && replicating_.empty() && ending_.empty();
  }

  const raft::NodeId self_;
  const Duration patience_;
  absl::btree_map<CallId, Stream> streams_;
  std::vector<Request> waiting_;    // for this turn's Work, or for a leader
  std::vector<Request> replicate_;  // what the last Work wished to have replicated
  ReplicatingMap replicating_;      // by sequence
  std::vector<Request> ending_;     // leases that have run out: until they are revoked
  absl::btree_map<uint64_t, Forwarded> forwarded_;
  uint64_t last_forwarded_;
  std::vector<Ended> ended_;
  Instant next_scan_;
  uint64_t renewed_ = 0;
};

}  // namespace conclave::node
