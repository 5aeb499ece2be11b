// Contender, step by step: what it asks of the cluster, and what it does when an answer is missing.
#include "conclave/client/core/contender.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr LeaseId kLease = 0x2a;
constexpr char kKey[] = "lock/2a";

class ContenderTest : public testing::EngineFixture {
 protected:
  ContenderTest() {
    SessionCore::Open(
        engine_, {.ttl_seconds = 60}, now_ + seconds(5), [](SessionHealth, Instant) {},
        [this](absl::StatusOr<std::shared_ptr<SessionCore>> session) {
          session_ = *std::move(session);
        });
    etcdserverpb::LeaseGrantResponse grant;
    grant.set_id(kLease);
    grant.set_ttl(60);
    Answer(grant);
  }
  void TearDown() override {
    session_->Close(now_, [](const absl::Status&) {});
    engine_.Advance(now_);
    EngineFixture::TearDown();
  }

  std::shared_ptr<Contender> Start(bool only_try = false) {
    auto contender = std::make_shared<Contender>(
        session_, Contender::Request{.name = "lock", .value = "me", .only_try = only_try});
    contender->Start(
        [this](absl::StatusOr<Contender::Outcome> outcome) {
          ++answers_;
          outcome_ = std::move(outcome);
        },
        [this](const absl::Status& why) { lost_ = why; });
    engine_.Advance(now_);
    return contender;
  }
  std::shared_ptr<Contender> StartAs(Contender::Request request) {
    auto contender = std::make_shared<Contender>(session_, std::move(request));
    contender->Start(
        [this](absl::StatusOr<Contender::Outcome> outcome) {
          ++answers_;
          outcome_ = std::move(outcome);
        },
        [this](const absl::Status& why) { lost_ = why; });
    engine_.Advance(now_);
    return contender;
  }
  // As a Mutex with a lock-delay of 30 s.
  std::shared_ptr<Contender> StartWithDelay() {
    return StartAs(
        {.value = "me",
         .rule = std::make_shared<OneAtATime>(
             OneAtATime::Options{.names = {"lock"}, .heed_hold = true, .holder = "us"}),
         .keys = {kKey},
         .local_queues = {"lock/"},
         .companions = {"lock~revoke"},
         .delay = LockDelay::Request{
             .hold_key = "lock~hold", .holder = "us", .duration = seconds(60) + seconds(30)}});
  }
  // As a MultiLock of "a" and "b".
  std::shared_ptr<Contender> StartForTwo() {
    return StartAs({.value = "me",
                    .rule = std::make_shared<OneAtATime>(
                        OneAtATime::Options{.names = {"a", "b"}, .holder = "us"}),
                    .keys = {"a/2a", "b/2a"},
                    .local_queues = {"a/", "b/"}});
  }
  // Both keys were put at `revision`; nobody is before them.
  void AnswerJoinOfTwo(int64_t revision) {
    TxnResponse response;
    response.set_succeeded(true);
    response.mutable_header()->set_revision(revision);
    for (int i = 0; i < 2; ++i) response.add_responses()->mutable_response_put();
    for (const char* key : {"a/2a", "b/2a"}) {
      SetKv(response.add_responses()->mutable_response_range()->add_kvs(), key, revision, kLease,
            "me");
    }
    Answer(response);
  }
  TxnRequest LastTxn() {
    TxnRequest txn;
    EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/Txn");
    EXPECT_TRUE(txn.ParseFromString(LastCall().request));
    return txn;
  }
  static void SetKv(mvccpb::KeyValue* kv, const std::string& key, int64_t create, LeaseId lease,
                    const std::string& value) {
    kv->set_key(key);
    kv->set_create_revision(create);
    kv->set_mod_revision(create);
    kv->set_lease(lease);
    kv->set_value(value);
  }
  // Our key was put at `revision`; `before` is the create revision of the last one before it, if
  // any.
  void AnswerJoin(int64_t revision, int64_t before = 0) {
    TxnResponse response;
    response.set_succeeded(true);
    response.mutable_header()->set_revision(revision);
    response.add_responses()->mutable_response_put();
    auto* range = response.add_responses()->mutable_response_range();
    SetKv(range->add_kvs(), kKey, revision, kLease, "me");
    if (before != 0) SetKv(range->add_kvs(), "lock/99", before, 0x99, "");
    Answer(response);
  }
  // A look: our key as created at `own` (0: gone), the last one before it if any.
  void AnswerLook(int64_t revision, int64_t own, std::optional<int64_t> predecessor) {
    TxnResponse response;
    response.set_succeeded(true);
    response.mutable_header()->set_revision(revision);
    auto* mine = response.add_responses()->mutable_response_range();
    if (own != 0) SetKv(mine->add_kvs(), kKey, own, kLease, "me");
    auto* before = response.add_responses()->mutable_response_range();
    if (predecessor.has_value()) SetKv(before->add_kvs(), "lock/99", *predecessor, 0x99, "");
    Answer(response);
  }
  void AnswerDeleted(bool succeeded) {
    TxnResponse response;
    response.set_succeeded(succeeded);
    if (succeeded) response.add_responses()->mutable_response_delete_range();
    Answer(response);
  }
  testing::FakeTransport::Stream& WatchStream() {
    for (size_t i = wire_.streams.size(); i-- > 0;) {
      if (wire_.streams[i].method == "/etcdserverpb.Watch/Watch") return wire_.streams[i];
    }
    ADD_FAILURE() << "no watch stream";
    return wire_.streams.back();
  }
  void TellWatch(const etcdserverpb::WatchResponse& response) {
    engine_.OnStreamMessage(WatchStream().id, response.SerializeAsString());
    engine_.Advance(now_);
  }
  void CreatedWatch(int64_t id) {
    etcdserverpb::WatchResponse response;
    response.set_created(true);
    response.set_watch_id(id);
    TellWatch(response);
  }
  void DeletedKey(int64_t watch, const std::string& key, int64_t revision) {
    etcdserverpb::WatchResponse response;
    response.set_watch_id(watch);
    mvccpb::Event& event = *response.add_events();
    event.set_type(mvccpb::Event::DELETE);
    event.mutable_kv()->set_key(key);
    event.mutable_kv()->set_mod_revision(revision);
    TellWatch(response);
  }

  std::shared_ptr<SessionCore> session_;
  int answers_ = 0;
  absl::StatusOr<Contender::Outcome> outcome_ = absl::UnknownError("no answer");
  std::optional<absl::Status> lost_;
};

TEST_F(ContenderTest, OneRoundTripWhenNobodyElseIsThere) {
  auto contender = Start();
  EXPECT_EQ(LastTxn().success(0).request_put().key(), kKey);
  EXPECT_EQ(LastTxn().success(0).request_put().lease(), kLease);
  const size_t calls = wire_.calls.size();
  AnswerJoin(5);
  ASSERT_TRUE(outcome_.ok());
  EXPECT_TRUE(outcome_->owns);
  EXPECT_EQ(contender->token(), 5);
  EXPECT_EQ(wire_.calls.size(), calls);
}

TEST_F(ContenderTest, ASecondKeyComesAndGoesWithTheFirst) {
  auto contender =
      std::make_shared<Contender>(session_, Contender::Request{.name = "lock",
                                                               .value = "me",
                                                               .beside_key = "lock~about/2a",
                                                               .beside_value = "more",
                                                               .companions = {"lock~about/2a"}});
  contender->Start([this](absl::StatusOr<Contender::Outcome> outcome) { outcome_ = outcome; },
                   [](const absl::Status&) {});
  engine_.Advance(now_);
  // In the same transaction, also if the key is ours from before.
  const TxnRequest join = LastTxn();
  for (const auto& branch : {join.success(), join.failure()}) {
    ASSERT_EQ(branch.size(), 3);
    EXPECT_EQ(branch.Get(2).request_put().key(), "lock~about/2a");
    EXPECT_EQ(branch.Get(2).request_put().value(), "more");
    EXPECT_EQ(branch.Get(2).request_put().lease(), kLease);
  }
  TxnResponse joined;
  joined.set_succeeded(true);
  joined.mutable_header()->set_revision(5);
  joined.add_responses()->mutable_response_put();
  SetKv(joined.add_responses()->mutable_response_range()->add_kvs(), kKey, 5, kLease, "me");
  joined.add_responses()->mutable_response_put();
  Answer(joined);
  ASSERT_TRUE(outcome_.ok() && outcome_->owns);
  contender->Release(now_ + seconds(5), [](const absl::Status&) {});
  engine_.Advance(now_);
  const TxnRequest leave = LastTxn();
  EXPECT_EQ(leave.success(1).request_delete_range().key(), "lock~about/2a");
  TxnResponse left;
  left.set_succeeded(true);
  left.add_responses()->mutable_response_delete_range();
  left.add_responses()->mutable_response_delete_range();
  Answer(left);
}

TEST_F(ContenderTest, WaitsForOnePredecessorAndLooksAgain) {
  auto contender = Start();
  EXPECT_EQ(LastTxn().success(1).request_range().limit(), 2);  // ours and the last one before it
  AnswerJoin(9, 7);
  EXPECT_EQ(answers_, 0);
  CreatedWatch(0);  // our own key
  CreatedWatch(1);  // the predecessor
  const size_t calls = wire_.calls.size();
  DeletedKey(1, "lock/99", 10);
  ASSERT_EQ(wire_.calls.size(), calls + 1);
  EXPECT_EQ(LastTxn().success(1).request_range().max_create_revision(), 8);
  AnswerLook(10, 9, std::nullopt);
  EXPECT_TRUE(outcome_.ok() && outcome_->owns);
}

TEST_F(ContenderTest, AWaiterWhoseKeyVanishesIsToldEvenIfItIsItsTurn) {
  auto contender = Start();
  AnswerJoin(9, 7);
  CreatedWatch(0);
  CreatedWatch(1);
  DeletedKey(1, "lock/99", 10);
  AnswerLook(10, /*own=*/0, std::nullopt);  // the lease died while we waited
  EXPECT_EQ(answers_, 0);                   // the key is removed first, should it be there
  AnswerDeleted(false);
  EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kAborted);
}

TEST_F(ContenderTest, AJoinOfUnknownOutcomeIsRepeatedAndFindsItsOwnKey) {
  auto contender = Start();
  FailCall(14, "Socket closed");
  Go(seconds(1));
  EXPECT_EQ(LastTxn().success(0).request_put().key(), kKey);
  TxnResponse response;  // it had taken effect
  response.set_succeeded(false);
  response.mutable_header()->set_revision(12);
  SetKv(response.add_responses()->mutable_response_range()->add_kvs(), kKey, 6, kLease, "me");
  SetKv(response.add_responses()->mutable_response_range()->add_kvs(), kKey, 6, kLease, "me");
  Answer(response);
  AnswerLook(12, 6, std::nullopt);
  ASSERT_TRUE(outcome_.ok() && outcome_->owns);
  EXPECT_EQ(contender->token(), 6);
}

TEST_F(ContenderTest, ACancelledContenderRemovesItsKeyBeforeItAnswers) {
  auto contender = Start();
  AnswerJoin(9, 7);
  contender->Cancel(absl::DeadlineExceededError("too late"));
  engine_.Advance(now_);
  EXPECT_EQ(answers_, 0);
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), kKey);
  EXPECT_EQ(LastTxn().compare(0).create_revision(), 9);
  AnswerDeleted(true);
  EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ContenderTest, CancelledWithAJoinOnItsWayItSweepsAgainSoonAndLater) {
  auto contender = Start();
  contender->Cancel(absl::CancelledError("stop"));
  EXPECT_TRUE(LastCall().cancelled);
  FailCall(1, "CANCELLED");
  EXPECT_EQ(LastTxn().compare(0).lease(), kLease);
  AnswerDeleted(false);
  EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kCancelled);
  const size_t calls = wire_.calls.size();
  Go(milliseconds(600));  // it mostly arrives at once, if it does
  ASSERT_EQ(wire_.calls.size(), calls + 1);
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), kKey);
  AnswerDeleted(false);
  Go(seconds(13));
  ASSERT_EQ(wire_.calls.size(), calls + 2);
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), kKey);
}

TEST_F(ContenderTest, TheNextClaimOfTheSessionWaitsForASweepThatIsOnItsWay) {
  auto contender = Start();
  contender->Cancel(absl::CancelledError("stop"));
  FailCall(1, "CANCELLED");
  AnswerDeleted(false);
  Go(milliseconds(600));
  const size_t calls = wire_.calls.size();
  auto next = Start();
  EXPECT_EQ(wire_.calls.size(), calls);  // its key would be taken for the stray one
  AnswerDeleted(true);
  ASSERT_EQ(wire_.calls.size(), calls + 1);
  EXPECT_EQ(LastTxn().success(0).request_put().key(), kKey);
  AnswerJoin(5);
  ASSERT_TRUE(outcome_.ok());
  EXPECT_TRUE(outcome_->owns);
}

TEST_F(ContenderTest, ACallerDoesNotWaitForEverForTheRemoval) {
  auto contender = Start();
  AnswerJoin(9, 7);
  contender->Cancel(absl::DeadlineExceededError("too late"));
  Go(milliseconds(1100));
  EXPECT_EQ(answers_, 1);
  FailCall(14, "Socket closed");
  Go(seconds(2));
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), kKey);  // goes on
}

TEST_F(ContenderTest, TheOwnerHearsThatItsKeyIsGone) {
  auto contender = Start();
  AnswerJoin(5);
  CreatedWatch(0);
  EXPECT_FALSE(lost_.has_value());
  DeletedKey(0, kKey, 8);
  ASSERT_TRUE(lost_.has_value());
  EXPECT_EQ(lost_->code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(contender->owning());
}

TEST_F(ContenderTest, AReleaseThatMissesSaysLostUnlessItsOwnFirstAttemptMayHaveBeenIt) {
  auto first = Start();
  AnswerJoin(5);
  absl::Status left = absl::UnknownError("");
  first->Release(now_ + seconds(5), [&](const absl::Status& status) { left = status; });
  AnswerDeleted(false);
  EXPECT_EQ(left.code(), absl::StatusCode::kAborted);
  auto second = Start();
  AnswerJoin(8);
  second->Release(now_ + seconds(5), [&](const absl::Status& status) { left = status; });
  FailCall(14, "Socket closed");
  Go(seconds(1));
  AnswerDeleted(false);
  EXPECT_TRUE(left.ok()) << left;
}

TEST_F(ContenderTest, OneContenderOfASessionAtATime) {
  auto first = Start();
  AnswerJoin(5);
  const size_t calls = wire_.calls.size();
  answers_ = 0;
  auto second = Start();
  EXPECT_EQ(wire_.calls.size(), calls);
  auto third = Start(/*only_try=*/true);
  EXPECT_EQ(answers_, 1);
  ASSERT_TRUE(outcome_.ok());
  EXPECT_FALSE(outcome_->owns);
  first->Release(now_ + seconds(5), [](const absl::Status&) {});
  AnswerDeleted(true);
  EXPECT_EQ(LastTxn().success(0).request_put().key(), kKey);
  AnswerJoin(8);
  EXPECT_EQ(second->token(), 8);
}

TEST_F(ContenderTest, ATryLeavesNoKeyAndTellsTheOwner) {
  auto contender = Start(/*only_try=*/true);
  EXPECT_EQ(LastTxn().compare(1).key(), "lock/");
  EXPECT_EQ(LastTxn().compare(1).range_end(), "lock0");
  TxnResponse response;
  response.set_succeeded(false);
  response.add_responses()->mutable_response_range();
  SetKv(response.add_responses()->mutable_response_range()->add_kvs(), "lock/98", 6, 0x98, "last");
  SetKv(response.add_responses()->mutable_response_range()->add_kvs(), "lock/99", 4, 0x99, "them");
  const size_t calls = wire_.calls.size();
  Answer(response);
  ASSERT_TRUE(outcome_.ok());
  EXPECT_FALSE(outcome_->owns);
  EXPECT_EQ(outcome_->owner->value, "them");
  EXPECT_EQ(wire_.calls.size(), calls);
}

TEST_F(ContenderTest, CancelledInAnyPhaseItRemovesWhatItMayHavePut) {
  for (const std::string phase : {"joining", "waiting", "looking"}) {
    SCOPED_TRACE(phase);
    answers_ = 0;
    auto contender = Start();
    if (phase != "joining") AnswerJoin(9, 7);
    if (phase == "looking") {
      CreatedWatch(0);
      CreatedWatch(1);
      DeletedKey(1, "lock/99", 10);
    }
    contender->Cancel(absl::CancelledError("stop"));
    engine_.Advance(now_);
    if (phase != "waiting") {
      EXPECT_TRUE(LastCall().cancelled);
      FailCall(1, "CANCELLED");
    }
    EXPECT_EQ(answers_, 0);
    EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), kKey);
    AnswerDeleted(true);
    EXPECT_EQ(answers_, 1);
    EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(session_->First("lock/"), nullptr);
  }
}

TEST_F(ContenderTest, AHandOverCostsTheWaiterOneRequest) {
  auto contender = Start();
  AnswerJoin(9, 7);
  const size_t waiting = wire_.calls.size();
  CreatedWatch(0);
  CreatedWatch(1);
  EXPECT_EQ(wire_.calls.size(), waiting);
  DeletedKey(1, "lock/99", 10);
  AnswerLook(10, 9, std::nullopt);
  EXPECT_TRUE(contender->owning());
  EXPECT_EQ(wire_.calls.size(), waiting + 1);
}

TEST_F(ContenderTest, AJoinThatWasNotAnsweredIsSweptUpAfterALaterOneWas) {
  auto contender = Start();
  FailCall(14, "Socket closed");  // may lie in some member's queue
  Go(seconds(1));
  AnswerJoin(5);
  ASSERT_TRUE(outcome_.ok() && outcome_->owns);
  contender->Release(now_ + seconds(5), [](const absl::Status&) {});
  AnswerDeleted(true);
  const size_t calls = wire_.calls.size();
  Go(milliseconds(600));
  AnswerDeleted(false);
  Go(seconds(13));
  ASSERT_EQ(wire_.calls.size(), calls + 2);
  EXPECT_EQ(LastTxn().compare(0).lease(), kLease);
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), kKey);
}

TEST_F(ContenderTest, ALockDelayIsInPlaceBeforeAnybodyOwns) {
  auto contender = StartWithDelay();
  TxnResponse joined;
  joined.set_succeeded(true);
  joined.mutable_header()->set_revision(5);
  joined.add_responses()->mutable_response_put();
  joined.add_responses()->mutable_response_range();
  joined.add_responses()->mutable_response_range();
  Answer(joined);
  EXPECT_EQ(answers_, 0);
  EXPECT_EQ(LastCall().method, "/etcdserverpb.Lease/LeaseGrant");
  etcdserverpb::LeaseGrantRequest asked;
  ASSERT_TRUE(asked.ParseFromString(LastCall().request));
  EXPECT_EQ(asked.ttl(), 135);  // half as much again: so much is left whenever the holder stops
  etcdserverpb::LeaseGrantResponse grant;
  grant.set_id(0x77);
  grant.set_ttl(135);
  Answer(grant);
  EXPECT_EQ(answers_, 0);
  EXPECT_EQ(LastTxn().success(0).request_put().key(), "lock~hold");
  EXPECT_EQ(LastTxn().success(0).request_put().lease(), 0x77);
  EXPECT_EQ(LastTxn().compare(0).create_revision(), 5);
  TxnResponse placed;
  placed.set_succeeded(true);
  placed.add_responses()->mutable_response_put();
  Answer(placed);
  ASSERT_TRUE(outcome_.ok() && outcome_->owns);
  contender->Release(now_ + seconds(5), [](const absl::Status&) {});
  ASSERT_EQ(LastTxn().success_size(), 3);
  EXPECT_EQ(LastTxn().success(1).request_delete_range().key(), "lock~revoke");
  EXPECT_EQ(LastTxn().success(2).request_delete_range().key(), "lock~hold");
  TxnResponse gone;
  gone.set_succeeded(true);
  for (int i = 0; i < 3; ++i) gone.add_responses()->mutable_response_delete_range();
  Answer(gone);
  EXPECT_EQ(LastCall().method, "/etcdserverpb.Lease/LeaseRevoke");
}

TEST_F(ContenderTest, CancelledWhileItSecuresTheHoldItLeavesNeither) {
  auto contender = StartWithDelay();
  TxnResponse joined;
  joined.set_succeeded(true);
  joined.mutable_header()->set_revision(5);
  joined.add_responses()->mutable_response_put();
  joined.add_responses()->mutable_response_range();
  joined.add_responses()->mutable_response_range();
  Answer(joined);
  etcdserverpb::LeaseGrantResponse grant;
  grant.set_id(0x77);
  grant.set_ttl(135);
  Answer(grant);
  contender->Cancel(absl::DeadlineExceededError("too late"));
  engine_.Advance(now_);
  ASSERT_EQ(LastTxn().success_size(), 3);
  EXPECT_EQ(LastTxn().success(2).request_delete_range().key(), "lock~hold");
  TxnResponse gone;
  gone.set_succeeded(true);
  for (int i = 0; i < 3; ++i) gone.add_responses()->mutable_response_delete_range();
  Answer(gone);
  EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(LastCall().method, "/etcdserverpb.Lease/LeaseRevoke");
}

TEST_F(ContenderTest, SeveralKeysArePutTogetherAndOneLostTakesTheOthersAlong) {
  auto contender = StartForTwo();
  EXPECT_EQ(LastTxn().compare_size(), 2);
  EXPECT_EQ(LastTxn().success(0).request_put().key(), "a/2a");
  EXPECT_EQ(LastTxn().success(1).request_put().key(), "b/2a");
  AnswerJoinOfTwo(5);
  ASSERT_TRUE(outcome_.ok() && outcome_->owns);
  CreatedWatch(0);
  CreatedWatch(1);
  DeletedKey(0, "a/2a", 8);
  ASSERT_TRUE(lost_.has_value());
  EXPECT_EQ(LastTxn().success_size(), 2);
  AnswerDeleted(false);  // not all of them are ours: so each for itself
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), "a/2a");
  AnswerDeleted(false);
  EXPECT_EQ(LastTxn().success(0).request_delete_range().key(), "b/2a");
  EXPECT_EQ(LastTxn().compare(0).create_revision(), 5);
  AnswerDeleted(true);
  EXPECT_EQ(session_->First("a/"), nullptr);
  EXPECT_EQ(session_->First("b/"), nullptr);
}

TEST_F(ContenderTest, ForSeveralNamesItIsFirstInAllLocalQueuesBeforeItJoins) {
  auto held = StartAs({.name = "b", .value = "me"});
  AnswerJoin(5);
  const size_t calls = wire_.calls.size();
  auto both = StartForTwo();
  auto behind = StartAs({.name = "a", .value = "me"});  // does not overtake it
  EXPECT_EQ(wire_.calls.size(), calls);
  held->Release(now_ + seconds(5), [](const absl::Status&) {});
  AnswerDeleted(true);
  EXPECT_EQ(LastTxn().success(1).request_put().key(), "b/2a");
  AnswerJoinOfTwo(8);
  EXPECT_TRUE(both->owning());
  EXPECT_FALSE(behind->owning());
  both->Release(now_ + seconds(5), [](const absl::Status&) {});
  TxnResponse gone;
  gone.set_succeeded(true);
  for (int i = 0; i < 2; ++i) gone.add_responses()->mutable_response_delete_range();
  Answer(gone);
  EXPECT_EQ(LastTxn().success(0).request_put().key(), "a/2a");
  AnswerJoin(12);
  EXPECT_TRUE(behind->owning());
}

TEST_F(ContenderTest, TheEndOfTheSessionEndsEverything) {
  auto contender = Start();
  AnswerJoin(9, 7);
  session_->Close(now_ + seconds(1), [](const absl::Status&) {});
  engine_.Advance(now_);
  EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kAborted);
}

TEST_F(ContenderTest, TheEndOfTheEngineLetsGoOfWhoHoldsAndOfWhoQueues) {
  std::weak_ptr<Contender> owner = Start();
  AnswerJoin(9);
  ASSERT_TRUE(outcome_->owns);
  std::weak_ptr<Contender> queued = Start();
  ASSERT_EQ(answers_, 1);
  engine_.Shutdown();
  ASSERT_TRUE(lost_.has_value());
  EXPECT_EQ(lost_->code(), absl::StatusCode::kAborted);
  EXPECT_EQ(answers_, 2);
  EXPECT_EQ(outcome_.status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(owner.expired());
  EXPECT_TRUE(queued.expired());
}

}  // namespace
}  // namespace conclave
