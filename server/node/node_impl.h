// The inside of Node. One turn, in order:
//
//   inputs      every input changes state, and only state: messages step Raft, calls join a queue
//   or are answered
//               from the state as it is
//   time        ticks of Raft, timeouts, leases
//   propose     everything that is to go into the log, as one batch; one read round for the reads
//   ready       Raft's output: the log append, messages, committed entries (applied here), read
//   states serve       reads whose round is confirmed and whose index is applied background  slices
//   of what takes longer than a turn should: long ranges, compaction, snapshots watch       what
//   the turn has changed, to those who must hear it flush       one frame per peer and lane
//
// The pieces that keep the waiting (ProposalTable, ReadQueue, LeaseDesk, WatchSessions,
// AppendQueue, SnapshotSender and SnapshotReceiver) know nothing of each other; this class joins
// them.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/mvcc/digest_check.h"
#include "conclave/server/node/append_queue.h"
#include "conclave/server/node/auth_desk.h"
#include "conclave/server/node/digest_log.h"
#include "conclave/server/node/disk_watch.h"
#include "conclave/server/node/download_desk.h"
#include "conclave/server/node/lease_desk.h"
#include "conclave/server/node/member_desk.h"
#include "conclave/server/node/node.h"
#include "conclave/server/node/peer_links.h"
#include "conclave/server/node/proposal_table.h"
#include "conclave/server/node/read_queue.h"
#include "conclave/server/node/snapshot_transfer.h"
#include "conclave/server/node/stats.h"
#include "conclave/server/node/watch_sessions.h"
#include "conclave/server/raft/raw_node.h"

namespace conclave::node {

class Node::Impl {
 public:
  Impl(Options options, Recovered recovered, Instant now);

  void Turn(Instant now, std::span<Input> inputs, Effects* effects);
  Instant NextDeadline() const;
  RaftStatus raft_status() const;
  const apply::StateMachine& state() const { return *state_; }
  const raft::ConfState& conf() const { return raft_.ConfStateAt(applied()); }

 private:
  // Digests that were compared, as a report tells them.
  struct Comparisons {
    Instant next_report;
    int64_t digests = 0;  // since the last one
  };
  // What a read in the ReadQueue is for, beside clients' calls (0).
  static constexpr uint8_t kClientRead = 0;
  static constexpr uint8_t kVerifyLeadership = 1;
  static constexpr uint8_t kRemoteTimeToLive = 2;
  static constexpr uint8_t kDownload = 3;    // a stream's request
  static constexpr uint8_t kAwaitToken = 4;  // the call is AuthDesk's
  // What an internal proposal is for.
  static constexpr uint8_t kPublish = 1;
  static constexpr uint8_t kRenewals = 2;
  // Of a client's: it waits for the end of the compaction too.
  static constexpr uint8_t kPhysical = 3;

  // A read that takes more than one turn.
  struct LongRead {
    ReadQueue::Read read;
    std::unique_ptr<apply::ReadTask> task;
  };
  struct RemoteAsker {
    raft::NodeId peer;
    uint64_t id = 0;
    AskerRef who;
  };
  // What a stream's client has shown, and what it has sent while its token was not known here.
  struct ShownStream {
    CredentialsRef shown;
    Instant since;
    bool awaits_token = false;
    bool half_closed = false;
    std::vector<StreamMessage> waiting;
  };
  // A compaction that has been applied, and whose client waits for its end.
  struct AwaitedCompaction {
    Waiter waiter;
    Bytes response;
  };
  struct LeaderMove {
    CallId call;
    raft::NodeId target;
    Instant arrived;
  };

  // ---- node.cc: the turn, Raft
  void Take(UnaryCall& call);
  void Take(CallCancelled&) {}  // it is answered when its time comes; nobody listens
  void Take(StreamOpened& opened);
  void Take(StreamMessage& message);
  void Take(StreamHalfClosed& closed);
  void Take(StreamClosed& closed);
  void Take(StreamSent& sent);
  void Take(PeerFrame& frame);
  void Take(PeerConnection& connection);
  void Take(Acquaintances& met);
  void Take(RemovedByPeer& removed);
  void Take(LogSynced& synced);
  void Take(SnapshotWritten& written);
  void Take(std::unique_ptr<SnapshotSaved>& saved);
  void Take(StatsRequest& request);
  void Take(StopRequest& request);
  void Take(std::unique_ptr<auth::PasswordOutcome>& outcome);
  // Null, or why no correct member can have sent it.
  const char* Take(raft::NodeId from, PeerItem& item);
  void Distrust(raft::NodeId from, std::string_view reason);

  void Tick();
  void Expire();
  void Propose();
  void AskReads();
  void HandleReady();
  void Send(std::vector<raft::Envelope>& messages);
  void DurableToRaft();
  void Apply(const std::vector<raft::Entry>& entries);
  void CountLeases(const apply::CommandHeader& header, size_t before);
  void UpdateLeadership();
  void Background();
  void Compact();
  void Answer(const Waiter& waiter, apply::ApplyResult result);
  void AnswerCompactions(const wire::Error* error);
  void Flush();

  // ---- node_calls.cc: clients' calls
  void TakeChecked(UnaryCall& call, apply::Route route, AskerRef who);
  void Propose(UnaryCall& call, const AskerRef& who);
  void ReadLinearizable(UnaryCall& call, AskerRef who);
  void TakeMessage(StreamMessage& message, const AskerRef& who, const wire::Error* refused);
  void AnswerFromNode(UnaryCall& call);
  void MoveLeader(UnaryCall& call);
  void CheckMoves();
  Bytes EncodeStatus() const;
  void Serve(ReadQueue::Read& read, Instant asked);
  void Execute(ReadQueue::Read& read);
  void RunLongReads();
  void RestartLongReads();
  void Reply(CallId call, Method method, Instant arrived, size_t bytes, const wire::Error* error,
             Bytes body);
  void ReplyError(CallId call, int code, std::string_view message);
  void AnswerRemote(CallId which, const wire::Error* error, Bytes body);
  const wire::Error& TimeoutError(Instant arrived) const;
  void FinishStream(CallId stream, const wire::Error* error);
  void LogCompaction(Duration took);
  void LogSlow(Method method, Instant arrived, size_t bytes, size_t answer_bytes);

  // ---- node_downloads.cc: calls that are answered by a stream
  void TakeDownloadRequest(StreamMessage& message, const AskerRef& who, const wire::Error* refused);
  void StartRangeStream(CallId stream, const Bytes& request, const AskerRef& who);
  void RefuseDownload(CallId stream, const wire::Error& error);
  // ---- node_auth.cc: who clients are, and passwords
  bool Identify(UnaryCall& call, apply::Route route, bool final, AskerRef* who);
  bool Identify(StreamMessage& message, AskerRef* who, const wire::Error** refused);
  void TakeParked();
  void TakeParkedStreams();
  bool Denies(const ReadQueue::Read& read);
  void StartPassword(ReadQueue::Read& read);
  void ProposeLogin(AuthDesk::PasswordCall call);
  void ProposeHash(AuthDesk::PasswordCall call, std::string hash);
  Bytes OnBehalf(Bytes payload, Method method, uint64_t sequence, const AskerRef& who) const;
  // True if the outcome of a waiting client's entry is not to be told yet.
  bool BeginsAgain(const Waiter& waiter, uint64_t sequence, const Bytes& payload,
                   apply::ApplyResult* result);
  const wire::Error* MayStillWatch(const AskerRef& who, std::string_view key,
                                   std::string_view range_end) const;
  bool CheckWatchersAgain();
  void StopAuth();

  // ---- node_members.cc: the membership, changed and followed
  void ChangeMembers(UnaryCall& call);
  const char* TakeMemberChange(raft::NodeId from, const ForwardedRequest& request);
  void MemberChangeRefused(const ForwardedAnswer& answer);
  void ProposeMembers();
  bool GiveVotes();
  const wire::Error* WhyNot(const apply::MemberChange& change) const;
  size_t ConnectedVoters() const;
  void Refuse(const MemberDesk::Queued& queued, const wire::Error& error);
  raft::ConfChange RaftChange(const MemberDesk::Queued& queued) const;
  void ApplyConfChange(const apply::ApplyContext& context, const raft::Entry& entry);
  void FollowMembers();
  std::vector<PeerAddress> GatherPeers() const;
  void Introduce(raft::NodeId peer);
  void Meet(const PeerFrame& frame);
  void LeaveCluster(std::string_view who_says);
  const wire::Error* Restriction(const UnaryCall& call) const;

  // ---- node_upkeep.cc: leases, snapshots, the end
  LeaseTurn ThisLeaseTurn();
  void Leases();
  void CheckpointLeases(Duration early, std::vector<Bytes>* commands);
  raft::TransferStatus TransferLeader(raft::NodeId heir);
  void ProposeExpiry();
  void TakeEndedLeaseCalls();
  void InternalApplied(const Waiter& waiter, uint64_t sequence);
  void PublishSelf();
  void PublishClusterVersion();
  void EndDowngrade();
  void CheckPublished();
  void CheckReady();
  void StartTransfer(raft::NodeId peer);
  void EndTransfers();
  raft::Index NeededForCatchUp(raft::Index drop);
  SnapshotReceiver::Use UseOf(const SnapshotChunk& chunk) const;
  void ReceiveChunk(raft::NodeId from, SnapshotChunk& chunk);
  void Install(SnapshotReceiver::Ready ready);
  void TakeSnapshot();
  void DropOldLog();
  void Beacons();
  void ReportComparisons(Duration interval, std::string_view line, Comparisons* made);
  // ---- node_faults.cc: states that differ, disks that are full or slow
  void Take(DiskSpace& space);
  void Take(FilesChecked& checked);
  void CompareDigest(raft::NodeId peer, const Beacon& beacon);
  void Judge(const DigestLog::Outcome& outcome);
  Beacon BeaconFor(raft::NodeId peer) const;
  uint64_t VotersAgreeing(raft::Index at) const;
  uint64_t Majority() const;
  void Quarantine(const Beacon& beacon);
  void CheckMemory();
  void TurnQuarantined(std::span<Input> inputs);
  void SaveEvidence();
  void BeginEvidence();
  void EvidenceSaved(const SnapshotSaved& saved);
  bool SnapshotForSpace() const;
  void KeepAlarms();
  void KeepCorruptAlarms();
  bool NoMajorityAgrees() const;
  void SetRefill(raft::NodeId member, bool begins);
  void CallAboutAlarms(Bytes request);
  void HearOfAlarms();
  void SetAlarm(raft::NodeId member, wire::AlarmType type, bool raise);
  const wire::Error* NoSpaceFor(const UnaryCall& call) const;
  void LeaveLeadToBetterDisks();
  raft::NodeId HeirWithGoodDisk() const;
  void BeginStop();
  void CheckStop();
  void Log(Severity severity, std::string message,
           std::vector<std::pair<std::string, std::string>> fields = {},
           std::vector<std::pair<std::string, int64_t>> numbers = {});
  void LogClusterVersion();
  std::shared_ptr<Stats> CollectStats() const;

  raft::Index applied() const { return raft::Index(state_->applied_index()); }
  // Nobody else is, or will be when what is in the log is applied.
  bool sole_member() const {
    const raft::ConfState& conf = raft_.conf();
    return state_->membership().members().size() == 1 && conf.voters.size() == 1 &&
           conf.voters.front() == options_.id && conf.voters_outgoing.empty() &&
           conf.learners.empty();
  }
  raft::SnapshotMeta MetaOfState() const;

  const Options options_;
  const apply::StateMachineOptions apply_options_;
  const Duration tick_;
  const Duration patience_;  // of a call: etcd's 5 s + 2 * election timeout
  Prng prng_;

  std::unique_ptr<apply::StateMachine> state_;
  raft::RawNode raft_;
  PeerLinks links_;
  AppendQueue appends_;
  ProposalTable proposals_;
  ReadQueue reads_;
  LeaseDesk leases_;
  MemberDesk member_desk_;
  WatchSessions watches_;
  DownloadDesk downloads_;
  AuthDesk auth_;
  SnapshotSender sender_;
  UnwrittenPieces unwritten_;
  SnapshotReceiver receiver_;
  // Who has got a snapshot and is still behind, with its index.
  absl::btree_map<raft::NodeId, raft::Index> catching_up_;
  DigestLog digests_;

  // This turn.
  Instant now_;
  Effects* effects_ = nullptr;
  bool again_ = false;  // there is work that cannot wait for an input
  std::vector<PeerItem> items_;
  std::vector<Bytes> payloads_;
  std::vector<uint64_t> sequences_;
  std::vector<Bytes> unawaited_;  // commands of the leader's that nobody waits for
  std::vector<raft::Envelope> messages_;

  // Time.
  Instant last_tick_;
  Instant next_expiry_;
  Instant next_beacon_;
  Instant next_refusal_line_;

  // Leadership, as this member sees it.
  raft::NodeId leader_;
  Instant leader_since_;
  Instant leader_lost_;  // when a leader was last known to be gone
  raft::Term promoted_;  // the term in which this member became the leases' primary
  Instant led_since_;    // when this member began to lead
  Instant confirmed_;    // a quorum has followed this leader at that time
  bool verifying_ = false;

  std::optional<Instant> compacting_since_;
  std::vector<AwaitedCompaction> awaited_compactions_;
  Instant next_compaction_;
  std::string logged_version_;
  Comparisons compaction_checks_;
  Comparisons corruption_checks_;

  // What is known of the others' states: the newest index at which one was found equal to ours, and
  // the first at which it was found different since (0: none).
  struct PeerState {
    raft::Index agreed;
    raft::Index disputed;
    Instant disputed_since;
    bool alarm_raised_here = false;  // CORRUPT, by this member as the leader
    // Of its last word.
    bool slow_disk = false;
    Instant heard = Instant::min();
  };
  absl::btree_map<raft::NodeId, PeerState> peer_states_;
  raft::Index state_since_;  // the snapshot that the state was made of
  std::unique_ptr<mvcc::DigestCheck> memory_check_;
  Instant next_file_check_;    // kNever also while a slice is being read
  int fresh_snapshots_ = 0;    // to be taken for what they replace
  Instant next_memory_check_;  // the next one, or its next slice
  bool memory_is_bad_ = false;
  bool reload_told_ = false;
  bool quarantined_ = false;
  bool evidence_saved_ = false;
  bool evidence_retried_ = false;
  Instant evidence_until_;
  DiskSpace disk_;
  bool disk_told_ = false;
  bool disk_alarm_ = false;  // NOSPACE may stand in the state because of this member's disk
  absl::btree_set<uint64_t> alarm_calls_;  // this member's own, those without an answer yet
  uint64_t alarm_question_ = 0;            // the newest one that asks which alarms stand
  bool alarms_known_ = false;  // it was answered, and nothing was raised or lowered since
  Instant next_alarm_;
  Instant next_space_snapshot_;
  DiskWatch disk_watch_;
  Instant next_hand_over_;
  uint64_t last_own_call_ = 0;
  CredentialsRef itself_;

  // Clients.
  absl::btree_map<uint64_t, RemoteAsker> remote_reads_;
  uint64_t last_remote_read_ = 0;
  raft::ReadId last_read_id_;
  std::vector<LongRead> long_reads_;
  std::vector<LeaderMove> moves_;
  absl::btree_map<CallId, ShownStream> shown_streams_;  // of those who have shown anything
  std::vector<UnaryCall> unparked_;
  bool streams_unparked_ = false;
  uint64_t watchers_checked_at_ = 0;  // the auth revision
  bool watchers_checked_enabled_ = false;

  // Snapshots of our own.
  std::unique_ptr<apply::SnapshotTask> snapshot_;
  raft::SnapshotMeta snapshot_meta_;
  bool snapshot_begun_ = false;
  bool snapshot_unsaved_ = false;  // its end is on the way to the disk, which has not answered yet
  Instant snapshot_next_;
  raft::Index saved_index_;     // the newest on disk
  raft::Index previous_index_;  // the one before it, which stays
  uint64_t saved_bytes_ = 0;
  uint64_t log_bytes_at_snapshot_ = 0;
  uint64_t log_bytes_at_saved_ = 0;  // the same of the newest that came to its end
  raft::Index recovered_last_;       // the last entry of the log that this life began with

  // Being a member, and knowing the others.
  struct Departing {
    PeerAddress address;
    Instant until;
  };
  std::vector<PeerAddress> acquaintances_;              // until the state is there
  absl::btree_map<raft::NodeId, Departing> departing_;  // removed; may still hear of it
  absl::btree_map<raft::NodeId, Departing> strangers_;  // have said who they are, see Meet
  bool follow_members_ = true;                          // something about them has changed
  std::pair<raft::Index, raft::Term> seen_conf_;        // the entry that was looked at last
  std::vector<PeerAddress> peers_;                      // as last announced
  PeerDirectory directory_;                             // likewise
  Instant next_votes_;
  std::string version_published_for_;  // the downgrade's target when PublishClusterVersion ran
  bool restricted_ = false;            // a learner, or without a state: most calls are refused
  bool removed_ = false;               // from the cluster
  bool awaits_repair_ = false;         // the log is short of what it once was
  bool published_ = false;
  bool ready_ = false;
  std::optional<Instant> stopping_;
  bool stopped_ = false;

  Stats stats_;  // the counters; the rest is filled in by CollectStats
};

}  // namespace conclave::node
