// The inputs and effects of a Node: everything that a server's core hears from the world, and
// everything it asks of it. Plain data, no behaviour.
//
// Contract between the node and its actors:
// - Each UnaryCall is answered by exactly one Reply, also after its CallCancelled (which only says
// that
//   nobody waits any more). Its id is free again after the Reply.
// - Each StreamOpened is ended by exactly one StreamEffect with `finish` set: of the node's own
//   accord, or in answer to StreamClosed. Nothing follows it, and the id is free again.
// - Each LogAppend is answered by one LogSynced, in order. A log that cannot be written ends the
//   process.
// - Each SnapshotPiece with data is answered by one SnapshotWritten, the last one of a
//   snapshot by a SnapshotSaved as well.
// - Effects of one turn may be carried out in any order between kinds, and in order within a kind:
//   what must be durable first is held back by the node itself until the LogSynced.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "conclave/api/wire/method.h"
#include "conclave/base/bytes.h"
#include "conclave/base/strong.h"
#include "conclave/base/time.h"
#include "conclave/server/auth/password.h"
#include "conclave/server/raft/types.h"

namespace conclave::node {

// One call or stream of a client. The transport chooses it (a slot and a generation, say); unique
// while the call lives.
using CallId = Strong<struct CallIdTag>;

using wire::kRequestHeadroom;
using wire::Method;

enum class StreamKind : uint8_t {
  kWatch = 1,           // etcdserverpb.Watch.Watch
  kLeaseKeepAlive = 2,  // etcdserverpb.Lease.LeaseKeepAlive
  // One request, many answers: StreamOpened, one StreamMessage, StreamHalfClosed.
  kRangeStream = 3,  // etcdserverpb.KV.RangeStream
  kSnapshot = 4,     // etcdserverpb.Maintenance.Snapshot
};

// Who a client says it is. What is in here is a secret: never in a log line or an error.
struct Credentials {
  std::string token;             // metadata "token" or "authorization", as it came
  std::string certificate_name;  // common name of the client's verified certificate
  // The wall clock when it was shown, in seconds since 1970: signed tokens expire by it.
  int64_t unix_seconds = 0;
  // A part of this server, which may do everything; a transport knows it by a socket of its own.
  bool server_itself = false;
};
using CredentialsRef = std::shared_ptr<const Credentials>;  // null: it says nothing

// ---- Inputs -------------------------------------------------------------------------------------

struct UnaryCall {
  CallId id;
  Method method = Method::kRange;
  Bytes request;  // kRequestHeadroom spare bytes, then the encoded request; not shared with anybody
  bool require_leader = false;  // metadata "hasleader: true"
  CredentialsRef credentials{};
};
struct CallCancelled {
  CallId id;
};
struct StreamOpened {
  CallId id;
  StreamKind kind = StreamKind::kWatch;
  bool require_leader = false;  // metadata "hasleader: true"
  CredentialsRef credentials{};
};
struct StreamMessage {
  CallId id;
  Bytes message;  // one encoded request, without headroom
};
// The client will send nothing more.
struct StreamHalfClosed {
  CallId id;
};
// The stream is gone: cancelled, or its connection lost.
struct StreamClosed {
  CallId id;
};
// The transport has handed earlier StreamEffects on to the network, whose `charge`s sum up to
// `bytes`: credit for slow readers.
struct StreamSent {
  CallId id;
  uint64_t bytes = 0;
};

// Frames between members travel on two lanes, so that a snapshot does not hold up heartbeats.
enum class PeerLane : uint8_t { kMessages, kSnapshot };

// A frame from another member, as its PeerSend put it.
struct PeerFrame {
  raft::NodeId from;
  PeerLane lane = PeerLane::kMessages;
  Bytes frame;
};
struct PeerConnection {
  raft::NodeId peer;
  PeerLane lane = PeerLane::kMessages;
  bool connected = false;
};

struct PeerAddress {
  raft::NodeId id;
  std::vector<std::string> peer_urls;
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};
// For a member that has no state yet: where the others are now, instead of what it knew.
struct Acquaintances {
  std::vector<PeerAddress> others;
};
// Another member has refused our lane for good: this one was removed from the cluster.
struct RemovedByPeer {
  raft::NodeId peer;
};

struct LogSynced {
  uint64_t batch = 0;
  Duration write_time{};  // write and fdatasync, for the metrics
};
// A SnapshotPiece with so many bytes of data has been written, or dropped: it is in memory no
// longer.
struct SnapshotWritten {
  uint64_t bytes = 0;
};
struct SnapshotSaved {
  raft::SnapshotMeta meta;
  uint64_t bytes = 0;
  // It could not be saved, for the disk is full, say: what was written of it is gone.
  bool failed = false;
};
// Somebody (the HTTP side, a test) wants the node's figures: answered by a StatsReply.
struct StatsRequest {
  uint64_t id = 0;
};
// SIGTERM: hand over the leadership, then Effects::stopped.
struct StopRequest {};
// What has changed about the room on the disk. Full: the next segment of the log cannot be set
// aside, so that only what is preallocated is left; no client may add anything until it changes.
// Tight: not full, but a further snapshot and a segment may be too much: a snapshot now may still
// find room, and lets the log before it go.
struct DiskSpace {
  bool full = false;
  bool tight = false;
};

// An answer to Effects::check_files.
struct FilesChecked {
  bool done = false;   // that was the last of them
  std::string damage;  // that was found; empty: none
};

using Input =
    std::variant<UnaryCall, CallCancelled, StreamOpened, StreamMessage, StreamHalfClosed,
                 StreamClosed, StreamSent, PeerFrame, PeerConnection, Acquaintances, RemovedByPeer,
                 LogSynced, SnapshotWritten, std::unique_ptr<SnapshotSaved>, StatsRequest,
                 StopRequest, DiskSpace, FilesChecked, std::unique_ptr<auth::PasswordOutcome>>;

// ---- Effects ------------------------------------------------------------------------------------

// A gRPC status that is not OK: the code's number and etcd's text.
struct CallError {
  int code = 0;
  std::string message;
};

struct Reply {
  CallId id;
  std::unique_ptr<CallError> error;  // null: OK
  Bytes body;                        // the encoded response
};

struct StreamEffect {
  CallId id;
  // One encoded response: prefix, then shared. Many watchers' messages share one `shared`.
  Bytes prefix;
  Bytes shared;
  // To be reported by StreamSent when the message has left; 0: nothing to report.
  uint32_t charge = 0;
  bool finish = false;               // ends the stream; then there is no message
  std::unique_ptr<CallError> error;  // with finish: null is OK
};

struct PeerSend {
  raft::NodeId to;
  PeerLane lane = PeerLane::kMessages;
  Bytes frame;
};

// Entries and hard state for the log. An entry whose index is not above the last one replaces the
// tail.
struct LogAppend {
  uint64_t batch = 0;
  // The log starts anew behind this snapshot, which is durable already; whatever stands in the log
  // is void. Comes before hard_state and entries.
  std::optional<raft::SnapshotMeta> reset;
  std::optional<raft::HardState> hard_state;
  std::vector<raft::Entry> entries;
};

// A piece of a state snapshot for the background writer, in order; `last` closes the file.
struct SnapshotPiece {
  raft::SnapshotMeta meta;  // the same in all pieces of one snapshot
  Bytes data;
  bool first = false;
  bool last = false;
  bool abandon = false;  // drop the unfinished file
};

// Records of the log up to `index` are no longer needed: a snapshot at or above it is durable.
struct LogTruncate {
  raft::Index index;
};

// What the peer port tells those who ask, and whom it turns away.
struct PeerDirectory {
  std::string members;                // node/directory.h
  std::vector<raft::NodeId> removed;  // sorted
  friend bool operator==(const PeerDirectory&, const PeerDirectory&) = default;
};

enum class Severity : uint8_t { kDebug, kInfo, kWarning, kError };
struct LogLine {
  Severity severity = Severity::kInfo;
  std::string message;
  std::vector<std::pair<std::string, std::string>> fields;
  std::vector<std::pair<std::string, int64_t>> numbers{};  // further fields, written as numbers
  std::optional<Duration> took{};  // what the line tells of has just ended, and began so long ago
};

struct Stats;  // node/stats.h
struct StatsReply {
  uint64_t id = 0;
  std::shared_ptr<const Stats> stats;
};

struct Effects {
  std::vector<Reply> replies;
  std::vector<StreamEffect> streams;
  std::vector<PeerSend> peer_sends;
  std::optional<LogAppend> append;
  std::vector<SnapshotPiece> snapshot_pieces;
  std::optional<LogTruncate> truncate;
  std::optional<std::vector<PeerAddress>> peers;  // the other members, whenever they change
  // Members that have sent what no member sends: their connections to this one are to be closed.
  std::vector<raft::NodeId> distrusted;
  // Each to be run (auth::RunPasswordJob) away from the core's thread, one after the other, and
  // answered by its PasswordOutcome.
  std::vector<auth::PasswordJob> password_jobs;
  std::optional<PeerDirectory> directory;  // whenever it changes
  std::vector<LogLine> log_lines;
  std::vector<StatsReply> stats_replies;
  bool ready = false;  // turned true: a leader is known and this member's attributes are published
  bool stopped = false;  // answer to StopRequest, or the member was removed: the process may end
  // This member's state is not that of the majority: what it has on the disk is to be set aside,
  // and the process to be started again, so that it gets the others' state.
  bool diverged = false;

  // What this member has in memory is not what it had written there: the process is to be started
  // again, from what is on its disk.
  bool reload = false;
  // A further slice of this member's files is to be read again, and judged by FilesChecked.
  bool check_files = false;
  bool defragmented = false;  // a client has asked for it, and it is done

  void Clear();
};

}  // namespace conclave::node
