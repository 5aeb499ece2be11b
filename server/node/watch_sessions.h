// WatchSessions: the Watch streams of this member's clients. Decodes their requests for the
// WatchHub, and its responses for the wire.
//
// A response is two pieces: its own head, and the block of its events, which is encoded once and
// shared by all watchers that hear the same. The hub gives streams that read slowly no more than
// they have room for; the transport says by StreamSent what has left.
//
// A stream that required a leader is cancelled when there was none for three election timeouts.
//
// When users change, watchers are judged again in slices, in the order of streams and watches; one
// that has events before its turn comes is judged then.
//
// Thread: the node's. Limits: the hub's, and Options::streams_max, which the node keeps.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/responses.h"
#include "conclave/base/time.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/who.h"
#include "conclave/server/watch/watch_hub.h"

namespace conclave::node {

class WatchSessions {
 public:
  WatchSessions(mvcc::Store* store, const watch::WatchOptions& options);

  void Open(CallId call, bool require_leader);
  // Null: whoever opened the stream may watch this range.
  using Gate =
      absl::FunctionRef<const wire::Error*(std::string_view key, std::string_view range_end)>;
  // One encoded WatchRequest of `who`; the answers come by Flush. False if it is malformed.
  [[nodiscard]] bool Message(CallId call, std::string_view message, Instant now, AskerRef who,
                             Gate gate);
  // Users have changed: all watchers are to be judged again, by CheckAgain; or none, if everybody
  // may do everything now.
  void BeginCheck(bool judge);
  using GateAgain = absl::FunctionRef<const wire::Error*(const AskerRef& who, std::string_view key,
                                                         std::string_view range_end)>;
  // Judges no more than `limit` watchers, and cancels those of clients that may no longer watch
  // what they watch. True if there are more to judge.
  bool CheckAgain(size_t limit, GateAgain gate);
  void Sent(CallId call, uint64_t bytes);
  // Forgets the stream without a word. False if there is no such stream.
  bool Close(CallId call);
  bool Contains(CallId call) const { return ids_.contains(call); }

  // Ends streams with an error: all, or those that required a leader.
  void EndAll(const wire::Error& error, Effects* effects);
  void EndLeaderRequiring(const wire::Error& error, Effects* effects);

  // The store has moved on; was replaced by another.
  void Notify() { hub_.Notify(); }
  void Restore(mvcc::Store* store) { hub_.Restore(store); }

  // Moves slow watchers on, sends progress. True if there is more to catch up with now.
  bool Work(Instant now, size_t budget);
  Instant NextDeadline() const { return hub_.NextTick(); }

  // `header` has cluster, member and term; its revision is each response's own. No events leave
  // for a watcher that BeginCheck has put in question before `gate` has let it go on.
  void Flush(const wire::ResponseHeader& header, GateAgain gate, Effects* effects);

  size_t size() const { return streams_.size(); }
  watch::WatchSizes sizes() const { return hub_.sizes(); }
  uint64_t events_sent() const { return events_sent_; }
  void CheckInvariants() const { hub_.CheckInvariants(); }

 private:
  struct Stream {
    CallId call;
    bool require_leader = false;
    AskerRef who;  // as of the last creation
  };

  // One watcher, named by its stream and id.
  using Place = std::pair<watch::StreamId, watch::WatchId>;
  // Takes away the events of watchers that are to hear nothing any more, and cancels these.
  void JudgeOutput(watch::StreamOutput* output, const Stream& stream, GateAgain gate);
  void Encode(CallId call, wire::ResponseHeader header,
              const std::vector<watch::WatchResponse>& responses, Effects* effects);

  watch::WatchHub hub_;
  absl::flat_hash_map<CallId, watch::StreamId> ids_;  // looked up, never walked
  absl::btree_map<watch::StreamId, Stream> streams_;
  watch::StreamId last_id_ = 0;
  std::vector<watch::StreamOutput> output_;  // kept for its capacity
  std::vector<size_t> head_ends_;            // kept for its capacity
  std::optional<Place> unjudged_;            // it and all behind it are to be judged again
  uint64_t events_sent_ = 0;
};

}  // namespace conclave::node
