// The crash matrix: at every change of its disk a member loses its power, in six ways; it is the
// leader, a follower, a learner or alone; and the cluster is writing, committing transactions,
// granting leases, changing its members, compacting, or taking and sending snapshots.
//
// Each time it starts again unaided, nothing acknowledged is lost or done twice, nothing refused is
// there, all members have one state, and no revision comes back. CONCLAVE_CRASH_SEEDS=n goes
// through all of it n times, with other torn places and other elections.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string>

#include "conclave/base/concat.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/tests/crash/client.h"
#include "conclave/tests/crash/cluster.h"

namespace conclave::crash {
namespace {

enum class Role : uint8_t { kLeader, kFollower, kLearner, kSingle };
constexpr std::array kRoles = {Role::kLeader, Role::kFollower, Role::kLearner, Role::kSingle};
constexpr std::array kRoleNames = {"leader", "follower", "learner", "single"};

constexpr std::chrono::milliseconds kQuiet{300};  // until the disks are at rest

constexpr char kStranger[] = "http://10.0.0.8:1";  // a learner that never comes
constexpr char kStrangerMoved[] = "http://10.0.0.9:1";
constexpr char kLearnerUrl[] = "http://10.0.0.3:1";

// Larger than a page, so that a write can be torn at one.
std::string Large(int i) { return std::string(5000, static_cast<char>('a' + i % 26)); }

// One cluster, and the member that loses its power in it.
struct Stage {
  Role role;
  Cluster& cluster;
  size_t victim;
  Client client;
};

// ---- What goes on meanwhile ---------------------------------------------------------------------

void Puts(Stage& stage) {
  for (int i = 0; i < 4; ++i) stage.client.Put(Concat("a", i % 3), i == 2 ? Large(i) : "value");
  stage.client.Delete("a1");
}

void Txns(Stage& stage) {
  stage.client.Put("a", "first");
  stage.client.PutBothIf("a", "b", Large(1));
  stage.client.PutBothIf("none", "b", "never");
  stage.client.PutBothIf("b", "c", "both");
}

void Leases(Stage& stage) {
  stage.client.Grant(71, 600);
  stage.client.Put("a", "kept", 71);
  stage.cluster.MoveLeader();
  stage.client.Grant(72, 6000);
  stage.client.Put("b", "goes", 72);
  stage.client.Put("c", Large(3), 72);
  stage.client.Revoke(72);
}

void MemberChanges(Stage& stage) {
  stage.client.Put("a", "before");
  if (stage.role == Role::kLearner && stage.cluster.running(stage.victim)) {
    stage.cluster.Pass(kHealthInterval * 2);
    stage.client.Promote(stage.cluster.id(stage.victim), kLearnerUrl);
  }
  const uint64_t id = stage.client.AddLearner(kStranger);
  stage.client.UpdateMember(id, kStranger, kStrangerMoved);
  stage.client.RemoveMember(id, kStrangerMoved);
  stage.client.Put("a", "after");
}

void Compactions(Stage& stage) {
  for (int i = 0; i < 4; ++i) stage.client.Put("a", i == 1 ? Large(i) : "value");
  stage.client.Compact(3);
  stage.client.Put("b", "more");
  stage.client.Delete("a");
  stage.client.Compact(stage.client.revision());
}

// The log fills several segments, each member takes snapshots and lets the log before them go; one
// that follows has been away for too long for the log, and is sent one.
void Snapshots(Stage& stage) {
  const bool follows = stage.role == Role::kFollower || stage.role == Role::kLearner;
  // Of all sizes, so that a segment may be let go whether a spare is there or not.
  const auto put = [&](size_t i) {
    stage.client.Put(Concat("a", i % 4), std::string(300 + i * 977 % 4700, 'v'));
  };
  if (follows) stage.cluster.Isolate(stage.victim);
  for (size_t i = 0; i < 24; ++i) put(i);
  if (follows) stage.cluster.Rejoin(stage.victim);
  for (size_t i = 24; i < 36; ++i) put(i);
}

struct Scene {
  const char* name;
  void (*play)(Stage& stage);
  uint64_t snapshot_entries = 0;
};
constexpr std::array<Scene, 6> kScenes = {{{"puts", Puts},
                                           {"transactions", Txns},
                                           {"leases", Leases},
                                           {"member changes", MemberChanges},
                                           {"compactions", Compactions, 7},
                                           {"snapshots", Snapshots, 3}}};

// ---- The matrix ---------------------------------------------------------------------------------

// The places where what is durable changes; a file is called by the name under which it was opened,
// so a segment of the log is "next" or "spare" as it began. Every one of these must have been
// crashed at in every mode.
constexpr std::array kPlaces = {
    "write wal/next",  // append, the proof of a sync, a segment's header
    "sync wal/next",
    "write wal/spare",  // the same in a segment that was ready
    "sync wal/spare",
    "rename wal/spare",  // rotation
    "create wal/spare.unfinished",
    "preallocate wal/spare.unfinished",
    "sync wal/spare.unfinished",
    "rename wal/spare.unfinished",
    "write wal/vote.unfinished",  // term and vote
    "sync wal/vote.unfinished",
    "rename wal/*.log",  // a segment that is let go becomes the spare
    "remove wal/*.log",  // or goes
    "sync names of wal",
    "create snapshot/*.snapshot.unfinished",
    "write snapshot/*.snapshot.unfinished",
    "sync snapshot/*.snapshot.unfinished",
    "rename snapshot/*.snapshot.unfinished",
    "sync names of snapshot",
    "remove snapshot/*.snapshot",  // one that is too old
};

class CrashMatrixTest : public ::testing::TestWithParam<std::tuple<Role, size_t>> {
 protected:
  static void SetUpTestSuite() { counts_.clear(); }
  static void TearDownTestSuite();

  // False: the scene was over before the n-th change of the victim's disk.
  bool Crash(Mode mode, uint64_t at, uint64_t seed);
  void Recover(Stage& stage, uint64_t seed);
  void Check(Stage& stage, size_t founders);

  // By place: how often in which mode.
  static std::map<std::string, std::array<size_t, kModes.size()>> counts_;
};

std::map<std::string, std::array<size_t, kModes.size()>> CrashMatrixTest::counts_;

void CrashMatrixTest::TearDownTestSuite() {
  size_t cases = 0;
  for (const auto& [place, modes] : counts_) {
    const size_t here = std::accumulate(modes.begin(), modes.end(), size_t{0});
    std::printf("%7zu  %s\n", here, place.c_str());
    cases += here;
  }
  std::printf("%7zu  crashes, at %zu kinds of places\n", cases, counts_.size());
  const auto& unit = *::testing::UnitTest::GetInstance();
  if (unit.test_to_run_count() != unit.total_test_count()) return;
  for (const char* place : kPlaces) {
    for (const Mode mode : kModes) {
      EXPECT_GT(counts_[place][static_cast<size_t>(mode)], 0u) << place << ", " << NameOf(mode);
    }
  }
}

bool CrashMatrixTest::Crash(Mode mode, uint64_t at, uint64_t seed) {
  const auto [role, which] = GetParam();
  const Scene& scene = kScenes[which];
  const size_t voters = role == Role::kSingle ? 1 : 3;
  Cluster cluster({.voters = voters,
                   .learner = role == Role::kLearner,
                   .snapshot_entries = scene.snapshot_entries,
                   .catch_up_entries = scene.snapshot_entries == 0 ? 0u : 1u,
                   .seed = seed});
  const size_t leader = cluster.leader();
  const size_t victim = role == Role::kLeader     ? leader
                        : role == Role::kFollower ? cluster.follower()
                        : role == Role::kLearner  ? voters
                                                  : 0;
  // A client may hear of a write from the follower that is about to die, or from the leader.
  const bool through_victim = role == Role::kFollower && scene.play != Snapshots && at % 2 == 0;
  Stage stage{.role = role,
              .cluster = cluster,
              .victim = victim,
              .client = Client(&cluster, through_victim ? victim : leader)};
  if (role == Role::kLearner) stage.client.Know(kLearnerUrl, true);
  cluster.ArmPlug(victim, mode, at, seed * 1000 + at);
  scene.play(stage);
  cluster.Pass(kQuiet);
  const std::string point = cluster.Unplug(victim);
  if (point.empty() && scene.play == Snapshots && role != Role::kLeader && role != Role::kSingle) {
    EXPECT_GT(cluster.installed(victim), 0u) << "it was sent no snapshot";
  }
  if (!point.empty()) ++counts_[point][static_cast<size_t>(mode)];
  Recover(stage, point.empty() ? 0 : seed * 1000 + at);
  if (!HasFailure()) Check(stage, voters);
  if (HasFailure()) std::printf("the machine went off at: %s\n", point.c_str());
  return !point.empty();
}

// The others go on without it; it starts again, which may be cut short in the same way, and once
// more.
void CrashMatrixTest::Recover(Stage& stage, uint64_t seed) {
  Cluster& cluster = stage.cluster;
  const size_t victim = stage.victim;
  if (cluster.AnyBut(victim).has_value()) {
    ASSERT_TRUE(cluster.Await([&] { return cluster.has_leader(); }))
        << "no leader among the others";
  }
  if (const auto other = cluster.AnyBut(victim)) {
    stage.client.MoveTo(*other);
    stage.client.Put("meanwhile", "value");
    EXPECT_FALSE(stage.client.in_doubt()) << "the others do not serve";
  }
  if (cluster.running(victim)) return;
  Prng prng(seed);
  if (prng.Chance(1, 2)) {
    cluster.ArmPlug(victim, kModes[prng.Below(kModes.size())], 1 + prng.Below(12), prng.Next());
    const absl::Status started = cluster.Start(victim);
    if (started.ok()) cluster.Pass(kQuiet);
    const bool again = !cluster.Unplug(victim).empty();
    ASSERT_TRUE(started.ok() || again) << started;
  }
  if (!cluster.running(victim)) {
    const absl::Status started = cluster.Start(victim);
    ASSERT_TRUE(started.ok()) << started;
  }
  if (!prng.Chance(1, 2)) return;
  // What it found and goes on from must be durable by now, whoever wrote it.
  cluster.LosePower(victim);
  const absl::Status started = cluster.Start(victim);
  ASSERT_TRUE(started.ok()) << started;
}

void CrashMatrixTest::Check(Stage& stage, size_t founders) {
  Cluster& cluster = stage.cluster;
  Client& client = stage.client;
  ASSERT_TRUE(cluster.AwaitCalm()) << "the members do not come together";
  const bool learner = cluster.node(stage.victim).raft_status().is_learner;
  client.MoveTo(learner ? cluster.leader() : stage.victim);
  client.Put("afterwards", "value");
  ASSERT_FALSE(client.in_doubt()) << "no writes after the restart";
  ASSERT_EQ(client.complaint(), "");
  ASSERT_TRUE(cluster.AwaitCalm());
  for (size_t i = 0; i < cluster.size(); ++i) {
    EXPECT_EQ(cluster.node(i).state().digest(), cluster.node(0).state().digest()) << "member " << i;
    if (cluster.node(i).raft_status().is_learner) continue;
    const auto contents = Read(cluster, i, founders);
    ASSERT_TRUE(contents.ok()) << contents.status();
    const auto& possible = client.possible();
    EXPECT_TRUE(std::find(possible.begin(), possible.end(), *contents) != possible.end())
        << "member " << i << " has " << Describe(*contents) << "\n where it must have "
        << Describe(possible.front()) << (possible.size() > 1 ? "\n or another" : "");
    const int64_t gone = client.compacted() - 1;
    EXPECT_TRUE(gone <= 0 || IsCompactedAt(cluster, i, gone)) << "revision " << gone;
  }
}

uint64_t Seeds() {
  const char* const wanted = std::getenv("CONCLAVE_CRASH_SEEDS");
  return wanted == nullptr ? 1 : std::strtoull(wanted, nullptr, 10);
}

TEST_P(CrashMatrixTest, NothingIsLostAnywhere) {
  for (uint64_t seed = 1; seed <= Seeds(); ++seed) {
    for (const Mode mode : kModes) {
      uint64_t crashes = 0;
      for (bool reached = true; reached; ++crashes) {
        SCOPED_TRACE(Concat("seed ", seed, ", ", NameOf(mode), " change ", crashes + 1));
        reached = Crash(mode, crashes + 1, seed);
        ASSERT_FALSE(HasFailure());
      }
      ASSERT_GT(crashes, 5u) << "no scene";
    }
  }
}

std::string NameOfCase(const ::testing::TestParamInfo<std::tuple<Role, size_t>>& info) {
  const auto [role, scene] = info.param;
  std::string name = Concat(kRoleNames[static_cast<size_t>(role)], "_", kScenes[scene].name);
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Matrix, CrashMatrixTest,
                         ::testing::Combine(::testing::ValuesIn(kRoles),
                                            ::testing::Range(size_t{0}, kScenes.size())),
                         NameOfCase);

}  // namespace
}  // namespace conclave::crash
