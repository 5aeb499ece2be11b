// Responses against protobuf: the same bytes as its own serialisation.
#include "conclave/api/wire/responses.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"

namespace conclave::wire {
namespace {

namespace pb = etcdserverpb;

class Responses : public testing::Test {
 protected:
  // Numbers of all magnitudes, 0 and negative ones among them.
  int64_t Number() {
    return static_cast<int64_t>(prng_.Next() >> prng_.Below(64)) * (prng_.Chance(1, 8)   ? -1
                                                                    : prng_.Chance(1, 6) ? 0
                                                                                         : 1);
  }
  std::string Text() { return std::string(prng_.Below(2) * prng_.Below(300), 'x'); }

  void Header(pb::ResponseHeader* message) {
    header_ = {static_cast<uint64_t>(Number()), static_cast<uint64_t>(Number()), Number(),
               static_cast<uint64_t>(Number())};
    message->set_cluster_id(header_.cluster_id);
    message->set_member_id(header_.member_id);
    message->set_revision(header_.revision);
    message->set_raft_term(header_.raft_term);
  }
  KeyValue Kv(mvccpb::KeyValue* message) {
    message->set_key(Text());
    message->set_value(Text());
    message->set_create_revision(Number());
    message->set_mod_revision(Number());
    message->set_version(Number());
    message->set_lease(Number());
    return {message->key(),     message->create_revision(), message->mod_revision(),
            message->version(), message->value(),           message->lease()};
  }

  static constexpr int kRounds = 500;
  Prng prng_{7};
  ResponseHeader header_;
};

TEST_F(Responses, Put) {
  for (int i = 0; i < kRounds; ++i) {
    pb::PutResponse message;
    Header(message.mutable_header());
    EXPECT_EQ(EncodePut(header_, nullptr).view(), message.SerializeAsString());
    const KeyValue kv = Kv(message.mutable_prev_kv());
    EXPECT_EQ(EncodePut(header_, &kv).view(), message.SerializeAsString());
  }
}

TEST_F(Responses, Range) {
  for (int i = 0; i < kRounds; ++i) {
    pb::RangeResponse message;
    Header(message.mutable_header());
    EXPECT_EQ(EncodeRangeOfOne(header_, nullptr, false, 0).view(), message.SerializeAsString());
    message.set_count(Number());
    message.set_more(prng_.Chance(1, 2));
    const KeyValue kv = Kv(message.add_kvs());
    EXPECT_EQ(EncodeRangeOfOne(header_, &kv, message.more(), message.count()).view(),
              message.SerializeAsString());

    Builder rest;
    AppendKeyValue(&rest, 2, kv);
    const KeyValue second = Kv(message.add_kvs());
    AppendKeyValue(&rest, 2, second);
    rest.AppendNumber(3, uint64_t{message.more()});
    rest.AppendNumber(4, message.count());
    EXPECT_EQ(EncodeBehindHeader(header_, &rest).view(), message.SerializeAsString());
  }
}

TEST_F(Responses, Leases) {
  for (int i = 0; i < kRounds; ++i) {
    pb::LeaseGrantResponse grant;
    Header(grant.mutable_header());
    grant.set_id(Number());
    grant.set_ttl(Number());
    EXPECT_EQ(EncodeLeaseGrant(header_, grant.id(), grant.ttl()).view(), grant.SerializeAsString());

    pb::LeaseTimeToLiveResponse ttl;
    Header(ttl.mutable_header());
    ttl.set_id(Number());
    ttl.set_ttl(Number());
    ttl.set_grantedttl(Number());
    std::vector<std::string_view> keys;
    for (int k = 0; k < 3; ++k) ttl.add_keys(Text());
    for (const std::string& key : ttl.keys()) keys.push_back(key);
    EXPECT_EQ(EncodeLeaseTimeToLive(header_, ttl.id(), ttl.ttl(), ttl.grantedttl(), keys).view(),
              ttl.SerializeAsString());

    pb::LeaseLeasesResponse leases;
    Header(leases.mutable_header());
    const std::vector<int64_t> ids = {Number(), 0, Number()};
    for (const int64_t id : ids) leases.add_leases()->set_id(id);
    EXPECT_EQ(EncodeLeaseLeases(header_, ids).view(), leases.SerializeAsString());

    pb::LeaseRevokeResponse revoke;
    Header(revoke.mutable_header());
    EXPECT_EQ(EncodeHeaderOnly(header_).view(), revoke.SerializeAsString());
  }
}

TEST_F(Responses, Members) {
  pb::MemberAddResponse message;
  Header(message.mutable_header());
  const std::vector<std::string> peers = {"http://a:1", "http://b:2"};
  const std::vector<std::string> clients = {"http://c:3"};
  const std::vector<Member> members = {{7, "one", peers, clients, false}, {9, "", peers, {}, true}};
  const auto fill = [](const Member& from, pb::Member* to) {
    to->set_id(from.id);
    to->set_name(std::string(from.name));
    for (const std::string& url : from.peer_urls) to->add_peerurls(url);
    for (const std::string& url : from.client_urls) to->add_clienturls(url);
    to->set_islearner(from.is_learner);
  };
  fill(members[1], message.mutable_member());
  for (const Member& member : members) fill(member, message.add_members());
  EXPECT_EQ(EncodeMemberAdd(header_, members[1], members).view(), message.SerializeAsString());

  pb::MemberListResponse list;
  *list.mutable_header() = message.header();
  *list.mutable_members() = message.members();
  EXPECT_EQ(EncodeMemberList(header_, members).view(), list.SerializeAsString());
}

TEST_F(Responses, Maintenance) {
  for (int i = 0; i < kRounds; ++i) {
    pb::AlarmResponse alarm;
    Header(alarm.mutable_header());
    std::vector<AlarmMember> alarms;
    for (int n = 0; n < 3; ++n) {
      alarms.push_back({static_cast<uint64_t>(Number()), n});
      alarm.add_alarms()->set_memberid(alarms.back().member_id);
      alarm.mutable_alarms(n)->set_alarm(static_cast<pb::AlarmType>(n));
    }
    EXPECT_EQ(EncodeAlarm(header_, alarms).view(), alarm.SerializeAsString());

    pb::HashKVResponse hash;
    Header(hash.mutable_header());
    hash.set_hash(static_cast<uint32_t>(Number()));
    hash.set_compact_revision(Number());
    hash.set_hash_revision(Number());
    EXPECT_EQ(
        EncodeHashKv(header_, hash.hash(), hash.compact_revision(), hash.hash_revision()).view(),
        hash.SerializeAsString());

    pb::StatusResponse status;
    Header(status.mutable_header());
    status.set_version(Text());
    status.set_dbsize(Number());
    status.set_leader(static_cast<uint64_t>(Number()));
    status.set_raftindex(static_cast<uint64_t>(Number()));
    status.set_raftterm(static_cast<uint64_t>(Number()));
    status.set_raftappliedindex(static_cast<uint64_t>(Number()));
    status.add_errors(Text());
    status.set_dbsizeinuse(Number());
    status.set_islearner(prng_.Chance(1, 2));
    status.set_storageversion(Text());
    status.set_dbsizequota(Number());
    status.mutable_downgradeinfo()->set_targetversion(Text());
    status.mutable_downgradeinfo()->set_enabled(!status.downgradeinfo().targetversion().empty());
    const Status ours{
        status.version(),        status.dbsize(),      status.leader(),
        status.raftindex(),      status.raftterm(),    status.raftappliedindex(),
        {status.errors(0)},      status.dbsizeinuse(), status.islearner(),
        status.storageversion(), status.dbsizequota(), status.downgradeinfo().targetversion()};
    EXPECT_EQ(EncodeStatus(header_, ours).view(), status.SerializeAsString());
  }
}

TEST_F(Responses, WatchHead) {
  for (int i = 0; i < kRounds; ++i) {
    pb::WatchResponse message;
    Header(message.mutable_header());
    message.set_watch_id(Number());
    message.set_created(prng_.Chance(1, 2));
    message.set_canceled(prng_.Chance(1, 2));
    message.set_compact_revision(Number());
    message.set_cancel_reason(Text());
    message.set_fragment(prng_.Chance(1, 2));
    EXPECT_EQ(
        EncodeWatchHead({header_, message.watch_id(), message.created(), message.canceled(),
                         message.compact_revision(), message.cancel_reason(), message.fragment()})
            .view(),
        message.SerializeAsString());
  }
}

}  // namespace
}  // namespace conclave::wire
