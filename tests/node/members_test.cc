// Changes of membership: several members that come, go and move.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/api/kv.pb.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/node/own_call.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/tests/node/reply.h"
#include "conclave/tests/node/trio.h"

namespace conclave::node {
namespace {

namespace pb = etcdserverpb;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

std::string PutOf(const std::string& key) {
  pb::PutRequest request;
  request.set_key(key);
  request.set_value("value of " + key);
  return request.SerializeAsString();
}
std::string RangeOf(const std::string& key, bool serializable = false) {
  pb::RangeRequest request;
  request.set_key(key);
  request.set_serializable(serializable);
  return request.SerializeAsString();
}
std::string AddOf(std::vector<std::string> urls, bool learner = false) {
  pb::MemberAddRequest request;
  for (std::string& url : urls) request.add_peerurls(std::move(url));
  request.set_islearner(learner);
  return request.SerializeAsString();
}
std::string IdOf(uint64_t id) {
  pb::MemberRemoveRequest request;  // promotion has the same shape
  request.set_id(id);
  return request.SerializeAsString();
}
std::string UpdateOf(uint64_t id, const std::string& url) {
  pb::MemberUpdateRequest request;
  request.set_id(id);
  request.add_peerurls(url);
  return request.SerializeAsString();
}

std::string ErrorOf(const Reply& reply) { return reply.error ? reply.error->message : "no error"; }
std::string Text(const wire::Error& error) { return std::string(error.message); }

// The members of a cluster have known each other for long enough to be called healthy.
void BecomeHealthy(Trio& trio) { trio.Advance(seconds(6)); }

std::vector<pb::Member> ListAt(Trio& trio, size_t member) {
  const auto list = Parsed<pb::MemberListResponse>(trio.Call(member, Method::kMemberList, ""));
  return {list.members().begin(), list.members().end()};
}

raft::NodeId Add(Trio& trio, size_t through, const std::string& url, bool learner = false) {
  const auto added =
      Parsed<pb::MemberAddResponse>(trio.Call(through, Method::kMemberAdd, AddOf({url}, learner)));
  EXPECT_EQ(added.member().islearner(), learner);
  EXPECT_THAT(added.member().peerurls(), ElementsAre(url));
  EXPECT_EQ(added.header().revision(), 0);
  return raft::NodeId(added.member().id());
}

void WaitReady(Trio& trio, size_t member) {
  for (int i = 0; i < 200 && !trio.ready(member); ++i) trio.Advance(milliseconds(50));
  ASSERT_TRUE(trio.ready(member));
}
void WaitStopped(Trio& trio, size_t member) {
  for (int i = 0; i < 200 && !trio.stopped(member); ++i) trio.Advance(milliseconds(50));
  ASSERT_TRUE(trio.stopped(member));
}

bool Said(const Trio& trio, size_t member, const std::string& message) {
  for (const LogLine& line : trio.log(member)) {
    if (line.message == message) return true;
  }
  return false;
}

void ExpectAllWork(Trio& trio) {
  static int count = 0;
  for (size_t member = 0; member < trio.size(); ++member) {
    if (trio.stopped(member)) continue;
    const std::string key = "key" + std::to_string(++count);
    (void)Parsed<pb::PutResponse>(trio.Call(member, Method::kPut, PutOf(key)));
    const auto range = Parsed<pb::RangeResponse>(trio.Call(member, Method::kRange, RangeOf(key)));
    EXPECT_EQ(range.count(), 1);
  }
}

TEST(Members, ALearnerJoinsAndIsPromoted) {
  Trio trio;
  BecomeHealthy(trio);
  (void)trio.Call(0, Method::kPut, PutOf("before"));
  const raft::NodeId id = Add(trio, trio.follower(), Trio::UrlOf(3), /*learner=*/true);
  // Not there yet: nothing to promote.
  EXPECT_EQ(ErrorOf(trio.Call(trio.leader(), Method::kMemberPromote, IdOf(id.value()))),
            Text(wire::kErrLearnerNotReady));

  const size_t learner = trio.Join(id);
  WaitReady(trio, learner);
  EXPECT_TRUE(trio.node(learner).raft_status().is_learner);
  const auto local = Parsed<pb::RangeResponse>(
      trio.Call(learner, Method::kRange, RangeOf("before", /*serializable=*/true)));
  EXPECT_EQ(local.count(), 1);
  EXPECT_EQ(Parsed<pb::StatusResponse>(trio.Call(learner, Method::kStatus, "")).islearner(), true);
  for (const auto& [method, request] :
       std::vector<std::pair<Method, std::string>>{{Method::kRange, RangeOf("before")},
                                                   {Method::kPut, PutOf("x")},
                                                   {Method::kMemberList, ""},
                                                   {Method::kMemberPromote, IdOf(id.value())}}) {
    EXPECT_EQ(ErrorOf(trio.Call(learner, method, request)), Text(wire::kErrNotSupportedForLearner));
  }
  // The server's own health page is no client.
  trio.Put(learner, UnaryCall{CallId(kOwnCallBit | 1), Method::kRange, WithHeadroom(RangeOf("x"))});
  trio.Advance(milliseconds(100));
  const auto health = trio.Take(kOwnCallBit | 1);
  ASSERT_TRUE(health.has_value());
  EXPECT_EQ(ErrorOf(*health), "no error");

  const uint64_t stream = trio.OpenStream(learner, StreamKind::kWatch);
  trio.Settle();
  const auto heard = trio.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0].finish);
  ASSERT_NE(heard[0].error, nullptr);
  EXPECT_EQ(heard[0].error->message, wire::kErrNotSupportedForLearner.message);

  (void)Parsed<pb::MemberPromoteResponse>(
      trio.Call(trio.follower(), Method::kMemberPromote, IdOf(id.value())));
  trio.Advance(seconds(1));
  EXPECT_FALSE(trio.node(learner).raft_status().is_learner);
  ExpectAllWork(trio);
  for (const auto& member : ListAt(trio, learner)) EXPECT_FALSE(member.islearner());
  EXPECT_EQ(ErrorOf(trio.Call(0, Method::kMemberPromote, IdOf(id.value()))),
            Text(wire::kErrMemberNotLearner));
}

TEST(Members, AClusterGrowsFromOneToThreeWithoutAPause) {
  Trio trio(1);
  const raft::NodeId second = Add(trio, 0, Trio::UrlOf(1));
  // The second has a vote for the clients, not for Raft: nobody waits for it.
  EXPECT_EQ(ListAt(trio, 0).size(), 2u);
  (void)Parsed<pb::PutResponse>(trio.Call(0, Method::kPut, PutOf("alone")));
  // etcd's words for a third one before the second has started.
  EXPECT_EQ(ErrorOf(trio.Call(0, Method::kMemberAdd, AddOf({Trio::UrlOf(2)}))),
            Text(wire::kErrMemberNotEnoughStarted));
  WaitReady(trio, trio.Join(second));
  trio.Advance(seconds(1));
  ExpectAllWork(trio);
  BecomeHealthy(trio);
  WaitReady(trio, trio.Join(Add(trio, trio.follower(), Trio::UrlOf(2))));
  trio.Advance(seconds(1));
  ExpectAllWork(trio);
  // All three vote now: any one may go.
  trio.Kill(trio.leader());
  trio.Advance(seconds(5));
  ASSERT_TRUE(trio.Leader().has_value());
  ExpectAllWork(trio);
}

TEST(Members, ALeaderThatIsRemovedAnswersHandsOverAndStops) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t leader = trio.leader();
  const auto removed = Parsed<pb::MemberRemoveResponse>(
      trio.Call(leader, Method::kMemberRemove, IdOf(trio.options(leader).id.value())));
  EXPECT_EQ(removed.members_size(), 2);
  trio.Advance(milliseconds(200));
  ASSERT_TRUE(trio.Leader().has_value()) << "no election timeout is waited for";
  EXPECT_NE(trio.leader(), leader);
  WaitStopped(trio, leader);
  EXPECT_TRUE(Said(trio, leader, "the member has been permanently removed from the cluster"));
  ExpectAllWork(trio);
}

TEST(Members, ARemovedFollowerAnswersItsOwnClientAndStops) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t follower = trio.follower();
  (void)Parsed<pb::MemberRemoveResponse>(
      trio.Call(follower, Method::kMemberRemove, IdOf(trio.options(follower).id.value())));
  WaitStopped(trio, follower);
  ExpectAllWork(trio);
}

TEST(Members, ADownMemberThatWasRemovedIsToldWhenItComesBack) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t away = trio.follower();
  trio.CutOff(away);
  trio.Advance(seconds(1));
  (void)Parsed<pb::MemberRemoveResponse>(
      trio.Call(trio.leader(), Method::kMemberRemove, IdOf(trio.options(away).id.value())));
  trio.Advance(seconds(5));
  EXPECT_FALSE(trio.stopped(away));
  trio.Put(away, RemovedByPeer{trio.options(trio.leader()).id});
  WaitStopped(trio, away);
  ExpectAllWork(trio);
}

TEST(Members, ADeadMemberIsReplaced) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t dead = trio.follower();
  trio.Kill(dead);
  trio.Advance(seconds(3));
  // Four with one down: etcd wants three of them healthy.
  EXPECT_EQ(ErrorOf(trio.Call(trio.leader(), Method::kMemberAdd, AddOf({Trio::UrlOf(3)}))),
            Text(wire::kErrUnhealthy));
  (void)Parsed<pb::MemberRemoveResponse>(
      trio.Call(trio.leader(), Method::kMemberRemove, IdOf(trio.options(dead).id.value())));
  WaitReady(trio, trio.Join(Add(trio, trio.leader(), Trio::UrlOf(3))));
  trio.Advance(seconds(1));
  ExpectAllWork(trio);
  EXPECT_EQ(ListAt(trio, trio.leader()).size(), 3u);
}

// Found by the simulator: it refused the messages of members that it had never heard of, for ever.
TEST(Members, WhoWasAwayWhileAllOthersWereReplacedComesBack) {
  Trio trio(5);
  const size_t away = trio.follower();
  trio.CutOff(away);
  for (size_t old = 0; old < 5; ++old) {
    if (old == away) continue;
    BecomeHealthy(trio);
    const raft::NodeId id = Add(trio, trio.leader(), Trio::UrlOf(5 + old));
    const size_t fresh = trio.Join(id);
    trio.CutOff(away);
    WaitReady(trio, fresh);
    BecomeHealthy(trio);
    (void)Parsed<pb::MemberRemoveResponse>(
        trio.Call(trio.leader(), Method::kMemberRemove, IdOf(trio.options(old).id.value())));
    WaitStopped(trio, old);
  }
  EXPECT_FALSE(trio.stopped(away));
  const size_t refused = trio.distrusted(away);
  for (size_t fresh = 5; fresh < trio.size(); ++fresh) {
    trio.Connect(away, fresh, true);
    trio.Connect(fresh, away, true);
  }
  trio.Advance(seconds(5));
  EXPECT_EQ(trio.distrusted(away), refused);
  EXPECT_EQ(trio.node(away).state().applied_index(),
            trio.node(trio.leader()).state().applied_index());
  EXPECT_TRUE(Said(trio, away, "a member that is not known here yet has said who it is"));
  ExpectAllWork(trio);
}

// A stranger that does not say who it is, and one that was removed, are refused as before.
TEST(Members, WhoDoesNotSayWhoItIsIsRefused) {
  Trio trio;
  const raft::NodeId stranger(4711);
  const raft::NodeId self = trio.options(0).id;
  const auto frame = [&](const PeerItem& item) {
    return PeerFrame{stranger, PeerLane::kMessages,
                     EncodeFrame(stranger, self, std::vector<PeerItem>{item})};
  };
  trio.Put(0, frame(BeaconEcho{1}));
  trio.Settle();
  EXPECT_EQ(trio.distrusted(0), 1u);
  EXPECT_EQ(trio.peers(0).size(), 2u);
  trio.Put(0, frame(Introduction{{Trio::UrlOf(7)}}));
  trio.Settle();
  EXPECT_EQ(trio.distrusted(0), 1u);
  EXPECT_THAT(trio.peers(0), ::testing::Contains(PeerAddress{stranger, {Trio::UrlOf(7)}}));
  // Nobody ever makes it a member: it is forgotten.
  trio.Advance(seconds(70));
  EXPECT_EQ(trio.peers(0).size(), 2u);
}

TEST(Members, ThreeShrinkToOneAndNotFurther) {
  Trio trio;
  BecomeHealthy(trio);
  for (size_t left = 3; left > 1; --left) {
    const size_t leader = trio.leader();
    const size_t gone = left == 3 ? trio.follower() : leader;
    (void)Parsed<pb::MemberRemoveResponse>(
        trio.Call(leader, Method::kMemberRemove, IdOf(trio.options(gone).id.value())));
    WaitStopped(trio, gone);
    trio.Advance(seconds(2));
    ASSERT_TRUE(trio.Leader().has_value());
  }
  ExpectAllWork(trio);
  const size_t last = trio.leader();
  EXPECT_EQ(ErrorOf(trio.Call(last, Method::kMemberRemove, IdOf(trio.options(last).id.value()))),
            Text(wire::kErrMemberNotEnoughStarted));
  ExpectAllWork(trio);
}

TEST(Members, AnAddressMovesAndTheOthersFollow) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t mover = trio.follower();
  const uint64_t id = trio.options(mover).id.value();
  const auto updated = Parsed<pb::MemberUpdateResponse>(
      trio.Call(mover, Method::kMemberUpdate, UpdateOf(id, "http://moved:2380")));
  EXPECT_EQ(updated.members_size(), 3);
  trio.Advance(milliseconds(200));
  bool found = false;
  for (const PeerAddress& peer : trio.peers(trio.leader())) {
    if (peer.id.value() != id) continue;
    found = true;
    EXPECT_THAT(peer.peer_urls, ElementsAre("http://moved:2380"));
  }
  EXPECT_TRUE(found);
  // The name, the client URLs and the vote stay.
  for (const auto& member : ListAt(trio, trio.leader())) {
    EXPECT_FALSE(member.name().empty());
    EXPECT_FALSE(member.islearner());
  }
  ExpectAllWork(trio);
}

TEST(Members, ALearnersAddressMovesAndItStaysALearner) {
  Trio trio;
  BecomeHealthy(trio);
  const raft::NodeId id = Add(trio, 0, Trio::UrlOf(3), true);
  const size_t learner = trio.Join(id);
  WaitReady(trio, learner);
  (void)Parsed<pb::MemberUpdateResponse>(
      trio.Call(0, Method::kMemberUpdate, UpdateOf(id.value(), "http://moved:2380")));
  trio.Advance(seconds(3));
  EXPECT_TRUE(trio.node(learner).raft_status().is_learner);
  for (const auto& member : ListAt(trio, 0)) {
    EXPECT_EQ(member.islearner(), member.id() == id.value());
  }
}

TEST(Members, WhatCannotBeIsRefusedWithEtcdsWords) {
  Trio trio;
  BecomeHealthy(trio);
  for (size_t through = 0; through < trio.size(); ++through) {
    const auto error = [&](Method method, const std::string& request) {
      return ErrorOf(trio.Call(through, method, request));
    };
    EXPECT_EQ(error(Method::kMemberAdd, AddOf({})), Text(wire::kErrMemberBadUrls));
    EXPECT_EQ(error(Method::kMemberAdd, AddOf({"10.0.0.9:2380"})), Text(wire::kErrMemberBadUrls));
    EXPECT_EQ(error(Method::kMemberAdd, AddOf({Trio::UrlOf(1)})), Text(wire::kErrPeerUrlExists));
    EXPECT_EQ(error(Method::kMemberRemove, IdOf(12345)), Text(wire::kErrMemberNotFound));
    EXPECT_EQ(error(Method::kMemberPromote, IdOf(12345)), Text(wire::kErrMemberNotFound));
    EXPECT_EQ(error(Method::kMemberPromote, IdOf(trio.options(0).id.value())),
              Text(wire::kErrMemberNotLearner));
    EXPECT_EQ(error(Method::kMemberUpdate, UpdateOf(12345, "http://a:1")),
              Text(wire::kErrMemberNotFound));
    EXPECT_EQ(error(Method::kMemberUpdate, UpdateOf(1, "nonsense")), Text(wire::kErrMemberBadUrls));
    EXPECT_EQ(error(Method::kMemberUpdate, UpdateOf(trio.options(0).id.value(), Trio::UrlOf(1))),
              Text(wire::kErrPeerUrlExists));
  }
  (void)Add(trio, 0, "http://learner:1", true);
  EXPECT_EQ(ErrorOf(trio.Call(1, Method::kMemberAdd, AddOf({"http://second:1"}, true))),
            Text(wire::kErrTooManyLearners));
}

TEST(Members, ChangesAtOnceTakeTheirTurns) {
  Trio trio;
  BecomeHealthy(trio);
  std::vector<uint64_t> calls;
  for (size_t member = 0; member < 3; ++member) {
    calls.push_back(trio.Send(
        member, Method::kMemberUpdate,
        UpdateOf(trio.options(member).id.value(), "http://new" + std::to_string(member) + ":1")));
    calls.push_back(trio.Send(member, Method::kMemberAdd, AddOf({"http://same:1"}, true)));
  }
  trio.Advance(seconds(2));
  std::vector<std::string> outcomes;
  for (const uint64_t call : calls) {
    const auto reply = trio.Take(call);
    ASSERT_TRUE(reply.has_value());
    outcomes.push_back(ErrorOf(*reply));
  }
  EXPECT_THAT(outcomes,
              UnorderedElementsAre("no error", "no error", "no error", "no error",
                                   Text(wire::kErrPeerUrlExists), Text(wire::kErrPeerUrlExists)));
}

TEST(Members, AChangeOutlivesTheLeaderThatWasAsked) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t leader = trio.leader();
  const size_t asked = trio.follower();
  // The leader can commit nothing any more, and does not know it yet.
  trio.Silence(leader);
  const uint64_t call = trio.Send(asked, Method::kMemberAdd, AddOf({"http://learner:1"}, true));
  trio.Advance(seconds(4));
  const auto reply = trio.Take(call);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(Parsed<pb::MemberAddResponse>(*reply).members_size(), 4);
}

TEST(Members, WithoutAQuorumAChangeTimesOut) {
  Trio trio;
  BecomeHealthy(trio);
  const size_t asked = trio.follower();
  trio.CutOff(asked);
  EXPECT_EQ(ErrorOf(trio.Call(asked, Method::kMemberAdd, AddOf({"http://x:1"}, true))),
            Text(wire::kErrTimeoutLeaderFail));
}

}  // namespace
}  // namespace conclave::node
