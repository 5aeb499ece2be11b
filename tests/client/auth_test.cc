// Users and passwords through the client, against real servers of both kinds.
#include "conclave/client/auth.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "conclave/client/client.h"
#include "conclave/tests/client/collector.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::Collector;
using testing::ServerKind;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::SingleServers;

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr char kQuickHashes[] = "--bcrypt-cost=4";
// A watch is created while the calls after it are on their way already: it asks for all there was.
constexpr int64_t kFromTheBeginning = 1;

class ClientAuthTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    testing::TestCluster::Options options{
        .kind = GetParam().kind, .members = GetParam().members, .extra_flags = {kQuickHashes}};
    auto cluster = testing::TestCluster::Start(options);
    if (absl::IsNotFound(cluster.status())) GTEST_SKIP() << cluster.status();
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }
  Client As(const std::string& user) {
    ConnectOptions options{.endpoints = cluster_->endpoints(),
                           .user = user,
                           .password = user,
                           .request_timeout = kPatience};
    auto client = Client::Connect(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  Client AsNobody() {
    auto client =
        Client::Connect({.endpoints = cluster_->endpoints(), .request_timeout = kPatience});
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  static void Expect(const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; }
  // root; ann, who may read and write a...
  void Enable() {
    const Auth auth = AsNobody().Auth();
    Expect(auth.AddUser("root", "root"));
    Expect(auth.GrantRole("root", "root"));
    Expect(auth.AddUser("ann", "ann"));
    Expect(auth.AddRole("r"));
    Expect(auth.GrantPermission("r", {.range = Prefix("a")}));
    Expect(auth.GrantRole("ann", "r"));
    Expect(auth.Enable());
  }

  std::unique_ptr<testing::TestCluster> cluster_;
};

TEST_P(ClientAuthTest, TheFaceManagesUsersAndRoles) {
  Enable();
  const Auth auth = As("root").Auth();
  EXPECT_EQ(*auth.Users(), (std::vector<std::string>{"ann", "root"}));
  EXPECT_EQ(*auth.Roles(), std::vector<std::string>{"r"});
  EXPECT_EQ(*auth.RolesOf("ann"), std::vector<std::string>{"r"});
  EXPECT_EQ(auth.AddUser("ann", "x").code(), absl::StatusCode::kFailedPrecondition);
  const Permission reading{.access = Permission::Access::kRead, .range = FromKey("z")};
  Expect(auth.GrantPermission("r", reading));
  EXPECT_EQ(*auth.PermissionsOf("r"), (std::vector<Permission>{{.range = Prefix("a")}, reading}));
  Expect(auth.RevokePermission("r", FromKey("z")));
  Expect(auth.RevokeRole("ann", "r"));
  Expect(auth.DeleteRole("r"));
  Expect(auth.AddUserWithoutPassword("cert"));
  Expect(auth.DeleteUser("cert"));
  Expect(auth.DeleteUser("ann"));
  EXPECT_EQ(auth.DeleteUser("root").code(), absl::StatusCode::kInvalidArgument);
  if (GetParam().kind == ServerKind::kConclave) {
    const auto status = auth.Status();
    ASSERT_TRUE(status.ok()) << status.status();
    EXPECT_TRUE(status->enabled);
    EXPECT_GT(status->revision, 8u);
  }
  Expect(auth.Disable());
  Expect(AsNobody().Put("k", "v").status());
}

TEST_P(ClientAuthTest, AUserMayWhatIsHisAndNobodyNothing) {
  Enable();
  Client ann = As("ann");
  Expect(ann.Put("a1", "v").status());
  Expect(ann.Range(Prefix("a")).status());
  EXPECT_EQ(ann.Put("b", "v").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ann.Range(AllKeys()).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ann.Auth().Users().status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(AsNobody().Put("a1", "v").status().code(), absl::StatusCode::kInvalidArgument);
  Collector denied;
  const Watch watch = ann.Watch(Prefix("b"), {}, denied.Callback());
  EXPECT_TRUE(denied.WaitFor([](const std::vector<WatchBatch>& batches) {
    return !batches.empty() && batches.back().status.code() == absl::StatusCode::kPermissionDenied;
  }));
}

TEST_P(ClientAuthTest, AWrongPasswordIsSaid) {
  Enable();
  auto client =
      Client::Connect({.endpoints = cluster_->endpoints(), .user = "ann", .password = "no"});
  ASSERT_TRUE(client.ok());
  const absl::Status status = client->Put("a1", "v").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_NE(std::string(status.message()).find("authentication failed"), std::string::npos);
}

TEST_P(ClientAuthTest, AUserIsNoHindranceWhereNobodyAsks) {
  Client client = As("ann");
  Expect(client.Put("k", "v").status());
}

// Disabling and enabling ends every token there is.
TEST_P(ClientAuthTest, CallsWatchesAndSessionsSurviveTheEndOfTheirToken) {
  Enable();
  Client ann = As("ann");
  auto session = ann.OpenSession({.ttl = absl::Seconds(30)});
  ASSERT_TRUE(session.ok()) << session.status();
  Collector heard;
  const Watch watch =
      ann.Watch(Prefix("a"), {.from_revision = kFromTheBeginning}, heard.Callback());
  Expect(ann.Put("a1", "1", {.lease = session->lease_id()}).status());
  ASSERT_TRUE(heard.WaitForEvents(1));
  for (int round = 2; round < 4; ++round) {
    Expect(As("root").Auth().Disable());
    Expect(AsNobody().Auth().Enable());
    // A write, sent again with another token; and a watch that is created with the old one.
    Expect(ann.Put("a1", std::to_string(round), {.lease = session->lease_id()}).status());
    Collector fresh;
    const Watch second = ann.Watch(Prefix("a"), {.list_first = true}, fresh.Callback());
    EXPECT_TRUE(fresh.WaitFor([](const std::vector<WatchBatch>& batches) {
      return !batches.empty() && batches.front().resynced;
    }));
    Expect(ann.Put("a2", std::to_string(round)).status());
    EXPECT_TRUE(fresh.WaitForEvents(1));
    EXPECT_TRUE(heard.WaitForEvents(1 + 2 * static_cast<size_t>(round - 1)));
  }
  EXPECT_TRUE(session->alive());
  Expect(ann.KeepAliveOnce(session->lease_id()).status());
  Expect(session->Close());
}

INSTANTIATE_TEST_SUITE_P(Servers, ClientAuthTest, ::testing::ValuesIn(AllServers()), ServerName);

class ClientTokenTest : public ClientAuthTest {};

// A member that starts anew knows no tokens.
TEST_P(ClientTokenTest, AClientGoesOnAfterARestart) {
  Enable();
  Client ann = As("ann");
  Collector heard;
  const Watch watch =
      ann.Watch(Prefix("a"), {.from_revision = kFromTheBeginning}, heard.Callback());
  Expect(ann.Put("a1", "1").status());
  ASSERT_TRUE(heard.WaitForEvents(1));
  cluster_->Kill(0);
  Expect(cluster_->Restart(0));
  Expect(ann.Range(Prefix("a")).status());
  const absl::Time end = absl::Now() + kPatience;
  absl::Status put = ann.Put("a1", "2").status();
  while (!put.ok() && absl::Now() < end) put = ann.Put("a1", "2").status();
  Expect(put);
  EXPECT_TRUE(heard.WaitForEvents(2));
}

// The token's time is shorter than the pauses between the client's calls, and longer than a loaded
// machine takes to show a token that it has just been given.
TEST_P(ClientTokenTest, AnExpiredTokenIsRenewed) {
  auto cluster = testing::TestCluster::Start(
      {.kind = GetParam().kind, .extra_flags = {kQuickHashes, "--auth-token-ttl=2"}});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  cluster_ = *std::move(cluster);
  Enable();
  Client ann = As("ann");
  Expect(ann.Put("a", "0").status());
  Collector heard;
  const Watch watch =
      ann.Watch(Prefix("a"), {.from_revision = kFromTheBeginning}, heard.Callback());
  for (int i = 1; i <= 2; ++i) {
    // Nothing is asked for so long: the pause is what is tested. etcd looks for expired ones once a
    // second.
    const absl::Time until = absl::Now() + absl::Milliseconds(3500);
    ASSERT_TRUE(testing::WaitFor([until] { return absl::Now() >= until; }));
    Expect(ann.Put("a", std::to_string(i)).status());
    Collector fresh;
    const Watch late = ann.Watch("a", {.list_first = true}, fresh.Callback());
    EXPECT_TRUE(
        fresh.WaitFor([](const std::vector<WatchBatch>& batches) { return !batches.empty(); }));
  }
  EXPECT_TRUE(heard.WaitForEvents(3));  // the first put too
}

INSTANTIATE_TEST_SUITE_P(Servers, ClientTokenTest, ::testing::ValuesIn(SingleServers()),
                         ServerName);

}  // namespace
}  // namespace conclave
