// Three members: what one of them is asked and another one knows.
#include "conclave/tests/node/trio.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/api/kv.pb.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/tests/node/reply.h"

namespace conclave::node {
namespace {

namespace pb = etcdserverpb;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string PutOf(const std::string& key, const std::string& value) {
  pb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  return request.SerializeAsString();
}
std::string RangeOf(const std::string& key) {
  pb::RangeRequest request;
  request.set_key(key);
  return request.SerializeAsString();
}
std::string MoveTo(raft::NodeId target) {
  pb::MoveLeaderRequest request;
  request.set_targetid(target.value());
  return request.SerializeAsString();
}
std::string GrantOf(int64_t id, int64_t ttl) {
  pb::LeaseGrantRequest request;
  request.set_id(id);
  request.set_ttl(ttl);
  return request.SerializeAsString();
}

std::string KeepAliveOf(int64_t id) {
  pb::LeaseKeepAliveRequest request;
  request.set_id(id);
  return request.SerializeAsString();
}
pb::LeaseKeepAliveResponse RenewalOf(const StreamEffect& heard) {
  pb::LeaseKeepAliveResponse response;
  EXPECT_TRUE(response.ParseFromString(heard.prefix.ToString()));
  return response;
}
// What has been heard: one answer to a renewal.
pb::LeaseKeepAliveResponse RenewalIn(const std::vector<StreamEffect>& heard) {
  EXPECT_EQ(heard.size(), 1u);
  return heard.size() == 1 ? RenewalOf(heard[0]) : pb::LeaseKeepAliveResponse();
}
// The first that is heard, if it comes within three seconds.
std::vector<StreamEffect> AwaitHeard(Trio& trio, uint64_t stream) {
  std::vector<StreamEffect> heard;
  for (int i = 0; i < 300 && heard.empty(); ++i) {
    trio.Advance(milliseconds(10));
    heard = trio.Heard(stream);
  }
  return heard;
}

TEST(TrioNode, EveryMemberWritesAndReads) {
  Trio trio;
  for (size_t member = 0; member < Trio::kMembers; ++member) {
    const std::string key = "key" + std::to_string(member);
    const auto put = Parsed<pb::PutResponse>(trio.Call(member, Method::kPut, PutOf(key, "v")));
    EXPECT_EQ(put.header().member_id(), trio.options(member).id.value());
    const size_t reader = (member + 1) % Trio::kMembers;
    const auto range = Parsed<pb::RangeResponse>(trio.Call(reader, Method::kRange, RangeOf(key)));
    EXPECT_EQ(range.count(), 1);
    EXPECT_EQ(range.header().revision(), put.header().revision());
  }
}

TEST(TrioNode, AFollowerAnswersForLeasesAsTheLeaderWould) {
  Trio trio;
  const size_t follower = trio.follower();
  Parsed<pb::LeaseGrantResponse>(trio.Call(follower, Method::kLeaseGrant, GrantOf(7, 5)));
  trio.Advance(seconds(2));
  pb::LeaseTimeToLiveRequest question;
  question.set_id(7);
  const auto before = Parsed<pb::LeaseTimeToLiveResponse>(
      trio.Call(follower, Method::kLeaseTimeToLive, question.SerializeAsString()));
  EXPECT_EQ(before.grantedttl(), 5);
  EXPECT_LE(before.ttl(), 3);
  EXPECT_EQ(before.header().member_id(), trio.options(follower).id.value());

  const uint64_t stream = trio.OpenStream(follower, StreamKind::kLeaseKeepAlive);
  trio.Say(follower, stream, KeepAliveOf(7));
  trio.Say(follower, stream, KeepAliveOf(8));
  trio.Advance(milliseconds(50));
  const std::vector<StreamEffect> heard = trio.Heard(stream);
  ASSERT_EQ(heard.size(), 2u);
  int64_t ttl_of[9] = {};
  for (const StreamEffect& effect : heard) {
    pb::LeaseKeepAliveResponse response;
    ASSERT_TRUE(response.ParseFromString(effect.prefix.ToString()));
    EXPECT_EQ(response.header().member_id(), trio.options(follower).id.value());
    ttl_of[response.id()] = response.ttl();
  }
  EXPECT_EQ(ttl_of[7], 5);
  EXPECT_EQ(ttl_of[8], 0);
  const auto after = Parsed<pb::LeaseTimeToLiveResponse>(
      trio.Call(follower, Method::kLeaseTimeToLive, question.SerializeAsString()));
  EXPECT_GE(after.ttl(), 4);
  question.set_id(8);
  EXPECT_EQ(Parsed<pb::LeaseTimeToLiveResponse>(
                trio.Call(follower, Method::kLeaseTimeToLive, question.SerializeAsString()))
                .ttl(),
            -1);
}

TEST(TrioNode, MoveLeaderMovesTheLeader) {
  Trio trio;
  const size_t old_leader = trio.leader();
  const size_t target = trio.follower();
  EXPECT_EQ(trio.Call(target, Method::kMoveLeader, MoveTo(trio.options(target).id)).error->message,
            wire::kErrNotLeader.message);
  EXPECT_EQ(trio.Call(old_leader, Method::kMoveLeader, MoveTo(raft::NodeId(4711))).error->message,
            wire::kErrBadLeaderTransferee.message);
  const uint64_t term = trio.node(old_leader).raft_status().term.value();
  const Instant asked = trio.now();
  const Reply reply = trio.Call(old_leader, Method::kMoveLeader, MoveTo(trio.options(target).id));
  EXPECT_EQ(reply.error, nullptr);
  EXPECT_TRUE(reply.body.empty());
  EXPECT_EQ(trio.leader(), target);
  EXPECT_EQ(trio.node(target).raft_status().term.value(), term + 1);
  EXPECT_LE(trio.now() - asked, milliseconds(500));
}

// A lease that nobody renews ends in time though the leadership moves on and on.
TEST(TrioNode, LeasesSurviveChangesOfLeaderWithWhatTheyHaveLeft) {
  Trio trio;
  Parsed<pb::LeaseGrantResponse>(trio.Call(0, Method::kLeaseGrant, GrantOf(7, 10)));
  for (int i = 0; i < 2; ++i) {
    trio.Advance(seconds(4));
    EXPECT_EQ(trio.StatsOf(0)->leases, 1u);
    const raft::NodeId target = trio.options(trio.follower()).id;
    EXPECT_EQ(trio.Call(trio.leader(), Method::kMoveLeader, MoveTo(target)).error, nullptr);
  }
  trio.Advance(seconds(4));
  EXPECT_EQ(trio.StatsOf(0)->leases, 0u);
}

// However often it moves: who hands over tells the next one what they have left.
TEST(TrioNode, LeasesEndThoughNobodyLeadsForAsLongAsTheirCheckpointsTake) {
  Trio trio;
  constexpr seconds kTtl(5);
  Parsed<pb::LeaseGrantResponse>(trio.Call(0, Method::kLeaseGrant, GrantOf(7, kTtl.count())));
  const Instant granted = trio.now();
  int moves = 0;
  while (trio.StatsOf(0)->leases == 1 && moves < 50) {
    trio.Advance(milliseconds(400));
    const raft::NodeId target = trio.options(trio.follower()).id;
    EXPECT_EQ(trio.Call(trio.leader(), Method::kMoveLeader, MoveTo(target)).error, nullptr);
    ++moves;
  }
  const Duration each = VerifiedFor(trio.options(0)) + milliseconds(50);
  EXPECT_LE(trio.now() - granted, kTtl + moves * each + seconds(1)) << moves << " moves";
}

// A leader that hears nobody may have a successor that ends its leases: it renews and ends none.
TEST(TrioNode, ALeaderThatHearsNobodyTouchesNoLease) {
  Trio trio;
  const size_t leader = trio.leader();
  Parsed<pb::LeaseGrantResponse>(trio.Call(leader, Method::kLeaseGrant, GrantOf(7, 100)));
  Parsed<pb::LeaseGrantResponse>(trio.Call(leader, Method::kLeaseGrant, GrantOf(8, 2)));
  const uint64_t stream = trio.OpenStream(leader, StreamKind::kLeaseKeepAlive);
  trio.Advance(milliseconds(1000));
  trio.Silence(leader);
  trio.Advance(milliseconds(600));
  trio.Say(leader, stream, KeepAliveOf(7));
  trio.Settle();
  EXPECT_TRUE(trio.node(leader).raft_status().is_leader);
  EXPECT_TRUE(trio.Heard(stream).empty());
  trio.Advance(milliseconds(500));
  EXPECT_TRUE(trio.Heard(stream).empty());
  EXPECT_EQ(trio.StatsOf(leader)->leases, 2u);
}

// Cuts the leader off from the others, whose connections to it break: they elect at once. Who leads
// them then; the old leader leads on.
size_t Succeed(Trio& trio, size_t leader) {
  trio.Silence(leader);
  for (size_t peer = 0; peer < Trio::kMembers; ++peer) {
    if (peer != leader) trio.Connect(peer, leader, false);
  }
  for (int i = 0; i < 100; ++i) {
    trio.Advance(milliseconds(5));
    for (size_t next = 0; next < Trio::kMembers; ++next) {
      if (next != leader && trio.node(next).raft_status().is_leader) return next;
    }
  }
  ADD_FAILURE() << "no other leader";
  return leader;
}

// Followers whose connections break elect at once. A leader that has not heard of it, and had a
// quorum a moment ago, does not know what its successor has granted: it calls no lease gone.
TEST(TrioNode, ALeaderCallsNoLeaseGoneThatItsSuccessorHasGranted) {
  Trio trio;
  const size_t leader = trio.leader();
  const uint64_t stream = trio.OpenStream(leader, StreamKind::kLeaseKeepAlive);
  const Instant led = trio.now();
  Parsed<pb::RangeResponse>(trio.Call(leader, Method::kRange, RangeOf("a")));
  const size_t next = Succeed(trio, leader);
  Parsed<pb::LeaseGrantResponse>(trio.Call(next, Method::kLeaseGrant, GrantOf(7, 100)));
  ASSERT_LT(trio.now() - led, VerifiedFor(trio.options(leader)));
  trio.Say(leader, stream, KeepAliveOf(7));
  trio.Settle();
  EXPECT_TRUE(trio.node(leader).raft_status().is_leader);
  EXPECT_TRUE(trio.Heard(stream).empty());

  trio.Rejoin(leader);
  EXPECT_EQ(RenewalIn(AwaitHeard(trio, stream)).ttl(), 100);
}

// Nor does the successor end early what the old leader has renewed before it knew.
TEST(TrioNode, ASuccessorAddsTheTimeForWhichTheOldLeaderStillRenews) {
  Trio trio;
  const size_t leader = trio.leader();
  constexpr int kTtl = 2;
  Parsed<pb::LeaseGrantResponse>(trio.Call(leader, Method::kLeaseGrant, GrantOf(7, kTtl)));
  const uint64_t stream = trio.OpenStream(leader, StreamKind::kLeaseKeepAlive);
  const Instant led = trio.now();
  Parsed<pb::RangeResponse>(trio.Call(leader, Method::kRange, RangeOf("a")));
  const size_t next = Succeed(trio, leader);
  const Duration verified = VerifiedFor(trio.options(leader));
  ASSERT_LT(trio.now() - led, verified / 2);
  trio.Advance(std::chrono::duration_cast<milliseconds>(led + verified - trio.now()) -
               milliseconds(1));
  trio.Say(leader, stream, KeepAliveOf(7));
  trio.Settle();
  ASSERT_EQ(RenewalIn(trio.Heard(stream)).ttl(), kTtl);

  const Instant promised = trio.now() + std::chrono::seconds(kTtl);
  while (trio.now() + milliseconds(5) < promised) {
    trio.Advance(milliseconds(5));
    ASSERT_TRUE(trio.node(next).state().LeaseExists(7)) << "it ended early";
  }
}

// Its time is over, and the leader loses its office before the end is agreed upon: then it is for
// the next one to say, and is said once.
TEST(TrioNode, ARenewalThatWaitsForAnEndGoesToTheNextLeader) {
  Trio trio;
  const size_t leader = trio.leader();
  Parsed<pb::LeaseGrantResponse>(trio.Call(leader, Method::kLeaseGrant, GrantOf(7, 5)));
  const uint64_t stream = trio.OpenStream(leader, StreamKind::kLeaseKeepAlive);
  trio.Advance(milliseconds(4990));
  Parsed<pb::RangeResponse>(trio.Call(leader, Method::kRange, RangeOf("a")));  // it still leads
  trio.Silence(leader);
  trio.Advance(milliseconds(20));
  trio.Say(leader, stream, KeepAliveOf(7));
  trio.Settle();
  for (int i = 0; i < 300 && trio.node(leader).raft_status().is_leader; ++i) {
    trio.Advance(milliseconds(10));
  }
  EXPECT_FALSE(trio.node(leader).raft_status().is_leader);
  EXPECT_TRUE(trio.Heard(stream).empty());

  trio.Rejoin(leader);
  const pb::LeaseKeepAliveResponse response = RenewalIn(AwaitHeard(trio, stream));
  EXPECT_EQ(response.id(), 7);
  EXPECT_EQ(response.ttl(), 0);
  EXPECT_EQ(trio.StatsOf(trio.leader())->leases, 0u);
  trio.Advance(seconds(2));
  EXPECT_TRUE(trio.Heard(stream).empty());
}

// Lease 7 of 2 s was granted a while ago, and the others know that it has less than its TTL: to
// renew it takes the log. A keep-alive stream to its leader.
uint64_t StreamOfAnAgedLease(Trio& trio, size_t leader) {
  Parsed<pb::LeaseGrantResponse>(trio.Call(leader, Method::kLeaseGrant, GrantOf(7, 2)));
  const uint64_t stream = trio.OpenStream(leader, StreamKind::kLeaseKeepAlive);
  trio.Advance(milliseconds(1500));
  return stream;
}

void SlowOtherDisks(Trio& trio, size_t member, Duration sync) {
  for (size_t peer = 0; peer < Trio::kMembers; ++peer) {
    if (peer != member) trio.SlowDisk(peer, sync);
  }
}

// A renewal goes through the log, and that takes longer than the lease lasts: neither it nor the
// next one is acknowledged while the end is on its way.
TEST(TrioNode, NoRenewalIsAcknowledgedWhileTheEndIsOnItsWay) {
  Trio trio;
  const size_t leader = trio.leader();
  constexpr milliseconds kSync(2500);
  const uint64_t stream = StreamOfAnAgedLease(trio, leader);
  SlowOtherDisks(trio, leader, kSync);
  trio.Say(leader, stream, KeepAliveOf(7));
  trio.Advance(kSync + milliseconds(100));
  ASSERT_EQ(trio.leader(), leader);
  ASSERT_TRUE(trio.node(leader).state().LeaseExists(7));
  trio.Say(leader, stream, KeepAliveOf(7));
  trio.Advance(milliseconds(100));
  EXPECT_TRUE(trio.Heard(stream).empty());

  trio.Advance(kSync);
  EXPECT_FALSE(trio.node(leader).state().LeaseExists(7));
  const std::vector<StreamEffect> heard = trio.Heard(stream);
  ASSERT_EQ(heard.size(), 2u);
  for (const StreamEffect& answer : heard) EXPECT_EQ(RenewalOf(answer).ttl(), 0);
}

// A renewal is on its way through the log when its leader loses the office, and comes through under
// the next one. That one knew of no renewal, and the end stands behind it in the log: it is not
// acknowledged.
TEST(TrioNode, ARenewalThatComesThroughUnderTheNextLeaderIsAskedForAgain) {
  Trio trio;
  const size_t leader = trio.leader();
  constexpr milliseconds kSync(2500);
  const uint64_t stream = StreamOfAnAgedLease(trio, leader);
  trio.Silence(leader);
  trio.Say(leader, stream, KeepAliveOf(7));
  const size_t next = Succeed(trio, leader);
  ASSERT_NE(next, leader);
  ASSERT_TRUE(trio.Heard(stream).empty());
  SlowOtherDisks(trio, leader, kSync);
  trio.Rejoin(leader);
  trio.Advance(kSync + milliseconds(200));
  ASSERT_EQ(trio.leader(), next);
  ASSERT_TRUE(trio.node(leader).state().LeaseExists(7));
  EXPECT_TRUE(trio.Heard(stream).empty());

  trio.Advance(kSync);
  EXPECT_FALSE(trio.node(leader).state().LeaseExists(7));
  EXPECT_EQ(RenewalIn(AwaitHeard(trio, stream)).ttl(), 0);
}

TEST(TrioNode, ALeaderThatStopsHandsOverFirst) {
  Trio trio;
  const size_t old_leader = trio.leader();
  const size_t follower = trio.follower();
  trio.Put(old_leader, StopRequest{});
  const Instant asked = trio.now();
  trio.Settle();
  while (!trio.stopped(old_leader)) trio.Advance(milliseconds(10));
  EXPECT_LE(trio.now() - asked, milliseconds(500));
  EXPECT_EQ(Parsed<pb::PutResponse>(trio.Call(follower, Method::kPut, PutOf("a", "1")))
                .header()
                .raft_term(),
            trio.node(follower).raft_status().term.value());
  EXPECT_NE(trio.leader(), old_leader);
}

TEST(TrioNode, AWriteSurvivesTheLossOfItsLeader) {
  Trio trio;
  const size_t old_leader = trio.leader();
  const size_t follower = trio.follower();
  trio.CutOff(old_leader);
  const uint64_t call = trio.Send(follower, Method::kPut, PutOf("a", "1"));
  const uint64_t read = trio.Send(follower, Method::kRange, RangeOf("a"));
  trio.Advance(seconds(3));
  ASSERT_TRUE(trio.Take(call).has_value());
  const std::optional<Reply> answer = trio.Take(read);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->error, nullptr);
}

TEST(TrioNode, AMemberThatIsCutOffTellsSo) {
  Trio trio;
  const size_t follower = trio.follower();
  const uint64_t stream = trio.OpenStream(follower, StreamKind::kWatch, true);
  trio.Settle();
  trio.CutOff(follower);
  const uint64_t put = trio.Send(follower, Method::kPut, PutOf("a", "1"));
  const uint64_t read = trio.Send(follower, Method::kRange, RangeOf("a"));
  trio.Advance(seconds(8));
  for (const uint64_t call : {put, read}) {
    const std::optional<Reply> reply = trio.Take(call);
    ASSERT_TRUE(reply.has_value());
    ASSERT_NE(reply->error, nullptr);
    EXPECT_EQ(reply->error->message, wire::kErrTimeoutLeaderFail.message);
    EXPECT_EQ(reply->error->code, 14);
  }
  // Whoever says that it needs a leader does not wait for one.
  const uint64_t impatient = trio.SendRequiringLeader(follower, Method::kPut, PutOf("a", "1"));
  trio.Settle();
  const std::optional<Reply> refused = trio.Take(impatient);
  ASSERT_TRUE(refused.has_value() && refused->error != nullptr);
  EXPECT_EQ(refused->error->message, wire::kErrNoLeader.message);
  const auto status = Parsed<pb::StatusResponse>(trio.Call(follower, Method::kStatus, ""));
  ASSERT_EQ(status.errors_size(), 1);
  EXPECT_EQ(status.errors(0), wire::kErrNoLeader.message);
  const std::vector<StreamEffect> heard = trio.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  ASSERT_NE(heard[0].error, nullptr);
  EXPECT_EQ(heard[0].error->message, wire::kErrNoLeader.message);
}

TEST(TrioNode, GarbageFromAMemberIsRefusedAndCounted) {
  Trio trio;
  const size_t follower = trio.follower();
  trio.Put(follower, PeerFrame{trio.options(trio.leader()).id, PeerLane::kMessages,
                               Bytes::Copy(std::string(100, 'x'))});
  trio.Put(follower, PeerFrame{raft::NodeId(4711), PeerLane::kMessages, Bytes::Copy("y")});
  EXPECT_EQ(trio.StatsOf(follower)->frames_refused, 2u);
  EXPECT_EQ(trio.distrusted(follower), 2u);
  // Whole, but not to be believed: nothing of it is taken, and what follows in its frame neither.
  const raft::Term term = trio.node(follower).raft_status().term;
  const PeerItem items[] = {
      raft::Envelope{trio.options(trio.leader()).id, trio.options(follower).id, term,
                     raft::Heartbeat{raft::Index(1'000'000), raft::ReadRound(1)}},
      raft::Envelope{trio.options(trio.leader()).id, trio.options(follower).id, term + 7,
                     raft::Heartbeat{}}};
  trio.Put(follower, PeerFrame{trio.options(trio.leader()).id, PeerLane::kMessages,
                               EncodeFrame(trio.options(trio.leader()).id,
                                           trio.options(follower).id, items)});
  trio.Settle();
  EXPECT_EQ(trio.distrusted(follower), 3u);
  EXPECT_EQ(trio.node(follower).raft_status().term, term);
  Parsed<pb::PutResponse>(trio.Call(follower, Method::kPut, PutOf("a", "1")));
}

TEST(TrioNode, MembersAgreeOnTheirDigests) {
  Trio trio;
  for (int i = 0; i < 50; ++i) {
    Parsed<pb::PutResponse>(trio.Call(i % 3, Method::kPut, PutOf("a", std::to_string(i))));
  }
  trio.Advance(seconds(3));
  for (size_t member = 0; member < Trio::kMembers; ++member) {
    EXPECT_EQ(trio.StatsOf(member)->divergences, 0u);
    EXPECT_EQ(trio.StatsOf(member)->digest, trio.StatsOf(0)->digest);
    for (const PeerStats& peer : trio.StatsOf(member)->peers) {
      EXPECT_TRUE(peer.connected);
      EXPECT_GT(peer.round_trip.total, 0u);
    }
  }
}

}  // namespace
}  // namespace conclave::node
