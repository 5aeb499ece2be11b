#include "conclave/election/succession.h"

#include <algorithm>
#include <utility>

#include "conclave/client/core/calls.h"

namespace conclave {
namespace {

constexpr Duration kUnmarkTimeout = std::chrono::seconds(5);

}  // namespace

Succession::Succession(Engine& engine, std::string name, Self self)
    : engine_(engine), name_(std::move(name)), self_(std::move(self)) {}

void Succession::Start(Instant deadline, Looked looked, MakeWay make_way) {
  active_ = true;
  looked_ = std::move(looked);
  make_way_ = std::move(make_way);
  const RangeOptions options{.limit = kCandidatesMax};
  TxnRequest look{
      .success = {Range(Prefix(CandidatePrefix(name_)), options), Range(NotesOf(name_), options)}};
  call_ = calls::Txn(engine_, look, deadline,
                     [self = shared_from_this()](absl::StatusOr<TxnResult> result) {
                       self->OnLooked(std::move(result));
                     });
}

void Succession::Stop() {
  active_ = false;
  if (call_ != 0) engine_.Cancel(call_);
  engine_.CancelTimer(settled_);
  engine_.watches().Remove(candidates_);
  engine_.watches().Remove(note_watch_);
  candidates_ = note_watch_ = 0;
  make_way_ = nullptr;
}

void Succession::OnLooked(absl::StatusOr<TxnResult> look) {
  call_ = 0;
  Looked looked = std::move(looked_);
  if (!active_) return looked(std::nullopt);
  if (!look.ok()) {
    StartWatches(0);
    return looked(std::nullopt);
  }
  for (const KeyValue& kv : look->range(0).kvs) SetCandidate(kv);
  for (const KeyValue& kv : look->range(1).kvs) SetNote(kv);
  // The mark that names us has done its work; if this fails its lease ends it.
  if (!next_.empty() && next_ == self_.note.id) {
    calls::Txn(
        engine_,
        {.conditions = {Value(NextKey(name_)) == next_}, .success = {Delete(NextKey(name_))}},
        engine_.now() + kUnmarkTimeout, [](const absl::StatusOr<TxnResult>&) {});
  }
  std::optional<Heir> heir = Find();
  if (heir.has_value()) {
    Stop();
  } else {
    StartWatches(look->revision);
  }
  looked(std::move(heir));
}

void Succession::StartWatches(int64_t after_revision) {
  const WatchOptions options{.from_revision = after_revision + 1,
                             .list_first = after_revision == 0};
  candidates_ = engine_.watches().Add(
      Prefix(CandidatePrefix(name_)), options,
      [self = shared_from_this()](const WatchBatch& batch) { self->OnCandidates(batch); });
  note_watch_ = engine_.watches().Add(
      NotesOf(name_), options,
      [self = shared_from_this()](const WatchBatch& batch) { self->OnNotes(batch); });
}

void Succession::SetCandidate(const KeyValue& kv) {
  auto known = by_key_.find(kv.key);
  if (known != by_key_.end() && known->second == kv.create_revision) return;
  if (known != by_key_.end()) rivals_.erase(known->second);
  if (kv.key == self_.key || rivals_.size() >= kCandidatesMax) return;
  by_key_[kv.key] = kv.create_revision;
  rivals_[kv.create_revision] = {.key = kv.key, .since = engine_.now()};
}

void Succession::SetNote(const KeyValue& kv) {
  if (kv.key == NextKey(name_)) {
    next_ = kv.value;
    return;
  }
  std::optional<CandidateNote> note = ParseNote(kv.value);
  if (!note.has_value()) return RemoveNote(kv.key);
  if (notes_.size() < kCandidatesMax || notes_.count(kv.key) != 0) notes_[kv.key] = *note;
}

void Succession::RemoveNote(const std::string& key) {
  if (key == NextKey(name_)) next_.clear();
  notes_.erase(key);
}

void Succession::OnCandidates(const WatchBatch& batch) {
  if (!batch.status.ok()) return Stop();
  if (batch.resynced) {
    const std::map<std::string, int64_t> before = std::move(by_key_);
    by_key_.clear();
    std::map<int64_t, Rival> rivals = std::move(rivals_);
    rivals_.clear();
    for (const KeyValue& kv : batch.state) {
      SetCandidate(kv);
      // Who was there before has not come again.
      auto same = rivals.find(kv.create_revision);
      if (same != rivals.end() && rivals_.count(kv.create_revision) != 0) {
        rivals_[kv.create_revision] = same->second;
      }
    }
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kPut) {
      SetCandidate(event.kv);
    } else if (auto known = by_key_.find(event.kv.key); known != by_key_.end()) {
      rivals_.erase(known->second);
      by_key_.erase(known);
    }
  }
  Judge();
}

void Succession::OnNotes(const WatchBatch& batch) {
  if (!batch.status.ok()) return Stop();
  if (batch.resynced) {
    notes_.clear();
    next_.clear();
    for (const KeyValue& kv : batch.state) SetNote(kv);
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kPut) {
      SetNote(event.kv);
    } else {
      RemoveNote(event.kv.key);
    }
  }
  Judge();
}

// Whom to make way for now. Sets the timer for the next moment at which that may change by itself.
std::optional<Succession::Heir> Succession::Find() {
  engine_.CancelTimer(settled_);
  const bool marked = !next_.empty() && next_ != self_.note.id;
  Instant look_again = kNever;
  for (const auto& [revision, rival] : rivals_) {
    auto note = notes_.find(NoteKeyOf(name_, rival.key));
    if (note == notes_.end()) continue;
    if (marked && note->second.id == next_) return Heir{.key = rival.key, .id = next_};
    // The one named to lead next does not make way for a priority meanwhile.
    if (!self_.settle.has_value() || note->second.priority <= self_.note.priority) continue;
    if (!next_.empty() && next_ == self_.note.id) continue;
    const Instant settled = rival.since + *self_.settle;
    if (settled <= engine_.now()) return Heir{.key = rival.key, .id = note->second.id};
    look_again = std::min(look_again, settled);
  }
  if (look_again != kNever) {
    settled_ = engine_.At(look_again, [self = shared_from_this()] { self->Judge(); });
  }
  return std::nullopt;
}

void Succession::Judge() {
  if (!active_) return;
  std::optional<Heir> heir = Find();
  if (!heir.has_value()) return;
  MakeWay make_way = std::move(make_way_);
  Stop();
  engine_.Defer(
      [make_way = std::move(make_way), heir = *std::move(heir)]() mutable { make_way(heir); });
}

}  // namespace conclave
