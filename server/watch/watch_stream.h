// WatchStream and Watcher: one client's stream, its watchers, its outbox and its credit. Internal
// to the hub.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/server/watch/watch_group.h"
#include "conclave/server/watch/watch_hub.h"

namespace conclave::watch {

struct WatchStream;

struct Watcher {
  WatchStream* stream = nullptr;
  WatchGroup* group = nullptr;
  WatchId id = 0;
  // Hears nothing before it. Exact while lagging; while synced the hub's next revision counts, if
  // that is later.
  int64_t next_revision = 0;
  uint32_t place = 0;  // in group->synced
  bool synced = false;
  bool fragment = false;
  bool progress_notify = false;
  bool quiet = true;  // heard nothing since the last progress tick
};

struct WatchStream {
  explicit WatchStream(StreamId stream_id) : id(stream_id) {}

  const StreamId id;
  std::map<WatchId, std::unique_ptr<Watcher>> watchers;
  // Those that are not synced, the one that is furthest behind first.
  std::set<std::pair<int64_t, WatchId>> lagging;
  WatchId next_id = 0;

  std::vector<WatchResponse> outbox;
  size_t outstanding_bytes = 0;  // charged and not reported as written
  bool blocked = false;          // over the limit, and not below half of it since

  bool queued = false;            // for catching up
  Instant progress_due = kNever;  // of progress_notify
  Duration progress_interval{0};
  size_t progress_watchers = 0;
};

}  // namespace conclave::watch
