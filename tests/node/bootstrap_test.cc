// A member's disk: founded once, never forgotten, never taken for another's.
#include "conclave/server/node/bootstrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/apply/member_change.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/env/memory/memory_disk.h"
#include "conclave/server/node/identity.h"
#include "conclave/server/raft/confchange/confchange.h"
#include "conclave/server/snapshot/format.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/snapshot/writer.h"

namespace conclave::node {
namespace {

using conclave::env::MemoryDisk;
using ::testing::AllOf;
using ::testing::HasSubstr;

InitialCluster Cluster(std::string_view token = "token") {
  const std::vector<FoundingMember> founders = {{"a", {"http://127.0.0.1:1"}},
                                                {"b", {"http://127.0.0.1:2"}}};
  return *FoundCluster(founders, token);
}

absl::Status Open(MemoryDisk& disk, const InitialCluster& cluster = Cluster(),
                  const char* name = "a", bool* first_start = nullptr) {
  Options options;
  options.name = name;
  options.id = cluster.Find(name)->id;
  options.cluster_id = cluster.cluster_id;
  const auto opened = OpenMember(disk, options, &cluster, {.segment_bytes = wal::kSegmentBytesMin});
  if (opened.ok() && first_start != nullptr) *first_start = opened->first_start;
  return opened.status();
}

std::map<std::string, std::string> Tree(const MemoryDisk& disk) {
  std::map<std::string, std::string> tree;
  for (const std::string& file : disk.Files()) tree[file] = disk.Content(file);
  return tree;
}

void RemoveAll(MemoryDisk& disk, const std::string& directory) {
  const auto names = disk.List(directory);
  for (const std::string& name : *names) {
    CONCLAVE_CHECK(disk.Remove(Concat(directory, "/", name)).ok());
  }
}

// Refused, with these words on one line, and nothing is written.
void ExpectRefused(MemoryDisk& disk, const std::vector<std::string>& words,
                   const InitialCluster& cluster = Cluster(), const char* name = "a") {
  const auto before = Tree(disk);
  const absl::Status status = Open(disk, cluster, name);
  EXPECT_FALSE(status.ok());
  const std::string message(status.message());
  for (const std::string& word : words) EXPECT_THAT(message, HasSubstr(word));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_EQ(Tree(disk), before);
}

TEST(BootstrapTest, TheSecondStartIsNotAFirst) {
  MemoryDisk disk;
  bool first_start = false;
  ASSERT_TRUE(Open(disk, Cluster(), "a", &first_start).ok());
  EXPECT_TRUE(first_start);
  ASSERT_TRUE(Open(disk, Cluster(), "a", &first_start).ok());
  EXPECT_FALSE(first_start);
}

// A crash in it leaves something that starts; and once it is through, the log is never missed.
TEST(BootstrapTest, AFirstStartThatCrashedAnywhereIsTakenUpAgain) {
  for (uint64_t last = 1;; ++last) {
    MemoryDisk disk;
    uint64_t operations = 0;
    disk.set_hook([&](MemoryDisk::Operation, std::string_view) {
      return ++operations > last ? absl::InternalError("power is lost") : absl::OkStatus();
    });
    const bool through = Open(disk).ok();
    disk.set_hook(nullptr);
    Prng prng(last);
    disk.Crash(prng);
    EXPECT_TRUE(Open(disk).ok()) << "after operation " << last;
    RemoveAll(disk, "wal");
    EXPECT_TRUE(absl::IsDataLoss(Open(disk))) << "after operation " << last;
    if (through) break;
  }
}

TEST(BootstrapTest, AMemberWithoutItsLogIsNotFoundedAnew) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  RemoveAll(disk, "wal");
  ExpectRefused(disk, {"the log of this member is missing", "memory/wal", "memory/identity"});
}

// Directories that are older than the identity tell by their snapshots.
TEST(BootstrapTest, ALaterSnapshotShowsThatThereWasALog) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  RemoveAll(disk, "wal");
  ASSERT_TRUE(disk.Remove("identity").ok());
  EXPECT_TRUE(Open(*disk.Clone()).ok()) << "the founding snapshot alone is a first start's";
  const raft::SnapshotMeta later{.index = raft::Index(900), .term = raft::Term(2), .conf = {}};
  disk.SetContent(Concat("snapshot/", snapshot::FileName(later)), "whatever");
  ExpectRefused(disk, {"the log of this member is missing", snapshot::FileName(later)});
}

TEST(BootstrapTest, AMemberWithoutItsSnapshotsIsRefused) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  RemoveAll(disk, "snapshot");
  ExpectRefused(disk, {"the snapshots of this member are missing", "memory/snapshot", "Put"});
}

TEST(BootstrapTest, AnotherClustersOrMembersDirectoryIsRefusedUntouched) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  // What a start would clear away, were the directory its own.
  disk.SetContent("snapshot/0000000000000009-0000000000000001.snapshot.unfinished", "x");
  for (const bool with_identity : {true, false}) {
    ExpectRefused(disk, {"belongs to cluster", "started as a member of cluster"}, Cluster("other"));
    ExpectRefused(disk, {"belongs to member", "started as member"}, Cluster(), "b");
    if (with_identity) ASSERT_TRUE(disk.Remove("identity").ok());
  }
}

// What was being received when the process ended is taken up by the next one, up to the first byte
// that is wrong; everything else that is unfinished is removed.
TEST(BootstrapTest, AnUnfinishedSnapshotThatIsAheadOfTheLogIsTakenUp) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  const auto names = snapshot::ListNewestFirst(disk);
  ASSERT_EQ(names->size(), 1u);
  const std::string founding = disk.Content(Concat("snapshot/", names->front()));
  const auto add = [&](uint64_t index, uint64_t cluster_id) {
    raft::SnapshotMeta meta;
    meta.index = raft::Index(index);
    meta.term = raft::Term(3);
    auto writer = snapshot::Writer::Create(disk, {.cluster_id = cluster_id, .meta = meta});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Append(std::string(snapshot::kChunkBytes, 'x')).ok());
    (*writer)->Leave();
  };
  const auto open = [&]() -> bool {
    Options options;
    options.name = "a";
    options.id = Cluster().Find("a")->id;
    options.cluster_id = Cluster().cluster_id;
    auto opened = OpenMember(disk, options, nullptr, {.segment_bytes = wal::kSegmentBytesMin});
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() && opened->recovered.unfinished != nullptr;
  };
  EXPECT_FALSE(open());
  add(99, Cluster().cluster_id);
  EXPECT_TRUE(open());
  EXPECT_EQ(snapshot::ListUnfinished(disk)->size(), 1u);
  add(1, Cluster().cluster_id);  // not ahead
  EXPECT_FALSE(open());
  EXPECT_EQ(snapshot::ListUnfinished(disk)->size(), 0u);
  add(99, Cluster().cluster_id + 1);
  EXPECT_FALSE(open());
  disk.SetContent("snapshot/0000000000000063-0000000000000003.snapshot.unfinished", "x");
  EXPECT_FALSE(open());
  EXPECT_EQ(snapshot::ListUnfinished(disk)->size(), 0u);
  EXPECT_EQ(disk.Content(Concat("snapshot/", names->front())), founding);
}

TEST(BootstrapTest, ANewerFormatIsRefusedUntouched) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  std::string bytes = disk.Content("identity");
  bytes[8] = 2;
  const uint32_t crc = Crc32c(std::string_view(bytes).substr(0, 60));
  std::memcpy(bytes.data() + 60, &crc, sizeof crc);
  disk.SetContent("identity", bytes);
  ExpectRefused(disk, {"memory/identity", "format version is 2", "reads version 1"});
}

TEST(BootstrapTest, ADirectoryOfEtcdIsRefusedUntouched) {
  MemoryDisk disk;
  ASSERT_TRUE(disk.CreateDirectory("member").ok());
  ExpectRefused(disk, {"data directory of etcd"});
  MemoryDisk log;
  ASSERT_TRUE(log.CreateDirectory("wal").ok());
  log.SetContent("wal/0000000000000000-0000000000000000.wal", "x");
  ExpectRefused(log, {"a log of etcd"});
}

TEST(BootstrapTest, ADamagedIdentityIsWrittenAnewWhileTheLogKnows) {
  MemoryDisk disk;
  ASSERT_TRUE(Open(disk).ok());
  const std::string whole = disk.Content("identity");
  for (const std::string& bad :
       {std::string(), whole.substr(1), whole + "x", std::string(64, 'x')}) {
    disk.SetContent("identity", bad);
    MemoryDisk& with_log = disk;
    const auto without_log = disk.Clone();
    EXPECT_TRUE(Open(with_log).ok());
    EXPECT_EQ(disk.Content("identity"), whole);
    RemoveAll(*without_log, "wal");
    ExpectRefused(*without_log, {"the log of this member is missing"});
  }
}

// ---- Joining, and going on alone
// ------------------------------------------------------------------

absl::StatusOr<Opened> OpenJoining(MemoryDisk& disk,
                                   std::optional<std::vector<PeerAddress>> joining) {
  Options options;
  options.name = "new";
  options.id = raft::NodeId(77);
  options.cluster_id = 7;
  return OpenMember(disk, options, nullptr,
                    {.segment_bytes = wal::kSegmentBytesMin, .joining = std::move(joining)});
}

TEST(BootstrapTest, AMemberThatJoinsStartsEmptyAndAsksAgainUntilItHasAState) {
  MemoryDisk disk;
  const std::vector<PeerAddress> others = {{raft::NodeId(1), {"http://10.0.0.1:1"}}};
  EXPECT_TRUE(absl::IsNotFound(OpenJoining(disk, std::nullopt).status()));
  EXPECT_TRUE(*KnowsNoCluster(disk));
  for (int start = 0; start < 2; ++start) {
    const auto opened = OpenJoining(disk, others);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->first_start, start == 0);
    EXPECT_EQ(opened->recovered.snapshot.index, raft::Index(0));
    EXPECT_EQ(opened->recovered.acquaintances, others);
    EXPECT_TRUE(opened->recovered.state->membership().members().empty());
    EXPECT_TRUE(*KnowsNoCluster(disk));
    EXPECT_EQ(**ReadIdentity(disk), (Identity{7, raft::NodeId(77)}));
  }
}

TEST(BootstrapTest, AJoinThatCrashedAnywhereIsTakenUpAgain) {
  for (uint64_t last = 1;; ++last) {
    MemoryDisk disk;
    uint64_t operations = 0;
    disk.set_hook([&](MemoryDisk::Operation, std::string_view) {
      return ++operations > last ? absl::InternalError("power is lost") : absl::OkStatus();
    });
    const bool through = OpenJoining(disk, std::vector<PeerAddress>()).ok();
    disk.set_hook(nullptr);
    Prng prng(last);
    disk.Crash(prng);
    EXPECT_TRUE(OpenJoining(disk, std::vector<PeerAddress>()).ok()) << "after operation " << last;
    if (through) break;
  }
}

raft::Entry PutEntry(uint64_t index, const std::string& key) {
  std::string payload(apply::kCommandHeaderSize, '\0');
  apply::WriteCommandHeader(payload.data(), {static_cast<uint8_t>(Method::kPut), 1, index});
  payload += "\x0a" + std::string(1, static_cast<char>(key.size())) + key + "\x12\x01v";
  return {.term = raft::Term(2), .index = raft::Index(index), .payload = Bytes::Copy(payload)};
}

raft::Entry AddEntry(uint64_t index, uint64_t id) {
  raft::ConfChange change;
  change.steps.push_back({raft::ConfChangeType::kAddLearner, raft::NodeId(id)});
  change.context = apply::EncodeMemberChange(
      1, index, {.method = Method::kMemberAdd, .id = id, .peer_urls = {"http://10.0.0.9:1"}});
  return {.term = raft::Term(2),
          .index = raft::Index(index),
          .type = raft::EntryType::kConfChange,
          .payload = raft::EncodeConfChange(change)};
}

TEST(BootstrapTest, ANewClusterIsForcedOutOfOneMembersLog) {
  for (uint64_t last = 1;; ++last) {
    MemoryDisk disk;
    const InitialCluster cluster = Cluster();
    Options options;
    options.name = "a";
    options.id = cluster.Find("a")->id;
    options.cluster_id = cluster.cluster_id;
    const OpenOptions plain{.segment_bytes = wal::kSegmentBytesMin};
    {
      auto opened = OpenMember(disk, options, &cluster, plain);
      ASSERT_TRUE(opened.ok());
      wal::LogBatch batch;
      batch.hard_state = {raft::Term(2), raft::NodeId(5), raft::Index(1)};
      const std::vector<raft::Entry> entries = {PutEntry(2, "one"), AddEntry(3, 99),
                                                PutEntry(4, "two")};
      batch.entries = entries;
      ASSERT_TRUE(opened->log->Append(batch).ok());
      ASSERT_TRUE(opened->log->Sync().ok());
    }
    // Whether power is lost on the way or not, the data is there and the member is alone.
    OpenOptions forced = plain;
    forced.force_new_cluster = true;
    uint64_t operations = 0;
    disk.set_hook([&](MemoryDisk::Operation, std::string_view) {
      return ++operations > last ? absl::InternalError("power is lost") : absl::OkStatus();
    });
    const bool through = OpenMember(disk, options, &cluster, forced).ok();
    disk.set_hook(nullptr);
    Prng prng(last);
    disk.Crash(prng);
    if (!through) {
      ASSERT_TRUE(OpenMember(disk, options, &cluster, forced).ok()) << "operation " << last;
    }
    const auto opened = OpenMember(disk, options, &cluster, plain);
    ASSERT_TRUE(opened.ok()) << opened.status() << " operation " << last;
    const apply::StateMachine& state = *opened->recovered.state;
    EXPECT_EQ(state.store().current_revision(), 3);
    ASSERT_EQ(state.membership().members().size(), 1u);
    EXPECT_NE(state.membership().Find(options.id.value()), nullptr);
    EXPECT_TRUE(state.membership().removed().contains(cluster.Find("b")->id.value()));
    EXPECT_TRUE(state.membership().removed().contains(99));
    EXPECT_EQ(opened->recovered.snapshot.conf.voters, std::vector{options.id});
    EXPECT_GT(opened->recovered.hard_state.term, raft::Term(2));
    EXPECT_TRUE(opened->recovered.entries.empty());
    if (through) break;
  }
}

TEST(BootstrapTest, NoClusterIsForcedOutOfAMemberThatHasNoneYet) {
  MemoryDisk disk;
  ASSERT_TRUE(OpenJoining(disk, std::vector<PeerAddress>()).ok());
  Options options;
  options.id = raft::NodeId(77);
  options.cluster_id = 7;
  const auto opened = OpenMember(
      disk, options, nullptr, {.segment_bytes = wal::kSegmentBytesMin, .force_new_cluster = true});
  EXPECT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
}

}  // namespace
}  // namespace conclave::node
