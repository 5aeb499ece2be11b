// The server's own election service against this library: they must take part in the same election.
// By a raw stub, for no client of ours uses that service.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "conclave/api/election.grpc.pb.h"
#include "conclave/election/election.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::WaitFor;

constexpr auto kDeadline = std::chrono::seconds(20);

class V3ElectionTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    stub_ = v3electionpb::Election::NewStub(
        grpc::CreateChannel(cluster->endpoint(0), grpc::InsecureChannelCredentials()));
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    v3electionpb::LeaderRequest request;
    request.set_name("no/such");
    v3electionpb::LeaderResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    const grpc::Status served = stub_->Leader(&context, request, &response);
    if (served.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      GTEST_SKIP() << "this server does not serve v3electionpb.Election";
    }
    // "election: no leader"
    ASSERT_FALSE(served.ok());
  }

  grpc::Status Campaign(const std::string& name, LeaseId lease, const std::string& value,
                        v3electionpb::LeaderKey* leader) {
    v3electionpb::CampaignRequest request;
    request.set_name(name);
    request.set_lease(lease);
    request.set_value(value);
    v3electionpb::CampaignResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    grpc::Status status = stub_->Campaign(&context, request, &response);
    *leader = response.leader();
    return status;
  }
  grpc::Status Resign(const v3electionpb::LeaderKey& leader) {
    v3electionpb::ResignRequest request;
    *request.mutable_leader() = leader;
    v3electionpb::ResignResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    return stub_->Resign(&context, request, &response);
  }

  std::unique_ptr<v3electionpb::Election::Stub> stub_;
  std::optional<Client> client_;
};

TEST_P(V3ElectionTest, TheirCampaignWaitsForOursAndOursForTheirs) {
  const std::string name = "v3election/mixed";
  Election election(*client_, name);
  auto session = client_->OpenSession({});
  auto lease = client_->Grant(absl::Seconds(60));
  ASSERT_TRUE(session.ok() && lease.ok());
  auto ours = election.CampaignAs(*session, {.id = "us", .proposal = "ours"},
                                  {.timeout = absl::Seconds(10)});
  ASSERT_TRUE(ours.ok()) << ours.status();

  v3electionpb::LeaderKey theirs;
  auto campaign =
      std::async(std::launch::async, [&] { return Campaign(name, lease->id, "theirs", &theirs); });
  ASSERT_TRUE(WaitFor([&] {
    auto all = election.Participants();
    return all.ok() && all->size() == 2;
  }));
  ASSERT_TRUE(ours->Resign().ok());
  const grpc::Status won = campaign.get();
  ASSERT_TRUE(won.ok()) << won.error_message();
  EXPECT_GT(theirs.rev(), ours->term());

  auto leader = election.Leader();
  ASSERT_TRUE(leader.ok() && leader->has_value());
  EXPECT_EQ((*leader)->proposal, "theirs");
  EXPECT_EQ((*leader)->key, theirs.key());
  EXPECT_EQ((*leader)->term, theirs.rev());

  auto again = std::async(std::launch::async, [&] {
    return election.Campaign(*session, "ours again", {.timeout = absl::Seconds(10)});
  });
  ASSERT_TRUE(WaitFor([&] {
    auto all = election.Participants();
    return all.ok() && all->size() == 2;
  }));
  const grpc::Status resigned = Resign(theirs);
  ASSERT_TRUE(resigned.ok()) << resigned.error_message();
  auto second = again.get();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_GT(second->term(), theirs.rev());
}

INSTANTIATE_TEST_SUITE_P(Servers, V3ElectionTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
