// A damaged log that others can repair: what is kept, what is remembered, and that nothing is
// forgotten wherever the repair is cut short.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "conclave/server/wal/damage.h"
#include "conclave/server/wal/vote_file.h"
#include "conclave/tests/wal/log_model.h"

namespace conclave::wal {
namespace {

using env::MemoryDisk;
using ::testing::HasSubstr;

constexpr auto kAlways = [](std::span<const raft::Entry>) { return true; };
constexpr char kVotePath[] = "wal/vote";

// ---- The file of votes.

Vote MakeVote(uint64_t term, uint64_t vote, Position lost = {}) {
  return {.term = raft::Term(term), .vote = raft::NodeId(vote), .lost = lost};
}

void MakeVoteFile(MemoryDisk& disk, const Vote& vote) {
  ASSERT_TRUE(disk.CreateDirectory(kDirectory).ok());
  ASSERT_TRUE(disk.SyncDirectory("").ok());
  ASSERT_TRUE(VoteFile::Open(disk, SmallSegments(), vote).ok());
}

TEST(VoteFileTest, WhatWasWrittenIsRead) {
  MemoryDisk disk;
  MakeVoteFile(disk, MakeVote(7, 0xa2, At(9, 6)));
  EXPECT_EQ(**VoteFile::Read(disk, SmallSegments()), MakeVote(7, 0xa2, At(9, 6)));
}

TEST(VoteFileTest, NoneIsNotADamagedOne) {
  MemoryDisk disk;
  EXPECT_EQ(*VoteFile::Read(disk, SmallSegments()), std::nullopt);
}

TEST(VoteFileTest, DamageOfOneCopyCostsNothing) {
  MemoryDisk disk;
  MakeVoteFile(disk, MakeVote(7, 0xa2));
  const std::string content = disk.Content(kVotePath);
  for (const uint64_t copy : {uint64_t{0}, kVoteCopyBytes}) {
    for (size_t at = 0; at < kVoteRecordBytes; ++at) {
      std::string flipped = content;
      flipped[copy + at] ^= static_cast<char>(1 << (at % 8));
      disk.SetContent(kVotePath, flipped);
      const auto vote = VoteFile::Read(disk, SmallSegments());
      ASSERT_TRUE(vote.ok()) << "copy at " << copy << ", byte " << at << ": " << vote.status();
      ASSERT_EQ(**vote, MakeVote(7, 0xa2));
    }
  }
}

TEST(VoteFileTest, DamageOfBothCopiesIsReported) {
  MemoryDisk disk;
  MakeVoteFile(disk, MakeVote(7, 0xa2));
  disk.SetContent(kVotePath, std::string(2 * kVoteCopyBytes, '\0'));
  const absl::Status status = VoteFile::Read(disk, SmallSegments()).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("damaged in both of its copies"));
}

// A crash at any operation of a write leaves the vote before it or the new one.
TEST(VoteFileTest, ACrashLeavesTheOldVoteOrTheNew) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    MemoryDisk disk;
    MakeVoteFile(disk, MakeVote(1, 1));
    Prng prng(seed);
    uint64_t written = 1;
    uint64_t left = 1 + seed % 12;
    {
      auto votes = VoteFile::Open(disk, SmallSegments(), MakeVote(1, 1));
      disk.set_hook([&](MemoryDisk::Operation, std::string_view) {
        return left-- == 0 ? absl::InternalError("the plug is pulled") : absl::OkStatus();
      });
      while ((*votes)->Write(MakeVote(written + 1, written + 1)).ok()) ++written;
    }
    disk.set_hook(nullptr);
    disk.Crash(prng);
    const auto found = VoteFile::Read(disk, SmallSegments());
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_TRUE(**found == MakeVote(written, written) ||
                **found == MakeVote(written + 1, written + 1))
        << "seed " << seed << ": term " << (*found)->term.value() << " after " << written;
  }
}

// An election costs a write of it, a put does not.
TEST(VoteFileTest, OnlyVotesAreWritten) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  uint64_t writes = 0;
  disk.set_hook([&](MemoryDisk::Operation operation, std::string_view path) {
    if (operation == MemoryDisk::Operation::kWrite && path.starts_with(kVotePath)) ++writes;
    return absl::OkStatus();
  });
  AppendAndSync(*log, Batch(MakeEntries(1, 2, 1), MakeHardState(1, 0xa1, 0)));
  EXPECT_EQ(writes, 2u);  // its two copies
  AppendAndSync(*log, Batch(MakeEntries(3, 4, 1), MakeHardState(1, 0xa1, 2)));
  AppendAndSync(*log, Batch(MakeEntries(5, 6, 1)));
  EXPECT_EQ(writes, 2u);
  AppendAndSync(*log, Batch({}, MakeHardState(2, 0, 4)));
  EXPECT_EQ(writes, 4u);
}

// ---- The cut.

// One entry per sync batch, in several segments.
class RepairTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kEntries = 40;
  static constexpr uint64_t kTerm = 5;

  void SetUp() override {
    auto log = std::move(wal::Open(disk_, {}, options_).log);
    for (uint64_t index = 1; index <= kEntries; ++index) {
      const auto entry = MakeEntries(index, index, kTerm, 400);
      AppendAndSync(*log, Batch(entry, MakeHardState(kTerm, 0xa2, index - 1)));
    }
    ASSERT_GE(log->segment_count(), 3u);
    log.reset();
    for (const std::string& file : disk_.Files()) {
      if (file.ends_with(".log")) segments_.push_back(file);
    }
  }

  void ExpectCut(const Recovered& recovered, uint64_t term) {
    const size_t left = recovered.entries.size();
    EXPECT_EQ(recovered.entries, MakeEntries(1, left, kTerm, 400));
    EXPECT_EQ(recovered.hard_state.term, raft::Term(term));
    EXPECT_EQ(recovered.hard_state.vote, raft::NodeId());
    EXPECT_LE(recovered.hard_state.commit.value(), left);
    EXPECT_TRUE(Reaches(recovered.lost, At(kEntries, kTerm)));
    EXPECT_EQ(recovered.lost.term, raft::Term(kTerm));
  }

  const Options options_ = SmallSegments(8 << 10);
  MemoryDisk disk_{"/data"};
  std::vector<std::string> segments_;
};

TEST_F(RepairTest, NothingIsChangedIfNobodyElseHasTheData) {
  std::string content = disk_.Content(segments_.front());
  content[kRecordsStart + 100] ^= 1;
  disk_.SetContent(segments_.front(), content);
  const auto files = disk_.Files();
  const auto never = [](std::span<const raft::Entry>) { return false; };
  EXPECT_TRUE(absl::IsDataLoss(Log::Recover(disk_, options_, {}, never).status()));
  EXPECT_TRUE(absl::IsDataLoss(Log::Recover(disk_, options_, {}).status()));
  EXPECT_EQ(disk_.Files(), files);
  EXPECT_EQ(disk_.Content(segments_.front()), content);
}

// Damage of every record's head and payload, and of every header: what stands before it is kept,
// the end of the log is known to the index where any entry behind the damage is legible.
TEST_F(RepairTest, TheLogIsCutAtTheDamageAndItsEndRemembered) {
  uint64_t cuts = 0;
  uint64_t exact = 0;
  for (const std::string& file : segments_) {
    const std::string content = disk_.Content(file);
    for (size_t at = 0; at < content.find_last_not_of('\0'); at += 24) {
      SCOPED_TRACE(Concat(file, " byte ", at));
      const auto damaged = disk_.Clone();
      std::string zeroed = content;
      std::fill_n(zeroed.begin() + static_cast<ptrdiff_t>(at), 8, '\0');
      if (zeroed == content) continue;
      damaged->SetContent(file, zeroed);
      auto recovered = Log::Recover(*damaged, options_, {}, kAlways);
      ASSERT_TRUE(recovered.ok()) << recovered.status();
      if (recovered->damage.empty()) {  // padding
        ASSERT_EQ(recovered->entries.size(), kEntries);
        continue;
      }
      ++cuts;
      ExpectCut(*recovered, kTerm + 1);
      if (recovered->lost == At(kEntries, kTerm)) ++exact;
      EXPECT_TRUE(damaged->Exists(file + ".damaged"));
      EXPECT_EQ(damaged->Content(file + ".damaged"), zeroed);
      // It goes on from there, and knows of it in its next life.
      const uint64_t left = recovered->entries.size();
      AppendAndSync(*recovered->log, Batch(MakeEntries(left + 1, left + 2, kTerm + 2, 400)));
      const Recovered again = Open(*damaged, {}, options_);
      ASSERT_EQ(again.entries.size(), left + 2);
      EXPECT_EQ(again.lost, recovered->lost);
      EXPECT_TRUE(Reaches(At(left + 2, kTerm + 2), again.lost));
      ASSERT_FALSE(HasFailure());
    }
  }
  EXPECT_GT(cuts, 500u);
  EXPECT_GT(exact * 10, cuts * 9);
}

// The repair itself may be cut short anywhere: the member never forgets that it is short of
// something.
TEST_F(RepairTest, ACrashWithinTheRepairForgetsNothing) {
  for (const std::string& file : segments_) {
    std::string content = disk_.Content(file);
    content[kRecordsStart + 10] ^= 4;
    disk_.SetContent(file, content);
    bool through = false;
    for (uint64_t last = 0; !through; ++last) {
      SCOPED_TRACE(Concat(file, ", crash behind operation ", last));
      const auto disk = disk_.Clone();
      uint64_t operations = 0;
      disk->set_hook([&](MemoryDisk::Operation operation, std::string_view) {
        if (operation == MemoryDisk::Operation::kRead) return absl::OkStatus();
        return operations++ == last ? absl::InternalError("the plug is pulled") : absl::OkStatus();
      });
      through = Log::Recover(*disk, options_, {}, kAlways).ok();
      disk->set_hook(nullptr);
      Prng prng(last);
      disk->Crash(prng);
      const auto recovered = Log::Recover(*disk, options_, {}, kAlways);
      ASSERT_TRUE(recovered.ok()) << recovered.status();
      // One more for every repair that was begun.
      const uint64_t term = recovered->hard_state.term.value();
      EXPECT_TRUE(term == kTerm + 1 || term == kTerm + 2) << term;
      ExpectCut(*recovered, term);
      ASSERT_FALSE(HasFailure());
    }
    content[kRecordsStart + 10] ^= 4;
    disk_.SetContent(file, content);
  }
}

TEST_F(RepairTest, WithoutItsVotesADamagedLogIsNotRepaired) {
  std::string content = disk_.Content(segments_.back());
  content[kRecordsStart + 100] ^= 1;
  disk_.SetContent(segments_.back(), content);
  const std::string votes = disk_.Content(kVotePath);
  disk_.SetContent(kVotePath, std::string(votes.size(), '\0'));
  const absl::Status damaged = Log::Recover(disk_, options_, {}, kAlways).status();
  EXPECT_TRUE(absl::IsDataLoss(damaged)) << damaged;
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("does not know its votes either"));
  ASSERT_TRUE(disk_.Remove(kVotePath).ok());
  EXPECT_TRUE(absl::IsDataLoss(Log::Recover(disk_, options_, {}, kAlways).status()));
}

// It might have been waiting for repair, and does not know that any more.
TEST_F(RepairTest, AWholeLogWithoutItsVotesWaitsForALaterTerm) {
  disk_.SetContent(kVotePath, std::string(2 * kVoteCopyBytes, '\0'));
  const auto recovered = Log::Recover(disk_, options_, {}, kAlways);
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_EQ(recovered->entries.size(), kEntries);
  EXPECT_EQ(recovered->hard_state.term, raft::Term(kTerm + 1));
  EXPECT_FALSE(Reaches(At(kEntries, kTerm), recovered->lost));
  EXPECT_TRUE(Reaches(At(kEntries + 1, kTerm + 1), recovered->lost));
}

TEST_F(RepairTest, ALogOfAnEarlierVersionGetsAFileOfVotes) {
  ASSERT_TRUE(disk_.Remove(kVotePath).ok());
  const Recovered recovered = Open(disk_, {}, options_);
  EXPECT_EQ(recovered.entries.size(), kEntries);
  EXPECT_EQ(recovered.lost, Position());
  EXPECT_EQ(**VoteFile::Read(disk_, options_), MakeVote(kTerm, 0xa2));
}

TEST_F(RepairTest, MissingSegmentsAreRepairedLikeDamagedOnes) {
  ASSERT_TRUE(disk_.Remove(segments_.front()).ok());
  const auto recovered = Log::Recover(disk_, options_, {}, kAlways);
  ASSERT_TRUE(recovered.ok()) << recovered.status();
  EXPECT_TRUE(recovered->entries.empty());
  EXPECT_EQ(recovered->lost, At(kEntries, kTerm));
}

// A crash between the file of votes and the log, with any room left in the log's segment.
TEST(VotesAheadTest, TheSegmentBeforeIsNotSealedWithWhatItNeverGot) {
  const Options options = SmallSegments(8 << 10);
  const size_t whole_bytes = options.segment_bytes - kRecordsStart;
  bool began_a_segment = false;
  for (size_t bytes = whole_bytes - 300; bytes < whole_bytes - 80; bytes += 8) {
    MemoryDisk disk;
    const auto entries = MakeEntries(1, 1, 1, bytes);
    AppendAndSync(*Open(disk, {}, options).log, Batch(entries, MakeHardState(1, 0xa1, 0)));
    ASSERT_TRUE(VoteFile::Open(disk, options, MakeVote(2, 0xa2)).ok());
    began_a_segment |= Open(disk, {}, options).log->segment_count() > 1;
    const Recovered recovered = Open(disk, {}, options);
    EXPECT_EQ(recovered.entries, entries);
    EXPECT_EQ(recovered.hard_state, MakeHardState(2, 0xa2, 0));
  }
  EXPECT_TRUE(began_a_segment);
}

// A tail without its proof: what a crash cannot have done is not taken for one.
TEST(TailTest, AZeroedFrameAtTheVeryEndIsReported) {
  MemoryDisk disk;
  auto log = std::move(Open(disk).log);
  AppendAndSync(*log, Batch(MakeEntries(1, 1, 1), MakeHardState(1, 1, 0)));
  const std::string file = disk.Files().front();
  const size_t last = disk.Content(file).find_last_not_of('\0') / 8 * 8 + 8;
  AppendAndSync(*log, Batch(MakeEntries(2, 2, 1)));
  log.reset();
  const std::string content = disk.Content(file);
  for (size_t at = last; at + 8 < content.find_last_not_of('\0'); at += 8) {
    const auto damaged = disk.Clone();
    std::string zeroed = content;
    std::fill_n(zeroed.begin() + static_cast<ptrdiff_t>(at), 8, '\0');
    if (zeroed == content) continue;
    damaged->SetContent(file, zeroed);
    ASSERT_TRUE(absl::IsDataLoss(Log::Recover(*damaged, SmallSegments(), {}).status())) << at;
    const auto cut = Log::Recover(*damaged, SmallSegments(), {}, kAlways);
    ASSERT_TRUE(cut.ok()) << cut.status();
    EXPECT_EQ(cut->entries, MakeEntries(1, 1, 1));
    EXPECT_TRUE(Reaches(cut->lost, At(2, 1)));
  }
}

}  // namespace
}  // namespace conclave::wal
