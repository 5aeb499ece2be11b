// Leases, alarms, quota and members: their rules in the state machine, one test each.
#include <gtest/gtest.h>

#include <string>

#include "conclave/server/apply/member_change.h"
#include "conclave/tests/apply/machine.h"

namespace conclave::apply {
namespace {

using Code = wire::Code;
using std::chrono::seconds;

class LeaseTest : public testing::Test {
 protected:
  // As the leader does now and then.
  void EndExpired() {
    const Bytes command = machine_.state().TakeExpired(machine_.now(), Machine::kTerm, 1000);
    if (command.empty()) return;
    EXPECT_EQ(machine_.ApplyPayload(command).error, nullptr);
  }

  Machine machine_;
};

TEST_F(LeaseTest, AnIdOfZeroIsChosenByTheServerAndPositive) {
  const auto answer = machine_.Grant(0, 60);
  EXPECT_GT(answer->id(), 0);
  EXPECT_EQ(answer->ttl(), 60);
  EXPECT_EQ(answer->header().revision(), 1);
  EXPECT_NE(machine_.Grant(0, 60)->id(), answer->id());
}

TEST_F(LeaseTest, AnIdThatIsTakenIsRefused) {
  ASSERT_TRUE(machine_.Grant(7, 60).ok());
  const auto refused = machine_.Grant(7, 60);
  EXPECT_EQ(refused.code, Code::kFailedPrecondition);
  EXPECT_EQ(refused.error, "etcdserver: lease already exists");
}

TEST_F(LeaseTest, TheTtlHasBounds) {
  EXPECT_EQ(machine_.Grant(1, 0)->ttl(), 2);
  EXPECT_EQ(machine_.Grant(2, -5)->ttl(), 2);
  EXPECT_EQ(machine_.Grant(3, 9'000'000'000)->ttl(), 9'000'000'000);
  const auto refused = machine_.Grant(4, 9'000'000'001);
  EXPECT_EQ(refused.code, Code::kOutOfRange);
  EXPECT_EQ(refused.error, "etcdserver: too large lease TTL");
}

TEST_F(LeaseTest, ARevokeDeletesAllItsKeysInOneRevisionInOrder) {
  ASSERT_TRUE(machine_.Grant(7, 60).ok());
  for (const char* key : {"c", "a", "b"}) ASSERT_TRUE(machine_.Put(key, "v", 7).ok());
  const auto answer = machine_.Revoke(7);
  EXPECT_EQ(answer->header().revision(), 5);
  std::string deleted;
  machine_.state().store().ForEachSince(5, [&deleted](const mvcc::Record& record) {
    EXPECT_TRUE(record.tombstone());
    EXPECT_EQ(record.revision().sub, static_cast<int64_t>(deleted.size()));
    deleted += record.key();
    return true;
  });
  EXPECT_EQ(deleted, "abc");
}

TEST_F(LeaseTest, ARevokeWithoutKeysLeavesTheRevision) {
  ASSERT_TRUE(machine_.Grant(7, 60).ok());
  EXPECT_EQ(machine_.Revoke(7)->header().revision(), 1);
  const auto refused = machine_.Revoke(7);
  EXPECT_EQ(refused.code, Code::kNotFound);
  EXPECT_EQ(refused.error, "etcdserver: requested lease not found");
}

TEST_F(LeaseTest, ALeaseThatIsNotRenewedEndsAndTakesItsKeysAlong) {
  ASSERT_TRUE(machine_.Grant(1, 10).ok());
  ASSERT_TRUE(machine_.Grant(2, 10).ok());
  ASSERT_TRUE(machine_.Put("a", "v", 1).ok());
  ASSERT_TRUE(machine_.Put("b", "v", 2).ok());
  machine_.Wait(seconds(6));
  EXPECT_EQ(machine_.state().Renew(2, machine_.now()).outcome, StateMachine::Renewal::kRenewed);
  EndExpired();
  EXPECT_EQ(machine_.Get("a", "c")->count(), 2);
  machine_.Wait(seconds(5));
  EXPECT_EQ(machine_.state().Renew(1, machine_.now()).outcome, StateMachine::Renewal::kExpired);
  EndExpired();
  EXPECT_EQ(machine_.Get("a", "c")->count(), 1);
  EXPECT_FALSE(machine_.state().LeaseExists(1));
  EXPECT_EQ(machine_.state().Renew(1, machine_.now()).outcome, StateMachine::Renewal::kNotFound);
}

TEST_F(LeaseTest, EachLeaseOfABatchEndsInARevisionOfItsOwn) {
  for (const int64_t id : {1, 2, 3}) {
    ASSERT_TRUE(machine_.Grant(id, 10).ok());
    ASSERT_TRUE(machine_.Put("k" + std::to_string(id), "v", id).ok());
  }
  machine_.Wait(seconds(11));
  EndExpired();
  EXPECT_EQ(machine_.state().store().current_revision(), 7);
}

TEST_F(LeaseTest, ALeaderOfAnEarlierTermEndsNothing) {
  ASSERT_TRUE(machine_.Grant(1, 10).ok());
  machine_.Wait(seconds(11));
  const Bytes stale = machine_.state().TakeExpired(machine_.now(), Machine::kTerm - 1, 10);
  ASSERT_FALSE(stale.empty());
  EXPECT_EQ(machine_.ApplyPayload(stale).error, nullptr);
  EXPECT_TRUE(machine_.state().LeaseExists(1));
}

TEST_F(LeaseTest, TimeToLiveCountsDownAndListsKeysInOrder) {
  ASSERT_TRUE(machine_.Grant(7, 10).ok());
  ASSERT_TRUE(machine_.Put("b", "v", 7).ok());
  ASSERT_TRUE(machine_.Put("a", "v", 7).ok());
  machine_.Wait(seconds(4));
  const auto answer = machine_.TimeToLive(7, true);
  EXPECT_EQ(answer->grantedttl(), 10);
  EXPECT_EQ(answer->ttl(), 6);
  ASSERT_EQ(answer->keys_size(), 2);
  EXPECT_EQ(answer->keys(0), "a");
  EXPECT_EQ(machine_.TimeToLive(7)->keys_size(), 0);
}

TEST_F(LeaseTest, TimeToLiveOfAnUnknownLeaseIsMinusOne) {
  const auto answer = machine_.TimeToLive(404);
  EXPECT_EQ(answer->ttl(), -1);
  EXPECT_EQ(answer->id(), 404);
  EXPECT_EQ(answer->grantedttl(), 0);
  EXPECT_EQ(machine_.state().Check(wire::Method::kLeaseTimeToLive, "").route, Route::kLeader);
}

TEST_F(LeaseTest, LeasesAreListedByTheirEnd) {
  ASSERT_TRUE(machine_.Grant(1, 30).ok());
  ASSERT_TRUE(machine_.Grant(2, 10).ok());
  ASSERT_TRUE(machine_.Grant(3, 20).ok());
  const auto answer = machine_.Leases();
  ASSERT_EQ(answer->leases_size(), 3);
  EXPECT_EQ(answer->leases(0).id(), 2);
  EXPECT_EQ(answer->leases(1).id(), 3);
  EXPECT_EQ(answer->leases(2).id(), 1);
}

TEST_F(LeaseTest, WhatIsLeftOfALeaseSurvivesAChangeOfLeader) {
  ASSERT_TRUE(machine_.Grant(1, 10).ok());
  machine_.Wait(seconds(6));
  const Bytes checkpoints = machine_.state().TakeCheckpoints(machine_.now(), 100);
  ASSERT_FALSE(checkpoints.empty());
  EXPECT_EQ(machine_.ApplyPayload(checkpoints).error, nullptr);
  machine_.state().Demote();
  EXPECT_TRUE(machine_.state().TakeExpired(machine_.now(), Machine::kTerm, 10).empty());
  machine_.state().Promote(machine_.now(), seconds(1));
  machine_.Wait(seconds(4));
  EndExpired();
  EXPECT_TRUE(machine_.state().LeaseExists(1));
  machine_.Wait(seconds(2));
  EndExpired();
  EXPECT_FALSE(machine_.state().LeaseExists(1));
}

// ---- Quota and alarms ---------------------------------------------------------------------------

pb::AlarmRequest AlarmOf(pb::AlarmRequest::AlarmAction action, pb::AlarmType type,
                         uint64_t member = Machine::kMemberId) {
  pb::AlarmRequest request;
  request.set_action(action);
  request.set_alarm(type);
  request.set_memberid(member);
  return request;
}

class QuotaTest : public testing::Test {
 protected:
  static StateMachineOptions Options() {
    StateMachineOptions options;
    options.quota_bytes = 50'000;
    return options;
  }
  Answer<pb::AlarmResponse> Alarm(const pb::AlarmRequest& request) {
    return machine_.Call<pb::AlarmResponse>(wire::Method::kAlarm, request);
  }

  Machine machine_{Options()};
};

TEST_F(QuotaTest, AFullStateRefusesWritesBeforeTheyAreProposedAndRecoversByItself) {
  int written = 0;
  Answer<pb::PutResponse> answer;
  while ((answer = machine_.Put("k" + std::to_string(written), std::string(4096, 'x'))).ok()) {
    ASSERT_LT(++written, 20);
  }
  EXPECT_EQ(answer.code, Code::kResourceExhausted);
  EXPECT_EQ(answer.error, "etcdserver: mvcc: database space exceeded");
  EXPECT_EQ(machine_.entries().size(), static_cast<size_t>(written));
  EXPECT_EQ(machine_.Get("k" + std::to_string(written))->count(), 0);
  const auto alarms = Alarm(AlarmOf(pb::AlarmRequest::GET, pb::NONE, 0));
  ASSERT_EQ(alarms->alarms_size(), 1);
  EXPECT_EQ(alarms->alarms(0).alarm(), pb::NOSPACE);
  wire::Status status;
  machine_.state().FillStatus(&status);
  EXPECT_EQ(status.errors, (std::vector<std::string>{"memberID:11 alarm:NOSPACE"}));

  // Reads, deletes and compaction go on.
  EXPECT_TRUE(machine_.Get("k0").ok());
  EXPECT_EQ(machine_.Delete("k0", "k5")->deleted(), 6);
  EXPECT_TRUE(machine_.Compact(3).ok());
  EXPECT_EQ(Alarm(AlarmOf(pb::AlarmRequest::GET, pb::NONE, 0))->alarms_size(), 0);
  EXPECT_TRUE(machine_.Put("k0", std::string(4096, 'x')).ok());
}

TEST_F(QuotaTest, CountsThePutsOfTransactions) {
  pb::TxnRequest txn;
  for (int i = 0; i < 15; ++i) {
    pb::PutRequest* const put = txn.add_failure()->mutable_request_put();
    put->set_key("k" + std::to_string(i));
    put->set_value(std::string(4096, 'x'));
  }
  EXPECT_EQ(machine_.Txn(txn).error, "etcdserver: mvcc: database space exceeded");
}

TEST_F(QuotaTest, AnAlarmThatIsRaisedRefusesWritesEverywhere) {
  ASSERT_EQ(Alarm(AlarmOf(pb::AlarmRequest::ACTIVATE, pb::NOSPACE, 5))->alarms_size(), 1);
  EXPECT_EQ(machine_.Put("k", "v").error, "etcdserver: mvcc: database space exceeded");
  EXPECT_EQ(machine_.Grant(1, 60).error, "etcdserver: mvcc: database space exceeded");
  EXPECT_TRUE(machine_.Delete("k").ok());
  EXPECT_EQ(Alarm(AlarmOf(pb::AlarmRequest::DEACTIVATE, pb::NOSPACE, 6))->alarms_size(), 0);
  EXPECT_EQ(Alarm(AlarmOf(pb::AlarmRequest::DEACTIVATE, pb::NOSPACE, 5))->alarms_size(), 1);
  EXPECT_TRUE(machine_.Put("k", "v").ok());
}

// Nobody else could take it back.
TEST_F(QuotaTest, AnAlarmGoesWithItsMember) {
  StateMachine& state = machine_.state();
  const auto apply = [&](const MemberChange& change) {
    ApplyContext context;
    context.index = state.applied_index() + 1;
    context.entry_term = Machine::kTerm;
    EXPECT_EQ(state.ApplyMemberChange(context, change).error, nullptr);
  };
  apply({.method = wire::Method::kMemberAdd, .id = 12, .peer_urls = {"http://b:1"}});
  ASSERT_EQ(Alarm(AlarmOf(pb::AlarmRequest::ACTIVATE, pb::NOSPACE, 12))->alarms_size(), 1);
  EXPECT_FALSE(machine_.Put("k", "v").ok());
  apply({.method = wire::Method::kMemberRemove, .id = 12});
  EXPECT_TRUE(machine_.Put("k", "v").ok());
  // It was on its way.
  EXPECT_EQ(Alarm(AlarmOf(pb::AlarmRequest::ACTIVATE, pb::NOSPACE, 12))->alarms_size(), 0);
  EXPECT_TRUE(machine_.Put("k", "v").ok());
}

TEST_F(QuotaTest, ACorruptClusterReadsButDoesNotWrite) {
  ASSERT_TRUE(machine_.Grant(1, 60).ok());
  ASSERT_TRUE(Alarm(AlarmOf(pb::AlarmRequest::ACTIVATE, pb::CORRUPT, 5)).ok());
  const auto refused = machine_.Put("k", "v");
  EXPECT_EQ(refused.code, Code::kDataLoss);
  EXPECT_EQ(refused.error, "etcdserver: corrupt cluster");
  EXPECT_EQ(machine_.Delete("k").error, "etcdserver: corrupt cluster");
  EXPECT_EQ(machine_.Compact(1).error, "etcdserver: corrupt cluster");
  EXPECT_EQ(machine_.Revoke(1).error, "etcdserver: corrupt cluster");
  EXPECT_TRUE(machine_.Get("k").ok());
}

// Of a member that gets the others' state nobody else need take notice.
TEST_F(QuotaTest, AMemberThatIsRefilledStopsNoWrites) {
  const auto refill = [&](bool begins) {
    return machine_.ApplyPayload(EncodeRefill(1, 0, {5, begins})).error;
  };
  const apply::Alarm alarm{5, static_cast<int32_t>(pb::CORRUPT)};
  const mvcc::Digest before = machine_.state().digest();
  ASSERT_EQ(refill(true), nullptr);
  EXPECT_EQ(machine_.state().Alarms(), std::vector<apply::Alarm>{alarm});
  EXPECT_NE(machine_.state().digest(), before);
  EXPECT_TRUE(machine_.Put("k", "v").ok());
  EXPECT_TRUE(machine_.Grant(1, 60).ok());
  ASSERT_EQ(refill(false), nullptr);
  EXPECT_TRUE(machine_.state().Alarms().empty());
  // The operator's is another matter, whichever comes first.
  ASSERT_EQ(refill(true), nullptr);
  ASSERT_TRUE(Alarm(AlarmOf(pb::AlarmRequest::ACTIVATE, pb::CORRUPT, 5)).ok());
  EXPECT_EQ(machine_.Put("k", "v").error, "etcdserver: corrupt cluster");
  ASSERT_EQ(refill(true), nullptr);
  ASSERT_EQ(refill(false), nullptr);
  EXPECT_EQ(machine_.Put("k", "v").error, "etcdserver: corrupt cluster");
  ASSERT_TRUE(Alarm(AlarmOf(pb::AlarmRequest::DEACTIVATE, pb::CORRUPT, 5)).ok());
  EXPECT_TRUE(machine_.Put("k", "v").ok());
  EXPECT_TRUE(machine_.state().refills().empty());
}

// ---- Members ------------------------------------------------------------------------------------

TEST(MembershipTest, MembersPublishTheirNamesAndAreListedById) {
  StateMachineOptions options;
  options.member_id = 9;
  StateMachine state(options);
  state.Bootstrap(
      3, {{9, "", {"http://127.0.0.1:3"}, {}, false}, {4, "", {"http://127.0.0.1:1"}, {}, true}});
  ApplyContext context;
  context.index = 1;
  ASSERT_EQ(state.Apply(context, EncodeMemberAttributes(9, 1, {9, "nine", {"http://c:1"}})).error,
            nullptr);
  context.index = 2;
  EXPECT_EQ(state.Apply(context, EncodeMemberAttributes(9, 1, {5, "five", {}})).error,
            &wire::kErrMemberNotFound);
  const ReadResult read = state.Read({}, wire::Method::kMemberList, "");
  pb::MemberListResponse response;
  ASSERT_TRUE(response.ParseFromString(read.response.ToString()));
  EXPECT_EQ(response.header().revision(), 0);
  EXPECT_EQ(response.header().cluster_id(), 3u);
  ASSERT_EQ(response.members_size(), 2);
  EXPECT_EQ(response.members(0).id(), 4u);
  EXPECT_EQ(response.members(0).name(), "");
  EXPECT_TRUE(response.members(0).islearner());
  EXPECT_EQ(response.members(1).name(), "nine");
  EXPECT_EQ(response.members(1).clienturls(0), "http://c:1");
}

TEST(CommandTest, AHeaderIsReadAsItWasWritten) {
  std::string payload(kCommandHeaderSize, 'x');
  WriteCommandHeader(payload.data(), {2, 0x1122334455667788, 99});
  const auto header = ReadCommandHeader(payload);
  ASSERT_TRUE(header.has_value());
  EXPECT_TRUE(header->Is(wire::Method::kPut));
  EXPECT_EQ(header->proposer, 0x1122334455667788u);
  EXPECT_EQ(header->sequence, 99u);
  EXPECT_FALSE(ReadCommandHeader(payload.substr(1)).has_value());
  payload[0] = 2;
  EXPECT_FALSE(ReadCommandHeader(payload).has_value());
}

}  // namespace
}  // namespace conclave::apply
