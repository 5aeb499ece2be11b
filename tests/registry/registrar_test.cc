// Registrar, step by step: what it asks of the cluster when its lease is in doubt.
#include "conclave/registry/registrar.h"

#include <memory>
#include <string>

#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::seconds;

class RegistrarTest : public testing::EngineFixture {
 protected:
  RegistrarTest()
      : registrar_(std::make_shared<Registrar>(
            engine_, Instance{.service = "my-service", .address = "10.0.0.1:80"}, 10,
            [this](RegState state, const absl::Status&) { state_ = state; })) {
    registrar_->Start();
    engine_.Advance(now_);
  }
  void TearDown() override {
    registrar_->Stop(now_, [](const absl::Status&) {});
    engine_.Advance(now_);
    EngineFixture::TearDown();
  }

  void Grant(LeaseId lease) {
    ASSERT_EQ(LastCall().method, "/etcdserverpb.Lease/LeaseGrant");
    etcdserverpb::LeaseGrantResponse grant;
    grant.set_id(lease);
    grant.set_ttl(10);
    Answer(grant);
  }
  // The put that is under way; gives its lease.
  LeaseId AnswerPut(int64_t revision) {
    etcdserverpb::TxnRequest txn;
    EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/Txn");
    EXPECT_TRUE(txn.ParseFromString(LastCall().request));
    etcdserverpb::TxnResponse response;
    response.set_succeeded(true);
    response.mutable_header()->set_revision(revision);
    response.add_responses()->mutable_response_put();
    Answer(response);
    return txn.success(0).request_put().lease();
  }
  int CallsTo(const std::string& method) {
    int count = 0;
    for (const auto& call : wire_.calls) count += call.method == method;
    return count;
  }

  RegState state_ = RegState::kStarting;
  std::shared_ptr<Registrar> registrar_;
};

TEST_F(RegistrarTest, AKeyMovesToTheNextLeaseWhileTheOldOneMayStillLive) {
  Grant(1);
  EXPECT_EQ(AnswerPut(5), 1);
  EXPECT_EQ(state_, RegState::kRegistered);

  // No renewal is answered: the local deadline passes one second before the lease's end.
  Go(seconds(9) + std::chrono::milliseconds(200));
  Grant(2);
  EXPECT_EQ(AnswerPut(9), 2);
  EXPECT_EQ(state_, RegState::kRegistered);
  EXPECT_EQ(CallsTo("/etcdserverpb.Lease/LeaseRevoke"), 0)
      << "a revoked lease takes the key along before it can move";
}

}  // namespace
}  // namespace conclave
