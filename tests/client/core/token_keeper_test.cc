// The token of a client with a user: asked for once, carried by everything, renewed when refused.
#include "conclave/client/core/token_keeper.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave::testing {
namespace {

namespace pb = etcdserverpb;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kUnauthenticated = 16;
constexpr int kInvalidArgument = 3;
constexpr char kInvalidToken[] = "etcdserver: invalid auth token";
constexpr char kAuthenticate[] = "/etcdserverpb.Auth/Authenticate";

class TokenKeeperTest : public EngineFixture {
 protected:
  static EngineOptions WithUser() {
    EngineOptions options = Options(1);
    options.user = "ann";
    options.password = "secret";
    return options;
  }
  TokenKeeperTest() : EngineFixture(WithUser()) {}

  void Grant(const std::string& token) {
    ASSERT_EQ(LastCall().method, kAuthenticate);
    pb::AuthenticateResponse response;
    response.set_token(token);
    Answer(response);
  }
  // The result of a Put, when it is there.
  std::optional<absl::Status>& Put() {
    auto& result = *results_.emplace_back(std::make_unique<std::optional<absl::Status>>());
    calls::Put(engine_, {.key = "k", .value = "v"}, now_ + seconds(5),
               [&result](const absl::StatusOr<PutResult>& put) { result = put.status(); });
    engine_.Advance(now_);
    return result;
  }

  std::vector<std::unique_ptr<std::optional<absl::Status>>> results_;
};

TEST_F(TokenKeeperTest, AsksAtOnceAndCallsWait) {
  ASSERT_EQ(wire_.calls.size(), 1u);
  EXPECT_EQ(LastCall().method, kAuthenticate);
  EXPECT_EQ(LastCall().token, "");
  pb::AuthenticateRequest asked;
  ASSERT_TRUE(asked.ParseFromString(LastCall().request));
  EXPECT_EQ(asked.name(), "ann");
  EXPECT_EQ(asked.password(), "secret");
  const auto& put = Put();
  EXPECT_EQ(wire_.calls.size(), 1u);
  Grant("t1");
  ASSERT_EQ(wire_.calls.size(), 2u);
  EXPECT_EQ(LastCall().token, "t1");
  Answer(pb::PutResponse());
  ASSERT_TRUE(put.has_value());
  EXPECT_TRUE(put->ok()) << *put;
}

TEST_F(TokenKeeperTest, ARefusedTokenIsRenewedOnceForAllAndWritesAreSentAgain) {
  Grant("t1");
  const auto& first = Put();
  const auto& second = Put();
  ASSERT_EQ(wire_.calls.size(), 3u);
  const WireId other = wire_.calls[1].id;
  FailCall(kUnauthenticated, kInvalidToken);
  ASSERT_EQ(wire_.calls.size(), 4u);
  EXPECT_EQ(LastCall().method, kAuthenticate);
  EXPECT_EQ(LastCall().token, "");
  engine_.OnUnaryDone(other, {.code = kUnauthenticated, .message = kInvalidToken}, "");
  engine_.Advance(now_);
  EXPECT_EQ(wire_.calls.size(), 4u) << "one login is enough";
  Grant("t2");
  ASSERT_EQ(wire_.calls.size(), 6u);
  for (const size_t i : {4u, 5u}) {
    EXPECT_EQ(wire_.calls[i].token, "t2");
    engine_.OnUnaryDone(wire_.calls[i].id, {}, pb::PutResponse().SerializeAsString());
  }
  engine_.Advance(now_);
  EXPECT_TRUE(first.has_value() && first->ok());
  EXPECT_TRUE(second.has_value() && second->ok());
}

TEST_F(TokenKeeperTest, AnOldRevisionOfUsersAlsoRenews) {
  Grant("t1");
  const auto& put = Put();
  FailCall(kInvalidArgument, "etcdserver: revision of auth store is old");
  Grant("t2");
  Answer(pb::PutResponse());
  EXPECT_TRUE(put.has_value() && put->ok());
}

TEST_F(TokenKeeperTest, ACallWhoseTokensAreAllRefusedEnds) {
  Grant("t1");
  const auto& put = Put();
  for (const char* token : {"t2", "t3"}) {
    FailCall(kUnauthenticated, kInvalidToken);
    ASSERT_FALSE(put.has_value());
    Grant(token);
  }
  FailCall(kUnauthenticated, kInvalidToken);
  ASSERT_TRUE(put.has_value());
  EXPECT_EQ(put->code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenKeeperTest, AServerWithoutAuthenticationIsSpokenToWithoutToken) {
  const auto& put = Put();
  FailCall(9, "etcdserver: authentication is not enabled");
  EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/Put");
  EXPECT_EQ(LastCall().token, "");
  // Authentication is enabled meanwhile.
  FailCall(kInvalidArgument, "etcdserver: user name is empty");
  Grant("t1");
  EXPECT_EQ(LastCall().token, "t1");
  Answer(pb::PutResponse());
  EXPECT_TRUE(put.has_value() && put->ok());
}

TEST_F(TokenKeeperTest, AWrongPasswordEndsCallsAndIsTriedAgainLater) {
  const auto& put = Put();
  FailCall(kInvalidArgument, "etcdserver: authentication failed, invalid user ID or password");
  ASSERT_TRUE(put.has_value());
  EXPECT_EQ(put->code(), absl::StatusCode::kInvalidArgument);
  const auto& again = Put();
  EXPECT_TRUE(again.has_value()) << "it is not asked for every call";
  EXPECT_EQ(wire_.calls.size(), 1u);
  Go(seconds(3));
  ASSERT_EQ(wire_.calls.size(), 2u);
  Grant("t1");
  const auto& third = Put();
  Answer(pb::PutResponse());
  EXPECT_TRUE(third.has_value() && third->ok());
}

TEST_F(TokenKeeperTest, ACallsTimeRunsWhileItWaits) {
  const auto& put = Put();
  for (int i = 0; i < 80 && !put.has_value(); ++i) {
    if (LastCall().method == kAuthenticate) FailCall(14, "cannot connect", /*sent=*/false);
    Go(milliseconds(100));
  }
  ASSERT_TRUE(put.has_value());
  EXPECT_EQ(put->code(), absl::StatusCode::kDeadlineExceeded);
}

class TokenWatchTest : public TokenKeeperTest {
 protected:
  void Watch() {
    engine_.watches().Add(KeyRange("k"), {.from_revision = 5},
                          [this](const WatchBatch& batch) { batches_.push_back(batch); });
    engine_.Advance(now_);
  }
  void Refuse(const std::string& reason) {
    pb::WatchResponse response;
    response.set_created(true);
    response.set_canceled(true);
    response.set_watch_id(-1);
    response.set_cancel_reason(reason);
    Say(response);
  }
  void Create() {
    pb::WatchResponse response;
    response.set_created(true);
    response.mutable_header()->set_revision(7);
    Say(response);
  }

  std::vector<WatchBatch> batches_;
};

TEST_F(TokenWatchTest, AStreamWaitsForTheTokenAndCarriesIt) {
  Watch();
  EXPECT_TRUE(wire_.streams.empty());
  Grant("t1");
  ASSERT_EQ(wire_.streams.size(), 1u);
  EXPECT_EQ(LastStream().token, "t1");
}

TEST_F(TokenWatchTest, ARefusedWatchGoesOnWithAnotherToken) {
  for (const char* reason :
       {"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old",
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied"}) {
    SCOPED_TRACE(reason);
    if (wire_.streams.empty()) {
      Grant("t1");
      Watch();
    }
    const size_t streams = wire_.streams.size();
    Refuse(reason);
    EXPECT_EQ(wire_.streams.size(), streams);
    Grant("next");
    Go(milliseconds(100));
    ASSERT_EQ(wire_.streams.size(), streams + 1);
    EXPECT_EQ(LastStream().token, "next");
    EXPECT_EQ(Sent<pb::WatchRequest>(0).create_request().start_revision(), 5);
    Create();
    EXPECT_TRUE(batches_.empty());
    if (std::string(reason).find("denied") != std::string::npos) break;
    BreakStream();  // for the next one: everything is created anew
    Go(seconds(1));
  }
}

TEST_F(TokenWatchTest, AWatchThatIsDeniedWithAFreshTokenEnds) {
  Grant("t1");
  Watch();
  for (int i = 0; i < 2; ++i) {
    Refuse("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    if (i > 0) break;
    Grant("t2");
    Go(milliseconds(100));
  }
  ASSERT_EQ(batches_.size(), 1u);
  EXPECT_EQ(batches_[0].status.code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace conclave::testing
