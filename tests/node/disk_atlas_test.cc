// The atlas of a member's disk: every file, every place, every kind of damage. Whatever a member
// starts from afterwards is what it had, or a part of that and the knowledge that it is a part; or
// it does not start. Nothing is ever silent.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/snapshot/writer.h"
#include "conclave/server/wal/damage.h"
#include "conclave/tests/node/request.h"

namespace conclave::node {
namespace {

using env::MemoryDisk;

constexpr uint64_t kTerm = 3;
constexpr uint64_t kSnapshotAt = 20;
constexpr uint64_t kLast = 48;

Bytes PutCommand(const apply::StateMachine& state, uint64_t index, Prng* prng) {
  etcdserverpb::PutRequest request;
  request.set_key(Concat("key ", index));
  request.set_value(std::string(40, static_cast<char>('a' + index % 26)));
  return state.Prepare(Method::kPut, WithHeadroom(request.SerializeAsString()), 1, index, prng);
}

class AtlasTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cluster_ = *FoundCluster(std::vector<FoundingMember>{{"a", {"http://127.0.0.1:1"}},
                                                         {"b", {"http://127.0.0.1:2"}},
                                                         {"c", {"http://127.0.0.1:3"}}},
                             "token");
    options_.name = "a";
    options_.id = cluster_.Find("a")->id;
    options_.cluster_id = cluster_.cluster_id;
    auto opened = OpenMember(disk_, options_, &cluster_, open_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    Live(*opened);
    // An orderly end, and a start of it.
    opened->log.reset();
    ASSERT_TRUE(OpenMember(disk_, options_, &cluster_, open_).ok());
  }

  // Entries in sync batches of their own, and a snapshot amid them.
  void Live(Opened& opened) {
    Prng prng(1);
    apply::StateMachine& state = *opened.recovered.state;
    raft::SnapshotMeta meta = opened.recovered.snapshot;
    digests_[meta.index.value()] = state.digest().low;
    digests_[0] = JoiningState(options_, {}).state->digest().low;
    for (uint64_t index = meta.index.value() + 1; index <= kLast; ++index) {
      raft::Entry entry{.term = raft::Term(kTerm),
                        .index = raft::Index(index),
                        .payload = PutCommand(state, index, &prng)};
      wal::LogBatch batch;
      batch.hard_state = {raft::Term(kTerm), raft::NodeId(7), raft::Index(index - 1)};
      batch.entries = std::span(&entry, 1);
      ASSERT_TRUE(opened.log->Append(batch).ok());
      ASSERT_TRUE(opened.log->Sync().ok());
      (void)state.Apply({.index = index, .entry_term = kTerm}, entry.payload);
      entries_.push_back(entry);
      if (index == kSnapshotAt) SaveSnapshot(state, index, meta.conf);
    }
    ASSERT_TRUE(opened.log->MarkSynced().ok());
  }

  void SaveSnapshot(apply::StateMachine& state, uint64_t index, const raft::ConfState& conf) {
    const raft::SnapshotMeta meta{raft::Index(index), raft::Term(kTerm), conf};
    digests_[index] = state.digest().low;
    auto writer = snapshot::Writer::Create(disk_, {options_.cluster_id, meta});
    ASSERT_TRUE(writer.ok()) << writer.status();
    apply::SnapshotTask task(&state);
    for (Bytes piece = task.Next(4096); !piece.empty(); piece = task.Next(4096)) {
      ASSERT_TRUE((*writer)->Append(piece.view()).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  // "" if what the member starts from is right, or if it does not start.
  std::string Silent(MemoryDisk& disk) {
    const auto opened = OpenMember(disk, options_, &cluster_, open_);
    ++cases_;
    if (!opened.ok()) {
      ++refused_;
      const bool told =
          absl::IsDataLoss(opened.status()) || absl::IsFailedPrecondition(opened.status());
      return told ? "" : opened.status().ToString();
    }
    const Recovered& found = opened->recovered;
    const auto digest = digests_.find(found.snapshot.index.value());
    if (digest == digests_.end()) return "a snapshot that never was";
    if (found.state->digest().low != digest->second) return "another state in the snapshot";
    uint64_t last = found.snapshot.index.value();
    for (const raft::Entry& entry : found.entries) {
      if (entry.index.value() != ++last) return "a gap in the entries";
      if (!(entry == entries_.at(last - 2))) return "another entry";
    }
    const wal::Position end{raft::Index(kLast), raft::Term(kTerm)};
    if (found.lost_index) {
      ++cut_;
      if (!wal::Reaches({found.lost_index, found.lost_term}, end)) return "an end before the end";
      if (found.hard_state.term <= raft::Term(kTerm)) return "a term it was in";
      if (found.hard_state.vote) return "a vote that it has not given";
      return "";
    }
    ++whole_;
    if (last != kLast) return Concat("only entries up to ", last, ", and nothing is missed");
    if (found.hard_state.term != raft::Term(kTerm) || found.hard_state.vote != raft::NodeId(7)) {
      return "another vote";
    }
    return "";
  }

  template <typename Change>
  void Damage(const std::string& file, const std::string& what, Change&& change) {
    const auto disk = disk_.Clone();
    std::string content = disk_.Content(file);
    change(&content);
    if (content == disk_.Content(file)) return;
    disk->SetContent(file, content);
    const std::string silent = Silent(*disk);
    if (!silent.empty()) ++failures_;
    if (failures_ <= 20) EXPECT_EQ(silent, "") << file << ": " << what;
  }

  // Behind this there is nothing but zeros.
  static size_t End(const std::string& content) {
    const size_t last = content.find_last_not_of('\0');
    return last == std::string::npos ? 0 : last + 1;
  }

  void TearDown() override {
    RecordProperty("cases", static_cast<int>(cases_));
    std::printf("%zu cases: %zu whole, %zu repaired, %zu refused, %zu silent\n", cases_, whole_,
                cut_, refused_, failures_);
    EXPECT_EQ(failures_, 0u);
  }

  InitialCluster cluster_;
  Options options_;
  const OpenOptions open_{
      .segment_bytes = wal::kSegmentBytesMin,
      .joining = std::nullopt,
      .force_new_cluster = false,
      .ask_others = [] {
        return std::vector<PeerAddress>{{raft::NodeId(5), {"http://127.0.0.1:2"}}};
      }};
  MemoryDisk disk_{"/data"};
  std::vector<raft::Entry> entries_;  // from index 2 on
  std::map<uint64_t, uint64_t> digests_;
  size_t cases_ = 0;
  size_t whole_ = 0;
  size_t cut_ = 0;
  size_t refused_ = 0;
  size_t failures_ = 0;
};

TEST_F(AtlasTest, FlippedBits) {
  for (const std::string& file : disk_.Files()) {
    const size_t end = End(disk_.Content(file));
    for (size_t at = 0; at < end; ++at) {
      for (const int bit : {static_cast<int>(at % 8), static_cast<int>((at + 3) % 8)}) {
        Damage(file, Concat("bit ", bit, " of byte ", at), [&](std::string* content) {
          (*content)[at] = static_cast<char>((*content)[at] ^ (1 << bit));
        });
      }
    }
  }
  EXPECT_GT(cases_, 30'000u);
}

TEST_F(AtlasTest, ZeroedBytesAndSectors) {
  for (const std::string& file : disk_.Files()) {
    const size_t end = End(disk_.Content(file));
    for (const size_t size : {1, 4, 8, 40, 512, 4096}) {
      for (size_t at = 0; at < end; at += size < 512 ? std::max<size_t>(size / 4, 1) : 512) {
        Damage(file, Concat(size, " zeros at ", at), [&](std::string* content) {
          std::fill_n(content->begin() + static_cast<ptrdiff_t>(at),
                      std::min(size, content->size() - at), '\0');
        });
      }
    }
  }
  EXPECT_GT(cases_, 15'000u);
}

TEST_F(AtlasTest, Truncations) {
  for (const std::string& file : disk_.Files()) {
    const size_t end = End(disk_.Content(file));
    for (size_t at = 0; at < end; ++at) {
      Damage(file, Concat("cut at ", at), [&](std::string* content) { content->resize(at); });
    }
  }
}

// What stands at another place of the file, or in another file of its kind.
TEST_F(AtlasTest, MisdirectedWrites) {
  Prng prng(5);
  const std::vector<std::string> files = disk_.Files();
  for (int round = 0; round < 20'000; ++round) {
    const std::string& file = files[prng.Below(files.size())];
    const std::string from = disk_.Content(files[prng.Below(files.size())]);
    const std::string content = disk_.Content(file);
    if (from.empty() || content.empty()) continue;
    const size_t size = prng.Chance(1, 2) ? 512 : 8 + prng.Below(100);
    const size_t unit = size == 512 ? 512 : 8;
    const size_t source = prng.Below(from.size() / unit + 1) * unit;
    const size_t target = prng.Below(content.size() / unit + 1) * unit;
    if (source + size > from.size() || target + size > content.size()) continue;
    Damage(file, Concat(size, " bytes from elsewhere at ", target),
           [&](std::string* bytes) { bytes->replace(target, size, from.substr(source, size)); });
  }
}

// A file that is gone.
TEST_F(AtlasTest, MissingFiles) {
  for (const std::string& file : disk_.Files()) {
    const auto disk = disk_.Clone();
    ASSERT_TRUE(disk->Remove(file).ok());
    EXPECT_EQ(Silent(*disk), "") << file;
  }
}

// Two at once, in different files.
TEST_F(AtlasTest, TwoDamages) {
  Prng prng(6);
  const std::vector<std::string> files = disk_.Files();
  for (int round = 0; round < 20'000; ++round) {
    const auto disk = disk_.Clone();
    std::string what;
    for (int i = 0; i < 2; ++i) {
      const std::string& file = files[prng.Below(files.size())];
      std::string content = disk->Content(file);
      const size_t end = End(content);
      if (end == 0) continue;
      const size_t at = prng.Below(end);
      content[at] = static_cast<char>(content[at] ^ (1 << prng.Below(8)));
      disk->SetContent(file, content);
      what += Concat(file, " byte ", at, "; ");
    }
    const std::string silent = Silent(*disk);
    if (!silent.empty()) ++failures_;
    if (failures_ <= 20) EXPECT_EQ(silent, "") << what;
  }
}

}  // namespace
}  // namespace conclave::node
