// The checker of KV against an exhaustive search: small histories at random, good ones and spoilt
// ones. It must accept those, and those only, that some order of the operations explains.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/base/prng.h"
#include "conclave/tests/sim/checkers.h"

namespace conclave::sim {
namespace {

using Kind = KvOperation::Kind;

constexpr size_t kOperationsMax = 6;
constexpr int kHistories = 100'000;

Instant At(int64_t seconds) { return Instant(std::chrono::seconds(seconds)); }

// A store that is as simple as can be.
class Store {
 public:
  int64_t revision() const { return revision_; }
  int64_t ModOf(const std::string& key) const {
    const auto found = keys_.find(key);
    return found == keys_.end() ? 0 : found->second.mod_revision;
  }
  std::vector<SeenKey> Read(const std::string& key) const {
    const auto found = keys_.find(key);
    if (found == keys_.end()) return {};
    return {found->second};
  }
  std::vector<Write> Put(const std::vector<std::string>& keys, const std::string& value) {
    ++revision_;
    std::vector<Write> writes;
    for (const std::string& key : keys) {
      SeenKey& seen = keys_.try_emplace(key, SeenKey{key, "", revision_, 0, 0}).first->second;
      seen.value = value;
      seen.mod_revision = revision_;
      ++seen.version;
      writes.push_back({key, value, seen.create_revision, seen.version, 0, false});
    }
    return writes;
  }
  std::vector<Write> Delete(const std::string& key) {
    ++revision_;
    keys_.erase(key);
    return {{key, "", 0, 0, 0, true}};
  }

  // What it changes; nothing: it changes nothing.
  std::vector<Write> Do(const KvOperation& op) {
    switch (op.kind) {
      case Kind::kPut:
        return Put({op.key}, op.value);
      case Kind::kDelete:
        return ModOf(op.key) == 0 ? std::vector<Write>() : Delete(op.key);
      case Kind::kSwap:
        if (ModOf(op.key) != op.expected_mod) return {};
        return Put({op.key, op.second_key}, op.value);
      default:
        return {};
    }
  }
  // The answer to it, which changed so many keys.
  void Answer(size_t changed, KvOperation* op) const {
    op->revision = revision_;
    op->deleted = op->kind == Kind::kDelete ? static_cast<int64_t>(changed) : 0;
    op->succeeded = op->kind == Kind::kSwap && changed > 0;
    const bool reads = op->kind == Kind::kRange || (op->kind == Kind::kSwap && changed == 0);
    op->keys = reads ? Read(op->key) : std::vector<SeenKey>();
  }

 private:
  int64_t revision_ = 1;
  std::map<std::string, SeenKey> keys_;
};

// ---- The search ---------------------------------------------------------------------------------

// Whether what is left can follow on `store`. Keys may vanish without an operation, as by a lease.
bool CanFollow(const TrueHistory& truth, const Store& store, std::vector<const KvOperation*> left) {
  const auto position = static_cast<size_t>(store.revision() - 1);
  const std::vector<Write>* next = position < truth.size() ? &truth[position].writes : nullptr;
  const auto is_done = [](const KvOperation* op) { return op->outcome == Outcome::kDone; };
  if (next == nullptr && std::none_of(left.begin(), left.end(), is_done)) return true;
  if (next != nullptr && next->size() == 1 && next->front().tombstone) {
    Store without = store;
    if (without.Delete(next->front().key) == *next && CanFollow(truth, without, left)) return true;
  }
  for (size_t i = 0; i < left.size(); ++i) {
    const KvOperation& op = *left[i];
    if (op.outcome == Outcome::kRefused) continue;
    const bool must_wait = std::any_of(left.begin(), left.end(), [&](const KvOperation* other) {
      return is_done(other) && other->returned < op.invoked;
    });
    if (must_wait) continue;
    Store after = store;
    const std::vector<Write> writes = after.Do(op);
    if (!writes.empty() && (next == nullptr || *next != writes)) continue;
    if (is_done(&op)) {
      KvOperation answered = op;
      after.Answer(writes.size(), &answered);
      if (answered.revision != op.revision || answered.deleted != op.deleted ||
          answered.succeeded != op.succeeded || answered.keys != op.keys) {
        continue;
      }
    }
    std::vector<const KvOperation*> rest = left;
    rest.erase(rest.begin() + static_cast<ptrdiff_t>(i));
    if (CanFollow(truth, after, std::move(rest))) return true;
  }
  return false;
}

// ---- Histories ----------------------------------------------------------------------------------

struct History {
  TrueHistory truth;
  std::vector<KvOperation> operations;

  bool Explained() const {
    std::vector<const KvOperation*> all;
    for (const KvOperation& op : operations) all.push_back(&op);
    return CanFollow(truth, Store(), std::move(all));
  }
  std::string Describe() const {
    std::string text;
    for (const TrueRevision& revision : truth) {
      for (const Write& write : revision.writes) {
        absl::StrAppend(&text, "revision ", revision.revision, ": ", write.key, " = ",
                        write.tombstone ? "none" : write.value, "\n");
      }
    }
    for (const KvOperation& op : operations) {
      absl::StrAppend(&text, "kind ", static_cast<int>(op.kind), " ", op.key, " ", op.value,
                      " outcome ", static_cast<int>(op.outcome), " from ",
                      op.invoked.time_since_epoch() / std::chrono::seconds(1), " to ",
                      op.returned.time_since_epoch() / std::chrono::seconds(1), " revision ",
                      op.revision, " keys ", op.keys.size(), " deleted ", op.deleted, " expected ",
                      op.expected_mod, " succeeded ", op.succeeded, "\n");
    }
    return text;
  }
};

std::string AnyKey(Prng& prng) { return prng.Chance(1, 2) ? "a" : "b"; }

// Each takes effect at a moment of its own, at some moment between its call and its return.
History Good(Prng& prng) {
  History history;
  Store store;
  const size_t count = 2 + prng.Below(kOperationsMax - 1);
  for (size_t i = 0; i < count; ++i) {
    KvOperation op;
    op.kind = std::vector{Kind::kPut, Kind::kPut, Kind::kDelete, Kind::kRange,
                          Kind::kSwap}[prng.Below(5)];
    op.key = AnyKey(prng);
    const int64_t moment = 10 * static_cast<int64_t>(i + 1);
    op.invoked = At(moment - static_cast<int64_t>(prng.Below(25)));
    op.returned = At(moment + static_cast<int64_t>(prng.Below(25)));
    if (op.kind == Kind::kPut || op.kind == Kind::kSwap) op.value = absl::StrCat("v", i);
    if (op.kind == Kind::kSwap) {
      op.second_key = "c";
      op.expected_mod = prng.Chance(2, 3) ? store.ModOf(op.key) : 2;
    }
    op.outcome = Outcome::kDone;
    const bool is_lost = prng.Chance(1, 8);  // nobody hears of it, and perhaps it never was
    if (is_lost) {
      op.outcome = Outcome::kUnknown;
      op.returned = kNever;
    }
    if (!is_lost || prng.Chance(1, 2)) {
      std::vector<Write> writes = store.Do(op);
      if (!is_lost) store.Answer(writes.size(), &op);
      if (!writes.empty()) {
        history.truth.push_back({store.revision(), std::move(writes), At(moment)});
      }
    }
    history.operations.push_back(std::move(op));
  }
  return history;
}

void Spoil(Prng& prng, History* history) {
  KvOperation& op = history->operations[prng.Below(history->operations.size())];
  const KvOperation& other = history->operations[prng.Below(history->operations.size())];
  switch (prng.Below(9)) {
    case 0:
      op.revision += prng.Chance(1, 2) ? 1 : -1;
      return;
    case 1:  // it began later
      op.invoked = std::min(op.returned, op.invoked + std::chrono::seconds(prng.Below(40)));
      return;
    case 2:  // it was over earlier
      if (op.outcome == Outcome::kDone) {
        op.returned = std::max(op.invoked, op.returned - std::chrono::seconds(prng.Below(40)));
      }
      return;
    case 3:
      op.outcome = prng.Chance(1, 2) ? Outcome::kRefused : Outcome::kUnknown;
      return;
    case 4:
      if (op.kind == Kind::kRange || (op.kind == Kind::kSwap && !op.succeeded)) {
        op.keys = other.keys;
      }
      return;
    case 5:
      if (op.kind == Kind::kDelete) op.deleted = 1 - op.deleted;
      return;
    case 6:
      if (op.kind == Kind::kSwap) op.succeeded = !op.succeeded;
      return;
    case 7:  // it went to another key
      op.key = AnyKey(prng);
      return;
    default:  // it is said to be what another one was
      op.revision = other.revision;
      if (op.kind == Kind::kDelete) op.deleted = other.deleted;
  }
}

TEST(KvSearchTest, TheCheckerAcceptsWhatSomeOrderExplainsAndNothingElse) {
  Prng prng(1);
  int explained = 0;
  int spoilt = 0;
  for (int i = 0; i < kHistories; ++i) {
    History history = Good(prng);
    ASSERT_TRUE(history.Explained()) << history.Describe();
    for (uint64_t n = prng.Below(4); n > 0; --n) Spoil(prng, &history);
    const bool right = history.Explained();
    ++(right ? explained : spoilt);
    const Complaints complaints = CheckKv(history.truth, history.operations);
    ASSERT_EQ(complaints.empty(), right)
        << history.Describe() << (complaints.empty() ? "no complaint" : complaints.front());
  }
  EXPECT_GT(explained, kHistories / 4);
  EXPECT_GT(spoilt, kHistories / 4);
}

}  // namespace
}  // namespace conclave::sim
