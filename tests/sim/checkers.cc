#include "conclave/tests/sim/checkers.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::sim {
namespace {

constexpr size_t kComplaintsMax = 20;
// Beyond a TTL, when all is well: an election, and the checkpoints' lag for each change of leader.
constexpr Duration kOverstayMax = std::chrono::seconds(6);

bool InRange(const std::string& key, const std::string& begin, const std::string& end) {
  if (end.empty()) return key == begin;
  if (end.size() == 1 && end[0] == '\0') return key >= begin;
  return key >= begin && key < end;
}

// The state at every revision, by key.
class Model {
 public:
  explicit Model(const TrueHistory& truth) : truth_(truth) {
    for (const TrueRevision& revision : truth) {
      for (const Write& write : revision.writes) {
        versions_[write.key].push_back({revision.revision, &write});
        if (!write.tombstone) values_[write.value].push_back(revision.revision);
      }
    }
  }

  int64_t last_revision() const { return truth_.empty() ? 1 : truth_.back().revision; }
  const std::vector<Write>* WritesAt(int64_t revision) const {
    if (revision < 2 || revision > last_revision()) return nullptr;
    return &truth_[static_cast<size_t>(revision - 2)].writes;
  }
  // The key's newest version at or below `revision`; null if it did not exist.
  std::optional<SeenKey> At(const std::string& key, int64_t revision) const {
    const auto found = versions_.find(key);
    if (found == versions_.end()) return std::nullopt;
    return Newest(found->first, found->second, revision);
  }
  std::vector<SeenKey> Range(const std::string& begin, const std::string& end,
                             int64_t revision) const {
    std::vector<SeenKey> keys;
    for (auto it = versions_.lower_bound(begin); it != versions_.end(); ++it) {
      if (!InRange(it->first, begin, end)) break;
      if (auto seen = Newest(it->first, it->second, revision)) keys.push_back(*std::move(seen));
    }
    return keys;
  }
  // The revisions at which a value was written.
  const std::vector<int64_t>& RevisionsOf(const std::string& value) const {
    static const std::vector<int64_t> kNone;
    const auto found = values_.find(value);
    return found == values_.end() ? kNone : found->second;
  }

 private:
  using Versions = std::vector<std::pair<int64_t, const Write*>>;

  static std::optional<SeenKey> Newest(const std::string& key, const Versions& versions,
                                       int64_t revision) {
    // Of several writes at one revision the last one counts: upper_bound stands behind all of them.
    const auto behind = std::upper_bound(
        versions.begin(), versions.end(), revision,
        [](int64_t wanted, const auto& version) { return wanted < version.first; });
    if (behind == versions.begin()) return std::nullopt;
    const auto& [mod, write] = *std::prev(behind);
    if (write->tombstone) return std::nullopt;
    return SeenKey{key, write->value, write->create_revision, mod, write->version};
  }

  const TrueHistory& truth_;
  std::map<std::string, Versions> versions_;
  std::map<std::string, std::vector<int64_t>> values_;
};

std::string Describe(const KvOperation& op) {
  static const char* const kNames[] = {"put", "delete", "range", "swap", "past", "doomed"};
  return absl::StrCat(kNames[static_cast<int>(op.kind)], " ", op.key, op.value.empty() ? "" : " = ",
                      op.value, " of client ", op.client, " (revision ", op.revision, ")");
}

class KvCheck {
 public:
  KvCheck(const TrueHistory& truth, const std::vector<KvOperation>& operations)
      : model_(truth), operations_(operations) {}

  Complaints Run() {
    for (const KvOperation& op : operations_) CheckEffect(op);
    CheckAuthors();
    CheckRealTime();
    return std::move(complaints_);
  }

 private:
  void Complain(const KvOperation& op, const std::string& what) {
    if (complaints_.size() < kComplaintsMax) {
      complaints_.push_back(absl::StrCat(Describe(op), ": ", what));
    }
  }

  void CheckEffect(const KvOperation& op) {
    if (op.kind == KvOperation::Kind::kDoomed) {
      if (!model_.RevisionsOf(op.value).empty() || op.outcome == Outcome::kDone) {
        Complain(op, "took effect, or was acknowledged, in part");
      }
      return;
    }
    if (!op.value.empty()) {
      const std::vector<int64_t>& revisions = model_.RevisionsOf(op.value);
      const bool wrote =
          op.outcome == Outcome::kDone && (op.kind != KvOperation::Kind::kSwap || op.succeeded);
      const size_t times = WritesPerEffect(op);
      if (op.outcome == Outcome::kUnknown) {
        if (!revisions.empty() &&
            (revisions.size() != times || revisions.front() != revisions.back())) {
          return Complain(op, "took effect more than once");
        }
        if (!revisions.empty()) CheckWrites(op, revisions.front());
        return;
      }
      if (!wrote && !revisions.empty()) return Complain(op, "was refused, and took effect");
      if (wrote && revisions.empty()) return Complain(op, "was acknowledged, and is lost");
      if (wrote && (revisions.size() != times || revisions.front() != op.revision ||
                    revisions.back() != op.revision)) {
        return Complain(op, absl::StrCat("took effect at another revision, or more than once: ",
                                         revisions.front(), " x", revisions.size()));
      }
      if (wrote) CheckWrites(op, op.revision);
    }
    if (op.outcome != Outcome::kDone) return;
    if (op.revision > model_.last_revision()) {
      return Complain(op, "the revision of its answer does not exist");
    }
    switch (op.kind) {
      case KvOperation::Kind::kPut:
      case KvOperation::Kind::kDoomed:
        return;
      case KvOperation::Kind::kPast:
        if (op.keys != model_.Range(op.key, "", op.expected_mod)) {
          Complain(op, absl::StrCat("does not show the past as of ", op.expected_mod));
        }
        return;
      case KvOperation::Kind::kDelete:
        return CheckDelete(op);
      case KvOperation::Kind::kRange:
        if (op.keys != model_.Range(op.key, op.range_end, op.revision)) {
          Complain(op, "does not show the state at its revision");
        }
        return;
      case KvOperation::Kind::kSwap:
        return CheckSwap(op);
    }
  }

  static size_t WritesPerEffect(const KvOperation& op) {
    return op.kind == KvOperation::Kind::kSwap ? 2 : 1;
  }

  // What was written at that revision is what was asked for, where it was asked for.
  void CheckWrites(const KvOperation& op, int64_t revision) {
    std::vector<std::string> keys = {op.key};
    if (op.kind == KvOperation::Kind::kSwap) keys.push_back(op.second_key);
    const std::vector<Write>* writes = model_.WritesAt(revision);
    const auto is_asked_for = [&](const Write& write) {
      return !write.tombstone && std::find(keys.begin(), keys.end(), write.key) != keys.end();
    };
    if (writes == nullptr || writes->size() != keys.size() ||
        !std::all_of(writes->begin(), writes->end(), is_asked_for)) {
      Complain(op, absl::StrCat("wrote something else at revision ", revision));
    }
    if (op.kind == KvOperation::Kind::kSwap && op.outcome == Outcome::kUnknown) {
      const auto seen = model_.At(op.key, revision - 1);
      if ((seen.has_value() ? seen->mod_revision : 0) != op.expected_mod) {
        Complain(op, "compared with another state");
      }
    }
  }

  // Each revision is made by one operation.
  void CheckAuthors() {
    std::map<int64_t, const KvOperation*> authors;
    for (const KvOperation& op : operations_) {
      const auto place = Place(op);
      if (!place.has_value() || !place->second) continue;
      const auto [author, fresh] = authors.try_emplace(place->first, &op);
      if (!fresh) Complain(op, absl::StrCat("is what was done by: ", Describe(*author->second)));
    }
  }

  void CheckDelete(const KvOperation& op) {
    if (op.deleted == 0) {
      if (model_.At(op.key, op.revision).has_value()) Complain(op, "missed a key that was there");
      return;
    }
    const std::vector<Write>* writes = model_.WritesAt(op.revision);
    const bool there =
        writes != nullptr && std::any_of(writes->begin(), writes->end(), [&](const Write& write) {
          return write.tombstone && write.key == op.key;
        });
    if (!there) Complain(op, "was acknowledged, and is lost");
  }

  void CheckSwap(const KvOperation& op) {
    const int64_t before = op.succeeded ? op.revision - 1 : op.revision;
    const auto seen = model_.At(op.key, before);
    const int64_t mod = seen.has_value() ? seen->mod_revision : 0;
    if ((mod == op.expected_mod) != op.succeeded) Complain(op, "compared with another state");
    if (!op.succeeded && op.keys != model_.Range(op.key, "", op.revision)) {
      Complain(op, "does not show the state at its revision");
    }
  }

  // The revision at which an operation has its place, if that is known; whether it made it.
  std::optional<std::pair<int64_t, bool>> Place(const KvOperation& op) const {
    const bool writes_value = !op.value.empty();
    if (op.outcome == Outcome::kUnknown) {
      if (!writes_value || model_.RevisionsOf(op.value).empty()) return std::nullopt;
      return std::pair(model_.RevisionsOf(op.value).front(), true);
    }
    if (op.outcome == Outcome::kRefused) return std::nullopt;
    const bool wrote = op.kind == KvOperation::Kind::kPut ||
                       (op.kind == KvOperation::Kind::kPast && writes_value) ||
                       (op.kind == KvOperation::Kind::kDelete && op.deleted > 0) ||
                       (op.kind == KvOperation::Kind::kSwap && op.succeeded);
    return std::pair(op.revision, wrote);
  }

  // Sweeps over time: at each invocation, what had returned before is the floor.
  void CheckRealTime() {
    struct Moment {
      Instant at;
      bool is_return = false;
      const KvOperation* op = nullptr;
    };
    std::vector<Moment> moments;
    for (const KvOperation& op : operations_) {
      moments.push_back({op.invoked, false, &op});
      if (op.outcome == Outcome::kDone) moments.push_back({op.returned, true, &op});
    }
    // Of one instant invocations come first: such operations overlap.
    std::stable_sort(moments.begin(), moments.end(), [](const Moment& a, const Moment& b) {
      return a.at != b.at ? a.at < b.at : a.is_return < b.is_return;
    });
    int64_t floor = 1;
    for (const Moment& moment : moments) {
      const auto place = Place(*moment.op);
      if (!place.has_value()) continue;
      const auto [revision, wrote] = *place;
      if (moment.is_return) {
        if (!moment.op->serializable) floor = std::max(floor, revision);
      } else if (wrote ? revision <= floor : (!moment.op->serializable && revision < floor)) {
        Complain(*moment.op, absl::StrCat("is older than revision ", floor,
                                          ", which had been seen before it began"));
      }
    }
  }

  const Model model_;
  const std::vector<KvOperation>& operations_;
  Complaints complaints_;
};

}  // namespace

Complaints CheckKv(const TrueHistory& truth, const std::vector<KvOperation>& operations) {
  return KvCheck(truth, operations).Run();
}

Complaints CheckWatch(const TrueHistory& truth, const WatchHistory& watch) {
  // All true events of the range, in order.
  struct Event {
    int64_t revision = 0;
    const Write* write = nullptr;
  };
  std::vector<Event> events;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (InRange(write.key, watch.key, watch.range_end))
        events.push_back({revision.revision, &write});
    }
  }
  // What a key was before an event: an index, or none.
  std::vector<std::optional<size_t>> before(events.size());
  std::map<std::string, size_t> last;
  for (size_t i = 0; i < events.size(); ++i) {
    if (const auto known = last.find(events[i].write->key); known != last.end()) {
      before[i] = known->second;
    }
    last[events[i].write->key] = i;
  }
  const auto first_at = [&](int64_t revision) {
    return static_cast<size_t>(
        std::lower_bound(events.begin(), events.end(), revision,
                         [](const Event& event, int64_t from) { return event.revision < from; }) -
        events.begin());
  };
  size_t next = first_at(watch.start_revision);
  for (const WatchHistory::Note& note : watch.notes) {
    switch (note.kind) {
      case WatchHistory::Note::Kind::kEvent: {
        const WatchHistory::Heard& heard = note.heard;
        if (next >= events.size())
          return {absl::StrCat("an event at revision ", heard.revision, " that never was")};
        if (events[next].revision != heard.revision || !(*events[next].write == heard.write)) {
          return {absl::StrCat("event ", heard.write.key, " at revision ", heard.revision,
                               " where ", events[next].write->key, " at ", events[next].revision,
                               " is due")};
        }
        if (heard.previous_mod != 0) {
          const bool right = before[next].has_value() &&
                             events[*before[next]].revision == heard.previous_mod &&
                             events[*before[next]].write->value == heard.previous_value;
          if (!right) {
            return {absl::StrCat("event ", heard.write.key, " at revision ", heard.revision,
                                 " has a wrong previous version")};
          }
        }
        ++next;
        break;
      }
      case WatchHistory::Note::Kind::kProgress:
        if (next < events.size() && events[next].revision <= note.revision) {
          return {absl::StrCat("progress says ", note.revision, " before the event at ",
                               events[next].revision)};
        }
        break;
      case WatchHistory::Note::Kind::kCompacted:
        next = std::max(next, first_at(note.revision));
        break;
    }
  }
  if (watch.must_be_complete && next < events.size()) {
    return {absl::StrCat("never heard of revision ", events[next].revision, " (",
                         events[next].write->key, ")")};
  }
  return {};
}

Complaints CheckLease(const TrueHistory& truth, const LeaseHistory& lease) {
  std::optional<Instant> gone;
  bool written = false;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (write.key != lease.key) continue;
      if (write.tombstone) {
        gone = revision.applied;
      } else {
        written = true;
      }
    }
  }
  if (lease.key_written && lease.told_gone < gone.value_or(kNever)) {
    return {absl::StrCat("lease ", lease.id, " was called gone while it lived")};
  }
  if (gone.has_value()) {
    Instant from = lease.granted;
    for (const Instant renewed : lease.renewed) {
      // What was sent after the end cannot have been acknowledged with a TTL; CheckRenewals is the
      // caller's.
      from = std::max(from, renewed);
    }
    if (*gone < from + lease.ttl - 2 * lease.ttl * kClockDriftPpmMax / 1'000'000) {
      const auto early =
          std::chrono::duration_cast<std::chrono::milliseconds>(from + lease.ttl - *gone);
      return {absl::StrCat("lease ", lease.id, " ended ", early.count(), " ms early")};
    }
    if (lease.calm != kNever &&
        *gone > std::max(lease.last_attempt, lease.calm) + lease.ttl + kOverstayMax) {
      return {absl::StrCat("lease ", lease.id, " outlives its time")};
    }
    return {};
  }
  if (lease.key_written && !written)
    return {absl::StrCat("the key of lease ", lease.id, " is lost")};
  if (written && lease.must_be_gone) return {absl::StrCat("lease ", lease.id, " never ended")};
  return {};
}

std::string CheckRecovery(const std::vector<std::string>& notes, bool has_rotted) {
  constexpr std::string_view kUnfinishedWrite = "cut ";
  for (const std::string& note : notes) {
    if (has_rotted || note.starts_with(kUnfinishedWrite)) continue;
    return absl::StrCat("it finds damage though nothing has rotted: ", note);
  }
  return "";
}

std::string Elections::Take(uint64_t term, size_t member, uint64_t life) {
  const std::pair leader(member, life);
  const auto [known, fresh] = leaders_.try_emplace(term, leader);
  if (fresh || known->second == leader) return "";
  return absl::StrCat("it leads in term ", term, ", and so did member ", known->second.first,
                      " in its life ", known->second.second);
}

std::string EqualStates::Take(size_t member, const Look& look) {
  const uint64_t before = std::exchange(applied_[member], look.applied);
  if (look.applied < before) return "its applied index goes back";
  const Look& first = first_.try_emplace(look.applied, look).first->second;
  if (first.state != look.state) {
    return absl::StrCat("its state differs at index ", look.applied);
  }
  if (first.conf != look.conf) {
    return absl::StrCat("its configuration differs at index ", look.applied);
  }
  return "";
}

std::string LeaderRules::Take(const Look& look) {
  const Look last = std::exchange(last_, look);
  if (look.first_own == 0) return "";
  const bool led_before = last.first_own != 0 && last.term == look.term;
  if (!led_before) commit_at_first_ = look.commit;
  const bool current = look.commit >= look.first_own;
  if (!current && look.commit > commit_at_first_) {
    return absl::StrCat("it leads in term ", look.term, " from entry ", look.first_own,
                        " on, and has committed entry ", look.commit, " by counting");
  }
  if (!current && look.conf_entry > look.first_own) {
    return absl::StrCat("it changes the membership in term ", look.term,
                        " before it has committed in it");
  }
  if (led_before && look.conf_entry > last.conf_entry && look.commit < last.conf_entry) {
    return absl::StrCat("it changes the membership at entry ", look.conf_entry,
                        " before the change at ", last.conf_entry, " is committed");
  }
  return "";
}

}  // namespace conclave::sim
