// A single member, asked as its clients ask.
#include "conclave/server/node/node.h"

#include <gtest/gtest.h>

#include "conclave/api/kv.pb.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/node/stats.h"
#include "conclave/tests/node/reply.h"
#include "conclave/tests/node/solo.h"

namespace conclave::node {
namespace {

namespace pb = etcdserverpb;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::string PutOf(std::string key, std::string value, int64_t lease = 0) {
  pb::PutRequest request;
  request.set_key(std::move(key));
  request.set_value(std::move(value));
  request.set_lease(lease);
  return request.SerializeAsString();
}
std::string RangeOf(std::string key, bool serializable = false) {
  pb::RangeRequest request;
  request.set_key(std::move(key));
  request.set_serializable(serializable);
  return request.SerializeAsString();
}
pb::WatchResponse Joined(const StreamEffect& effect) {
  pb::WatchResponse response;
  EXPECT_TRUE(response.ParseFromString(effect.prefix.ToString() + effect.shared.ToString()));
  return response;
}

TEST(SoloNode, AnswersAPutAndReadsItBack) {
  Solo solo;
  const auto put = Parsed<pb::PutResponse>(solo.Call(Method::kPut, PutOf("a", "1")));
  EXPECT_EQ(put.header().revision(), 2);
  EXPECT_NE(put.header().member_id(), 0u);
  for (const bool serializable : {false, true}) {
    const auto range =
        Parsed<pb::RangeResponse>(solo.Call(Method::kRange, RangeOf("a", serializable)));
    ASSERT_EQ(range.kvs_size(), 1);
    EXPECT_EQ(range.kvs(0).value(), "1");
    EXPECT_EQ(range.header().revision(), 2);
  }
}

TEST(SoloNode, OneTurnsWritesAreOneAppend) {
  Solo solo;
  const uint64_t appends = solo.TakeStats()->wal_fsync.total;
  std::vector<uint64_t> calls;
  for (int i = 0; i < 100; ++i) {
    calls.push_back(solo.Send(Method::kPut, PutOf("key" + std::to_string(i), "v")));
  }
  solo.Settle();
  for (const uint64_t call : calls) EXPECT_TRUE(solo.Take(call).has_value());
  EXPECT_EQ(solo.TakeStats()->revision, 101);
  EXPECT_EQ(solo.TakeStats()->wal_fsync.total, appends + 1);
}

TEST(SoloNode, RefusesWhatIsWrong) {
  Solo solo;
  const Reply reply = solo.Call(Method::kPut, PutOf("", "1"));
  ASSERT_NE(reply.error, nullptr);
  EXPECT_EQ(reply.error->message, wire::kErrEmptyKey.message);
  EXPECT_EQ(reply.error->code, 3);
  EXPECT_NE(solo.Call(Method::kPut, "\xff\xff").error, nullptr);
}

TEST(SoloNode, TellsWhatItIs) {
  Solo solo;
  const auto status = Parsed<pb::StatusResponse>(solo.Call(Method::kStatus, ""));
  EXPECT_EQ(status.version(), "3.5.0");
  EXPECT_EQ(status.leader(), status.header().member_id());
  EXPECT_EQ(status.errors_size(), 0);
  const auto members = Parsed<pb::MemberListResponse>(solo.Call(Method::kMemberList, ""));
  ASSERT_EQ(members.members_size(), 1);
  EXPECT_EQ(members.members(0).name(), "solo");
  EXPECT_EQ(members.members(0).clienturls(0), "http://127.0.0.1:2379");
  EXPECT_EQ(solo.TakeStats()->cluster_version, "3.5.0");
}

TEST(SoloNode, ALeaseEndsWithItsKeysAndNotBefore) {
  Solo solo;
  pb::LeaseGrantRequest grant;
  grant.set_ttl(5);
  const auto granted =
      Parsed<pb::LeaseGrantResponse>(solo.Call(Method::kLeaseGrant, grant.SerializeAsString()));
  EXPECT_EQ(granted.ttl(), 5);
  EXPECT_GT(granted.id(), 0);
  Parsed<pb::PutResponse>(solo.Call(Method::kPut, PutOf("a", "1", granted.id())));
  solo.Advance(milliseconds(4900));
  EXPECT_EQ(Parsed<pb::RangeResponse>(solo.Call(Method::kRange, RangeOf("a"))).count(), 1);
  solo.Advance(milliseconds(700));
  EXPECT_EQ(Parsed<pb::RangeResponse>(solo.Call(Method::kRange, RangeOf("a"))).count(), 0);
}

TEST(SoloNode, AKeepAliveKeepsALeaseAlive) {
  Solo solo;
  pb::LeaseGrantRequest grant;
  grant.set_ttl(3);
  grant.set_id(77);
  Parsed<pb::LeaseGrantResponse>(solo.Call(Method::kLeaseGrant, grant.SerializeAsString()));
  const uint64_t stream = solo.OpenStream(StreamKind::kLeaseKeepAlive);
  pb::LeaseKeepAliveRequest keep_alive;
  keep_alive.set_id(77);
  for (int i = 0; i < 10; ++i) {
    solo.Advance(seconds(2));
    solo.Say(stream, keep_alive.SerializeAsString());
    solo.Settle();
    const std::vector<StreamEffect> heard = solo.Heard(stream);
    ASSERT_EQ(heard.size(), 1u);
    pb::LeaseKeepAliveResponse response;
    ASSERT_TRUE(response.ParseFromString(heard[0].prefix.ToString()));
    EXPECT_EQ(response.ttl(), 3);
    EXPECT_EQ(response.id(), 77);
  }
  pb::LeaseTimeToLiveRequest question;
  question.set_id(77);
  const auto answer = Parsed<pb::LeaseTimeToLiveResponse>(
      solo.Call(Method::kLeaseTimeToLive, question.SerializeAsString()));
  EXPECT_EQ(answer.grantedttl(), 3);
  solo.Advance(seconds(4));
  solo.Say(stream, keep_alive.SerializeAsString());
  solo.Put(StreamHalfClosed{CallId(stream)});
  solo.Settle();
  const std::vector<StreamEffect> heard = solo.Heard(stream);
  ASSERT_EQ(heard.size(), 2u);
  pb::LeaseKeepAliveResponse response;
  ASSERT_TRUE(response.ParseFromString(heard[0].prefix.ToString()));
  EXPECT_EQ(response.ttl(), 0);
  EXPECT_TRUE(heard[1].finish);
  EXPECT_EQ(heard[1].error, nullptr);
}

TEST(SoloNode, AWatcherHearsWhatHappensBehindItsCreation) {
  Solo solo;
  const uint64_t stream = solo.OpenStream(StreamKind::kWatch);
  pb::WatchRequest create;
  create.mutable_create_request()->set_key("a");
  solo.Say(stream, create.SerializeAsString());
  solo.Settle();
  std::vector<StreamEffect> heard = solo.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(Joined(heard[0]).created());
  Parsed<pb::PutResponse>(solo.Call(Method::kPut, PutOf("a", "1")));
  Parsed<pb::PutResponse>(solo.Call(Method::kPut, PutOf("b", "2")));
  heard = solo.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  const pb::WatchResponse response = Joined(heard[0]);
  ASSERT_EQ(response.events_size(), 1);
  EXPECT_EQ(response.events(0).kv().value(), "1");
  EXPECT_EQ(response.header().revision(), 2);
  EXPECT_NE(response.header().cluster_id(), 0u);
  solo.Put(StreamClosed{CallId(stream)});
  solo.Settle();
  heard = solo.Heard(stream);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_TRUE(heard[0].finish);
}

TEST(SoloNode, GarbageOnAStreamEndsThatStream) {
  Solo solo;
  for (const StreamKind kind : {StreamKind::kWatch, StreamKind::kLeaseKeepAlive}) {
    const uint64_t stream = solo.OpenStream(kind);
    solo.Say(stream, "\xff\xff\xff");
    solo.Put(StreamClosed{CallId(stream)});
    solo.Settle();
    const std::vector<StreamEffect> heard = solo.Heard(stream);
    ASSERT_EQ(heard.size(), 1u);
    EXPECT_TRUE(heard[0].finish);
    EXPECT_NE(heard[0].error, nullptr);
  }
}

TEST(SoloNode, StopsAfterAnsweringEverybody) {
  Solo solo;
  const uint64_t stream = solo.OpenStream(StreamKind::kWatch);
  const uint64_t call = solo.Send(Method::kPut, PutOf("a", "1"));
  solo.Put(StopRequest{});
  solo.Settle();
  EXPECT_TRUE(solo.stopped());
  ASSERT_TRUE(solo.Take(call).has_value());
  ASSERT_EQ(solo.Heard(stream).size(), 1u);
  EXPECT_EQ(solo.Call(Method::kPut, PutOf("b", "1")).error->message, wire::kErrStopped.message);
}

TEST(SoloNode, MoveLeaderToSomebodyUnknownIsRefused) {
  Solo solo;
  pb::MoveLeaderRequest request;
  request.set_targetid(4711);
  EXPECT_EQ(solo.Call(Method::kMoveLeader, request.SerializeAsString()).error->message,
            wire::kErrBadLeaderTransferee.message);
}

TEST(SoloNode, CompactionRestsBetweenItsSlices) {
  Options options = Solo::DefaultOptions();
  options.compaction_slice_records = 10;
  options.compaction_rest = milliseconds(20);
  Solo solo(options);
  for (int i = 0; i < 100; ++i) solo.Call(Method::kPut, PutOf("k" + std::to_string(i), "v"));
  pb::CompactionRequest compaction;
  compaction.set_revision(100);
  ASSERT_EQ(solo.Call(Method::kCompact, compaction.SerializeAsString()).error, nullptr);
  const auto finished = [&] {
    return std::any_of(solo.lines().begin(), solo.lines().end(), [](const LogLine& line) {
      return line.message == "finished scheduled compaction";
    });
  };
  EXPECT_FALSE(finished());
  solo.Advance(milliseconds(60));
  EXPECT_FALSE(finished()) << "ten slices take nine rests";
  solo.Advance(milliseconds(200));
  EXPECT_TRUE(finished());
}

TEST(SoloNode, APhysicalCompactionIsAnsweredAtItsEnd) {
  Options options = Solo::DefaultOptions();
  options.compaction_slice_records = 10;
  options.compaction_rest = milliseconds(20);
  Solo solo(options);
  for (int i = 0; i < 100; ++i) {
    solo.Call(Method::kPut, PutOf("k" + std::to_string(i % 50), std::to_string(i)));
  }
  const auto compact = [&solo](int64_t revision, bool physical) {
    pb::CompactionRequest request;
    request.set_revision(revision);
    request.set_physical(physical);
    const uint64_t call = solo.Send(Method::kCompact, request.SerializeAsString());
    solo.Settle();
    return call;
  };
  const auto records = [&solo] { return solo.node().state().store().sizes().record_bytes; };
  const auto before = records();
  const uint64_t physical = compact(101, true);
  const uint64_t refused = compact(101, true);
  const uint64_t logical = compact(90, false);
  EXPECT_FALSE(solo.Take(physical).has_value()) << "nine rests are to come";
  EXPECT_NE(solo.Take(refused).value().error, nullptr);
  EXPECT_NE(solo.Take(logical).value().error, nullptr);
  solo.Advance(milliseconds(60));
  EXPECT_FALSE(solo.Take(physical).has_value());
  solo.Advance(milliseconds(300));
  const std::optional<Reply> answer = solo.Take(physical);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->error, nullptr);
  EXPECT_FALSE(answer->body.view().empty());
  EXPECT_LT(records(), before * 6 / 10);
  // Nothing is left to do: no wait.
  solo.Call(Method::kPut, PutOf("k", "last"));
  EXPECT_EQ(solo.Take(compact(102, true)).value().error, nullptr);
}

TEST(SoloNode, APhysicalCompactionEndsWithItsMember) {
  Options options = Solo::DefaultOptions();
  options.compaction_slice_records = 1;
  options.compaction_rest = std::chrono::hours(1);
  Solo solo(options);
  for (int i = 0; i < 10; ++i) solo.Call(Method::kPut, PutOf("k", std::to_string(i)));
  pb::CompactionRequest request;
  request.set_revision(10);
  request.set_physical(true);
  const uint64_t call = solo.Send(Method::kCompact, request.SerializeAsString());
  solo.Settle();
  ASSERT_FALSE(solo.Take(call).has_value());
  solo.Put(StopRequest{});
  solo.Advance(seconds(3));
  const std::optional<Reply> answer = solo.Take(call);
  ASSERT_TRUE(answer.has_value() && answer->error != nullptr);
  EXPECT_EQ(answer->error->message, wire::kErrStopped.message);
}

}  // namespace
}  // namespace conclave::node
