// Registrar and SharedLease, step by step: what they ask of the cluster, and in which order.
#include "conclave/registry/registrar.h"

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/registry/shared_lease.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kGrant[] = "/etcdserverpb.Lease/LeaseGrant";
constexpr char kRevoke[] = "/etcdserverpb.Lease/LeaseRevoke";
constexpr char kTxn[] = "/etcdserverpb.KV/Txn";
constexpr char kRange[] = "/etcdserverpb.KV/Range";

// A cluster of one map, played by hand: calls wait until the test has them answered.
class RegistrarTest : public testing::EngineFixture {
 protected:
  RegistrarTest()
      : lease_(std::make_shared<SharedLease>(engine_, 10)),
        book_(std::make_shared<OverrideBook>(
            engine_, std::string(kOverridePrefix),
            [this](const std::string& complaint) { complaints_.push_back(complaint); })) {}
  void TearDown() override {
    for (auto& registrar : registrars_) registrar->Stop(now_, [](const absl::Status&) {});
    engine_.Advance(now_);
    EngineFixture::TearDown();
  }

  std::shared_ptr<Registrar> Start(Instance instance, Format format = Format::kEtcdNaming) {
    instance.service = "my-service";
    events_.emplace_back();
    auto registrar = std::make_shared<Registrar>(
        engine_, lease_, book_, CodecFor(format), std::move(instance),
        [this, at = events_.size() - 1](const Registrar::Event& event) { events_[at] = event; });
    registrars_.push_back(registrar);
    registrar->Start();
    engine_.Advance(now_);
    return registrar;
  }
  RegState state(size_t i = 0) const { return events_[i].state; }

  std::vector<testing::FakeTransport::Call> Open(const std::string& method) {
    std::vector<testing::FakeTransport::Call> open;
    for (const auto& call : wire_.calls) {
      if (call.method == method && !answered_.contains(call.id) && !call.cancelled) {
        open.push_back(call);
      }
    }
    return open;
  }
  int CallsTo(const std::string& method) {
    int count = 0;
    for (const auto& call : wire_.calls) count += call.method == method;
    return count;
  }
  template <typename Message>
  void Reply(const testing::FakeTransport::Call& call, const Message& message) {
    answered_.insert(call.id);
    engine_.OnUnaryDone(call.id, {}, message.SerializeAsString());
    engine_.Advance(now_);
  }
  void Grant(LeaseId lease) {
    ASSERT_EQ(Open(kGrant).size(), 1u);
    etcdserverpb::LeaseGrantResponse grant;
    grant.set_id(lease);
    grant.set_ttl(10);
    Reply(Open(kGrant)[0], grant);
  }
  // The list that the watch of overrides begins with.
  void List(const std::vector<std::pair<std::string, std::string>>& overrides = {}) {
    ASSERT_EQ(Open(kRange).size(), 1u);
    etcdserverpb::RangeResponse range;
    range.mutable_header()->set_revision(1);
    for (const auto& [name, text] : overrides) {
      auto* kv = range.add_kvs();
      kv->set_key(absl::StrCat(".override/my-service/", name));
      kv->set_value(text);
    }
    Reply(Open(kRange)[0], range);
  }
  // Has the write that is under way succeed; what it was.
  etcdserverpb::TxnRequest Write(int64_t revision) {
    etcdserverpb::TxnRequest txn;
    EXPECT_FALSE(Open(kTxn).empty());
    if (Open(kTxn).empty()) return txn;
    const testing::FakeTransport::Call call = Open(kTxn)[0];
    EXPECT_TRUE(txn.ParseFromString(call.request));
    etcdserverpb::TxnResponse response;
    response.set_succeeded(true);
    response.mutable_header()->set_revision(revision);
    for (const auto& op : txn.success()) {
      if (op.has_request_put()) {
        response.add_responses()->mutable_response_put();
      } else {
        response.add_responses()->mutable_response_delete_range();
      }
    }
    Reply(call, response);
    return txn;
  }
  std::shared_ptr<SharedLease> lease_;
  std::shared_ptr<OverrideBook> book_;
  std::vector<std::shared_ptr<Registrar>> registrars_;
  std::vector<Registrar::Event> events_;
  std::vector<std::string> complaints_;
  std::set<WireId> answered_;
};

TEST_F(RegistrarTest, AKeyMovesToTheNextLeaseWhileTheOldOneMayStillLive) {
  Start({.address = "10.0.0.1:80"});
  List();
  Grant(1);
  EXPECT_EQ(Write(5).success(0).request_put().lease(), 1);
  EXPECT_EQ(state(), RegState::kRegistered);

  // No renewal is answered: the local deadline passes one second before the lease's end.
  Go(seconds(9) + milliseconds(200));
  EXPECT_EQ(state(), RegState::kLost);
  Grant(2);
  Go(milliseconds(1));
  const etcdserverpb::TxnRequest txn = Write(9);
  EXPECT_EQ(txn.success(0).request_put().lease(), 2);
  EXPECT_EQ(txn.compare(0).mod_revision(), 5) << "as it was left on the lease before";
  EXPECT_EQ(state(), RegState::kRegistered);
  EXPECT_EQ(events_[0].reregistrations, 1);
  EXPECT_EQ(CallsTo(kRevoke), 0) << "a revoked lease takes the key along before it can move";
}

TEST_F(RegistrarTest, NothingIsWrittenBeforeTheOverridesAreKnown) {
  Start({.id = "i-1", .address = "h:1"});
  Grant(1);
  EXPECT_TRUE(Open(kTxn).empty());
  List({{"i-1", "weight=3"}, {"h:1", "weight=9"}, {"i-2", "out"}});
  EXPECT_EQ(Write(5).success(0).request_put().value(),
            R"({"Op":0,"Addr":"h:1","Metadata":{"id":"i-1","weight":3}})")
      << "the id's counts before the address's";
  EXPECT_EQ(state(), RegState::kRegistered);
  EXPECT_NE(events_[0].why.message().find("weight=3"), std::string::npos);
}

TEST_F(RegistrarTest, AnOverrideSaysOutAlsoToAKeyOfAnIncarnationBefore) {
  Start({.address = "h:1"});
  List({{"h:1", "out"}});
  Grant(1);
  // It is there, which the first attempt finds out.
  etcdserverpb::TxnResponse occupied;
  auto* kv = occupied.add_responses()->mutable_response_range()->add_kvs();
  kv->set_key("my-service/h:1");
  kv->set_value(EncodeNamingValue({.address = "h:1"}));
  kv->set_mod_revision(3);
  kv->set_lease(77);
  Reply(Open(kTxn)[0], occupied);
  const etcdserverpb::TxnRequest txn = Write(6);
  EXPECT_EQ(txn.compare(0).mod_revision(), 3);
  EXPECT_EQ(txn.success(0).request_delete_range().key(), "my-service/h:1");
  EXPECT_EQ(state(), RegState::kDraining);
}

TEST_F(RegistrarTest, AnUnreadableOverrideIsIgnoredAndSaidSo) {
  Start({.address = "h:1"});
  List({{"h:1", "weight=-1"}, {"deeper/h:1", "out"}});
  Grant(1);
  EXPECT_EQ(Write(5).success(0).request_put().value(), R"({"Op":0,"Addr":"h:1","Metadata":null})");
  ASSERT_EQ(complaints_.size(), 1u);
  EXPECT_NE(complaints_[0].find("weight=-1"), std::string::npos);
}

TEST_F(RegistrarTest, AFormatWithoutStatesTakesWhatDoesNotServeOutOfTheRegistry) {
  auto registrar = Start({.id = "i-1", .address = "h:1"}, Format::kKratos);
  List();
  Grant(1);
  EXPECT_EQ(Write(5).success(0).request_put().key(), "/microservices/my-service/i-1");
  registrar->SetHealth(absl::UnavailableError("no database"));
  engine_.Advance(now_);
  EXPECT_EQ(Write(6).success(0).request_delete_range().key(), "/microservices/my-service/i-1");
  EXPECT_EQ(state(), RegState::kRegistered);
  EXPECT_EQ(events_[0].why.message(), "no database");
  registrar->SetHealth(absl::OkStatus());
  engine_.Advance(now_);
  const etcdserverpb::TxnRequest back = Write(7);
  EXPECT_TRUE(back.success(0).has_request_put());
  EXPECT_EQ(back.compare(0).mod_revision(), 0);
}

TEST_F(RegistrarTest, AKeyThatHoldsItsLeaseMovesWithIt) {
  Start({.address = "h:1"}, Format::kGoZero);
  List();
  Grant(1);
  EXPECT_EQ(Write(5).success(0).request_put().key(), "my-service/1");
  Go(seconds(9) + milliseconds(200));
  Grant(2);
  Go(milliseconds(1));
  const etcdserverpb::TxnRequest txn = Write(9);
  ASSERT_EQ(txn.success_size(), 2);
  EXPECT_EQ(txn.success(0).request_delete_range().key(), "my-service/1");
  EXPECT_EQ(txn.success(1).request_put().key(), "my-service/2");
}

TEST_F(RegistrarTest, AHundredRegistrationsShareALeaseAndTakeTurnsWriting) {
  constexpr int kCount = 100;
  for (int i = 0; i < kCount; ++i) Start({.address = absl::StrCat("h:", i + 1)});
  List();
  Grant(1);
  int written = 0;
  while (!Open(kTxn).empty()) {
    EXPECT_LE(Open(kTxn).size(), static_cast<size_t>(SharedLease::kWritesMax));
    EXPECT_EQ(Write(5 + written++).success(0).request_put().lease(), 1);
  }
  EXPECT_EQ(written, kCount);
  EXPECT_EQ(CallsTo(kGrant), 1);
  EXPECT_EQ(CallsTo(kRange), 1) << "one watch of overrides for the service";

  // The lease is lost: one new one, and the keys come back spread over time.
  Go(seconds(9) + milliseconds(200));
  Grant(2);
  EXPECT_EQ(CallsTo(kGrant), 2);
  const size_t at_once = Open(kTxn).size();
  EXPECT_LT(at_once, static_cast<size_t>(SharedLease::kWritesMax));
  for (int elapsed = 0; elapsed < 200; ++elapsed) {
    Go(milliseconds(1));
    while (!Open(kTxn).empty()) {
      EXPECT_LE(Open(kTxn).size(), static_cast<size_t>(SharedLease::kWritesMax));
      EXPECT_EQ(Write(500 + written++).success(0).request_put().lease(), 2);
    }
  }
  EXPECT_EQ(written, 2 * kCount);
  for (int i = 0; i < kCount; ++i) EXPECT_EQ(state(i), RegState::kRegistered) << i;
}

TEST_F(RegistrarTest, LeavingASharedLeaseDeletesOneKeyAndTheLastOneRevokes) {
  auto first = Start({.address = "h:1"});
  auto second = Start({.address = "h:2"});
  List();
  Grant(1);
  Write(5);
  Write(6);
  first->Stop(now_ + seconds(5), [](const absl::Status&) {});
  engine_.Advance(now_);
  const etcdserverpb::TxnRequest txn = Write(7);
  EXPECT_EQ(txn.compare(0).lease(), 1);
  EXPECT_EQ(txn.success(0).request_delete_range().key(), "my-service/h:1");
  EXPECT_EQ(CallsTo(kRevoke), 0);
  EXPECT_EQ(lease_->tenants(), 1u);
  second->Stop(now_ + seconds(5), [](const absl::Status&) {});
  engine_.Advance(now_);
  EXPECT_TRUE(Open(kTxn).empty());
  ASSERT_EQ(Open(kRevoke).size(), 1u);
  Reply(Open(kRevoke)[0], etcdserverpb::LeaseRevokeResponse());
}

TEST_F(RegistrarTest, AWriteThatWasGivenUpIsSweptFromALeaseThatLivesOn) {
  auto first = Start({.address = "h:1"});
  Start({.address = "h:2"});
  List();
  Grant(1);
  // The first one's put is never answered; its owner leaves meanwhile.
  const testing::FakeTransport::Call put = Open(kTxn)[0];
  answered_.insert(put.id);
  Write(6);
  first->Stop(now_ + seconds(5), [](const absl::Status&) {});
  engine_.Advance(now_);
  engine_.OnUnaryDone(put.id, {.code = 1, .message = "cancelled"}, "");
  engine_.Advance(now_);
  Write(7);  // the delete
  EXPECT_TRUE(Open(kTxn).empty());
  const int before = CallsTo(kTxn);
  // Keep the other's lease alive while time passes.
  for (int i = 0; i < 11; ++i) {
    Go(seconds(1));
    for (auto& stream : wire_.streams) {
      if (stream.closed || stream.method != "/etcdserverpb.Lease/LeaseKeepAlive") continue;
      etcdserverpb::LeaseKeepAliveResponse alive;
      alive.set_id(1);
      alive.set_ttl(10);
      engine_.OnStreamMessage(stream.id, alive.SerializeAsString());
      engine_.Advance(now_);
    }
  }
  EXPECT_EQ(lease_->lease(), 1);
  ASSERT_GT(CallsTo(kTxn), before) << "nobody looked for the put that came late";
  const auto last = Write(9);
  EXPECT_EQ(last.success(0).request_delete_range().key(), "my-service/h:1")
      << last.ShortDebugString();
}

TEST_F(RegistrarTest, WhoeverComesWhenTheLastOneHasJustLeftGetsALeaseOfItsOwn) {
  auto first = Start({.address = "h:1"});
  const testing::FakeTransport::Call grant = Open(kGrant)[0];
  first->Stop(now_ + seconds(5), [](const absl::Status&) {});  // before the grant is answered
  Start({.address = "h:2"});
  engine_.OnUnaryDone(grant.id, {.code = 1, .message = "cancelled"}, "");
  engine_.Advance(now_);
  List();
  Grant(2);
  EXPECT_EQ(Write(5).success(0).request_put().lease(), 2);
  EXPECT_EQ(state(0), RegState::kGone);
  EXPECT_EQ(state(1), RegState::kRegistered);
  // Its health is heard: the lease's end is noticed.
  Go(seconds(9) + milliseconds(200));
  EXPECT_EQ(state(1), RegState::kLost);
}

TEST_F(RegistrarTest, WhatIsWantedTwiceIsWrittenOnce) {
  auto registrar = Start({.address = "h:1"});
  List();
  Grant(1);
  Write(5);
  registrar->SetDraining(false);
  registrar->Update({.address = "h:1"});
  engine_.Advance(now_);
  EXPECT_TRUE(Open(kTxn).empty());
  registrar->SetDraining(true);
  engine_.Advance(now_);
  EXPECT_EQ(Write(6).success(0).request_put().value(),
            R"({"Op":0,"Addr":"h:1","Metadata":{"state":"draining"}})");
  EXPECT_EQ(state(), RegState::kDraining);
}

}  // namespace
}  // namespace conclave
