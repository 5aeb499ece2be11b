// The server's own Lock service, as other clients call it, and our locks: they exclude each other.
#include <grpcpp/grpcpp.h>

#include <thread>

#include "conclave/api/lock.grpc.pb.h"
#include "conclave/lock/mutex.h"
#include "conclave/tests/lock/lock_fixture.h"

namespace conclave {
namespace {

using testing::AllServers;
using testing::ServerName;
using testing::Soon;

class LockServiceTest : public testing::LockTest {
 protected:
  void SetUp() override {
    LockTest::SetUp();
    if (cluster_ == nullptr) return;
    stub_ = v3lockpb::Lock::NewStub(
        grpc::CreateChannel(cluster_->endpoint(0), grpc::InsecureChannelCredentials()));
    // The answer for a key that was never there is OK, from a server that has the service.
    v3lockpb::UnlockRequest probe;
    probe.set_key(name_ + "/never");
    if (Unlock(probe).error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      GTEST_SKIP() << "this server has no v3lockpb.Lock service";
    }
  }
  grpc::Status Unlock(const v3lockpb::UnlockRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v3lockpb::UnlockResponse response;
    return stub_->Unlock(&context, request, &response);
  }
  // The key that the service made; empty: it failed.
  std::string LockByService(LeaseId lease) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v3lockpb::LockRequest request;
    request.set_name(name_);
    request.set_lease(lease);
    v3lockpb::LockResponse response;
    const grpc::Status status = stub_->Lock(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.key();
  }

  std::unique_ptr<v3lockpb::Lock::Stub> stub_;
};

TEST_P(LockServiceTest, ExcludesOurMutexAndIsExcludedByIt) {
  Session ours = NewSession(), theirs = NewSession();
  Mutex mutex(ours, name_);
  auto guard = mutex.Lock(Soon());
  ASSERT_TRUE(guard.ok());
  auto waiting = Later([&] { return LockByService(theirs.lease_id()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  EXPECT_FALSE(Ready(waiting));
  ASSERT_TRUE(guard->Unlock().ok());
  const std::string key = waiting.get();
  EXPECT_EQ(key, absl::StrCat(name_, "/", absl::Hex(theirs.lease_id())));
  auto refused = mutex.TryLock();
  ASSERT_TRUE(refused.ok());
  EXPECT_FALSE(refused->guard.has_value());
  ASSERT_TRUE(refused->holder.has_value());
  EXPECT_EQ(refused->holder->key, key);
  auto next = Later([&] { return mutex.Lock(Soon()); });
  ASSERT_TRUE(KeysBecome(name_ + "/", 2));
  v3lockpb::UnlockRequest unlock;
  unlock.set_key(key);
  EXPECT_TRUE(Unlock(unlock).ok());
  auto again = next.get();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_GT(again->token(), guard->token());
}

INSTANTIATE_TEST_SUITE_P(Servers, LockServiceTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
