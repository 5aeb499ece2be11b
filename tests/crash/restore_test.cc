// A restore of a backup that loses its power at any change of the disk: there is a whole member
// afterwards, or none at all, and then the restore can be done again.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "conclave/base/concat.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/tests/crash/plug.h"

namespace conclave::crash {
namespace {

constexpr int kKeys = 30;

node::InitialCluster ClusterOfOne() {
  return *node::FoundCluster(std::vector<node::FoundingMember>{{"a", {"http://127.0.0.1:2380"}}},
                             "restored");
}

node::Options OptionsOf(const node::InitialCluster& cluster) {
  node::Options options;
  options.name = "a";
  options.id = cluster.members[0].id;
  options.cluster_id = cluster.cluster_id;
  return options;
}

// What another cluster has left behind.
apply::StateParts Backup() {
  apply::StateParts parts;
  parts.store = std::make_unique<mvcc::Store>();
  for (int i = 0; i < kKeys; ++i) {
    mvcc::WriteTxn txn = parts.store->Begin();
    txn.Put(Concat("key ", i), std::string(300, 'v'), 0);
    txn.Commit();
  }
  return parts;
}

// False: it was through before the n-th change.
bool CrashAt(Mode mode, uint64_t at, uint64_t* crashes) {
  const node::InitialCluster cluster = ClusterOfOne();
  const node::Options options = OptionsOf(cluster);
  const node::OpenOptions open{.segment_bytes = wal::kSegmentBytesMin};
  env::MemoryDisk disk;
  bool reached = false;
  {
    Plug plug(&disk, mode, at, at);
    const absl::Status restored = node::FoundMember(disk, options, cluster, Backup(), open);
    reached = plug.pulled();
    EXPECT_TRUE(reached || restored.ok()) << restored;
  }
  if (reached) ++*crashes;
  auto opened = node::OpenMember(disk, options, nullptr, open);
  if (!opened.ok()) {
    EXPECT_TRUE(reached) << opened.status();
    const absl::Status again = node::FoundMember(disk, options, cluster, Backup(), open);
    EXPECT_TRUE(again.ok()) << again << " after " << opened.status();
    opened = node::OpenMember(disk, options, nullptr, open);
  }
  EXPECT_TRUE(opened.ok()) << opened.status();
  if (!opened.ok()) return reached;
  const mvcc::Store& store = opened->recovered.state->store();
  EXPECT_EQ(store.current_revision(), 1 + kKeys);
  return reached;
}

TEST(RestoreCrashTest, ThereIsAWholeMemberOrNone) {
  uint64_t crashes = 0;
  for (const Mode mode : kModes) {
    uint64_t at = 0;
    do {
      ++at;
      SCOPED_TRACE(Concat(NameOf(mode), " change ", at));
      if (!CrashAt(mode, at, &crashes)) break;
    } while (!::testing::Test::HasFailure());
  }
  std::printf("%llu crashes\n", static_cast<unsigned long long>(crashes));
  EXPECT_GT(crashes, 60u);
}

}  // namespace
}  // namespace conclave::crash
