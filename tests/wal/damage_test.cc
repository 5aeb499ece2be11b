// Rot and torn tails: damage of acknowledged data is never silent, a torn tail never in the way.
#include "conclave/server/wal/damage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "conclave/tests/wal/log_model.h"

namespace conclave::wal {
namespace {

using env::MemoryDisk;
using ::testing::HasSubstr;

// A log of several sync batches in several segments, and what it held after each of them.
class DamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto log = std::move(Open(disk_, {}, options_).log);
    models_.push_back({});
    for (uint64_t batch = 1; batch <= 24; ++batch) {
      std::vector<raft::Entry> entries;
      // Every eighth batch replaces the tail; sizes vary.
      const uint64_t first = models_.back().entries.size() + (batch % 8 == 0 ? 0 : 1);
      for (uint64_t i = 0; i < batch % 4; ++i) {
        entries.push_back(MakeEntry(first + i, batch, 100 + 150 * (batch % 5)));
      }
      const LogBatch batches[] = {Batch({}, MakeHardState(batch, 1, first - 1)), Batch(entries)};
      ASSERT_TRUE(log->Append(batches).ok());
      before_.push_back(End());
      Model model = models_.back();
      for (const LogBatch& each : batches) model.Apply(each);
      models_.push_back(model);
      ASSERT_TRUE(log->Sync().ok());
    }
    segments_ = log->segment_count();
    ASSERT_GE(segments_, 3u);
    log_ = std::move(log);
  }

  std::string LastFile() const {
    std::string last;
    for (const std::string& file : disk_.Files()) {
      if (file.ends_with(".log")) last = file;
    }
    return last;
  }

  // Where the non-zero bytes of the last segment end.
  std::pair<std::string, size_t> End() const {
    const std::string content = disk_.Content(LastFile());
    return {LastFile(), content.find_last_not_of('\0') + 1};
  }

  // What a log with this damage gives: a model, or the refusal.
  absl::StatusOr<Model> Outcome(MemoryDisk& disk) const {
    auto recovered = Log::Recover(disk, options_, Position());
    if (!recovered.ok()) return recovered.status();
    return ModelOf(*recovered);
  }

  const Options options_ = SmallSegments(8 << 10);
  MemoryDisk disk_{"/data"};
  std::unique_ptr<Log> log_;
  std::vector<Model> models_;  // after batch i
  std::vector<std::pair<std::string, size_t>> before_;
  uint64_t segments_ = 0;
};

TEST_F(DamageTest, TheWholeLogComesBack) { EXPECT_EQ(*Outcome(disk_), models_.back()); }

// For every byte: refused, or the same content. With the proof behind it also the last batch is
// protected.
TEST_F(DamageTest, NoFlippedByteIsEverAcceptedSilently) {
  ASSERT_TRUE(log_->MarkSynced().ok());
  uint64_t refused = 0;
  uint64_t harmless = 0;
  for (const std::string& file : disk_.Files()) {
    if (!file.ends_with(".log")) continue;
    const std::string content = disk_.Content(file);
    for (size_t at = 0; at < content.size(); ++at) {
      const auto damaged = disk_.Clone();
      std::string flipped = content;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
      damaged->SetContent(file, flipped);
      const auto outcome = Outcome(*damaged);
      if (outcome.ok()) {
        ASSERT_EQ(*outcome, models_.back()) << file << " byte " << at;
        ++harmless;
      } else {
        ASSERT_TRUE(absl::IsDataLoss(outcome.status())) << outcome.status();
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 10'000u);
  EXPECT_GT(harmless, 1'000u);  // padding, and what stands behind the end
}

TEST_F(DamageTest, NoZeroedSectorOrFrameIsEverAcceptedSilently) {
  ASSERT_TRUE(log_->MarkSynced().ok());
  const uint64_t proof = options_.segment_bytes - log_->remaining_bytes() - kHeadBytes;
  for (const std::string& file : disk_.Files()) {
    if (!file.ends_with(".log")) continue;
    const std::string content = disk_.Content(file);
    for (size_t size : {8, 40, 512, 4096}) {
      for (size_t at = 0; at < content.size(); at += size < 512 ? 8 : size) {
        const auto damaged = disk_.Clone();
        std::string zeroed = content;
        std::fill_n(zeroed.begin() + static_cast<ptrdiff_t>(at),
                    std::min(size, content.size() - at), '\0');
        damaged->SetContent(file, zeroed);
        const auto outcome = Outcome(*damaged);
        if (!outcome.ok()) {
          ASSERT_TRUE(absl::IsDataLoss(outcome.status())) << outcome.status();
          continue;
        }
        // One thing cannot be told apart from a crash: the end wiped together with its proof.
        if (file == LastFile() && at < proof && at + size > proof) continue;
        ASSERT_EQ(*outcome, models_.back()) << file << " byte " << at << " size " << size;
      }
    }
  }
}

TEST_F(DamageTest, ACutSealedSegmentIsRefused) {
  const std::string file = disk_.Files().front();
  const std::string content = disk_.Content(file);
  const size_t end = content.find_last_not_of('\0') + 1;
  for (size_t size = 0; size < end; size += 7) {
    const auto damaged = disk_.Clone();
    damaged->SetContent(file, content.substr(0, size));
    ASSERT_TRUE(absl::IsDataLoss(Outcome(*damaged).status())) << size;
  }
}

// The last batch cut at every sector, where a crash can cut: what was before it survives, whole or
// without it. Between them no crash can cut, and it is refused unless nothing was lost.
TEST_F(DamageTest, ATornTailIsCutOff) {
  const auto [file, end] = End();
  const std::string content = disk_.Content(file);
  const auto [previous_file, previous_end] = before_[before_.size() - 2];
  ASSERT_EQ(file, previous_file);
  for (size_t at = previous_end; at <= end; ++at) {
    const auto torn = disk_.Clone();
    std::string cut = content;
    std::fill(cut.begin() + static_cast<ptrdiff_t>(at), cut.end(), '\0');
    torn->SetContent(file, cut);
    if (at % kSectorBytes != 0 && at != previous_end) {
      const auto outcome = Outcome(*torn);
      if (absl::IsDataLoss(outcome.status())) continue;
    }
    Recovered recovered = Open(*torn, {}, options_);
    const Model model = ModelOf(recovered);
    // A sync batch of two records may survive by halves: the hard state first.
    Model half = models_[models_.size() - 2];
    half.hard_state = models_.back().hard_state;
    // The term and the vote stand in wal/vote before the log has them.
    Model voted = models_[models_.size() - 2];
    voted.hard_state.term = half.hard_state.term;
    voted.hard_state.vote = half.hard_state.vote;
    ASSERT_TRUE(model == voted || model == half || model == models_.back()) << "cut at " << at;
    // And it goes on from there.
    const auto next = MakeEntries(model.entries.size() + 1, model.entries.size() + 1, 99);
    AppendAndSync(*recovered.log, Batch(next));
    Model expected = model;
    expected.Apply(Batch(next));
    ASSERT_EQ(*Outcome(*torn), expected);
  }
}

// Sectors reach the disk in any order: also then the unfinished batch is only cut off.
TEST(TornTest, AHoleInTheLastBatchIsATornTail) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  AppendAndSync(*log, Batch(MakeEntries(1, 4, 1)));
  ASSERT_TRUE(log->MarkSynced().ok());
  const std::string file = disk.Files().front();
  const size_t before = disk.Content(file).find_last_not_of('\0') + 1;
  const auto entries = MakeEntries(5, 9, 1, 900);
  std::vector<LogBatch> batches;
  for (const raft::Entry& entry : entries) batches.push_back(Batch({&entry, 1}));
  ASSERT_TRUE(log->Append(batches).ok());
  const std::string content = disk.Content(file);
  const size_t end = content.find_last_not_of('\0') + 1;
  ASSERT_GT(end, before + 4000);
  uint64_t told = 0;
  for (size_t sector = before / 512 + 1; sector * 512 < end; ++sector) {
    const auto torn = disk.Clone();
    std::string hole = content;
    std::fill_n(hole.begin() + static_cast<ptrdiff_t>(sector * 512), 512, '\0');
    torn->SetContent(file, hole);
    const Recovered recovered = Open(*torn);
    ASSERT_GE(recovered.entries.size(), 4u);
    ASSERT_LT(recovered.entries.size(), 9u);
    if (recovered.torn_bytes > 0) ++told;
  }
  EXPECT_GT(told, 0u);
}

// The second record of a torn batch is intact and would fit behind a new first one to the byte.
TEST(TornTest, RemainsOfATornBatchNeverContinueANewOne) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  const auto torn = MakeEntries(1, 2, 1, 2000);
  const LogBatch batches[] = {Batch({&torn[0], 1}), Batch({&torn[1], 1})};
  ASSERT_TRUE(log->Append(batches).ok());
  log.reset();
  const std::string file = disk.Files().front();
  std::string content = disk.Content(file);
  std::fill_n(content.begin() + kRecordsStart + 512, 512, '\0');
  disk.SetContent(file, content);
  const auto fresh = MakeEntries(1, 1, 2, 2000);
  AppendAndSync(*Open(disk).log, Batch(fresh));
  EXPECT_EQ(Open(disk).entries, fresh);
}

// The case that other logs lose acknowledged writes to: the length of a frame zeroed, so that it
// looks like the end.
TEST_F(DamageTest, AZeroedFrameOfAnAcknowledgedEntryIsReported) {
  AppendAndSync(*log_, Batch(MakeEntries(models_.back().entries.size() + 1,
                                         models_.back().entries.size() + 1, 50)));
  ASSERT_TRUE(log_->MarkSynced().ok());
  const std::string file = End().first;
  std::string content = disk_.Content(file);
  const size_t frame = before_.back().second / 8 * 8 + 8;
  std::fill_n(content.begin() + static_cast<ptrdiff_t>(frame), 8, '\0');
  disk_.SetContent(file, content);
  const absl::Status status = Outcome(disk_).status();
  ASSERT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/data/" + file + " is damaged at byte "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("a batch written later stands intact"));
  const auto damage = DamageOf(status);
  ASSERT_TRUE(damage.has_value());
  EXPECT_EQ(damage->file, file);
  EXPECT_EQ(disk_.Content(file), content) << "nothing was changed";
}

// After a sync that failed, the page cache shows what the disk does not have. Recovery writes it
// again.
TEST_F(DamageTest, ATailWhoseSyncFailedIsWrittenAgain) {
  const auto entries =
      MakeEntries(models_.back().entries.size() + 1, models_.back().entries.size() + 3, 50);
  ASSERT_TRUE(log_->Append(Batch(entries)).ok());
  disk_.set_hook([](MemoryDisk::Operation operation, std::string_view) {
    return operation == MemoryDisk::Operation::kSync ? absl::InternalError("EIO")
                                                     : absl::OkStatus();
  });
  ASSERT_FALSE(log_->Sync().ok());
  log_.reset();
  disk_.set_hook(nullptr);
  disk_.KillProcess();
  Model seen;
  {
    Recovered recovered = Open(disk_, {}, options_);
    seen = ModelOf(recovered);
  }
  // What recovery has shown must be there, whatever happens now.
  disk_.CrashLosingAll();
  EXPECT_EQ(*Outcome(disk_), seen);
  EXPECT_EQ(seen.entries.size(), models_.back().entries.size() + 3);
}

// A log that is thrown at the parser as it is: never more than a status.
TEST_F(DamageTest, ScrambledSegmentsAreRefusedOrRead) {
  Prng prng(7);
  const auto files = disk_.Files();
  for (int round = 0; round < 300; ++round) {
    const auto damaged = disk_.Clone();
    for (int i = 0; i < 3; ++i) {
      const std::string& file = files[prng.Below(files.size())];
      std::string content = damaged->Content(file);
      if (content.empty()) continue;
      const size_t from = prng.Below(content.size());
      const size_t to = prng.Below(content.size());
      const size_t size = std::min(content.size() - std::max(from, to), prng.Below(2000));
      content.replace(to, size, content.substr(from, size));
      damaged->SetContent(file, content);
    }
    const auto outcome = Outcome(*damaged);
    if (!outcome.ok()) {
      ASSERT_FALSE(absl::IsInternal(outcome.status())) << outcome.status();
    }
  }
}

}  // namespace
}  // namespace conclave::wal
