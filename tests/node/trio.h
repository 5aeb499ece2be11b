// Trio: three members (or another number) with instant logs, joined by a network that delivers at
// once and in order. Members may join. For what needs several members, but no faults; the simulator
// has those.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/directory.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/node.h"
#include "conclave/server/node/own_call.h"
#include "conclave/server/node/settings.h"
#include "conclave/server/node/snapshot_transfer.h"
#include "conclave/server/node/stats.h"
#include "conclave/tests/node/request.h"

namespace conclave::node {

class Trio {
 public:
  static constexpr size_t kMembers = 3;

  using Adjust = std::function<void(Options*)>;

  explicit Trio(size_t count = kMembers, Adjust adjust = nullptr) : adjust_(std::move(adjust)) {
    std::vector<FoundingMember> founders;
    for (size_t i = 0; i < count; ++i) {
      founders.push_back({"m" + std::to_string(i), {UrlOf(i)}});
    }
    cluster_ = *FoundCluster(founders, "trio");
    for (const FoundingMember& founder : founders) {
      Options options = OptionsOf(founder.name, cluster_.Find(founder.name)->id);
      Recovered recovered = FoundingState(options, cluster_);
      AddMember(std::move(options), std::move(recovered));
    }
    for (int i = 0; i < 100 && !(Leader().has_value() && AllReady()); ++i) {
      Advance(std::chrono::milliseconds(100));
    }
    CONCLAVE_CHECK(Leader().has_value() && AllReady(), "the members agree within 10 s");
  }

  static std::string UrlOf(size_t member) {
    return "http://10.0.0." + std::to_string(member) + ":1";
  }

  // A server whose disk is empty, as member `id`, which the cluster knows. Its number.
  size_t Join(raft::NodeId id) {
    const auto directory = DecodeDirectory(members_[leader()]->directory.members);
    CONCLAVE_CHECK(directory.ok());
    std::vector<PeerAddress> others;
    for (const apply::Member& member : directory->members) {
      others.push_back({raft::NodeId(member.id), member.peer_urls});
    }
    Options options = OptionsOf("m" + std::to_string(members_.size()), id);
    Recovered recovered = JoiningState(options, std::move(others));
    return AddMember(std::move(options), std::move(recovered));
  }
  // Its process is gone; nothing goes to it or comes from it.
  void Kill(size_t member) {
    members_[member]->stopped = true;
    CutOff(member);
  }

  std::optional<size_t> Leader() const {
    for (size_t i = 0; i < size(); ++i) {
      if (!members_[i]->stopped && members_[i]->node->raft_status().is_leader) return i;
    }
    return std::nullopt;
  }
  size_t leader() const {
    const std::optional<size_t> leader = Leader();
    CONCLAVE_CHECK(leader.has_value(), "somebody leads");
    return *leader;
  }
  size_t follower() const {
    size_t member = (leader() + 1) % size();
    while (members_[member]->stopped) member = (member + 1) % size();
    return member;
  }
  size_t size() const { return members_.size(); }
  bool ready(size_t member) const { return members_[member]->ready; }
  bool AllReady() const {
    return std::all_of(members_.begin(), members_.end(), [](const auto& m) { return m->ready; });
  }
  const std::vector<LogLine>& log(size_t member) const { return members_[member]->log; }
  const std::vector<PeerAddress>& peers(size_t member) const { return members_[member]->peers; }

  void Connect(size_t member, size_t peer, bool connected) {
    for (const PeerLane lane : {PeerLane::kMessages, PeerLane::kSnapshot}) {
      Put(member, PeerConnection{members_[peer]->options.id, lane, connected});
    }
    if (connected) {
      members_[member]->cut.erase(peer);
    } else {
      members_[member]->cut.insert(peer);
    }
  }
  // Nothing goes between this member and the others any more.
  void CutOff(size_t member) {
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == member) continue;
      Connect(member, peer, false);
      Connect(peer, member, false);
    }
  }

  void Rejoin(size_t member) {
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == member || members_[peer]->stopped) continue;
      Connect(member, peer, true);
      Connect(peer, member, true);
    }
  }

  // The same, and nobody is told.
  void Silence(size_t member) {
    for (size_t peer = 0; peer < size(); ++peer) {
      members_[member]->cut.insert(peer);
      members_[peer]->cut.insert(member);
    }
  }

  void Put(size_t member, Input input) { members_[member]->inputs.push_back(std::move(input)); }
  // From now on each of its syncs takes so long.
  void SlowDisk(size_t member, Duration sync) { members_[member]->sync_time = sync; }
  void Settle() {
    for (const auto& member : members_) {
      for (; !member->syncing.empty() && member->syncing.front().first <= now_;
           member->syncing.pop_front()) {
        member->inputs.emplace_back(member->syncing.front().second);
      }
    }
    bool busy = true;
    for (int round = 0; busy; ++round) {
      CONCLAVE_CHECK(round < 10'000, "the members never come to rest");
      busy = false;
      for (size_t i = 0; i < size(); ++i) {
        if (members_[i]->stopped) continue;
        if (members_[i]->inputs.empty() && members_[i]->node->NextDeadline() > now_) continue;
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
    return members_[member]->stats;
  }

  Node& node(size_t member) { return *members_[member]->node; }
  const Options& options(size_t member) const { return members_[member]->options; }
  // How often this member has refused another's messages.
  size_t distrusted(size_t member) const { return members_[member]->distrusted; }
  // The disk does not take the next snapshot, or so many of them.
  void FailSnapshot(size_t member, int times = 1) { members_[member]->snapshots_fail = times; }
  // What is to be written of snapshots waits, until it goes on.
  void StallSnapshots(size_t member) { members_[member]->snapshots_stall = true; }
  void WriteSnapshots(size_t member) {
    members_[member]->snapshots_stall = false;
    WritePieces(*members_[member]);
  }
  // Of snapshots, given to be written and not written yet.
  uint64_t unwritten_bytes(size_t member) const {
    uint64_t bytes = 0;
    for (const SnapshotPiece& piece : members_[member]->pieces) bytes += piece.data.size();
    return bytes;
  }
  // How many snapshots they are of.
  size_t unwritten_snapshots(size_t member) const {
    const auto& pieces = members_[member]->pieces;
    return static_cast<size_t>(
        std::count_if(pieces.begin(), pieces.end(), [](const auto& piece) { return piece.last; }));
  }
  bool stopped(size_t member) const { return members_[member]->stopped; }
  bool diverged(size_t member) const { return members_[member]->diverged; }
  bool wants_reload(size_t member) const { return members_[member]->wants_reload; }
  // The next look at its files finds that.
  void DamageFile(size_t member) { members_[member]->file_damage = "a record is damaged"; }
  // As a server that has set its state aside and starts again: it has its promises, and no more. Or
  // what it had received as well.
  void Refill(size_t which, bool with_unfinished = false) {
    Member& member = *members_[which];
    const RaftStatus before = member.node->raft_status();
    Recovered recovered = JoiningState(member.options, member.peers);
    recovered.hard_state.term = before.term + 1;
    recovered.lost_index = before.applied;
    recovered.lost_term = before.term;
    if (with_unfinished) {
      recovered.unfinished = std::make_unique<apply::RestoreTask>(StateSettings(member.options));
      CONCLAVE_CHECK(recovered.unfinished->Feed(member.unfinished).ok());
    }
    member.inputs.clear();
    member.syncing.clear();
    member.pieces.clear();
    member.diverged = false;
    ++member.options.seed;
    member.peers.clear();
    member.node = std::make_unique<Node>(member.options, std::move(recovered), now_);
    for (size_t peer = 0; peer < size(); ++peer) {
      if (peer == which || members_[peer]->stopped) continue;
      Connect(peer, which, false);
      Connect(peer, which, true);
    }
  }
  Instant now() const { return now_; }

 private:
  struct Member {
    Options options;
    std::unique_ptr<Node> node;
    std::vector<Input> inputs;
    Duration sync_time{};
    std::deque<std::pair<Instant, LogSynced>> syncing;
    std::set<size_t> cut;  // frames to these are lost
    std::vector<PeerAddress> peers;
    PeerDirectory directory;
    std::vector<LogLine> log;
    std::deque<SnapshotPiece> pieces;  // to be written
    std::string unfinished;            // the snapshot that is being written
    int snapshots_fail = 0;
    bool snapshots_stall = false;
    std::shared_ptr<const Stats> stats;
    size_t distrusted = 0;
    bool ready = false;
    bool stopped = false;
    bool diverged = false;
    bool wants_reload = false;
    std::string file_damage;
  };

  Options OptionsOf(const std::string& name, raft::NodeId id) const {
    Options options;
    options.name = name;
    options.id = id;
    options.cluster_id = cluster_.cluster_id;
    options.version = "3.5.0";
    options.seed = members_.size() + 1;
    options.bcrypt_cost = auth::kBcryptCostMin;
    if (adjust_) adjust_(&options);
    return options;
  }

  size_t AddMember(Options options, Recovered recovered) {
    auto member = std::make_unique<Member>();
    member->options = std::move(options);
    member->node = std::make_unique<Node>(member->options, std::move(recovered), now_);
    members_.push_back(std::move(member));
    // Those who know it already connect to it.
    const size_t self = members_.size() - 1;
    for (size_t i = 0; i < self; ++i) {
      for (const PeerAddress& peer : members_[i]->peers) {
        if (peer.id == members_[self]->options.id && !members_[i]->stopped) Connect(i, self, true);
      }
    }
    return self;
  }

  std::optional<size_t> NumberOf(raft::NodeId id) const {
    for (size_t i = 0; i < size(); ++i) {
      if (members_[i]->options.id == id) return i;
    }
    return std::nullopt;
  }

  // As the transport: new peers are connected to, removed ones are told so when they call.
  void Follow(size_t which, Effects& effects) {
    Member& member = *members_[which];
    if (effects.peers.has_value()) {
      const std::vector<PeerAddress> before =
          std::exchange(member.peers, *std::move(effects.peers));
      for (const PeerAddress& peer : member.peers) {
        const bool known = std::any_of(before.begin(), before.end(),
                                       [&](const PeerAddress& old) { return old.id == peer.id; });
        const auto number = NumberOf(peer.id);
        if (known || !number.has_value() || members_[*number]->stopped) continue;
        if (!member.cut.contains(*number)) Connect(which, *number, true);
      }
    }
    if (!effects.directory.has_value()) return;
    member.directory = *std::move(effects.directory);
    for (const raft::NodeId removed : member.directory.removed) {
      const auto number = NumberOf(removed);
      if (!number.has_value() || members_[*number]->stopped) continue;
      if (members_[*number]->cut.contains(which)) continue;
      Put(*number, RemovedByPeer{member.options.id});
    }
  }

  void Sync(Member& member, uint64_t batch) {
    const LogSynced synced{batch, member.sync_time};
    if (member.sync_time == Duration::zero() && member.syncing.empty()) {
      member.inputs.push_back(synced);
      return;
    }
    // What comes while one is under way waits for the next one, together.
    auto& syncing = member.syncing;
    if (syncing.empty() || syncing.back().first - member.sync_time <= now_) {
      const Instant begin = syncing.empty() ? now_ : syncing.back().first;
      syncing.emplace_back(begin + member.sync_time, synced);
    } else {
      syncing.back().second = synced;
    }
  }

  static void WritePieces(Member& member) {
    for (const SnapshotPiece& piece : std::exchange(member.pieces, {})) {
      if (piece.first || piece.abandon) member.unfinished.clear();
      member.unfinished.append(piece.data.view());
      if (!piece.data.empty()) member.inputs.emplace_back(SnapshotWritten{piece.data.size()});
      if (!piece.last) continue;
      const bool failed = member.snapshots_fail > 0;
      if (failed) --member.snapshots_fail;
      member.inputs.emplace_back(std::make_unique<SnapshotSaved>(
          SnapshotSaved{piece.meta, member.unfinished.size(), failed}));
      member.unfinished.clear();
    }
  }

  void Turn(size_t which) {
    Member& member = *members_[which];
    Effects effects;
    std::vector<Input> inputs = std::exchange(member.inputs, {});
    member.node->Turn(now_, inputs, &effects);
    member.distrusted += effects.distrusted.size();
    if (effects.append.has_value()) Sync(member, effects.append->batch);
    for (SnapshotPiece& piece : effects.snapshot_pieces) member.pieces.push_back(std::move(piece));
    if (!member.snapshots_stall) WritePieces(member);
    for (PeerSend& send : effects.peer_sends) {
      const auto to = NumberOf(send.to);
      if (!to.has_value() || members_[*to]->stopped || member.cut.contains(*to)) continue;
      Put(*to, PeerFrame{member.options.id, send.lane, std::move(send.frame)});
    }
    for (Reply& reply : effects.replies) {
      const uint64_t id = reply.id.value();
      const bool first = replies_.insert_or_assign(id, std::move(reply)).second;
      // What members ask of themselves they number each for itself.
      CONCLAVE_CHECK(first || IsOwnCall(CallId(id)));
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
    for (LogLine& line : effects.log_lines) member.log.push_back(std::move(line));
    member.ready = member.ready || effects.ready;
    Follow(which, effects);
    if (effects.stopped) Kill(which);
    member.diverged = member.diverged || effects.diverged;
    if (effects.check_files) {
      member.inputs.push_back(FilesChecked{true, std::exchange(member.file_damage, {})});
    }
    member.wants_reload = member.wants_reload || effects.reload;
  }

  const Adjust adjust_;
  InitialCluster cluster_;
  Prng prng_{11};
  Instant now_{};
  std::vector<std::unique_ptr<Member>> members_;
  std::map<uint64_t, Reply> replies_;
  std::map<uint64_t, std::vector<StreamEffect>> streams_;
  uint64_t last_call_ = 0;
};

}  // namespace conclave::node
