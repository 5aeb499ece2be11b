// What members say to each other: a variant of plain structs in an Envelope.
//
// A message may be lost, repeated and overtaken by others; the core is right under all of that. Its
// encoding is the node's affair; payloads are shared, never copied. Every message carries the
// sender's term in the envelope (a pre-vote the term its sender would stand for).
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

// "Vote for me" (thesis 3.4), or with `pre_vote`: "would you?" (thesis 9.6), which changes nobody's
// term.
struct VoteRequest {
  bool pre_vote = false;
  // The leader itself asked for this election: a vote is given though a leader is alive
  // (thesis 4.2.3).
  bool leadership_transfer = false;
  Index last_index;
  Term last_term;
  friend bool operator==(const VoteRequest&, const VoteRequest&) = default;
};

// The envelope's term is the one that was asked for if granted, else the voter's own.
struct VoteResponse {
  bool pre_vote = false;
  bool granted = false;
  friend bool operator==(const VoteResponse&, const VoteResponse&) = default;
};

// Entries that follow (prev_index, prev_term); none: a question whether that entry is there.
struct AppendEntries {
  Index prev_index;
  Term prev_term;
  Index commit;
  std::vector<Entry> entries;
  friend bool operator==(const AppendEntries&, const AppendEntries&) = default;
};

// Accepted: all up to `index` is durable here and equals the leader's log.
// Rejected: there is no such prev entry `index`; the largest index that may still be equal is
// `hint_index`, which is of `hint_term` here.
struct AppendResponse {
  bool rejected = false;
  Index index;
  Index hint_index;
  Term hint_term;
  friend bool operator==(const AppendResponse&, const AppendResponse&) = default;
};

// The leader is alive. `commit` is never beyond what the receiver has acknowledged.
struct Heartbeat {
  Index commit;
  ReadRound round;  // the newest read round of the leader; 0: none yet
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};

// Sent at once, never behind a disk write: "when I heard your round, your term was still the
// newest".
struct HeartbeatResponse {
  ReadRound round;
  friend bool operator==(const HeartbeatResponse&, const HeartbeatResponse&) = default;
};

// A follower asks the leader for a read index, for all reads that wait at the follower.
struct ReadRequest {
  ReadRound round;
  friend bool operator==(const ReadRequest&, const ReadRequest&) = default;
};
struct ReadResponse {
  ReadRound round;
  Index index;
  friend bool operator==(const ReadResponse&, const ReadResponse&) = default;
};

// A follower hands proposals on to the leader. There is no answer if they are accepted: the
// follower sees them committed.
struct ForwardedProposals {
  ProposalId id;
  EntryType type = EntryType::kCommand;
  std::vector<Bytes> payloads;
  friend bool operator==(const ForwardedProposals&, const ForwardedProposals&) = default;
};

// Why a proposal stands where it stands. All but the first two: nothing was appended anywhere.
enum class ProposeStatus : uint8_t {
  kAccepted = 0,      // appended to the leader's log
  kForwarded = 1,     // on its way to the leader; the outcome is unknown until committed or refused
  kNotLeader = 2,     // and the one who is (if anybody) is leader()
  kTransferring = 3,  // the leadership is being handed over
  kTooManyUncommitted = 4,  // Config::max_uncommitted_bytes
  kConfChangePending = 5,   // the last change is not committed yet, or nothing is yet in this term
  kConfChangeInvalid = 6,   // the change makes no sense for the current configuration
};

// No payload of the batch was appended.
struct ProposalsRefused {
  ProposalId id;
  ProposeStatus reason = ProposeStatus::kNotLeader;
  friend bool operator==(const ProposalsRefused&, const ProposalsRefused&) = default;
};

// The leader to the one who shall take over: stand for election now.
struct TimeoutNow {
  friend bool operator==(const TimeoutNow&, const TimeoutNow&) = default;
};

using Message = std::variant<VoteRequest, VoteResponse, AppendEntries, AppendResponse, Heartbeat,
                             HeartbeatResponse, ReadRequest, ReadResponse, ForwardedProposals,
                             ProposalsRefused, TimeoutNow>;

struct Envelope {
  NodeId from;
  NodeId to;
  Term term;
  Message message;
  friend bool operator==(const Envelope&, const Envelope&) = default;
};

// The disk is a peer too; this is its message. All AppendRequests up to `id` are durable.
struct StorageAppended {
  AppendId id;
};

}  // namespace conclave::raft
