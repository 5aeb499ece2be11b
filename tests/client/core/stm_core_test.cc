// Software transactions without a network: a store in a map, transactions that interleave as the
// test says, and a model that checks what comes out.
#include "conclave/client/core/stm_core.h"

#include <functional>
#include <map>

#include "conclave/base/prng.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

constexpr Isolation kAll[] = {Isolation::kSerializableSnapshot, Isolation::kSerializable,
                              Isolation::kRepeatableReads};

// What of the store's semantics a transaction can see: revisions, history, conditions of ranges.
class Store {
 public:
  int64_t revision() const { return revision_; }

  RangeResult Range(const RangeRequest& request) const {
    const int64_t at = request.options.revision == 0 ? revision_ : request.options.revision;
    RangeResult result{.revision = revision_};
    for (const auto& [key, kv] : history_.at(at)) {
      if (!request.range.Contains(key)) continue;
      result.kvs.push_back(kv);
      if (request.options.keys_only) result.kvs.back().value.clear();
    }
    result.count = static_cast<int64_t>(result.kvs.size());
    return result;
  }

  TxnResult Commit(const TxnRequest& request) {
    TxnResult result{.succeeded = true};
    for (const Compare& compare : request.conditions) result.succeeded &= Holds(compare);
    std::map<std::string, KeyValue> next = history_.at(revision_);
    bool wrote = false;
    for (const Op& op : result.succeeded ? request.success : request.failure) {
      if (const auto* range = std::get_if<RangeRequest>(&op)) {
        result.results.emplace_back(Range(*range));
      } else if (const auto* put = std::get_if<PutRequest>(&op)) {
        KeyValue& kv = next[put->key];
        if (kv.version == 0) kv.create_revision = revision_ + 1;
        kv.key = put->key;
        kv.value = put->value;
        kv.mod_revision = revision_ + 1;
        ++kv.version;
        wrote = true;
        result.results.emplace_back(PutResult{});
      } else {
        wrote |= next.erase(std::get<DeleteRequest>(op).range.key) != 0;
        result.results.emplace_back(DeleteResult{});
      }
    }
    if (wrote) history_[++revision_] = std::move(next);
    result.revision = revision_;
    return result;
  }

  void Put(const std::string& key, const std::string& value) {
    Commit({.success = {conclave::Put(key, value)}});
  }
  void Delete(const std::string& key) { Commit({.success = {conclave::Delete(key)}}); }
  std::string Value(const std::string& key) const {
    const auto& now = history_.at(revision_);
    auto found = now.find(key);
    return found == now.end() ? "(absent)" : found->second.value;
  }

 private:
  // Conditions of mod_revision only, which is all that transactions use.
  bool Holds(const Compare& compare) const {
    EXPECT_EQ(compare.target, Compare::Target::kModRevision);
    const auto holds = [&compare](int64_t revision) {
      return compare.result == Compare::Result::kEqual ? revision == compare.number
                                                       : revision < compare.number;
    };
    bool any = false;
    bool all = true;
    for (const auto& [key, kv] : history_.at(revision_)) {
      if (!compare.range.Contains(key)) continue;
      any = true;
      all &= holds(kv.mod_revision);
    }
    return any ? all : holds(0);
  }

  int64_t revision_ = 1;
  std::map<int64_t, std::map<std::string, KeyValue>> history_ = {{1, {}}};
};

// Drives a core against the store, as the client does.
struct Transaction {
  Transaction(Store& where, Isolation isolation, const std::string& marker = "")
      : store(where), core(isolation, marker) {
    core.Begin("id-1");
  }

  std::optional<KeyValue> GetKeyValue(const std::string& key) {
    auto known = core.Get(key);
    if (!known.has_value()) {
      ++reads;
      EXPECT_TRUE(core.OnRead(key, store.Range(core.ReadOf(key))).ok());
      known = core.Get(key);
    }
    EXPECT_TRUE(known.has_value());
    return known.value_or(std::nullopt);
  }
  std::string Get(const std::string& key) {
    auto kv = GetKeyValue(key);
    return kv.has_value() ? kv->value : "(absent)";
  }
  std::string Keys(const KeyRange& range) {
    auto known = core.Range(range);
    if (!known.has_value()) {
      ++reads;
      EXPECT_TRUE(core.OnRead(range, store.Range(core.ReadOf(range))).ok());
      known = core.Range(range);
    }
    EXPECT_TRUE(known.has_value());
    std::string keys;
    for (const KeyValue& kv : *known) keys += kv.key + "=" + kv.value + " ";
    return keys;
  }
  void Put(const std::string& key, const std::string& value) { core.Put(key, value, 0); }
  void FetchMissing() {
    for (auto keys = core.Missing(2); !keys.empty(); keys = core.Missing(2)) {
      core.OnMissing(keys, store.Commit(core.MissingTxn(keys)));
    }
  }
  bool Commit() {
    if (!core.NeedsCommit()) return true;
    FetchMissing();
    const TxnResult result = store.Commit(core.CommitTxn());
    if (!result.succeeded) core.OnConflict(result);
    return result.succeeded;
  }
  void Again() { core.Begin("id-2"); }

  Store& store;
  StmCore core;
  int reads = 0;
};

class StmCoreTest : public ::testing::TestWithParam<Isolation> {
 protected:
  Store store_;
};

TEST_P(StmCoreTest, ReadsItsOwnWrites) {
  store_.Put("a", "1");
  store_.Put("b", "1");
  Transaction tx(store_, GetParam());
  tx.Put("a", "2");
  EXPECT_EQ(tx.Get("a"), "2");
  tx.core.Delete("b");
  EXPECT_EQ(tx.Get("b"), "(absent)");
  tx.Put("b", "3");
  EXPECT_EQ(tx.Get("b"), "3");
  tx.core.Delete("b");
  EXPECT_EQ(tx.reads, 0) << "what it wrote itself need not be read";
  tx.Put("c", "4");
  EXPECT_EQ(tx.Keys(AllKeys()), "a=2 c=4 ");
  EXPECT_EQ(store_.Value("a"), "1") << "nothing goes out before the commit";
  ASSERT_TRUE(tx.Commit());
  EXPECT_EQ(store_.Value("a"), "2");
  EXPECT_EQ(store_.Value("b"), "(absent)");
  EXPECT_EQ(store_.Value("c"), "4");
}

TEST_P(StmCoreTest, EveryKindOfChangeToWhatWasReadIsAConflict) {
  const std::function<void()> kChanges[] = {
      [this] { store_.Put("r", "other"); },
      [this] { store_.Delete("r"); },
      [this] {
        store_.Delete("r");
        store_.Put("r", "1");
      },
      [this] { store_.Put("new", "appeared"); },
  };
  for (const auto& change : kChanges) {
    store_.Delete("new");
    store_.Put("r", "1");
    Transaction tx(store_, GetParam());
    EXPECT_EQ(tx.Get("r"), "1");
    EXPECT_EQ(tx.Get("new"), "(absent)");
    tx.Put("w", "x");
    change();
    EXPECT_FALSE(tx.Commit());
  }
  EXPECT_EQ(store_.Value("w"), "(absent)");
}

TEST_P(StmCoreTest, RangesSeeWhatAppearsChangesAndGoes) {
  const std::function<void()> kChanges[] = {
      [this] { store_.Put("r/2", "new"); },
      [this] { store_.Put("r/1", "changed"); },
      [this] { store_.Delete("r/1"); },
      [this] {
        store_.Delete("r/1");
        store_.Put("r/3", "instead");
      },
  };
  for (const auto& change : kChanges) {
    for (const char* key : {"r/2", "r/3"}) store_.Delete(key);
    store_.Put("r/1", "1");
    Transaction tx(store_, GetParam());
    EXPECT_EQ(tx.Keys(Prefix("r/")), "r/1=1 ");
    EXPECT_EQ(tx.Get("r/2"), "(absent)") << "known from the range";
    EXPECT_EQ(tx.reads, 1);
    tx.Put("w", "x");
    change();
    EXPECT_FALSE(tx.Commit());
  }
  store_.Put("s/1", "outside");
  Transaction tx(store_, GetParam());
  tx.Keys(Prefix("r/"));
  tx.Keys(Prefix("empty/"));
  tx.Put("r/1", "own");
  store_.Put("s/1", "changed");
  EXPECT_TRUE(tx.Commit()) << "what was not read is no conflict, nor is the own write";
}

// Two doctors are on call, and each may leave while the other stays. Reads are checked under every
// level, so both cannot leave.
TEST_P(StmCoreTest, NoWriteSkew) {
  store_.Put("alice", "on");
  store_.Put("bob", "on");
  Transaction first(store_, GetParam());
  Transaction second(store_, GetParam());
  const auto leave = [](Transaction& tx, const std::string& who) {
    if (tx.Get("alice") == "on" && tx.Get("bob") == "on") tx.Put(who, "off");
  };
  leave(first, "alice");
  leave(second, "bob");
  EXPECT_TRUE(first.Commit());
  EXPECT_FALSE(second.Commit());
  second.Again();
  leave(second, "bob");
  EXPECT_TRUE(second.Commit());
  EXPECT_EQ(store_.Value("alice"), "off");
  EXPECT_EQ(store_.Value("bob"), "on");
}

// What is written without being read: overwritten unseen, but for the snapshot's level.
TEST_P(StmCoreTest, BlindWritesAreCheckedUnderTheSnapshotAlone) {
  const bool checked = GetParam() == Isolation::kSerializableSnapshot;
  const std::function<void()> kChanges[] = {[this] { store_.Put("w", "theirs"); },
                                            [this] { store_.Delete("w"); }};
  for (const auto& change : kChanges) {
    store_.Put("w", "old");
    store_.Put("r", "1");
    Transaction tx(store_, GetParam());
    tx.Get("r");
    tx.Put("w", "mine");
    change();
    EXPECT_EQ(tx.Commit(), !checked);
  }
  // Between the fetching of its revision and the commit as well.
  Transaction tx(store_, GetParam());
  tx.Get("r");
  tx.Put("w", "mine");
  tx.FetchMissing();
  store_.Put("w", "theirs");
  EXPECT_EQ(tx.Commit(), !checked);
  // Without any read there is no snapshot that a write could be younger than.
  Transaction blind(store_, GetParam());
  blind.Put("w", "mine");
  store_.Put("w", "theirs");
  EXPECT_TRUE(blind.Commit());
  EXPECT_EQ(store_.Value("w"), "mine");
}

TEST_P(StmCoreTest, ReadsAreOfOneRevisionUnlessOnlyRepeatable) {
  store_.Put("x", "1");
  store_.Put("y", "-1");
  Transaction tx(store_, GetParam());
  EXPECT_EQ(tx.Get("x"), "1");
  store_.Commit({.success = {Put("x", "2"), Put("y", "-2")}});
  if (GetParam() == Isolation::kRepeatableReads) {
    EXPECT_EQ(tx.Get("y"), "-2") << "the latest";
    EXPECT_FALSE(tx.Commit()) << "a mixture is never committed, not even if it only reads";
  } else {
    EXPECT_EQ(tx.Get("y"), "-1");
    EXPECT_TRUE(tx.Commit()) << "what it read was true at one time";
  }
  EXPECT_EQ(tx.Get("x"), "1") << "repeatable in any case";
}

TEST_P(StmCoreTest, AfterAConflictTheReadsAreAlreadyThere) {
  store_.Put("n", "1");
  store_.Put("r/1", "a");
  Transaction tx(store_, GetParam());
  tx.Get("n");
  tx.Keys(Prefix("r/"));
  tx.Put("n", "2");
  store_.Put("n", "5");
  ASSERT_FALSE(tx.Commit());
  tx.reads = 0;
  tx.Again();
  EXPECT_EQ(tx.Get("n"), "5");
  EXPECT_EQ(tx.Keys(Prefix("r/")), "r/1=a ");
  EXPECT_EQ(tx.reads, 0);
  tx.Put("n", "6");
  EXPECT_TRUE(tx.Commit());
  EXPECT_EQ(store_.Value("n"), "6");
}

TEST_P(StmCoreTest, TooManyKeysInARange) {
  Transaction tx(store_, GetParam());
  RangeResult many{.revision = 1};
  for (int i = 0; i <= kStmRangeKeysMax; ++i) many.kvs.push_back({.key = std::to_string(i)});
  EXPECT_TRUE(absl::IsInvalidArgument(tx.core.OnRead(AllKeys(), many)));
  EXPECT_EQ(tx.core.ReadOf(AllKeys()).options.limit, kStmRangeKeysMax + 1);
}

TEST_P(StmCoreTest, AMarkerSettlesACommitOfUnknownOutcome) {
  using Settled = StmCore::Settled;
  for (const bool reads : {true, false}) {
    Transaction tx(store_, GetParam(), "marker");
    const auto prepare = [&] {
      tx.Again();
      if (reads) tx.Get("k");
      tx.Put("k", "mine");
      tx.FetchMissing();
      return tx.core.CommitTxn();
    };
    // It happened, and the answer was lost.
    TxnRequest commit = prepare();
    ASSERT_TRUE(store_.Commit(commit).succeeded);
    EXPECT_EQ(tx.core.OnSettled(store_.Commit(tx.core.SettleTxn())), Settled::kCommitted);
    EXPECT_EQ(tx.core.OnSettled(store_.Commit(tx.core.SettleTxn())), Settled::kCommitted);
    // It did not, and now never will, however late it arrives.
    commit = prepare();
    EXPECT_EQ(tx.core.OnSettled(store_.Commit(tx.core.SettleTxn())), Settled::kNever);
    EXPECT_FALSE(store_.Commit(commit).succeeded);
    // The answer to settling was lost, too.
    EXPECT_EQ(tx.core.OnSettled(store_.Commit(tx.core.SettleTxn())), Settled::kNever);
    // Somebody else uses the marker.
    commit = prepare();
    store_.Put("marker", "theirs");
    EXPECT_EQ(tx.core.OnSettled(store_.Commit(tx.core.SettleTxn())), Settled::kUnknown);
    EXPECT_FALSE(store_.Commit(commit).succeeded);
    store_.Delete("marker");
    EXPECT_EQ(tx.core.OnSettled(store_.Commit(tx.core.SettleTxn())), Settled::kUnknown);
  }
}

// Many transactions that interleave at random, each step of one at a time; whatever the level, the
// committed ones must be a serial history: replaying them in the order of their commits gives every
// read the value it had.
TEST_P(StmCoreTest, CommittedTransactionsAreASerialHistory) {
  constexpr int kTransactions = 400;
  constexpr int kAtOnce = 5;
  Prng prng(11);
  const auto random_key = [&prng] { return "k/" + std::to_string(prng.Below(4)); };
  struct Running {
    std::unique_ptr<Transaction> tx;
    std::vector<std::pair<std::string, std::string>> seen;  // key or "range" -> what it gave
    std::map<std::string, std::string> wrote;
  };
  std::vector<Running> running(kAtOnce);
  std::map<std::string, std::string> model;
  int committed = 0;
  int conflicts = 0;
  for (int step = 0; committed < kTransactions; ++step) {
    ASSERT_LT(step, 100 * kTransactions) << "no progress";
    Running& one = running[prng.Below(kAtOnce)];
    if (one.tx == nullptr) {
      one.tx = std::make_unique<Transaction>(store_, GetParam());
    }
    const uint64_t what = prng.Below(10);
    if (what < 4) {
      const std::string key = random_key();
      const std::string value = one.tx->Get(key);
      if (one.wrote.count(key) == 0) one.seen.emplace_back(key, value);
    } else if (what < 5 && one.wrote.empty()) {
      one.seen.emplace_back("range", one.tx->Keys(Prefix("k/")));
    } else if (what < 7) {
      const std::string key = random_key();
      one.wrote[key] = std::to_string(step);
      one.tx->Put(key, one.wrote[key]);
    } else if (what < 8) {
      const std::string key = random_key();
      one.wrote[key] = "(absent)";
      one.tx->core.Delete(key);
    } else {
      if (one.wrote.empty()) continue;  // only reads: true at an earlier time, by another test
      const bool done = one.tx->Commit();
      if (done) {
        for (const auto& [key, value] : one.seen) {
          std::string expected;
          if (key == "range") {
            for (const auto& [k, v] : model) expected += k + "=" + v + " ";
          } else {
            expected = model.count(key) != 0 ? model[key] : "(absent)";
          }
          ASSERT_EQ(value, expected) << key << " at step " << step;
        }
        for (const auto& [key, value] : one.wrote) {
          if (value == "(absent)") {
            model.erase(key);
          } else {
            model[key] = value;
          }
        }
        ++committed;
        one.tx.reset();
      } else {
        ++conflicts;
        one.tx->Again();
      }
      one.seen.clear();
      one.wrote.clear();
    }
  }
  EXPECT_GT(conflicts, kTransactions / 20);
  for (const auto& [key, value] : model) EXPECT_EQ(store_.Value(key), value);
}

INSTANTIATE_TEST_SUITE_P(Levels, StmCoreTest, ::testing::ValuesIn(kAll), [](const auto& level) {
  switch (level.param) {
    case Isolation::kSerializableSnapshot:
      return "SerializableSnapshot";
    case Isolation::kSerializable:
      return "Serializable";
    default:
      return "RepeatableReads";
  }
});

}  // namespace
}  // namespace conclave
