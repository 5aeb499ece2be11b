#include "conclave/client/core/admin_calls.h"

#include <utility>

#include "conclave/client/core/send.h"

namespace conclave::calls {
namespace {

std::vector<Alarm> AlarmsOf(const etcdserverpb::AlarmResponse& response) {
  std::vector<Alarm> alarms;
  for (const etcdserverpb::AlarmMember& alarm : response.alarms()) {
    alarms.push_back(
        {.member_id = alarm.memberid(), .type = static_cast<AlarmType>(alarm.alarm())});
  }
  return alarms;
}

}  // namespace

CallId Alarms(Engine& engine, Instant deadline, Done<std::vector<Alarm>> done) {
  return Send<etcdserverpb::AlarmResponse>(
      engine, {.method = "/etcdserverpb.Maintenance/Alarm", .deadline = deadline},
      etcdserverpb::AlarmRequest(), std::move(done), AlarmsOf);
}

CallId Disarm(Engine& engine, const Alarm& alarm, Instant deadline, Done<std::vector<Alarm>> done) {
  etcdserverpb::AlarmRequest request;
  request.set_action(etcdserverpb::AlarmRequest::DEACTIVATE);
  request.set_memberid(alarm.member_id);
  request.set_alarm(static_cast<etcdserverpb::AlarmType>(alarm.type));
  // To end an alarm twice is to end it.
  return Send<etcdserverpb::AlarmResponse>(
      engine, {.method = "/etcdserverpb.Maintenance/Alarm", .deadline = deadline}, request,
      std::move(done), AlarmsOf);
}

CallId Defragment(Engine& engine, size_t endpoint, Instant deadline, Done<bool> done) {
  return Send<etcdserverpb::DefragmentResponse>(
      engine,
      {.method = "/etcdserverpb.Maintenance/Defragment",
       .deadline = deadline,
       .require_leader = false,
       .endpoint = endpoint},
      etcdserverpb::DefragmentRequest(), std::move(done),
      [](etcdserverpb::DefragmentResponse&) { return true; });
}

CallId MoveLeader(Engine& engine, size_t endpoint, uint64_t member_id, Instant deadline,
                  Done<bool> done) {
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(member_id);
  return Send<etcdserverpb::MoveLeaderResponse>(
      engine,
      {.method = "/etcdserverpb.Maintenance/MoveLeader",
       .kind = CallKind::kWrite,
       .deadline = deadline,
       .endpoint = endpoint},
      request, std::move(done), [](etcdserverpb::MoveLeaderResponse&) { return true; });
}

CallId HashKv(Engine& engine, size_t endpoint, int64_t revision, Instant deadline,
              Done<HashKvResult> done) {
  etcdserverpb::HashKVRequest request;
  request.set_revision(revision);
  return Send<etcdserverpb::HashKVResponse>(
      engine,
      {.method = "/etcdserverpb.Maintenance/HashKV",
       .deadline = deadline,
       .require_leader = false,
       .endpoint = endpoint},
      request, std::move(done), [](etcdserverpb::HashKVResponse& response) {
        return HashKvResult{.member_id = response.header().member_id(),
                            .hash = response.hash(),
                            .revision = response.header().revision(),
                            .compact_revision = response.compact_revision(),
                            .hash_revision = response.hash_revision()};
      });
}

CallId Downgrade(Engine& engine, DowngradeAction action, const std::string& version,
                 Instant deadline, Done<std::string> done) {
  etcdserverpb::DowngradeRequest request;
  request.set_action(static_cast<etcdserverpb::DowngradeRequest::DowngradeAction>(action));
  request.set_version(version);
  const bool writes = action == DowngradeAction::kEnable;
  return Send<etcdserverpb::DowngradeResponse>(
      engine,
      {.method = "/etcdserverpb.Maintenance/Downgrade",
       .kind = writes ? CallKind::kWrite : CallKind::kRead,
       .deadline = deadline},
      request, std::move(done),
      [](etcdserverpb::DowngradeResponse& response) { return response.version(); });
}

// ---- Members ------------------------------------------------------------------------------------

CallId MemberList(Engine& engine, bool linearizable, Instant deadline,
                  Done<std::vector<Member>> done) {
  etcdserverpb::MemberListRequest request;
  request.set_linearizable(linearizable);
  return Send<etcdserverpb::MemberListResponse>(
      engine,
      {.method = "/etcdserverpb.Cluster/MemberList",
       .deadline = deadline,
       .require_leader = linearizable},
      request, std::move(done),
      [](etcdserverpb::MemberListResponse& response) { return MembersOf(response.members()); });
}

CallId MemberAdd(Engine& engine, const std::vector<std::string>& peer_urls, bool learner,
                 Instant deadline, Done<MemberAdded> done) {
  etcdserverpb::MemberAddRequest request;
  for (const std::string& url : peer_urls) request.add_peerurls(url);
  request.set_islearner(learner);
  return Send<etcdserverpb::MemberAddResponse>(
      engine,
      {.method = "/etcdserverpb.Cluster/MemberAdd", .kind = CallKind::kWrite, .deadline = deadline},
      request, std::move(done), [](etcdserverpb::MemberAddResponse& response) {
        MemberAdded added{.members = MembersOf(response.members())};
        added.member = MembersOf(std::vector{response.member()}).front();
        return added;
      });
}

CallId MemberRemove(Engine& engine, uint64_t id, Instant deadline, Done<std::vector<Member>> done) {
  etcdserverpb::MemberRemoveRequest request;
  request.set_id(id);
  return Send<etcdserverpb::MemberRemoveResponse>(
      engine,
      {.method = "/etcdserverpb.Cluster/MemberRemove",
       .kind = CallKind::kWrite,
       .deadline = deadline},
      request, std::move(done),
      [](etcdserverpb::MemberRemoveResponse& response) { return MembersOf(response.members()); });
}

CallId MemberUpdate(Engine& engine, uint64_t id, const std::vector<std::string>& peer_urls,
                    Instant deadline, Done<std::vector<Member>> done) {
  etcdserverpb::MemberUpdateRequest request;
  request.set_id(id);
  for (const std::string& url : peer_urls) request.add_peerurls(url);
  return Send<etcdserverpb::MemberUpdateResponse>(
      engine,
      {.method = "/etcdserverpb.Cluster/MemberUpdate",
       .kind = CallKind::kWrite,
       .deadline = deadline},
      request, std::move(done),
      [](etcdserverpb::MemberUpdateResponse& response) { return MembersOf(response.members()); });
}

CallId MemberPromote(Engine& engine, uint64_t id, Instant deadline,
                     Done<std::vector<Member>> done) {
  etcdserverpb::MemberPromoteRequest request;
  request.set_id(id);
  return Send<etcdserverpb::MemberPromoteResponse>(
      engine,
      {.method = "/etcdserverpb.Cluster/MemberPromote",
       .kind = CallKind::kWrite,
       .deadline = deadline},
      request, std::move(done),
      [](etcdserverpb::MemberPromoteResponse& response) { return MembersOf(response.members()); });
}

}  // namespace conclave::calls
