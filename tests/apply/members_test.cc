// The membership as a pure value: which changes are let through, and what they make of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/member_change.h"
#include "conclave/server/apply/membership.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"

namespace conclave::apply {
namespace {

namespace pb = etcdserverpb;
using testing::ElementsAre;
using wire::Method;

Member MemberOf(uint64_t id, const std::string& name = "started", bool is_learner = false) {
  Member member;
  member.id = id;
  member.name = name;
  member.peer_urls = {"http://10.0.0." + std::to_string(id) + ":1"};
  member.client_urls = {"http://10.0.0." + std::to_string(id) + ":2"};
  member.is_learner = is_learner;
  return member;
}

Membership MembershipOf(std::vector<Member> members) {
  Membership membership;
  membership.Bootstrap(7, std::move(members));
  return membership;
}

MemberChange Add(uint64_t id, const std::string& url, bool is_learner = false) {
  return {.method = Method::kMemberAdd, .id = id, .peer_urls = {url}, .is_learner = is_learner};
}
MemberChange Remove(uint64_t id) { return {.method = Method::kMemberRemove, .id = id}; }
MemberChange Promote(uint64_t id) { return {.method = Method::kMemberPromote, .id = id}; }
MemberChange Update(uint64_t id, const std::string& url) {
  return {.method = Method::kMemberUpdate, .id = id, .peer_urls = {url}};
}

TEST(PeerUrl, IsAsEtcdWantsIt) {
  for (const char* good : {"http://10.0.0.1:2380", "https://h:1", "http://[::1]:2380", "http://:80",
                           "unix://socket", "unixs://a:1"}) {
    EXPECT_TRUE(IsPeerUrl(good)) << good;
  }
  for (const char* bad :
       {"", "10.0.0.1:2380", "http://10.0.0.1", "http://h:1/path", "http://h:x", "ftp://h:1",
        "http://a:b:1", "http://[::1:2380", "unix://", "http://h:1?q", "http://h :1"}) {
    EXPECT_FALSE(IsPeerUrl(bad)) << bad;
  }
  EXPECT_FALSE(IsPeerUrl("http://" + std::string(3000, 'h') + ":1"));
}

TEST(MemberChangeCodec, ARequestIsReadAsEtcdReadsIt) {
  pb::MemberAddRequest add;
  add.add_peerurls(" http://b:1 ");
  add.add_peerurls("http://a:1");
  add.set_islearner(true);
  MemberChange change;
  EXPECT_EQ(ParseMemberChange(Method::kMemberAdd, add.SerializeAsString(), &change), nullptr);
  EXPECT_THAT(change.peer_urls, ElementsAre("http://a:1", "http://b:1"));
  EXPECT_TRUE(change.is_learner);
  EXPECT_EQ(ParseMemberChange(Method::kMemberAdd, "", &change), &wire::kErrMemberBadUrls);
  EXPECT_EQ(ParseMemberChange(Method::kMemberRemove, "\x0a", &change), &wire::kErrMalformed);
}

TEST(MemberChangeCodec, WhatIsWrittenIsReadAndNothingElseIs) {
  const MemberChange change = Add(uint64_t{1} << 63, "http://a:1", true);
  const Bytes context = EncodeMemberChange(5, 6, change);
  const auto command = DecodeMemberChange(context.view());
  ASSERT_TRUE(command.has_value());
  EXPECT_EQ(command->change, change);
  EXPECT_EQ(command->header.proposer, 5u);
  EXPECT_EQ(command->header.sequence, 6u);
  EXPECT_FALSE(DecodeMemberChange("").has_value());
  EXPECT_FALSE(DecodeMemberChange(context.view().substr(0, context.size() - 1)).has_value());
  Prng prng(1);
  for (int i = 0; i < 10'000; ++i) {
    std::string garbage = context.ToString();
    garbage[prng.Below(garbage.size())] = static_cast<char>(prng.Below(256));
    (void)DecodeMemberChange(garbage);
  }
}

TEST(MembershipTest, ChecksInEtcdsWords) {
  Membership members = MembershipOf({MemberOf(1), MemberOf(2), MemberOf(3, "learner", true)});
  EXPECT_EQ(members.Check(Add(4, "http://new:1"), 1), nullptr);
  EXPECT_EQ(members.Check(Add(4, "http://new:1", true), 1), &wire::kErrTooManyLearners);
  EXPECT_EQ(members.Check(Add(4, "http://new:1", true), 2), nullptr);
  EXPECT_EQ(members.Check(Add(1, "http://new:1"), 1), &wire::kErrMemberExists);
  EXPECT_EQ(members.Check(Add(4, "http://10.0.0.2:1"), 1), &wire::kErrPeerUrlExists);
  EXPECT_EQ(members.Check(Update(1, "http://10.0.0.2:1"), 1), &wire::kErrPeerUrlExists);
  EXPECT_EQ(members.Check(Update(2, "http://10.0.0.2:1"), 1), nullptr);
  EXPECT_EQ(members.Check(Promote(3), 1), nullptr);
  EXPECT_EQ(members.Check(Promote(1), 1), &wire::kErrMemberNotLearner);
  for (const MemberChange& change : {Remove(9), Promote(9), Update(9, "http://new:1")}) {
    EXPECT_EQ(members.Check(change, 1), &wire::kErrMemberNotFound);
  }
  // An id never comes back.
  members.Apply(Remove(2));
  EXPECT_EQ(members.Check(Add(2, "http://new:1"), 1), &wire::kErrMemberNotFound);
  EXPECT_EQ(members.Check(Remove(2), 1), &wire::kErrMemberNotFound);
}

TEST(MembershipTest, AChangeTouchesWhatItNamesAndNothingElse) {
  Membership members = MembershipOf({MemberOf(1), MemberOf(2, "learner", true)});
  members.Apply(Update(2, "http://moved:1"));
  EXPECT_TRUE(members.Find(2)->is_learner) << "an update clears no flag";
  EXPECT_EQ(members.Find(2)->name, "learner");
  EXPECT_THAT(members.Find(2)->client_urls, ElementsAre("http://10.0.0.2:2"));
  members.Apply(Promote(2));
  EXPECT_FALSE(members.Find(2)->is_learner);
  members.Apply(Add(3, "http://new:1"));
  EXPECT_TRUE(members.Find(3)->name.empty());
  // What has become impossible changes nothing.
  const auto digest = members.digest();
  members.Apply(Add(3, "http://other:1"));
  members.Apply(Remove(9));
  members.Apply(Promote(9));
  EXPECT_EQ(members.digest().low, digest.low);
  EXPECT_EQ(members.digest().high, digest.high);
  members.Apply(Remove(3));
  EXPECT_EQ(members.Find(3), nullptr);
  members.Apply(Add(3, "http://new:1"));
  EXPECT_EQ(members.Find(3), nullptr);
}

TEST(MembershipTest, AQuorumMustHaveStarted) {
  struct Case {
    size_t started;
    size_t unstarted;
    bool one_more;
    bool without_started;
    bool with_learner;
  };
  for (const Case& c :
       {Case{1, 0, true, false, true}, Case{1, 1, false, false, true}, Case{2, 0, true, true, true},
        Case{2, 1, false, false, true}, Case{3, 0, true, true, true}, Case{3, 1, true, true, true},
        Case{3, 2, false, false, true}, Case{2, 3, false, false, false}}) {
    SCOPED_TRACE(std::to_string(c.started) + " and " + std::to_string(c.unstarted));
    std::vector<Member> members;
    for (size_t i = 0; i < c.started + c.unstarted; ++i) {
      members.push_back(MemberOf(i + 1, i < c.started ? "started" : ""));
    }
    members.push_back(MemberOf(100, "learner", true));
    const Membership membership = MembershipOf(members);
    EXPECT_EQ(membership.QuorumStartedWithOneMore(), c.one_more);
    EXPECT_EQ(membership.QuorumStartedWithout(1), c.without_started);
    EXPECT_EQ(membership.QuorumStartedWithLearner(), c.with_learner);
    EXPECT_EQ(membership.voters(), c.started + c.unstarted);
  }
}

TEST(MembershipTest, OneAloneIsLeft) {
  Membership members = MembershipOf({MemberOf(1), MemberOf(2, "learner", true), MemberOf(3)});
  EXPECT_FALSE(members.RetainOnly(9));
  EXPECT_EQ(members.members().size(), 3u);
  EXPECT_TRUE(members.RetainOnly(2));
  EXPECT_FALSE(members.Find(2)->is_learner);
  EXPECT_THAT(members.removed(), ElementsAre(1, 3));
  EXPECT_EQ(members.members().size(), 1u);
}

std::string WholeSnapshot(StateMachine* state) {
  SnapshotTask task(state);
  std::string bytes;
  for (Bytes piece = task.Next(1000); !piece.empty(); piece = task.Next(1000)) {
    bytes += piece.ToString();
  }
  return bytes;
}

TEST(MembershipTest, ASnapshotKeepsWhoWasRemoved) {
  StateMachine state(StateMachineOptions{.member_id = 1});
  state.Bootstrap(7, {MemberOf(1), MemberOf(2)});
  const auto before = state.digest();
  ApplyContext context{.index = 1, .entry_term = 1, .want_response = true};
  const ApplyResult added = state.ApplyMemberChange(context, Add(3, "http://new:1", true));
  pb::MemberAddResponse response;
  ASSERT_TRUE(response.ParseFromString(added.response.ToString()));
  EXPECT_EQ(response.member().id(), 3u);
  EXPECT_TRUE(response.member().islearner());
  EXPECT_EQ(response.members_size(), 3);
  EXPECT_EQ(response.header().cluster_id(), 7u);
  context.index = 2;
  (void)state.ApplyMemberChange(context, Remove(3));
  EXPECT_EQ(state.membership().members().size(), 2u);
  EXPECT_NE(state.digest().low, before.low) << "who was removed is part of the state";

  RestoreTask task(StateMachineOptions{.member_id = 1});
  ASSERT_TRUE(task.Feed(WholeSnapshot(&state)).ok());
  const auto restored = task.Finish();
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ((*restored)->membership().members(), state.membership().members());
  EXPECT_THAT((*restored)->membership().removed(), ElementsAre(3));
  EXPECT_EQ((*restored)->digest().low, state.digest().low);
}

}  // namespace
}  // namespace conclave::apply
