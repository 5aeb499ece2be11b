// WatchHub: who must hear what.
//
// Clients open streams; a stream has watchers; a watcher has a range and the revision it must hear
// next. A watcher is in one of three states:
//
//   synced    has heard everything up to the hub's revision; it gets events when Notify passes a
//   new revision lagging   a cursor into the store's revision log; CatchUp moves it in bounded
//   slices until it is synced (cancelled: gone, after one response that says so)
//
// A stream that reads too slowly (more than stream_bytes_max handed out and not reported as
// written) gets no more events: its watchers become lagging as soon as they miss one, cost nothing
// while they wait, and catch up when the transport has written. So memory is bounded by
// configuration and nothing is lost; if compaction passes a lagging watcher, it is cancelled with
// the compact revision.
//
// Synced watchers of the same shape (range, filters, prev_kv) form a group: the events of a
// revision are put together once per group and shared by all its responses (event_batch.h).
//
// Guarantees per watcher: `created` first; events in order, each once, none missing since the start
// revision; all events of a revision in one response (unless fragmented); a progress response with
// revision r comes behind all events <= r; a cancelled watcher is told so and why.
//
// Thread: one owner (the node's core thread). Time is passed in. Deterministic. Responses leave by
// TakeOutput.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/base/time.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/watch/event_batch.h"

namespace conclave::watch {

using StreamId = uint64_t;
using WatchId = int64_t;

// In responses that belong to no watcher: refused creations, stream-wide progress.
inline constexpr WatchId kNoWatch = -1;

inline constexpr std::string_view kDuplicateWatchIdText =
    "mvcc: duplicate watch ID provided on the WatchStream";
inline constexpr std::string_view kEmptyRangeText = "mvcc: watcher range is empty";
inline constexpr std::string_view kTooManyWatchersText =
    "etcdserver: too many watchers on the stream";

struct WatchOptions {
  // A stream with this much handed out and not written gets no more events until it is below half
  // of it.
  size_t stream_bytes_max = 8 << 20;
  // What a response costs beside its events.
  size_t response_overhead_bytes = 64;
  // Most that one response holds, if fragments are wanted: max-request-bytes + 512 KiB.
  size_t fragment_bytes = (1536 << 10) + (512 << 10);
  // One catch-up response: this many revisions, and no further revision once it has so many bytes.
  int64_t batch_revisions_max = 1000;
  size_t batch_bytes_max = 1 << 20;
  // ... and none after looking at so many records, so that watchers take turns.
  size_t batch_records_max = 4096;
  size_t watchers_per_stream_max = 1 << 20;
  // progress_notify; each stream adds up to a tenth of it, from `seed`.
  Duration progress_interval = std::chrono::minutes(10);
  uint64_t seed = 1;
};

struct CreateRequest {
  std::string key;             // empty: from "\0"
  std::string range_end;       // as in requests (mvcc/key_range.h)
  int64_t start_revision = 0;  // 0: from the next revision on
  WatchId watch_id = 0;        // 0: the hub chooses
  bool no_put = false;
  bool no_delete = false;
  bool prev_kv = false;
  bool progress_notify = false;
  bool fragment = false;
};

// One WatchResponse message. header.revision 0 is left out on the wire.
struct WatchResponse {
  WatchId watch_id = 0;
  int64_t header_revision = 0;
  bool created = false;
  bool canceled = false;
  bool fragment = false;  // more of the same revision follows
  int64_t compact_revision = 0;
  // What the transport must report by Written() once the message has left (or its stream is gone).
  size_t charge = 0;
  std::string cancel_reason;
  EventBatchRef events;  // null if there are none
};

// Responses of one stream, in order.
struct StreamOutput {
  StreamId stream = 0;
  std::vector<WatchResponse> responses;
};

struct WatchSizes {
  size_t streams = 0;
  size_t watchers = 0;
  size_t lagging = 0;          // of them
  size_t waiting_streams = 0;  // over their limit
};

class WatchHub {
 public:
  // The store must outlive the hub, or be replaced by Restore.
  WatchHub(mvcc::Store* store, const WatchOptions& options = {});
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // --- Streams. Ids are the caller's, each used once. All but Open ignore unknown ids. ---

  void OpenStream(StreamId stream);
  // Forgets the stream and its watchers; nothing more comes out for it.
  void CloseStream(StreamId stream);
  // `bytes` of charges have left for the network.
  void Written(StreamId stream, size_t bytes);

  // --- Requests; every answer comes by TakeOutput, in the stream's order ---

  void Create(StreamId stream, const CreateRequest& request, Instant now);
  // Refuses a creation for a reason of the caller's (permissions): created + canceled, id -1.
  void Refuse(StreamId stream, std::string reason);
  // Unknown ids are ignored. The second form is for the server's own cancellations.
  void Cancel(StreamId stream, WatchId watch_id);
  void Cancel(StreamId stream, WatchId watch_id, std::string reason);
  // One response with id -1 as soon as all watchers of the stream are synced; requests until then
  // are one.
  void RequestProgress(StreamId stream);

  // --- Driven by the node ---

  // Delivers all revisions of the store that it has not passed yet. No transaction may be open.
  // Call it once after a turn's commands are applied; watchers may also be created before it: they
  // start behind the revision of the store, not of the hub.
  void Notify();

  // Moves lagging watchers on, looking at about `budget` records. True while there is more that can
  // be done now.
  bool CatchUp(size_t budget);

  // Sends progress to watchers that asked for it and heard nothing during the last interval.
  void Tick(Instant now);
  Instant NextTick() const;  // kNever if nobody asked

  // The store was replaced (a snapshot was installed): all watchers go on from the revision each
  // must hear next.
  void Restore(mvcc::Store* store);

  // Replaces *out by everything that is to be sent, streams in the order of their first response.
  void TakeOutput(std::vector<StreamOutput>* out);
  bool has_output() const;

  // False while the stream is over its limit: a transport does well not to read its requests then.
  bool Writable(StreamId stream) const;

  // Visits the watchers of a stream by id, beginning with the first that is not below `from`, while
  // `visit` says so: to check permissions again. The views are of the created range. True if it has
  // come to the end.
  bool ForEachWatcher(
      StreamId stream, WatchId from,
      absl::FunctionRef<bool(WatchId, std::string_view key, std::string_view range_end)> visit)
      const;

  WatchSizes sizes() const;
  // Checks every invariant. For tests.
  void CheckInvariants() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::watch
