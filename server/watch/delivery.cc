// The hub's delivery: new revisions to synced watchers, history to lagging ones.

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/watch/watch_hub_impl.h"

namespace conclave::watch {

// --- New revisions ---

void WatchHub::Impl::Notify() {
  const int64_t current = store_->current_revision();
  if (current == revision_) return;
  if (!synced_.empty()) {
    int64_t revision = 0;
    store_->ForEachSince(revision_ + 1, [&](const mvcc::Record& record) {
      if (record.mod_revision() != revision) {
        DeliverGathered(revision);
        revision = record.mod_revision();
      }
      Gather(record);
      return true;
    });
    DeliverGathered(revision);
  }
  revision_ = current;
  pin_ = store_->PinAt(revision_ + 1);
  AnswerProgressRequests();
}

void WatchHub::Impl::Gather(const mvcc::Record& record) {
  mvcc::RecordRef previous;
  bool looked_up = false;
  synced_.ForEachHearing(record.key(), [&](WatchGroup* group) {
    if (!group->Wants(record)) return;
    if (group->prev_kv() && !looked_up) {
      previous = Previous(record);
      looked_up = true;
    }
    if (group->gathering.empty()) touched_.push_back(group);
    group->gathering.push_back({.record = mvcc::RecordRef(&record),
                                .previous = group->prev_kv() ? previous : mvcc::RecordRef()});
  });
}

// The key before this revision: not for a creation, and not from behind the compact revision.
mvcc::RecordRef WatchHub::Impl::Previous(const mvcc::Record& record) const {
  const int64_t before = record.mod_revision() - 1;
  if (record.creation() || before < store_->compact_revision()) return mvcc::RecordRef();
  return mvcc::RecordRef(store_->GetAt(record.key(), before));
}

void WatchHub::Impl::DeliverGathered(int64_t revision) {
  for (WatchGroup* group : touched_) {
    const auto batch = std::make_shared<const EventBatch>(std::move(group->gathering));
    group->gathering.clear();
    std::vector<EventBatchRef> fragments;
    for (size_t i = 0; i < group->synced.size();) {
      Watcher* watcher = group->synced[i];
      if (watcher->next_revision > revision && !MUTANT("future-watch-hears-the-past")) {
        ++i;  // it starts in the future
      } else if (watcher->stream->blocked) {
        REACHED("watch: one on a slow stream falls behind");
        if (MUTANT("slow-watch-loses-events")) {
          ++i;
          continue;
        }
        LeaveSynced(watcher);  // the last one takes its place
        EnterLagging(watcher, revision);
      } else {
        Deliver(watcher, batch, &fragments, revision);
        ++i;
      }
    }
  }
  touched_.clear();
}

void WatchHub::Impl::Deliver(Watcher* watcher, const EventBatchRef& batch,
                             std::vector<EventBatchRef>* fragments, int64_t header_revision) {
  watcher->quiet = false;
  WatchResponse response;
  response.watch_id = watcher->id;
  response.header_revision = header_revision;
  const bool whole =
      !watcher->fragment || batch->events().size() == 1 ||
      options_.response_overhead_bytes + batch->encoded_size() < options_.fragment_bytes;
  if (whole) {
    response.events = batch;
    return Push(watcher->stream, std::move(response));
  }
  if (fragments->empty()) *fragments = Split(*batch);
  for (size_t i = 0; i < fragments->size(); ++i) {
    response.events = (*fragments)[i];
    response.fragment = i + 1 < fragments->size();
    Push(watcher->stream, response);
  }
}

std::vector<EventBatchRef> WatchHub::Impl::Split(const EventBatch& batch) const {
  std::vector<EventBatchRef> fragments;
  std::vector<Event> events;
  size_t size = options_.response_overhead_bytes;
  for (const Event& event : batch.events()) {
    const size_t more = EncodedEventSize(event);
    if (!events.empty() && size + more >= options_.fragment_bytes) {
      fragments.push_back(std::make_shared<const EventBatch>(std::move(events)));
      events.clear();
      size = options_.response_overhead_bytes;
    }
    events.push_back(event);
    size += more;
  }
  fragments.push_back(std::make_shared<const EventBatch>(std::move(events)));
  return fragments;
}

// --- History ---

bool WatchHub::Impl::CatchUp(size_t budget) {
  SliceCache cache;
  while (budget > 0 && !queue_.empty()) {
    WatchStream* stream = Find(queue_.front());
    queue_.pop_front();
    if (stream == nullptr) continue;
    stream->queued = false;
    if (stream->blocked || stream->lagging.empty()) continue;
    CatchUpOne(stream->watchers.at(stream->lagging.begin()->second).get(), &budget, &cache);
    if (!stream->blocked && !stream->lagging.empty()) Queue(stream);
  }
  AnswerProgressRequests();
  return !queue_.empty();
}

void WatchHub::Impl::CatchUpOne(Watcher* watcher, size_t* budget, SliceCache* cache) {
  if (watcher->next_revision < store_->compact_revision()) {
    REACHED("watch: one needs what is compacted");
    if (MUTANT("compaction-goes-unnoticed")) {
      LeaveLagging(watcher);
      return EnterLagging(watcher, store_->compact_revision());
    }
    WatchStream* stream = watcher->stream;
    WatchResponse response;
    response.watch_id = watcher->id;
    response.canceled = true;
    response.compact_revision = store_->compact_revision();
    Remove(stream, watcher);
    return Push(stream, std::move(response));
  }
  const auto [found, is_new] =
      cache->try_emplace({watcher->group->id(), watcher->next_revision}, Slice());
  Slice& slice = found->second;
  // A watcher costs something even where the slice is shared.
  size_t cost = 1;
  if (is_new) {
    size_t scanned = 0;
    slice = Scan(*watcher->group, watcher->next_revision, &scanned);
    cost += scanned;
  }
  *budget -= std::min(*budget, cost);
  LeaveLagging(watcher);
  watcher->next_revision = slice.next_revision;
  if (slice.next_revision <= revision_) {
    REACHED("watch: one catches up in several steps");
    if (MUTANT("catching-up-overlaps")) --watcher->next_revision;
  }
  if (slice.batch != nullptr) Deliver(watcher, slice.batch, &slice.fragments, revision_);
  if (slice.next_revision > revision_) {
    EnterSynced(watcher);
  } else {
    EnterLagging(watcher, watcher->next_revision);
  }
}

// Whole revisions from `from` on, until a limit of the options is reached or the hub's revision is.
WatchHub::Impl::Slice WatchHub::Impl::Scan(const WatchGroup& group, int64_t from,
                                           size_t* scanned) const {
  std::vector<Event> events;
  size_t bytes = 0;
  int64_t revisions = 0;
  int64_t last_heard = 0;
  int64_t at = 0;
  Slice slice{.batch = nullptr, .fragments = {}, .next_revision = std::max(from, revision_ + 1)};
  const mvcc::KeyRange range = group.range();
  const auto visit = [&](const mvcc::Record& record) {
    const int64_t revision = record.mod_revision();
    if (revision > revision_) return false;
    if (revision != at &&
        (revisions >= options_.batch_revisions_max || bytes >= options_.batch_bytes_max ||
         *scanned >= options_.batch_records_max)) {
      slice.next_revision = revision;
      return false;
    }
    at = revision;
    ++*scanned;
    if (!range.Contains(record.key()) || !group.Wants(record)) return true;
    events.push_back({.record = mvcc::RecordRef(&record),
                      .previous = group.prev_kv() ? Previous(record) : mvcc::RecordRef()});
    bytes += EncodedEventSize(events.back());
    if (revision != last_heard) ++revisions;
    last_heard = revision;
    return true;
  };
  if (range.single()) {
    store_->ForEachVersionSince(range.begin(), from, visit);
  } else {
    store_->ForEachSince(from, visit);
  }
  if (!events.empty()) slice.batch = std::make_shared<const EventBatch>(std::move(events));
  return slice;
}

}  // namespace conclave::watch
