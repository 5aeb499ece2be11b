// Maintenance and Cluster, against etcd and our server.
#include "conclave/client/maintenance.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conclave/client/snapshot_part.h"
#include "conclave/tests/support/test_cluster.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using ::testing::HasSubstr;
using testing::ServerName;
using testing::ServerUnderTest;

// A directory that goes with the test.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "conclave-test-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  std::string File(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::string ContentOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class MaintenanceTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void Connect(const testing::TestCluster& cluster) {
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster.endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  Client& client() { return *client_; }
  Maintenance maintenance() { return Maintenance(*client_); }

  std::optional<Client> client_;
};

TEST_P(MaintenanceTest, SavesASnapshotThatIsWholeOrNothing) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(client().Put("key" + std::to_string(i), std::string(300'000, 'v')).ok());
  }
  // A snapshot is of what its member has; what it reads it has.
  absl::StatusOr<Client> member = Client::Connect({.endpoints = {cluster->endpoint(0)}});
  ASSERT_TRUE(member.ok()) << member.status();
  ASSERT_TRUE(member->Get("key39").ok());
  const Folder folder;
  const std::string path = folder.File("backup.db");
  const auto saved = maintenance().SaveSnapshot(cluster->endpoint(0), path);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_GT(saved->bytes, 12'000'000u);
  const std::string content = ContentOf(path);
  EXPECT_EQ(content.size(), saved->bytes);
  EXPECT_EQ(content.size() % 512, 32u);
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));

  const auto nobody = maintenance().SaveSnapshot("127.0.0.1:1", folder.File("other.db"));
  EXPECT_TRUE(absl::IsInvalidArgument(nobody.status())) << nobody.status();
  EXPECT_FALSE(std::filesystem::exists(folder.File("other.db.part")));
  const auto nowhere =
      maintenance().SaveSnapshot(cluster->endpoint(0), folder.File("absent/backup.db"));
  EXPECT_THAT(nowhere.status().message(), HasSubstr("cannot create"));

  std::stop_source stop;
  stop.request_stop();
  const auto stopped = maintenance().SaveSnapshot(cluster->endpoint(0), folder.File("stopped.db"),
                                                  {}, {.stop = stop.get_token()});
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
  cluster->Pause(0);
  const auto stalled = maintenance().SaveSnapshot(cluster->endpoint(0), folder.File("stalled.db"),
                                                  {.stall_timeout = absl::Milliseconds(500)});
  cluster->Resume(0);
  EXPECT_TRUE(absl::IsDeadlineExceeded(stalled.status())) << stalled.status();
  EXPECT_FALSE(std::filesystem::exists(folder.File("stalled.db")));
}

TEST_P(MaintenanceTest, TellsTheStatusOfAMember) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  ASSERT_TRUE(client().Put("status", "1").ok());
  // Another member may have answered the put before this one has applied it.
  absl::StatusOr<MemberStatus> status = absl::UnavailableError("not asked");
  ASSERT_TRUE(testing::WaitFor([&] {
    status = maintenance().Status(cluster->endpoint(0));
    return !status.ok() || status->db_size_in_use > 0;
  }));
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_NE(status->member_id, 0u);
  EXPECT_NE(status->leader, 0u);
  EXPECT_GT(status->raft_applied_index, 0u);
  EXPECT_GT(status->db_size, 0);
  EXPECT_GT(status->db_size_in_use, 0);
  EXPECT_FALSE(status->is_learner);
  EXPECT_TRUE(maintenance().Defragment(cluster->endpoint(0)).ok());
}

TEST_P(MaintenanceTest, FindsAndEndsAlarms) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  auto alarms = maintenance().Alarms();
  ASSERT_TRUE(alarms.ok()) << alarms.status();
  EXPECT_TRUE(alarms->empty());
  const auto none = maintenance().Disarm({.member_id = 7, .type = AlarmType::kNoSpace});
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE(none->empty());
  const auto all = maintenance().DisarmAll();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_TRUE(all->empty());
}

TEST_P(MaintenanceTest, HashesAreThoseOfTheSameContentOnEveryMember) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  int64_t revision = 0;
  for (int i = 0; i < 20; ++i) {
    const auto put = client().Put("key" + std::to_string(i % 7), std::to_string(i));
    ASSERT_TRUE(put.ok()) << put.status();
    revision = put->revision;
  }
  std::vector<uint32_t> hashes;
  for (const std::string& endpoint : cluster->endpoints()) {
    // A member may be behind: ask until it has come so far.
    absl::StatusOr<HashKvResult> hash;
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    do {
      hash = maintenance().HashKv(endpoint, {.revision = revision});
    } while (!hash.ok() && IsFutureRevision(hash.status()) && absl::Now() < deadline);
    ASSERT_TRUE(hash.ok()) << hash.status();
    hashes.push_back(hash->hash);
  }
  // The same on etcd and on Conclave: it depends on nothing but the keys.
  static std::optional<uint32_t> first;
  if (!first.has_value()) first = hashes.front();
  EXPECT_THAT(hashes, ::testing::Each(*first));
  EXPECT_TRUE(IsFutureRevision(
      maintenance().HashKv(cluster->endpoint(0), {.revision = revision + 1000}).status()));
}

TEST_P(MaintenanceTest, MovesTheLeader) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  const auto leader = cluster->Leader();
  ASSERT_TRUE(leader.ok()) << leader.status();
  const auto refused = maintenance().MoveLeader(4711);
  EXPECT_THAT(refused.message(), HasSubstr("bad leader transferee")) << refused;
  if (cluster->size() == 1) return;
  const int heir = (*leader + 1) % cluster->size();
  const auto status = maintenance().Status(cluster->endpoint(heir));
  ASSERT_TRUE(status.ok()) << status.status();
  const absl::Status moved = maintenance().MoveLeader(status->member_id);
  ASSERT_TRUE(moved.ok()) << moved;
  const auto now = maintenance().Status(cluster->endpoint(heir));
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_EQ(now->leader, status->member_id);
}

TEST_P(MaintenanceTest, AsksWhetherADowngradeIsPossible) {
  if (GetParam().kind == testing::ServerKind::kEtcd) GTEST_SKIP() << "this etcd is 3.4";
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  const auto wrong = maintenance().Downgrade(DowngradeAction::kValidate, "nonsense");
  EXPECT_THAT(wrong.status().message(), HasSubstr("wrong downgrade target version format"));
  const auto possible = maintenance().Downgrade(DowngradeAction::kEnable, "3.5.0");
  ASSERT_TRUE(possible.ok()) << possible.status();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  absl::StatusOr<MemberStatus> status;
  do {
    status = maintenance().Status(cluster->endpoint(0));
    ASSERT_TRUE(status.ok()) << status.status();
  } while (status->storage_version != "3.5.0" && absl::Now() < deadline);
  EXPECT_EQ(status->storage_version, "3.5.0");
  EXPECT_EQ(status->downgrade_target, "3.5.0");
  EXPECT_TRUE(maintenance().Downgrade(DowngradeAction::kCancel, "").ok());
}

TEST_P(MaintenanceTest, ListsMembersAndHearsWhyOthersCannotBe) {
  CONCLAVE_START_CLUSTER(cluster, GetParam());
  Connect(*cluster);
  const Cluster members(client());
  for (const bool linearizable : {true, false}) {
    const auto list = members.MemberList({.linearizable = linearizable});
    ASSERT_TRUE(list.ok()) << list.status();
    EXPECT_EQ(list->size(), cluster->endpoints().size());
    EXPECT_FALSE(list->front().peer_urls.empty());
  }
  EXPECT_FALSE(members.MemberRemove(4711).ok());
  EXPECT_FALSE(members.MemberPromote(4711).ok());
  EXPECT_FALSE(members.MemberUpdate(4711, {"http://127.0.0.1:1"}).ok());
  EXPECT_FALSE(members.MemberAdd({"not a URL"}).ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, MaintenanceTest, ::testing::ValuesIn(testing::AllServers()),
                         ServerName);

// ---- The file -----------------------------------------------------------------------------------

TEST(SnapshotPart, KeepsNothingThatIsNotWhole) {
  const Folder folder;
  const std::string path = folder.File("backup.db");
  for (const size_t size : {size_t{0}, size_t{31}, size_t{512}, size_t{512 + 32}}) {
    auto part = SnapshotPart::Create(path);
    ASSERT_TRUE(part.ok()) << part.status();
    ASSERT_TRUE((*part)->Append(std::string(size, 'x')).ok());
    EXPECT_TRUE(absl::IsDataLoss((*part)->Finish())) << size;
    part->reset();
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_FALSE(std::filesystem::exists(path + ".part"));
  }
}

TEST(SnapshotPart, TakesItsHashInPiecesOfAnySize) {
  // SHA-256 of 512 zeros.
  const std::string hash =
      "\x07\x6a\x27\xc7\x9e\x5a\xce\x2a\x3d\x47\xf9\xdd\x2e\x83\xe4\xff"
      "\x6e\xa8\x87\x2b\x3c\x22\x18\xf6\x6c\x92\xb8\x9b\x55\xf3\x65\x60";
  const Folder folder;
  const std::string path = folder.File("backup.db");
  const std::string all = std::string(512, '\0') + hash;
  for (const size_t piece : {1, 7, 32, 33, 500, 544}) {
    auto part = SnapshotPart::Create(path);
    ASSERT_TRUE(part.ok()) << part.status();
    for (size_t at = 0; at < all.size(); at += piece) {
      ASSERT_TRUE((*part)->Append(all.substr(at, piece)).ok());
    }
    const absl::Status finished = (*part)->Finish();
    ASSERT_TRUE(finished.ok()) << finished;
    EXPECT_EQ(ContentOf(path), all);
  }
}

}  // namespace
}  // namespace conclave
