// Succession: whether a leader should make way for another candidate. Pure.
//
// Two reasons, both of which only clients of this library know:
// - a mark "<name>~next" names a candidate that stands in the queue (TransferTo);
// - a candidate of a higher priority has stood in the queue for `settle` (if that is set).
// Whoever makes way queues again, behind the one he made way for: nobody makes way twice for the
// same key, so this ends. A candidate that dies takes its key along, and is waited for no longer.
//
// While leading, it watches candidates and notes; those who wait watch nothing of this.
//
// Thread: the engine's. Callbacks never run from within. Limit: kCandidatesMax keys are looked at.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/election/candidate_note.h"

namespace conclave {

class Succession : public std::enable_shared_from_this<Succession> {
 public:
  static constexpr int64_t kCandidatesMax = 1000;

  struct Self {
    std::string key{};  // of our candidacy, which leads
    CandidateNote note{};
    std::optional<Duration> settle{};  // unset: priorities do not count
  };
  // To whom: the key and the id of the one to make way for.
  struct Heir {
    std::string key{};
    std::string id{};
  };
  // After the first look: is there somebody already?
  using Looked = absl::AnyInvocable<void(std::optional<Heir>)>;
  // Later, at most once, if there was nobody then.
  using MakeWay = absl::AnyInvocable<void(Heir)>;

  Succession(Engine& engine, std::string name, Self self);

  // Looks; a look that fails finds nobody, and the watches make up for it.
  void Start(Instant deadline, Looked looked, MakeWay make_way);
  void Stop();

 private:
  struct Rival {
    std::string key{};
    Instant since{};  // when we saw it first
  };

  void OnLooked(absl::StatusOr<TxnResult> look);
  void StartWatches(int64_t after_revision);
  void OnCandidates(const WatchBatch& batch);
  void OnNotes(const WatchBatch& batch);
  void SetCandidate(const KeyValue& kv);
  void SetNote(const KeyValue& kv);
  void RemoveNote(const std::string& key);
  std::optional<Heir> Find();
  void Judge();

  Engine& engine_;
  const std::string name_;
  const Self self_;
  bool active_ = false;
  std::map<int64_t, Rival> rivals_;             // by create revision, not our own
  std::map<std::string, int64_t> by_key_;       // their create revisions
  std::map<std::string, CandidateNote> notes_;  // by their own keys
  std::string next_;                            // the mark; empty: none
  CallId call_ = 0;
  TimerId settled_{};
  WatchHandle candidates_ = 0;
  WatchHandle note_watch_ = 0;
  Looked looked_;
  MakeWay make_way_;
};

}  // namespace conclave
