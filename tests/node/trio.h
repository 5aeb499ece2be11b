// Trio: three members with instant logs, joined by a network that delivers at once and in order.
// For what needs several members, but no faults; the simulator has those.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/node.h"
#include "conclave/server/node/stats.h"
#include "conclave/tests/node/request.h"

namespace conclave::node {

class Trio {
 public:
  static constexpr size_t kMembers = 3;

  Trio() {
    std::vector<FoundingMember> founders;
    for (size_t i = 0; i < kMembers; ++i) {
      founders.push_back({"m" + std::to_string(i), {"http://10.0.0." + std::to_string(i)}});
    }
    cluster_ = *FoundCluster(founders, "trio");
    for (size_t i = 0; i < kMembers; ++i) {
      Member& member = members_[i];
      member.options.name = founders[i].name;
      member.options.id = cluster_.Find(founders[i].name)->id;
      member.options.cluster_id = cluster_.cluster_id;
      member.options.version = "3.5.0";
      member.options.seed = i + 1;
      member.options.bcrypt_cost = auth::kBcryptCostMin;
      member.node =
          std::make_unique<Node>(member.options, FoundingState(member.options, cluster_), now_);
    }
    for (size_t i = 0; i < kMembers; ++i) {
      for (size_t j = 0; j < kMembers; ++j) {
        if (i != j) Connect(i, j, true);
      }
    }
    for (int i = 0; i < 100 && !(Leader().has_value() && AllReady()); ++i) {
      Advance(std::chrono::milliseconds(100));
    }
    CONCLAVE_CHECK(Leader().has_value() && AllReady(), "three members agree within 10 s");
  }

  std::optional<size_t> Leader() const {
    for (size_t i = 0; i < kMembers; ++i) {
      if (!members_[i].stopped && members_[i].node->raft_status().is_leader) return i;
    }
    return std::nullopt;
  }
  size_t leader() const { return *Leader(); }
  size_t follower() const { return (leader() + 1) % kMembers; }
  bool AllReady() const {
    return std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.ready; });
  }

  void Connect(size_t member, size_t peer, bool connected) {
    for (const PeerLane lane : {PeerLane::kMessages, PeerLane::kSnapshot}) {
      Put(member, PeerConnection{members_[peer].options.id, lane, connected});
    }
    members_[member].linked[peer] = connected;
  }
  // Nothing goes between this member and the others any more.
  void CutOff(size_t member) {
    for (size_t peer = 0; peer < kMembers; ++peer) {
      if (peer == member) continue;
      Connect(member, peer, false);
      Connect(peer, member, false);
    }
  }

  // The same, and nobody is told.
  void Silence(size_t member) {
    for (size_t peer = 0; peer < kMembers; ++peer) {
      members_[member].linked[peer] = members_[peer].linked[member] = false;
    }
  }

  void Put(size_t member, Input input) { members_[member].inputs.push_back(std::move(input)); }
  void Settle() {
    bool busy = true;
    for (int round = 0; busy; ++round) {
      CONCLAVE_CHECK(round < 10'000, "the members never come to rest");
      busy = false;
      for (size_t i = 0; i < kMembers; ++i) {
        if (members_[i].stopped) continue;
        if (members_[i].inputs.empty() && members_[i].node->NextDeadline() > now_) continue;
        Turn(i);
        busy = true;
      }
    }
  }
  void Advance(Duration duration) {
    const Instant end = now_ + duration;
    Settle();
    while (now_ < end) {
      now_ = std::min(end, now_ + std::chrono::milliseconds(10));
      Settle();
    }
  }

  uint64_t Send(size_t member, Method method, std::string_view encoded,
                CredentialsRef shown = nullptr) {
    Put(member,
        UnaryCall{CallId(++last_call_), method, WithHeadroom(encoded), false, std::move(shown)});
    return last_call_;
  }
  uint64_t SendRequiringLeader(size_t member, Method method, std::string_view encoded) {
    Put(member, UnaryCall{CallId(++last_call_), method, WithHeadroom(encoded), true});
    return last_call_;
  }
  std::optional<Reply> Take(uint64_t call) {
    const auto found = replies_.find(call);
    if (found == replies_.end()) return std::nullopt;
    Reply reply = std::move(found->second);
    replies_.erase(found);
    return reply;
  }
  bool Has(uint64_t call) const { return replies_.contains(call); }
  Reply Call(size_t member, Method method, std::string_view encoded,
             CredentialsRef shown = nullptr) {
    const uint64_t call = Send(member, method, encoded, std::move(shown));
    Settle();
    for (int i = 0; i < 1000 && !replies_.contains(call); ++i) {
      Advance(std::chrono::milliseconds(10));
    }
    std::optional<Reply> reply = Take(call);
    CONCLAVE_CHECK(reply.has_value(), "no answer within 10 s");
    return *std::move(reply);
  }
  uint64_t OpenStream(size_t member, StreamKind kind, bool require_leader = false,
                      CredentialsRef shown = nullptr) {
    Put(member, StreamOpened{CallId(++last_call_), kind, require_leader, std::move(shown)});
    return last_call_;
  }
  void Say(size_t member, uint64_t stream, std::string_view encoded) {
    Put(member, StreamMessage{CallId(stream), Bytes::Copy(encoded)});
  }
  std::vector<StreamEffect> Heard(uint64_t stream) { return std::exchange(streams_[stream], {}); }
  std::shared_ptr<const Stats> StatsOf(size_t member) {
    Put(member, StatsRequest{1});
    Settle();
    return members_[member].stats;
  }

  Node& node(size_t member) { return *members_[member].node; }
  const Options& options(size_t member) const { return members_[member].options; }
  // How often this member has refused another's messages.
  size_t distrusted(size_t member) const { return members_[member].distrusted; }
  bool stopped(size_t member) const { return members_[member].stopped; }
  Instant now() const { return now_; }

 private:
  struct Member {
    Options options;
    std::unique_ptr<Node> node;
    std::vector<Input> inputs;
    std::array<bool, kMembers> linked{};
    std::shared_ptr<const Stats> stats;
    size_t distrusted = 0;
    bool ready = false;
    bool stopped = false;
  };

  void Turn(size_t which) {
    Member& member = members_[which];
    Effects effects;
    std::vector<Input> inputs = std::exchange(member.inputs, {});
    member.node->Turn(now_, inputs, &effects);
    member.distrusted += effects.distrusted.size();
    if (effects.append.has_value()) member.inputs.push_back(LogSynced{effects.append->batch, {}});
    for (PeerSend& send : effects.peer_sends) {
      for (size_t to = 0; to < kMembers; ++to) {
        if (members_[to].options.id != send.to || !member.linked[to]) continue;
        Put(to, PeerFrame{member.options.id, send.lane, std::move(send.frame)});
      }
    }
    for (Reply& reply : effects.replies) {
      CONCLAVE_CHECK(replies_.emplace(reply.id.value(), std::move(reply)).second);
    }
    for (StreamEffect& effect : effects.streams) {
      streams_[effect.id.value()].push_back(std::move(effect));
    }
    for (const auth::PasswordJob& job : effects.password_jobs) {
      auth::RandomBytes random;
      for (uint8_t& byte : random) byte = static_cast<uint8_t>(prng_.Next());
      member.inputs.push_back(std::make_unique<auth::PasswordOutcome>(
          auth::RunPasswordJob(job, /*signer=*/nullptr, /*unix_seconds=*/0, random)));
    }
    for (StatsReply& reply : effects.stats_replies) member.stats = reply.stats;
    member.ready = member.ready || effects.ready;
    if (effects.stopped) {
      member.stopped = true;
      CutOff(which);
    }
  }

  InitialCluster cluster_;
  Prng prng_{11};
  Instant now_{};
  std::array<Member, kMembers> members_;
  std::map<uint64_t, Reply> replies_;
  std::map<uint64_t, std::vector<StreamEffect>> streams_;
  uint64_t last_call_ = 0;
};

}  // namespace conclave::node
