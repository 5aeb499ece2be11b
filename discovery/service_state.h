// ServiceState: from the batches of a watch to snapshots. Pure: no threads, time passed in.
//
// The instances are a function of the store's state alone, never of how it came about: an entry
// that turns unreadable leaves the set, as it would be absent for somebody who lists just now.
//
// There is one exception, the shrink guard. A list that suddenly has less than `guard` of the
// instances known so far is more often a store that came back without its leases than half a fleet
// that died; so what it lacks is *held*: it stays in the set, which says that it is suspect, until
//
//   - a delete event says that the instance is gone, or a put brings it back (that one only);
//   - the hold time is over while the cluster is in reach;
//   - a second list, at least half the hold time after the first, lacks it as well.
//
//   known 10 --list of 2--> 2 + 8 held, suspect --+--15 s: list again, still 2--> 2
//                                                 +--delete of one held---------> 2 + 7 held
//                                                 +--30 s----------------------> 2
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "conclave/client/core/types.h"
#include "conclave/discovery/snapshot.h"
#include "conclave/registry/instance.h"

namespace conclave {

class ServiceState {
 public:
  // A larger value is left out as unreadable.
  static constexpr size_t kValueBytesMax = 256 << 10;

  // The instance in the value of a key. NotFound: it belongs to another service, and that is no
  // fault.
  using Decode =
      std::function<absl::StatusOr<Instance>(std::string_view key, std::string_view value)>;

  struct Options {
    std::string service;
    Decode decode{};            // unset: naming JSON
    double shrink_guard = 0.0;  // 0: no guard
    absl::Duration shrink_hold = absl::Seconds(30);
  };

  struct Change {
    std::shared_ptr<const Snapshot> snapshot;  // null: nothing that anybody could see has changed
    std::vector<std::string> complaints;       // lines for the log, each only once
  };

  struct Counters {
    int64_t lists = 0;  // the first one included
    int64_t holds = 0;  // times that the guard began to hold something
    int64_t unreadable = 0;
  };

  explicit ServiceState(Options options);

  [[nodiscard]] Change Apply(const WatchBatch& batch, absl::Time now);
  // Lets go what has been held for long enough. Call it at NextTick() or later.
  [[nodiscard]] Change Tick(absl::Time now);
  // The keys of another list. It counts if it was asked for at NextConfirm() or later.
  [[nodiscard]] Change Confirm(const std::vector<KeyValue>& listed, absl::Time asked_at,
                               absl::Time now);
  // What this process knew when it last ran; does nothing once anything is known. The first list
  // replaces it, without a guard.
  [[nodiscard]] Change Restore(int64_t revision, const InstanceList& instances,
                               absl::Time saved_at);

  // When Tick() may change something, and when a list would be confirmation; nullopt: nothing is
  // held.
  std::optional<absl::Time> NextTick() const;
  std::optional<absl::Time> NextConfirm() const;

  const Counters& counters() const { return counters_; }
  // The latest snapshot; before anything was heard, one that says so.
  const std::shared_ptr<const Snapshot>& snapshot() const { return snapshot_; }

 private:
  using Entry = std::shared_ptr<const InstanceEntry>;
  // What happened to a key, in the order it happened: what stands there now, null if nothing (that
  // can be read). One block of memory, and the keys are views of the batch and of entries_: a list
  // of a whole service would leave the heap full of holes else.
  using Changes = std::vector<std::pair<std::string_view, Entry>>;

  void TakeList(const WatchBatch& batch, absl::Time now, Changes* changes, Change* change);
  void Take(const KeyValue& kv, Changes* changes, Change* change);
  void Drop(std::string_view key, Changes* changes);
  Entry Find(std::string_view key) const;
  // Whether the instances have changed.
  bool Merge(Changes changes);
  void Publish(absl::Time now, bool changed, Change* change);

  const Options options_;
  InstanceList entries_;
  std::map<std::string, int64_t, std::less<>>
      unreadable_;                           // key -> mod_revision of what was logged
  std::set<std::string, std::less<>> held_;  // keys of entries_
  int64_t revision_ = 0;
  bool from_cache_ = false;
  std::optional<absl::Time> stale_since_;
  std::optional<absl::Time> suspect_since_;
  absl::Time changed_at_ = absl::InfinitePast();
  Counters counters_;
  std::shared_ptr<const Snapshot> snapshot_;
};

}  // namespace conclave
