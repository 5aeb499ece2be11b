// RawNode: the Raft core of one member. All input is a message, all output one Ready.
//
// It follows Ongaro's thesis ("Consensus: Bridging Theory and Practice", 2014), with pre-vote,
// check-quorum and sticky votes always on, joint consensus effective at append, and reads by
// rounds. There are no options to the protocol.
//
//   input:  Step(Envelope)            a message of another member
//           Step(StorageAppended)     the disk's message
//           Tick()                    time has passed
//           Propose, ReadIndex, ...   the state machine's wishes
//   output: TakeReady() -> Ready      once after all inputs of a turn
//
// Nothing is sent while stepping: inputs only change state, and TakeReady says what follows from
// all of them. So a turn with a hundred proposals costs one log append and one message per peer,
// and a hundred reads cost one round.
//
// Which entries appear in Ready::committed: those up to the commit index that are also durable in
// the local log - or, on the leader, those up to the commit index. Why that is safe: an entry is
// committed when it is durable on a quorum, so it will be in the log of every later leader, whether
// it is durable *here* or not; the state machine lives in memory, so a crash loses what was applied
// together with what was not yet durable, and the restart applies both again from the log. The
// leader need not wait for its own slow disk when the quorum did not. A follower waits for its own
// disk because it costs nothing there (nobody waits for it) and gives the invariant that its
// snapshots never overtake its log. On a leader they could: therefore take snapshots, and
// CompactLog, no further than min(applied, stable()).
//
// Thread: none; one owner. Deterministic: same Config, restored state and inputs give the same
// outputs. Limits: all in Config; uncommitted entries are bounded by max_uncommitted_bytes, entries
// in memory by CompactLog, reads by max_waiting_reads, messages in flight per peer by count and
// bytes. Invariants (CHECKed in release): committed entries are never replaced; handed-out <=
// commit <= last index; stable <= last index; one leader per term as far as this member can see;
// index continuity everywhere.
//
// Messages that make no sense (not for this member, old term, from an unknown peer, answers that
// were not asked for) are ignored and counted in Counters. Those that no correct member can have
// sent are refused with a reason: nothing of them is taken, not even their term.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/base/prng.h"
#include "conclave/server/raft/conf_history.h"
#include "conclave/server/raft/confchange/confchange.h"
#include "conclave/server/raft/log.h"
#include "conclave/server/raft/message.h"
#include "conclave/server/raft/pending_writes.h"
#include "conclave/server/raft/ready.h"
#include "conclave/server/raft/roles.h"
#include "conclave/server/raft/tracker/progress.h"
#include "conclave/server/raft/types.h"

namespace conclave::raft {

struct Config {
  NodeId id;
  // Differs from start to start of the same member: beside the election timeouts it makes the
  // numbers of forwarded reads and proposals, so that an answer to an earlier life is never taken
  // for one to this.
  uint64_t seed = 0;
  // A leader that hears nothing of a quorum for so long steps down.
  uint32_t election_ticks = 10;
  // A follower that hears nothing for [suspect_ticks, 2 * suspect_ticks) asks for an election, and
  // takes part in none while it has heard from its leader within suspect_ticks. Shorter than
  // election_ticks it is safe, too: what is asked first is a pre-vote, which changes nothing, and a
  // leader that still serves is heard by those whose votes are needed. 0: as election_ticks.
  uint32_t suspect_ticks = 0;
  uint32_t heartbeat_ticks = 1;
  uint64_t max_append_bytes =
      1 << 20;  // payload of one AppendEntries; a single entry may be larger
  uint64_t max_inflight_bytes = 64 << 20;    // per peer
  uint32_t max_inflight_messages = 256;      // per peer
  uint64_t max_uncommitted_bytes = 1 << 30;  // payload that the leader takes on before it commits
  uint64_t max_committed_bytes =
      64 << 20;  // payload of Ready::committed; the rest follows in the next
  uint32_t max_waiting_reads = 1 << 16;  // reads not yet answered, here and for followers
};

// What a member knows when it starts: from its disk, or FoundingSnapshot, or (to join a cluster
// that exists) all empty.
struct RestoredState {
  HardState hard_state;
  SnapshotMeta snapshot;
  // snapshot.index + 1 and on, without gaps. Entries behind a log position that is not the
  // snapshot's own (see AppendRequest::entries) are not to be given.
  std::vector<Entry> entries;
  // Where this member's log ended before a part of it was lost to its disk; index 0: nothing was.
  // The hard state must be of a later term than the member ever acknowledged anything in.
  Index lost_index;
  Term lost_term;
};

struct ProposeResult {
  ProposeStatus status = ProposeStatus::kNotLeader;
  // If accepted: the batch has the indices from first_index on, all of `term`. It took effect if
  // and only if the entry committed at its index is of this term; if that is of another term, it
  // never will.
  Index first_index;
  Term term;
  ProposalId forwarded;  // if forwarded: as in Ready::dropped_proposals
};

enum class ReadStatus : uint8_t {
  kAccepted = 0,  // exactly one answer comes: in Ready::reads or in Ready::failed_reads
  kNoLeader = 1,  // nothing comes
  kTooMany = 2,   // Config::max_waiting_reads; nothing comes
};

enum class TransferStatus : uint8_t {
  kStarted = 0,  // watch status().leader; given up silently after an election timeout
  kNotLeader = 1,
  kNotVoter = 2,  // the target is no voter
  kAlreadyLeader = 3,
};

struct Counters {
  uint64_t messages_wrong_address = 0;  // not to this member, or from itself
  uint64_t messages_old_term = 0;
  uint64_t messages_unknown_peer = 0;  // an answer of somebody who is not a member
  uint64_t messages_unexpected = 0;    // for a role that this member does not play
  uint64_t messages_impossible = 0;    // see Step
  uint64_t votes_withheld = 0;         // sticky votes: a leader is alive
  uint64_t elections_started = 0;
  uint64_t leader_changes = 0;
  uint64_t quorum_lost = 0;  // a leader stepped down because it heard from no quorum
};

struct PeerStatus {
  NodeId id;
  PeerState state = PeerState::kProbe;
  Index match;  // durable there and equal to the leader's log
  Index next;
  bool recent_active = false;  // heard of within the last election timeout
  bool is_learner = false;
  uint32_t inflight_messages = 0;
  uint64_t inflight_bytes = 0;
};

struct Status {
  NodeId id;
  Role role = Role::kFollower;
  NodeId leader;  // 0: not known
  Term term;
  Index commit;
  Index applied;
  Index stable;       // durable in the local log
  Index first_index;  // the oldest entry in memory
  Index last_index;
  NodeId transferee;              // 0: no transfer under way
  ConfState conf;                 // effective: as of the last entry, committed or not
  std::vector<PeerStatus> peers;  // on the leader, with itself; sorted by id
  Counters counters;
};

class RawNode {
 public:
  RawNode(const Config& config, RestoredState restored);
  RawNode(const RawNode&) = delete;
  RawNode& operator=(const RawNode&) = delete;

  // ---- Inputs ----

  // Null, or why no correct member can have sent this: then it changed nothing.
  const char* Step(Envelope envelope);
  void Step(StorageAppended appended);
  void Tick();

  // Lets the election timer of a member that has just started run ahead by `ticks`, though not up
  // to the timeout itself: when it is known that no leader is to be waited for in full.
  void AdvanceElectionTimer(uint32_t ticks);

  // Asks for an election now (after a pre-vote, as always). A single voter does so when it starts.
  // Ignored if this member is leader or no voter.
  void Campaign();

  // Appends all payloads (none empty) to the leader's log, or none. They are moved out if accepted.
  [[nodiscard]] ProposeResult Propose(std::span<Bytes> payloads);
  // Hands them on to the leader. kNotLeader if none is known, or this is the leader. The outcome:
  // they appear in Ready::committed, or their id in Ready::dropped_proposals, or neither (lost on
  // the way).
  [[nodiscard]] ProposeResult Forward(EntryType type, std::span<Bytes> payloads);
  // Appends a change of membership: effective at once here, and on each member when it appends it.
  [[nodiscard]] ProposeResult ProposeConfChange(const ConfChange& change);

  // Asks for a read index. `id` is the caller's, unique among its waiting reads. On a follower the
  // read goes to the leader, is asked again (under a new round) when the network loses it, and
  // fails when the leader changes. On a leader that has not committed in its term yet it waits
  // until that is done.
  [[nodiscard]] ReadStatus ReadIndex(ReadId id);

  [[nodiscard]] TransferStatus TransferLeader(NodeId target);

  // The state machine has applied all entries up to `index`, which Ready::committed has given.
  void Applied(Index index);

  // Drops entries up to `index` <= min(applied, stable()) from memory; the term of `index` itself
  // stays known. A follower that needs them gets a snapshot.
  void CompactLog(Index index);

  // The end of streaming a snapshot that Ready::snapshots_needed asked for: `index` is the one it
  // stands at, nullopt: it failed and is to be asked for again.
  void SnapshotStatus(NodeId peer, std::optional<Index> index);

  // The transport could not deliver to `peer`: what is in flight to it is probably lost.
  void ReportUnreachable(NodeId peer);

  // The node has received a whole snapshot, and has it durable. True: the log starts anew behind
  // it; the node puts it into its state machine before anything else, and Ready::committed goes on
  // behind it. False: it is not needed (any more), and is to be thrown away: the log has all that
  // is in it.
  [[nodiscard]] bool InstallSnapshot(const SnapshotMeta& snapshot);
  // Whether it would be installed now: to refuse a stream when it begins.
  bool CanInstallSnapshot(const SnapshotMeta& snapshot) const;
  // Whether this member's log, or its snapshot, has all that is in it.
  bool HasAllOf(const SnapshotMeta& snapshot) const;

  // ---- Output ----

  // True if TakeReady would give anything.
  bool HasReady() const;
  [[nodiscard]] Ready TakeReady();

  // ---- What it knows ----

  NodeId id() const { return config_.id; }
  Role role() const;
  bool is_leader() const { return std::holds_alternative<Leader>(role_); }
  NodeId leader() const;  // 0: not known
  Term term() const { return term_; }
  Index commit() const { return log_.commit(); }
  Index applied() const { return log_.applied(); }
  Index stable() const { return log_.stable(); }
  Index first_index() const { return log_.first_index(); }
  Index last_index() const { return log_.last_index(); }
  NodeId transferee() const;
  // True on a leader that has committed an entry of its own term: it knows all that was ever
  // committed.
  bool leader_is_current() const;
  // A leader's: the entry that opens its term. 0: this member does not lead.
  Index first_own() const;
  // nullopt: compacted away, or beyond the last entry.
  std::optional<Term> TermAt(Index index) const { return log_.TermAt(index); }
  // An entry in memory: first_index() <= index <= last_index().
  const Entry& EntryAt(Index index) const { return log_.At(index); }
  // The effective configuration: as of the last entry, committed or not.
  const ConfState& conf() const { return confs_.conf(); }
  // The entry that made it; that of the snapshot, if it is as old.
  Index conf_entry() const { return confs_.entry(); }
  const ConfState& ConfStateAt(Index index) const { return confs_.At(index); }
  const Counters& counters() const { return counters_; }
  Status status() const;
  // The log is short of where it was (RestoredState::lost_index): this member votes as if it had
  // all of it, and does not stand for election.
  bool log_is_short() const { return !log_.Reaches(lost_); }

 private:
  enum class Election : uint8_t { kPreVote, kReal, kTransfer };

  // raw_node.cc: the way in.
  void Send(NodeId to, Message message);
  // True if the message goes on to its handler; false if it is to be ignored.
  bool AdoptTerm(const Envelope& envelope);
  void AnswerOldTerm(Envelope& envelope);
  void TickLeader(Leader& leader);
  void TickFollower();

  // sanity.cc: what cannot be. Null, or the reason.
  const char* Impossible(const Envelope& envelope) const;
  const char* Impossible(const Envelope& envelope, const AppendEntries& append) const;
  const char* Impossible(const Envelope& envelope, const Heartbeat& heartbeat) const;
  const char* Impossible(const Envelope& envelope, const AppendResponse& response) const;
  const char* Impossible(const Envelope& envelope, const HeartbeatResponse& response) const;
  const char* Impossible(const Envelope& envelope, const ReadResponse& response) const;
  const char* Impossible(const Envelope& envelope, const ForwardedProposals& forwarded) const;
  template <typename Message>
  const char* Impossible(const Envelope&, const Message&) const {
    return nullptr;
  }
  const char* ImpossibleLeader(const Envelope& envelope) const;
  static bool IsPossible(const SnapshotMeta& snapshot);
  const char* ImpossibleChange(const AppendEntries& append) const;

  // election.cc: who leads.
  void Handle(const Envelope& envelope, VoteRequest& request);
  void Handle(const Envelope& envelope, VoteResponse& response);
  void Handle(const Envelope& envelope, TimeoutNow& message);
  bool HearsLeader() const;
  bool Promotable() const;
  void ResetElectionTimer();
  void StartElection(Election kind);
  void RecordVote(NodeId voter, bool granted);
  void BecomeFollower(Term term, NodeId leader);
  void BecomeLeader();
  void FailReads();

  // follower.cc: following.
  void Handle(const Envelope& envelope, AppendEntries& append);
  void Handle(const Envelope& envelope, Heartbeat& heartbeat);
  void Handle(const Envelope& envelope, ReadResponse& response);
  void Handle(const Envelope& envelope, ProposalsRefused& refused);
  void Follow(NodeId leader);
  void AppendFromLeader(std::vector<Entry>& entries, Index prev);
  void TruncateFrom(Index index);
  void Acknowledge(NodeId leader, Index index);

  // leader.cc: leading.
  void Handle(const Envelope& envelope, AppendResponse& response);
  void Handle(const Envelope& envelope, HeartbeatResponse& response);
  void Handle(const Envelope& envelope, ReadRequest& request);
  void Handle(const Envelope& envelope, ForwardedProposals& forwarded);
  Progress* HeardFrom(NodeId peer);
  void HandleAccepted(Leader& leader, NodeId peer, Progress& progress, Index index);
  ProposeStatus MayPropose(const Leader& leader, std::span<const Bytes> payloads) const;
  ProposeStatus MayChangeConf(const Leader& leader, const ConfChange& change) const;
  void AppendOwn(Leader& leader, EntryType type, Bytes payload);
  void CommitWhatQuorumHas(Leader& leader);
  void LeaveJointIfDue(Leader& leader);
  void HandOver(Leader& leader);

  // ready.cc: the way out.
  bool LeaderHasNews() const;
  void Replicate(Leader& leader, Ready* ready);
  void SendEntries(NodeId peer, Progress& progress, Ready* ready);
  void AskAgain(NodeId peer, Progress& progress, Ready* ready);
  void SendAppend(NodeId peer, Progress& progress, Term prev_term, RaftLog::Portion portion);
  void SendHeartbeat(const Leader& leader, NodeId peer, Progress& progress);
  void ConfirmReads(Leader& leader);
  void Abdicate(Leader& leader);
  void AskForReads(Follower& follower);
  void TakeAppend(Ready* ready);
  void TakeCommitted(Ready* ready);
  Index Deliverable() const;

  const Config config_;
  Prng prng_;
  Counters counters_;

  Term term_;
  NodeId vote_;
  RaftLog log_;
  const RaftLog::Position lost_;
  ConfHistory confs_;
  PendingWrites writes_;
  std::variant<Follower, Candidate, Leader> role_;

  uint32_t election_elapsed_ =
      0;  // ticks since a leader was heard of; on a leader, since its last check
  uint32_t election_timeout_ = 0;  // ticks, drawn anew for every election
  NodeId last_leader_;             // for the counter of changes
  // Both start at random, see Config::seed.
  ReadRound newest_read_round_;
  ProposalId first_forward_;
  ProposalId newest_forward_;

  // What has gathered for the next Ready.
  std::vector<Envelope> messages_;
  std::vector<Envelope> messages_when_durable_;
  std::vector<ReadState> reads_;
  std::vector<ReadId> failed_reads_;
  std::vector<DroppedProposals> dropped_proposals_;
  std::optional<RaftLog::Position> reset_;
  // What the last one said.
  HardState given_hard_state_;
  SoftState given_soft_state_;
};

}  // namespace conclave::raft
