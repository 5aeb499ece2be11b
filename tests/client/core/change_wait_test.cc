// ChangeWait, step by step.
#include "conclave/client/core/change_wait.h"

#include <memory>
#include <optional>

#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::seconds;

class ChangeWaitTest : public testing::EngineFixture {
 protected:
  std::shared_ptr<ChangeWait> Start(std::shared_ptr<SessionCore> session = nullptr,
                                    Duration timeout = seconds(10)) {
    auto wait = std::make_shared<ChangeWait>(
        engine_, std::move(session), ChangeWait::Request{.range = "k", .after_revision = 41});
    wait->Start(now_ + timeout, [this](const absl::Status& status) {
      EXPECT_FALSE(done_.has_value()) << "twice";
      done_ = status;
    });
    engine_.Advance(now_);
    return wait;
  }
  void Event(int64_t revision) {
    etcdserverpb::WatchResponse created;
    created.set_created(true);
    Say(created);
    etcdserverpb::WatchResponse response;
    mvccpb::Event& event = *response.add_events();
    event.mutable_kv()->set_key("k");
    event.mutable_kv()->set_mod_revision(revision);
    Say(response);
  }

  std::optional<absl::Status> done_;
};

TEST_F(ChangeWaitTest, WatchesFromBehindTheLookAndEndsWithTheFirstChange) {
  auto wait = Start();
  const auto request = Sent<etcdserverpb::WatchRequest>(0);
  EXPECT_EQ(request.create_request().start_revision(), 42);
  EXPECT_FALSE(done_.has_value());
  Event(42);
  ASSERT_TRUE(done_.has_value());
  EXPECT_TRUE(done_->ok());
  EXPECT_EQ(engine_.watches().size(), 0u);
}

TEST_F(ChangeWaitTest, EndsInTimeAndWhenItIsCancelled) {
  auto wait = Start();
  Go(seconds(10));
  ASSERT_TRUE(done_.has_value());
  EXPECT_EQ(done_->code(), absl::StatusCode::kDeadlineExceeded);
  wait->Cancel(absl::CancelledError("late"));
  done_.reset();
  auto other = Start();
  other->Cancel(absl::CancelledError("stop"));
  engine_.Advance(now_);
  ASSERT_TRUE(done_.has_value());
  EXPECT_EQ(done_->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine_.watches().size(), 0u);
}

TEST_F(ChangeWaitTest, EndsWithItsSession) {
  std::shared_ptr<SessionCore> session;
  SessionCore::Open(
      engine_, {.ttl_seconds = 60}, now_ + seconds(5), [](SessionHealth, Instant) {},
      [&session](absl::StatusOr<std::shared_ptr<SessionCore>> opened) {
        session = *std::move(opened);
      });
  etcdserverpb::LeaseGrantResponse grant;
  grant.set_id(7);
  grant.set_ttl(60);
  Answer(grant);
  auto wait = Start(session);
  session->Close(now_ + seconds(1), [](const absl::Status&) {});
  engine_.Advance(now_);
  ASSERT_TRUE(done_.has_value());
  EXPECT_EQ(done_->code(), absl::StatusCode::kAborted);

  // One that begins when the session is over already ends at once, and leaves no watch behind.
  done_.reset();
  auto late = Start(session);
  ASSERT_TRUE(done_.has_value());
  EXPECT_EQ(done_->code(), absl::StatusCode::kAborted);
  EXPECT_EQ(engine_.watches().size(), 0u);
}

}  // namespace
}  // namespace conclave
