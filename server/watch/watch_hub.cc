#include "conclave/server/watch/watch_hub.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/prng.h"
#include "conclave/base/reached.h"
#include "conclave/server/watch/watch_hub_impl.h"

namespace conclave::watch {

// --- The public face ---

WatchHub::WatchHub(mvcc::Store* store, const WatchOptions& options)
    : impl_(std::make_unique<Impl>(store, options)) {}
WatchHub::~WatchHub() = default;

void WatchHub::OpenStream(StreamId stream) { impl_->OpenStream(stream); }
void WatchHub::CloseStream(StreamId stream) { impl_->CloseStream(stream); }
void WatchHub::Written(StreamId stream, size_t bytes) { impl_->Written(stream, bytes); }
void WatchHub::Create(StreamId stream, const CreateRequest& request, Instant now) {
  impl_->Create(stream, request, now);
}
void WatchHub::Refuse(StreamId stream, std::string reason) {
  impl_->Refuse(stream, std::move(reason));
}
void WatchHub::Cancel(StreamId stream, WatchId watch_id) { impl_->Cancel(stream, watch_id, {}); }
void WatchHub::Cancel(StreamId stream, WatchId watch_id, std::string reason) {
  impl_->Cancel(stream, watch_id, std::move(reason));
}
void WatchHub::RequestProgress(StreamId stream) { impl_->RequestProgress(stream); }
void WatchHub::Notify() { impl_->Notify(); }
bool WatchHub::CatchUp(size_t budget) { return impl_->CatchUp(budget); }
void WatchHub::Tick(Instant now) { impl_->Tick(now); }
Instant WatchHub::NextTick() const { return impl_->NextTick(); }
void WatchHub::Restore(mvcc::Store* store) { impl_->Restore(store); }
void WatchHub::TakeOutput(std::vector<StreamOutput>* out) { impl_->TakeOutput(out); }
bool WatchHub::has_output() const { return impl_->has_output(); }
bool WatchHub::Writable(StreamId stream) const { return impl_->Writable(stream); }
bool WatchHub::ForEachWatcher(
    StreamId stream, WatchId from,
    absl::FunctionRef<bool(WatchId, std::string_view, std::string_view)> visit) const {
  return impl_->ForEachWatcher(stream, from, visit);
}
WatchSizes WatchHub::sizes() const { return impl_->sizes(); }
void WatchHub::CheckInvariants() const { impl_->CheckInvariants(); }

// --- Streams ---

WatchHub::Impl::Impl(mvcc::Store* store, const WatchOptions& options)
    : store_(store),
      options_(options),
      revision_(store->current_revision()),
      pin_(store->PinAt(revision_ + 1)) {}

WatchStream* WatchHub::Impl::Find(StreamId stream) const {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? nullptr : found->second.get();
}

void WatchHub::Impl::OpenStream(StreamId stream) {
  const bool is_new = streams_.emplace(stream, std::make_unique<WatchStream>(stream)).second;
  CONCLAVE_CHECK(is_new, "stream ", stream, " is open already");
}

void WatchHub::Impl::CloseStream(StreamId id) {
  WatchStream* stream = Find(id);
  if (stream == nullptr) return;
  while (!stream->watchers.empty()) Remove(stream, stream->watchers.begin()->second.get());
  std::erase(dirty_, stream);
  progress_requests_.erase(id);
  streams_.erase(id);  // the queue forgets it when it is its turn
}

void WatchHub::Impl::Written(StreamId id, size_t bytes) {
  WatchStream* stream = Find(id);
  if (stream == nullptr) return;
  CONCLAVE_CHECK(bytes <= stream->outstanding_bytes, "more was written than handed out");
  stream->outstanding_bytes -= bytes;
  if (!stream->blocked || stream->outstanding_bytes > options_.stream_bytes_max / 2) return;
  REACHED("watch: a slow stream goes on");
  stream->blocked = false;
  if (!stream->lagging.empty()) Queue(stream);
  AnswerProgressRequests();
}

bool WatchHub::Impl::Writable(StreamId id) const {
  const WatchStream* stream = Find(id);
  return stream != nullptr && !stream->blocked;
}

void WatchHub::Impl::Push(WatchStream* stream, WatchResponse response) {
  response.charge = options_.response_overhead_bytes + response.cancel_reason.size() +
                    (response.events == nullptr ? 0 : response.events->encoded_size());
  stream->outstanding_bytes += response.charge;
  if (stream->outstanding_bytes >= options_.stream_bytes_max) stream->blocked = true;
  if (stream->outbox.empty()) dirty_.push_back(stream);
  stream->outbox.push_back(std::move(response));
}

void WatchHub::Impl::TakeOutput(std::vector<StreamOutput>* out) {
  out->clear();
  for (WatchStream* stream : dirty_) {
    out->push_back({.stream = stream->id, .responses = std::move(stream->outbox)});
    stream->outbox.clear();
  }
  dirty_.clear();
}

// --- Requests ---

void WatchHub::Impl::RefuseCreation(WatchStream* stream, std::string reason) {
  WatchResponse response;
  response.watch_id = kNoWatch;
  response.header_revision = store_->current_revision();
  response.created = true;
  response.canceled = true;
  response.cancel_reason = std::move(reason);
  Push(stream, std::move(response));
}

void WatchHub::Impl::Refuse(StreamId id, std::string reason) {
  WatchStream* stream = Find(id);
  if (stream != nullptr) RefuseCreation(stream, std::move(reason));
}

WatchGroup* WatchHub::Impl::GroupFor(const CreateRequest& request) {
  const std::string key = request.key.empty() ? std::string(1, '\0') : request.key;
  // Everything that makes the shape, unambiguously: flags, size of the key, key, end.
  std::string shape(1, static_cast<char>((request.no_put ? 1 : 0) | (request.no_delete ? 2 : 0) |
                                         (request.prev_kv ? 4 : 0)));
  shape += std::to_string(key.size());
  shape += ':';
  shape += key;
  shape += request.range_end;
  std::unique_ptr<WatchGroup>& group = groups_[shape];
  if (group == nullptr) {
    group = std::make_unique<WatchGroup>(next_group_++, key, request.range_end, request.no_put,
                                         request.no_delete, request.prev_kv, shape);
  }
  return group.get();
}

void WatchHub::Impl::Create(StreamId id, const CreateRequest& request, Instant now) {
  WatchStream* stream = Find(id);
  if (stream == nullptr) return;
  if (request.start_revision < 0) {
    return RefuseCreation(stream, std::string(mvcc::kCompactedText));
  }
  const std::string_view key = request.key.empty() ? std::string_view("\0", 1) : request.key;
  if (mvcc::KeyRange::FromRequest(key, request.range_end).empty()) {
    return RefuseCreation(stream, std::string(kEmptyRangeText));
  }
  if (request.watch_id != 0 && stream->watchers.contains(request.watch_id)) {
    return RefuseCreation(stream, std::string(kDuplicateWatchIdText));
  }
  if (stream->watchers.size() >= options_.watchers_per_stream_max) {
    return RefuseCreation(stream, std::string(kTooManyWatchersText));
  }
  WatchId watch_id = request.watch_id;
  if (watch_id == 0) {
    while (stream->watchers.contains(stream->next_id)) ++stream->next_id;
    watch_id = stream->next_id++;
  }

  auto owned = std::make_unique<Watcher>();
  Watcher* watcher = owned.get();
  stream->watchers.emplace(watch_id, std::move(owned));
  watcher->stream = stream;
  watcher->group = GroupFor(request);
  ++watcher->group->members;
  watcher->id = watch_id;
  watcher->fragment = request.fragment;
  watcher->progress_notify = request.progress_notify;
  if (request.progress_notify && stream->progress_watchers++ == 0) {
    const auto jitter = static_cast<uint64_t>(options_.progress_interval.count() / 10);
    stream->progress_interval =
        options_.progress_interval +
        Duration(static_cast<int64_t>(Prng(options_.seed ^ id).Below(jitter + 1)));
    stream->progress_due = now + stream->progress_interval;
    progress_ticks_.emplace(stream->progress_due, id);
  }

  WatchResponse response;
  response.watch_id = watch_id;
  response.header_revision = store_->current_revision();
  response.created = true;
  Push(stream, std::move(response));

  const int64_t start =
      request.start_revision == 0 ? store_->current_revision() + 1 : request.start_revision;
  if (start > revision_ + 1) REACHED("watch: one begins in the future");
  if (start > revision_) {
    watcher->next_revision = start;
    EnterSynced(watcher);
  } else {
    EnterLagging(watcher, start);
    SliceCache cache;
    size_t budget = 0;  // only to be told at once that it starts in compacted history
    if (start < store_->compact_revision()) CatchUpOne(watcher, &budget, &cache);
  }
}

void WatchHub::Impl::Cancel(StreamId id, WatchId watch_id, std::string reason) {
  WatchStream* stream = Find(id);
  if (stream == nullptr) return;
  const auto found = stream->watchers.find(watch_id);
  if (found == stream->watchers.end()) return;
  Remove(stream, found->second.get());
  WatchResponse response;
  response.watch_id = watch_id;
  response.header_revision = store_->current_revision();
  response.canceled = true;
  response.cancel_reason = std::move(reason);
  Push(stream, std::move(response));
  AnswerProgressRequests();
}

void WatchHub::Impl::Remove(WatchStream* stream, Watcher* watcher) {
  if (watcher->synced) {
    LeaveSynced(watcher);
  } else {
    LeaveLagging(watcher);
  }
  if (watcher->progress_notify && --stream->progress_watchers == 0) {
    progress_ticks_.erase({stream->progress_due, stream->id});
  }
  WatchGroup* group = watcher->group;
  stream->watchers.erase(watcher->id);
  if (--group->members == 0) groups_.erase(std::string(group->shape()));
}

// --- States of a watcher ---

void WatchHub::Impl::EnterSynced(Watcher* watcher) {
  WatchGroup* group = watcher->group;
  if (group->synced.empty()) synced_.Insert(group);
  watcher->synced = true;
  watcher->place = static_cast<uint32_t>(group->synced.size());
  group->synced.push_back(watcher);
}

void WatchHub::Impl::LeaveSynced(Watcher* watcher) {
  WatchGroup* group = watcher->group;
  Watcher* last = group->synced.back();
  CONCLAVE_CHECK(group->synced[watcher->place] == watcher);
  group->synced[watcher->place] = last;
  last->place = watcher->place;
  group->synced.pop_back();
  watcher->synced = false;
  if (group->synced.empty()) synced_.Erase(group);
}

void WatchHub::Impl::EnterLagging(Watcher* watcher, int64_t next_revision) {
  WatchStream* stream = watcher->stream;
  watcher->next_revision = next_revision;
  stream->lagging.emplace(next_revision, watcher->id);
  if (!stream->blocked) Queue(stream);
}

void WatchHub::Impl::LeaveLagging(Watcher* watcher) {
  const size_t erased = watcher->stream->lagging.erase({watcher->next_revision, watcher->id});
  CONCLAVE_CHECK(erased == 1);
}

void WatchHub::Impl::Queue(WatchStream* stream) {
  if (stream->queued) return;
  stream->queued = true;
  queue_.push_back(stream->id);
}

// --- Progress ---

bool WatchHub::Impl::AllSynced(const WatchStream& stream) const {
  if (!stream.lagging.empty()) return false;
  return std::all_of(stream.watchers.begin(), stream.watchers.end(),
                     [&](const auto& entry) { return Current(*entry.second); });
}

void WatchHub::Impl::RequestProgress(StreamId id) {
  if (Find(id) == nullptr) return;
  progress_requests_.insert(id);
  AnswerProgressRequests();
}

void WatchHub::Impl::AnswerProgressRequests() {
  for (auto request = progress_requests_.begin(); request != progress_requests_.end();) {
    WatchStream* stream = Find(*request);
    if ((stream->blocked || !AllSynced(*stream)) && !MUTANT("progress-overtakes-events")) {
      REACHED("watch: an answer about progress waits");
      ++request;
      continue;
    }
    WatchResponse response;
    response.watch_id = kNoWatch;
    response.header_revision = revision_;
    Push(stream, std::move(response));
    request = progress_requests_.erase(request);
  }
}

void WatchHub::Impl::Tick(Instant now) {
  while (!progress_ticks_.empty() && progress_ticks_.begin()->first <= now) {
    WatchStream* stream = Find(progress_ticks_.begin()->second);
    progress_ticks_.erase(progress_ticks_.begin());
    TickStream(stream);
    stream->progress_due = now + stream->progress_interval;
    progress_ticks_.emplace(stream->progress_due, stream->id);
  }
}

void WatchHub::Impl::TickStream(WatchStream* stream) {
  for (const auto& [id, watcher] : stream->watchers) {
    if (!watcher->progress_notify) continue;
    if (watcher->quiet && Current(*watcher) && !stream->blocked &&
        !MUTANT("no-progress-without-events")) {
      WatchResponse response;
      response.watch_id = id;
      response.header_revision = revision_;
      Push(stream, std::move(response));
    }
    watcher->quiet = true;
  }
}

Instant WatchHub::Impl::NextTick() const {
  return progress_ticks_.empty() ? kNever : progress_ticks_.begin()->first;
}

// --- The rest ---

void WatchHub::Impl::Restore(mvcc::Store* store) {
  const int64_t passed = revision_;
  store_ = store;
  revision_ = store->current_revision();
  pin_ = store->PinAt(revision_ + 1);
  if (MUTANT("watches-not-restored")) return;
  for (const auto& [stream_id, stream] : streams_) {
    for (const auto& [id, watcher] : stream->watchers) {
      if (!watcher->synced) continue;
      const int64_t next = MUTANT("restored-watch-goes-back")
                               ? watcher->next_revision
                               : std::max(watcher->next_revision, passed + 1);
      if (next > revision_) {
        REACHED("watch: one of the future outlives the state");
        watcher->next_revision = MUTANT("restored-watch-of-the-future") ? revision_ + 1 : next;
        continue;
      }
      REACHED("watch: one catches up behind a snapshot");
      LeaveSynced(watcher.get());
      EnterLagging(watcher.get(), next);
    }
  }
}

bool WatchHub::Impl::ForEachWatcher(
    StreamId id, WatchId from,
    absl::FunctionRef<bool(WatchId, std::string_view, std::string_view)> visit) const {
  const WatchStream* stream = Find(id);
  if (stream == nullptr) return true;
  for (auto at = stream->watchers.lower_bound(from); at != stream->watchers.end(); ++at) {
    const WatchGroup& group = *at->second->group;
    if (!visit(at->first, group.key(), group.range_end())) return false;
  }
  return true;
}

WatchSizes WatchHub::Impl::sizes() const {
  WatchSizes sizes;
  sizes.streams = streams_.size();
  for (const auto& [id, stream] : streams_) {
    sizes.watchers += stream->watchers.size();
    sizes.lagging += stream->lagging.size();
    sizes.waiting_streams += stream->blocked ? 1 : 0;
  }
  return sizes;
}

void WatchHub::Impl::CheckInvariants() const {
  synced_.CheckInvariants();
  size_t members = 0;
  for (const auto& [id, stream] : streams_) {
    size_t lagging = 0;
    for (const auto& [watch_id, watcher] : stream->watchers) {
      CONCLAVE_CHECK(watcher->stream == stream.get() && watcher->id == watch_id);
      ++members;
      if (watcher->synced) {
        CONCLAVE_CHECK(watcher->group->synced[watcher->place] == watcher.get());
      } else {
        ++lagging;
        CONCLAVE_CHECK(stream->lagging.contains({watcher->next_revision, watch_id}));
        CONCLAVE_CHECK(watcher->next_revision <= revision_);
      }
      CONCLAVE_CHECK(watcher->group->gathering.empty());
    }
    CONCLAVE_CHECK(lagging == stream->lagging.size());
    CONCLAVE_CHECK(lagging == 0 || stream->blocked || stream->queued, "nobody wakes the stream");
  }
  size_t grouped = 0;
  for (const auto& [shape, group] : groups_) grouped += group->members;
  CONCLAVE_CHECK(grouped == members);
  CONCLAVE_CHECK(touched_.empty());
}

}  // namespace conclave::watch
