// Crashes at every operation on the disk, many seeds: what was acknowledged survives, what was not
// appears once or never.
#include <gtest/gtest.h>

#include "conclave/tests/wal/log_model.h"

namespace conclave::wal {
namespace {

using env::MemoryDisk;

// One member's life: appends, replaces tails, takes snapshots, starts anew behind received ones,
// crashes.
class Life {
 public:
  Life(uint64_t seed, uint64_t crash_at) : prng_(seed), crash_at_(crash_at) {
    disk_.set_hook([this](MemoryDisk::Operation operation, std::string_view) {
      if (operation == MemoryDisk::Operation::kRead) return absl::OkStatus();
      return ++operations_ == crash_at_ ? absl::InternalError("the plug is pulled")
                                        : absl::OkStatus();
    });
  }

  // Lives until the crash, or to the end, and twice more. False: it never came to the crash.
  bool Run() {
    Live(3);
    EXPECT_TRUE(StartsWithoutACrash());
    return operations_ >= planned_;
  }

  // Many short lives, each with a crash of its own, often in its start.
  void RunHounded(int lives) {
    for (int life = 0; life < lives; ++life) {
      crash_at_ = operations_ + 1 + prng_.Below(prng_.Chance(1, 2) ? 20 : 100);
      Live(1);
    }
    EXPECT_TRUE(StartsWithoutACrash());
  }

  void set_planned(uint64_t planned) { planned_ = planned; }

 private:
  void Live(int lives) {
    for (int life = 0; life < lives; ++life) {
      if (Start()) Work(60);
      if (::testing::Test::HasFatalFailure()) return;
      log_.reset();
      if (prng_.Chance(1, 4)) {
        disk_.KillProcess();
      } else {
        disk_.Crash(prng_);
      }
    }
  }

  bool StartsWithoutACrash() {
    crash_at_ = 0;
    return Start();
  }

  // What the disk may hold: the state that was acknowledged, and those of the appends that were
  // under way.
  bool Start() {
    auto recovered = Log::Recover(disk_, SmallSegments(8 << 10), snapshot_);
    if (!recovered.ok()) {
      EXPECT_TRUE(absl::IsInternal(recovered.status())) << recovered.status();
      return false;
    }
    const Model found{.hard_state = recovered->hard_state,
                      .entries = recovered->entries,
                      .base = snapshot_.index};
    bool allowed = false;
    // wal/vote is written before the log: term and vote may be ahead of the rest.
    for (const Model& voted : possible_) {
      for (const Model& model : possible_) {
        Model expected = Behind(model);
        if (voted.hard_state.term >= expected.hard_state.term) {
          expected.hard_state.term = voted.hard_state.term;
          expected.hard_state.vote = voted.hard_state.vote;
        }
        allowed = allowed || expected == found;
      }
    }
    EXPECT_TRUE(allowed) << "entries " << found.entries.size() << " behind "
                         << snapshot_.index.value() << ", acknowledged "
                         << possible_.front().entries.size() << " behind "
                         << possible_.front().base.value() << ", under way "
                         << possible_.size() - 1;
    possible_ = {found};
    log_ = std::move(recovered->log);
    return true;
  }

  // The model as it looks from the newest snapshot.
  Model Behind(Model model) const {
    if (model.base == snapshot_.index) return model;
    if (model.base > snapshot_.index) return Model{.hard_state = {}, .entries = {}, .base = {}};
    const uint64_t covered = snapshot_.index - model.base;
    const bool continues =
        covered <= model.entries.size() && model.entries[covered - 1].term == snapshot_.term;
    if (continues) {
      model.entries.erase(model.entries.begin(),
                          model.entries.begin() + static_cast<ptrdiff_t>(covered));
    } else {
      model.entries.clear();
    }
    model.base = snapshot_.index;
    return model;
  }

  std::vector<raft::Entry> NextEntries(const Model& model) {
    const uint64_t last = model.base.value() + model.entries.size();
    uint64_t first = last + 1;
    if (prng_.Chance(1, 5)) first -= prng_.Below(std::min<uint64_t>(model.entries.size(), 5) + 1);
    const uint64_t count = prng_.Below(4);
    ++term_;
    return MakeEntries(first, first + count, term_, prng_.Below(prng_.Chance(1, 10) ? 3000 : 400));
  }

  bool AppendSome() {
    std::vector<std::vector<raft::Entry>> entries(1 + prng_.Below(3));
    std::vector<LogBatch> batches;
    Model model = possible_.back();
    for (auto& each : entries) {
      each = NextEntries(model);
      batches.push_back(Batch(each));
      if (prng_.Chance(1, 2))
        batches.back().hard_state = MakeHardState(term_, 1, model.base.value());
      model.Apply(batches.back());
      possible_.push_back(model);
    }
    return log_->Append(batches).ok();
  }

  bool SyncAll() {
    if (!log_->Sync().ok()) return false;
    possible_ = {possible_.back()};
    if (prng_.Chance(1, 2)) return log_->MarkSynced().ok();
    return true;
  }

  bool TakeSnapshot() {
    const Model& model = possible_.back();
    if (model.entries.empty()) return true;
    const uint64_t covered = 1 + prng_.Below(model.entries.size());
    snapshot_ = {.index = model.base + covered, .term = model.entries[covered - 1].term};
    possible_ = {Behind(model)};
    return log_->TruncatePrefix(snapshot_.index).ok();
  }

  bool ReceiveSnapshot() {
    const Model& model = possible_.back();
    const uint64_t ahead = prng_.Below(model.entries.size() + 10);
    snapshot_ = {.index = model.base + 1 + ahead, .term = raft::Term(++term_)};
    LogBatch batch{.reset = snapshot_, .hard_state = MakeHardState(term_, 2, 0), .entries = {}};
    Model after = model;
    after.Apply(batch);
    possible_ = {model, after};
    return log_->Append(batch).ok() && SyncAll();
  }

  void Work(int steps) {
    for (int i = 0; i < steps; ++i) {
      bool alive = true;
      const uint64_t what = prng_.Below(20);
      if (what < 16) {
        alive = AppendSome() && (prng_.Chance(1, 4) || SyncAll());
      } else if (what < 18) {
        alive = SyncAll() && TakeSnapshot();
      } else if (what < 19) {
        alive = SyncAll() && ReceiveSnapshot();
      } else if (log_->BeginSpare()) {
        const absl::Status spare = Log::MakeSpare(disk_, log_->segment_bytes());
        log_->EndSpare(spare.ok());
        alive = spare.ok();
      }
      if (!alive) return;
    }
  }

  Prng prng_;
  uint64_t crash_at_ = 0;
  uint64_t planned_ = 0;
  uint64_t operations_ = 0;
  MemoryDisk disk_;
  std::unique_ptr<Log> log_;
  Position snapshot_;
  std::vector<Model> possible_{Model()};  // first: acknowledged; then those under way
  uint64_t term_ = 0;
};

TEST(CrashTest, AtEveryOperationWhatWasAcknowledgedSurvives) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    bool reached = true;
    for (uint64_t crash_at = 1; reached; ++crash_at) {
      SCOPED_TRACE(Concat("seed ", seed, ", crash at operation ", crash_at));
      Life life(seed, crash_at);
      life.set_planned(crash_at);
      reached = life.Run();
      ASSERT_FALSE(::testing::Test::HasFailure());
    }
  }
}

TEST(CrashTest, ManySeedsAtRandomOperations) {
  for (uint64_t seed = 100; seed < 1600; ++seed) {
    SCOPED_TRACE(Concat("seed ", seed));
    Prng prng(seed);
    Life life(seed, 1 + prng.Below(300));
    life.Run();
    ASSERT_FALSE(::testing::Test::HasFailure());
  }
}

TEST(CrashTest, CrashesInARow) {
  for (uint64_t seed = 2000; seed < 3000; ++seed) {
    SCOPED_TRACE(Concat("seed ", seed));
    Life(seed, 0).RunHounded(30);
    ASSERT_FALSE(::testing::Test::HasFailure());
  }
}

}  // namespace
}  // namespace conclave::wal
