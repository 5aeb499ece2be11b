// The hub's inside. Requests are in watch_hub.cc, delivery and catching up in delivery.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/watch/watch_hub.h"
#include "conclave/server/watch/watch_stream.h"
#include "conclave/server/watch/watcher_set.h"

namespace conclave::watch {

class WatchHub::Impl {
 public:
  Impl(mvcc::Store* store, const WatchOptions& options);

  void OpenStream(StreamId stream);
  void CloseStream(StreamId stream);
  void Written(StreamId stream, size_t bytes);
  void Create(StreamId stream, const CreateRequest& request, Instant now);
  void Refuse(StreamId stream, std::string reason);
  void Cancel(StreamId stream, WatchId watch_id, std::string reason);
  void RequestProgress(StreamId stream);
  void Notify();
  bool CatchUp(size_t budget);
  void Tick(Instant now);
  Instant NextTick() const;
  void Restore(mvcc::Store* store);
  void TakeOutput(std::vector<StreamOutput>* out);
  bool has_output() const { return !dirty_.empty(); }
  bool Writable(StreamId stream) const;
  bool ForEachWatcher(
      StreamId stream, WatchId from,
      absl::FunctionRef<bool(WatchId, std::string_view, std::string_view)> visit) const;
  WatchSizes sizes() const;
  void CheckInvariants() const;

 private:
  // A piece of history as a group sees it.
  struct Slice {
    EventBatchRef batch;  // null if nothing in it concerns the group
    std::vector<EventBatchRef> fragments;
    int64_t next_revision = 0;
  };
  // Slices of this round of catching up, so that watchers of one group that are equally far behind
  // share them.
  using SliceCache = std::map<std::pair<uint64_t, int64_t>, Slice>;

  WatchStream* Find(StreamId stream) const;
  WatchGroup* GroupFor(const CreateRequest& request);
  void RefuseCreation(WatchStream* stream, std::string reason);
  void Remove(WatchStream* stream, Watcher* watcher);

  // A watcher is in exactly one of: its group's synced list, its stream's lagging set.
  void EnterSynced(Watcher* watcher);
  void LeaveSynced(Watcher* watcher);
  void EnterLagging(Watcher* watcher, int64_t next_revision);
  void LeaveLagging(Watcher* watcher);
  void Queue(WatchStream* stream);

  void Gather(const mvcc::Record& record);
  void DeliverGathered(int64_t revision);
  void Deliver(Watcher* watcher, const EventBatchRef& batch, std::vector<EventBatchRef>* fragments,
               int64_t header_revision);
  std::vector<EventBatchRef> Split(const EventBatch& batch) const;
  mvcc::RecordRef Previous(const mvcc::Record& record) const;

  void CatchUpOne(Watcher* watcher, size_t* budget, SliceCache* cache);
  Slice Scan(const WatchGroup& group, int64_t from, size_t* scanned) const;

  bool AllSynced(const WatchStream& stream) const;
  bool Current(const Watcher& watcher) const {
    return watcher.synced && watcher.next_revision <= revision_ + 1;
  }
  void AnswerProgressRequests();
  void TickStream(WatchStream* stream);

  void Push(WatchStream* stream, WatchResponse response);

  mvcc::Store* store_;
  const WatchOptions options_;
  int64_t revision_;  // all revisions up to it have been delivered
  mvcc::Pin pin_;     // on the next one

  std::map<StreamId, std::unique_ptr<WatchStream>> streams_;
  // By shape; looked up only.
  absl::flat_hash_map<std::string, std::unique_ptr<WatchGroup>> groups_;
  uint64_t next_group_ = 1;
  WatcherSet synced_;                 // the groups with synced watchers
  std::vector<WatchGroup*> touched_;  // by the revision that is being delivered, in order

  std::deque<StreamId> queue_;  // streams with lagging watchers that may go on, in turn
  std::set<StreamId> progress_requests_;
  std::set<std::pair<Instant, StreamId>> progress_ticks_;
  std::vector<WatchStream*> dirty_;  // with a filled outbox, in order
};

}  // namespace conclave::watch
