#include "conclave/tests/sim/simulation.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/base/crc32c.h"
#include "conclave/server/node/directory.h"
#include "conclave/server/node/own_call.h"
#include "conclave/server/node/stats.h"
#include "conclave/tests/node/request.h"
#include "conclave/tests/sim/auth_world.h"
#include "conclave/tests/sim/clients.h"
#include "conclave/tests/sim/learner.h"
#include "conclave/tests/sim/recipes/recipe_world.h"
#include "conclave/tests/sim/storm.h"

namespace conclave::sim {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr Duration kElectionTimeout = seconds(1);
constexpr Duration kLivenessBound = 10 * kElectionTimeout;
// The longest lease that clients ask for, and what may be added to it: elections, checkpoints' lag.
constexpr Duration kLeaseLongest = seconds(6);
constexpr Duration kLeaseSlack = seconds(5);
constexpr Duration kClientPatience = seconds(12);
constexpr uint64_t kNemesisStream = 0x0e3e515c1a55e5u;
constexpr uint64_t kSwarmStream = 0x51a3e0f5ee0d5u;
constexpr uint64_t kLearnerStream = 0x1ea51e51u;
// One world of so many, of those where nobody else changes the membership.
constexpr uint64_t kLearnerIn = 3;
constexpr Duration kClientDelayMin = std::chrono::microseconds(50);
constexpr Duration kClientDelayMax = std::chrono::microseconds(2000);
// For which clients go on when all is well again; an operator of users asks one thing after the
// other, and what he asked before may be given up after five seconds and two election timeouts.
constexpr Duration kCalmWork = seconds(6);
constexpr Duration kCalmWorkOfOperators = seconds(9);
// What the network had delayed before may still arrive, and break connections, for so long.
constexpr Duration kOldFrames = seconds(4);
constexpr Duration kCalmAnswer = seconds(2);
constexpr Duration kStartsAgainAfter = milliseconds(400);

}  // namespace

Simulation::Simulation(uint64_t seed, const Plan& plan, bool verbose)
    : seed_(seed), plan_(plan), verbose_(verbose), prng_(seed) {
  Configure();
  nemesis_ = std::make_unique<Nemesis>(this, plan_, seed ^ kNemesisStream);
  network_->set_counts(&nemesis_->counts());
}

Simulation::~Simulation() = default;

void Simulation::Tell(const std::string& what) {
  if (!verbose_) return;
  const auto now = std::chrono::duration_cast<milliseconds>(schedule_.now().time_since_epoch());
  std::printf("%8.3f s  %s\n", static_cast<double>(now.count()) / 1000, what.c_str());
}

void Simulation::Complain(std::string what) {
  Tell(absl::StrCat("WRONG: ", what));
  if (complaints_.size() < 20) complaints_.push_back(std::move(what));
}

// ---- The world ----------------------------------------------------------------------------------

void Simulation::Configure() {
  static constexpr size_t kSizes[] = {1, 3, 3, 3, 3, 5, 5, 7};
  const size_t count = kSizes[prng_.Below(std::size(kSizes))];
  std::vector<node::FoundingMember> founders;
  for (size_t i = 0; i < count; ++i) {
    founders.push_back({absl::StrCat("m", i), {absl::StrCat("http://10.0.0.", i + 1, ":2380")}});
  }
  cluster_ = *node::FoundCluster(founders, absl::StrCat("sim-", seed_));
  network_ = std::make_unique<Network>(
      &schedule_, &prng_, count,
      [this](size_t to, node::PeerFrame frame) { members_[to]->Put(std::move(frame)); },
      [this](size_t to, size_t peer, bool connected) { TellConnection(to, peer, connected); });
  // Small limits make snapshots, transfers and slow streams common.
  small_ = prng_.Chance(2, 3);
  if (plan_.guests == Guests::kStorm) strict_ = prng_.Chance(2, 3);
  has_learner_ =
      plan_.guests == Guests::kPlain && Prng(seed_ ^ kLearnerStream).Chance(1, kLearnerIn);
  for (size_t i = 0; i < count; ++i) {
    AddServer(OptionsOf(i, cluster_.Find(founders[i].name)->id), /*founder=*/true);
  }
}

node::Options Simulation::OptionsOf(size_t number, raft::NodeId id) {
  node::Options options;
  options.id = id;
  options.cluster_id = cluster_.cluster_id;
  options.name = absl::StrCat("m", number);
  options.client_urls = {absl::StrCat("http://10.0.0.", number + 1, ":2379")};
  options.version = "3.5.0";
  options.election_timeout = kElectionTimeout;
  options.heartbeat_interval = kElectionTimeout / 10;
  options.strict_reconfig_check = strict_;
  options.learners_max = 2;
  options.health_interval = milliseconds(500);
  if (small_) {
    options.snapshot_log_bytes_min = 16 << 10;
    options.log_window_bytes = 8 << 10;
    options.snapshot_chunk_bytes = static_cast<uint64_t>(prng_.Between(100, 4000));
    options.snapshot_chunks_in_flight_max = static_cast<uint64_t>(prng_.Between(1, 8));
    options.stream_unsent_bytes_max = 2000;
  }
  if (plan_.guests == Guests::kAuth) options.bcrypt_cost = auth::kBcryptCostMin;
  // Every member of a run has the same.
  Prng swarm(seed_ ^ kSwarmStream);
  if (swarm.Chance(1, 4)) options.snapshot_entries = swarm.Below(400) + 20;
  if (swarm.Chance(1, 4)) options.catch_up_entries = swarm.Below(200) + 5;
  if (swarm.Chance(1, 2)) options.watch_progress_interval = milliseconds(swarm.Between(50, 1200));
  if (swarm.Chance(1, 6)) options.pending_proposals_max = swarm.Below(6) + 2;
  if (swarm.Chance(1, 6)) options.pending_reads_max = swarm.Below(6) + 2;
  if (swarm.Chance(1, 6)) options.commit_apply_gap_max = swarm.Below(50) + 5;
  if (swarm.Chance(1, 4)) options.divergence_check_interval = milliseconds(100);
  if (swarm.Chance(1, 4)) options.append_bytes_max = swarm.Below(500) + 1;
  if (swarm.Chance(1, 3)) options.watch_batch_revisions_max = swarm.Between(1, 20);
  if (swarm.Chance(1, 4)) options.snapshot_chunk_bytes = 64 << 10;  // the whole state in one
  if (swarm.Chance(1, 3)) {
    options.compaction_slice_records = swarm.Below(20) + 1;
    options.compaction_rest = milliseconds(swarm.Between(1, 100));
  }
  return options;
}

void Simulation::AddServer(node::Options options, bool founder) {
  const size_t number = members_.size();
  peers_.emplace_back();
  directories_.emplace_back();
  members_.push_back(std::make_unique<SimMember>(
      &schedule_, &prng_, std::move(options), founder ? &cluster_ : nullptr,
      [this, number] { return OthersThan(number); },
      SimMember::Callbacks{
          .effects = [this, number](node::Effects& effects) { OnEffects(number, effects); },
          .turned = [this,
                     number] { observer_.Look(number, members_[number]->node(), schedule_.now()); },
          .stopped = [this, number] { OnStopped(number); },
          .votes =
              [this, number](raft::NodeId candidate) {
                nemesis_->OnVote(number, NumberOf(candidate.value()));
              },
          .renews = [this, number] { nemesis_->OnRenewal(number); },
          .saves = [this, number](bool received) { nemesis_->OnSave(number, received); },
          .disk_failed = [this,
                          number](const absl::Status& status) { OnDiskFailed(number, status); }}));
}

// ---- Members that come and go -------------------------------------------------------------------

std::optional<size_t> Simulation::NumberOf(uint64_t id) const {
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i]->options().id.value() == id) return i;
  }
  return std::nullopt;
}

void Simulation::Join(uint64_t id, Duration after) {
  const size_t number = members_.size();
  Tell(absl::StrCat("server ", number, " is to join as ", absl::Hex(id)));
  network_->AddMember();
  AddServer(OptionsOf(number, raft::NodeId(id)), /*founder=*/false);
  newest_member_from_ = schedule_.now() + after;
  schedule_.After(after, [this, number] {
    // Who joins while only a majority is put right waits for the rest.
    if (!members_[number]->up() && !left(number) && !core_only_) Boot(number);
  });
}

Instant Simulation::AppliedAt(int64_t revision) const {
  const TrueHistory& truth = observer_.truth();
  const auto at = static_cast<size_t>(revision - 2);
  return revision >= 2 && at < truth.size() ? truth[at].applied : schedule_.now();
}

std::optional<size_t> Simulation::Leader() const {
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i]->up() && members_[i]->node().raft_status().is_leader) return i;
  }
  return std::nullopt;
}

// As somebody who is up would tell it.
std::vector<node::PeerAddress> Simulation::OthersThan(size_t asking) const {
  // Who has no state yet knows of nobody.
  const auto knows = [this](size_t member) {
    const node::PeerDirectory& directory = directories_[member];
    return std::pair(directory.removed.size(), directory.members.size());
  };
  size_t newest = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (knows(i) >= knows(newest)) newest = i;
  }
  std::vector<node::PeerAddress> others;
  const auto directory = node::DecodeDirectory(directories_[newest].members);
  if (!directory.ok()) return others;
  const uint64_t self = members_[asking]->options().id.value();
  for (const apply::Member& member : directory->members) {
    if (member.id != self) others.push_back({raft::NodeId(member.id), member.peer_urls});
  }
  return others;
}

void Simulation::TellRemoved(size_t removed, size_t by) {
  schedule_.After(milliseconds(prng_.Between(1, 100)),
                  [this, removed, by, life = members_[removed]->life()] {
                    if (members_[removed]->life() != life) return;
                    members_[removed]->Put(node::RemovedByPeer{members_[by]->options().id});
                  });
}

void Simulation::TellConnection(size_t to, size_t peer, bool connected) {
  const std::vector<raft::NodeId>& removed = directories_[peer].removed;
  if (connected && std::binary_search(removed.begin(), removed.end(), members_[to]->options().id)) {
    return TellRemoved(to, peer);
  }
  for (const auto lane : {node::PeerLane::kMessages, node::PeerLane::kSnapshot}) {
    members_[to]->Put(node::PeerConnection{members_[peer]->options().id, lane, connected});
  }
}

// As the transport: links to new peers come up; removed members are turned away.
void Simulation::FollowMembers(size_t member, node::Effects& effects) {
  if (effects.peers.has_value()) {
    const auto before = std::exchange(peers_[member], *std::move(effects.peers));
    for (const node::PeerAddress& peer : peers_[member]) {
      const bool known = std::any_of(before.begin(), before.end(),
                                     [&](const auto& old) { return old.id == peer.id; });
      const auto number = NumberOf(peer.id.value());
      if (!known && number.has_value() && network_->connected(member, *number)) {
        TellConnection(member, *number, true);
      }
    }
  }
  if (!effects.directory.has_value()) return;
  directories_[member] = *std::move(effects.directory);
  for (const raft::NodeId removed : directories_[member].removed) {
    const auto number = NumberOf(removed.value());
    if (number.has_value() && members_[*number]->up() && network_->connected(*number, member)) {
      TellRemoved(*number, member);
    }
  }
}

void Simulation::OnStopped(size_t member) {
  if (!members_[member]->up()) return;
  Tell(absl::StrCat("member ", member, " has stopped"));
  peers_[member].clear();
  Kill(member, SimMember::Crash::kProcess);
}

// As a service manager does, with a process that ends by itself.
void Simulation::OnDiskFailed(size_t member, const absl::Status& status) {
  Tell(absl::StrCat("member ", member, " ends: ", status.ToString()));
  if (!members_[member]->disk_has_failed()) {
    Complain(absl::StrCat("member ", member, " ends though its disk is well: ", status.ToString()));
  }
  peers_[member].clear();
  Kill(member, SimMember::Crash::kProcess);
  nemesis_->Restart(member, kStartsAgainAfter);
}

void Simulation::DoesNotStart(size_t member, const absl::Status& status) {
  const SimMember& server = *members_[member];
  // What is damaged cannot be set aside where there is no room.
  const bool lacks_room =
      server.disk_is_full() && nemesis_->rotten(member) && absl::IsResourceExhausted(status);
  if (!server.disk_has_failed() && !lacks_room) {
    Complain(absl::StrCat("member ", member, " does not start: ", status.ToString()));
    return;
  }
  Tell(absl::StrCat("member ", member, " does not start: ", status.ToString()));
  nemesis_->Restart(member, kStartsAgainAfter);
}

void Simulation::OnEffects(size_t member, node::Effects& effects) {
  trace_.Mix(static_cast<uint64_t>(schedule_.now().time_since_epoch().count()));
  trace_.Mix(member);
  FollowMembers(member, effects);
  for (node::PeerSend& send : effects.peer_sends) {
    trace_.Mix(Crc32c(send.frame.view()));
    const auto to = NumberOf(send.to.value());
    if (!to.has_value()) continue;
    network_->Send(member, *to, members_[member]->options().id, send.lane, std::move(send.frame));
  }
  for (const node::LogLine& line : effects.log_lines) {
    // Bytes may be damaged on their way; a message that is whole makes sense.
    CONCLAVE_CHECK(!line.message.starts_with("refused a message") ||
                       line.fields.back().second.starts_with("it is damaged"),
                   "member ", member, " was told what cannot be: ", line.fields.back().second);
  }
  for (const raft::NodeId peer : effects.distrusted) {
    if (const auto from = NumberOf(peer.value())) network_->Break(*from, member);
  }
  for (node::Reply& reply : effects.replies) {
    trace_.Mix(Crc32c(reply.body.view()));
    if (node::IsOwnCall(reply.id)) continue;
    const auto found = calls_.find(reply.id.value());
    if (found == calls_.end()) {
      Complain(absl::StrCat("member ", member, " answers a call that is not open"));
      continue;
    }
    const Instant at = Arrival(member);
    // What an answer says may be lost on the way, and only that there is none is heard.
    const bool lost = at - schedule_.now() > kClientDelayMax && prng_.Chance(1, 2);
    schedule_.At(at, [lost, answer = std::move(found->second.answer),
                      reply = std::make_shared<node::Reply>(std::move(reply))] {
      answer(lost ? nullptr : reply.get());
    });
    calls_.erase(found);
  }
  for (node::StreamEffect& effect : effects.streams) OnStream(member, effect);
  for (const node::LogLine& line : effects.log_lines) {
    if (line.message == "leader found") ++elections_;
    if (line.message == "the member has been permanently removed from the cluster") {
      left_.insert(member);
    }
    if (line.message == "applied snapshot") ++installed_;
    if (line.message == "found data inconsistency with peers") {
      Complain(absl::StrCat("member ", member, ": ", line.message));
    }
    if (!verbose_) continue;
    std::string fields;
    for (const auto& [name, value] : line.fields) absl::StrAppend(&fields, " ", name, "=", value);
    Tell(absl::StrCat("member ", member, ": ", line.message, fields));
  }
}

Duration Simulation::ClientDelay() {
  return Duration(prng_.Between(kClientDelayMin.count(), kClientDelayMax.count()));
}

Instant Simulation::Arrival(size_t member) {
  const Instant soon = schedule_.now() + ClientDelay();
  const auto cut = clients_cut_.find(member);
  return cut == clients_cut_.end() ? soon : std::max(soon, cut->second);
}

void Simulation::CutClients(size_t member, Duration time) {
  Instant& until = clients_cut_[member];
  until = std::max(until, schedule_.now() + time);
}

void Simulation::Call(size_t member, node::Method method, const std::string& request, Answer answer,
                      node::CredentialsRef shown) {
  const uint64_t id = ++last_call_;
  const Instant at = Arrival(member);
  if (at - schedule_.now() > kClientDelayMax && prng_.Chance(1, 2)) {
    schedule_.At(at, [answer] { answer(nullptr); });  // lost on the way there
    return;
  }
  schedule_.At(at, [=, this, answer = std::move(answer)] {
    if (!members_[member]->up()) {
      schedule_.After(ClientDelay(), [answer] { answer(nullptr); });
      return;
    }
    calls_[id] = {member, answer};
    members_[member]->Put(
        node::UnaryCall{node::CallId(id), method, node::WithHeadroom(request), false, shown});
  });
}

uint64_t Simulation::OpenStream(size_t member, node::StreamKind kind, StreamHandler handler,
                                Duration read_delay, node::CredentialsRef shown) {
  const uint64_t id = ++last_call_;
  Stream& stream = streams_[id];
  stream.member = member;
  stream.handler = std::move(handler);
  stream.read_delay = read_delay;
  stream.last_up = Arrival(member);
  schedule_.At(stream.last_up, [=, this] {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    if (members_[member]->up()) {
      members_[member]->Put(node::StreamOpened{node::CallId(id), kind, false, shown});
      return;
    }
    const auto end = found->second.handler.end;
    streams_.erase(found);
    if (end) end();
  });
  return id;
}

void Simulation::Say(uint64_t id, const std::string& message) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  Stream& stream = found->second;
  stream.last_up = std::max(stream.last_up, Arrival(stream.member));
  schedule_.At(stream.last_up, [this, id, message] {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    members_[found->second.member]->Put(
        node::StreamMessage{node::CallId(id), Bytes::Copy(message)});
  });
}

void Simulation::CloseStream(uint64_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end() || found->second.closed) return;
  Stream& stream = found->second;
  stream.closed = true;
  stream.handler = {};
  stream.last_up = std::max(stream.last_up, Arrival(stream.member));
  schedule_.At(stream.last_up, [this, id] {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    members_[found->second.member]->Put(node::StreamClosed{node::CallId(id)});
  });
}

void Simulation::OnStream(size_t member, node::StreamEffect& effect) {
  const uint64_t id = effect.id.value();
  trace_.Mix(Crc32cExtend(Crc32c(effect.prefix.view()), effect.shared.view()));
  const auto found = streams_.find(id);
  if (found == streams_.end()) {
    Complain(absl::StrCat("member ", member, " speaks on a stream that is not open"));
    return;
  }
  Stream& stream = found->second;
  const Instant at = std::max(stream.last_down, Arrival(member) + stream.read_delay);
  stream.last_down = at;
  if (effect.finish) {
    const auto end = stream.handler.end;
    streams_.erase(found);
    if (end) schedule_.At(at, end);
    return;
  }
  std::string message = effect.prefix.ToString() + effect.shared.ToString();
  schedule_.At(at, [this, id, member, charge = effect.charge, life = members_[member]->life(),
                    handler = stream.handler.message, message = std::move(message)] {
    if (charge > 0 && members_[member]->life() == life) {
      members_[member]->Put(node::StreamSent{node::CallId(id), charge});
    }
    if (handler) handler(message);
  });
}

void Simulation::Boot(size_t member) {
  ++starts_;
  Tell(absl::StrCat("member ", member, " starts"));
  const absl::Status status = members_[member]->Start();
  if (!status.ok()) return DoesNotStart(member, status);
  const std::vector<std::string>& notes = members_[member]->notes();
  for (const std::string& note : notes) Tell(absl::StrCat("member ", member, ": ", note));
  const std::string wrong = CheckRecovery(notes, nemesis_->rotten(member));
  if (!wrong.empty()) Complain(absl::StrCat("member ", member, ": ", wrong));
  observer_.Restarted(member);
  peers_[member].clear();
  network_->Up(member);
}

void Simulation::Kill(size_t member, SimMember::Crash crash) {
  members_[member]->Stop(crash);
  network_->Down(member);
  std::vector<Answer> answers;
  for (auto it = calls_.begin(); it != calls_.end();) {
    if (it->second.member != member) {
      ++it;
      continue;
    }
    answers.push_back(std::move(it->second.answer));
    it = calls_.erase(it);
  }
  for (auto it = streams_.begin(); it != streams_.end();) {
    if (it->second.member != member) {
      ++it;
      continue;
    }
    if (it->second.handler.end) {
      schedule_.At(std::max(it->second.last_down, schedule_.now() + ClientDelay()),
                   it->second.handler.end);
    }
    it = streams_.erase(it);
  }
  for (Answer& answer : answers) {
    schedule_.After(ClientDelay(), [answer = std::move(answer)] { answer(nullptr); });
  }
}

// ---- The run ------------------------------------------------------------------------------------

// A majority of the voters, as whoever knows the newest configuration has it, and who else is
// needed for a write: those whose full disks have stopped all writes. Whoever waits to be repaired
// may not count: what it has lost may be with those who stay away.
std::set<size_t> Simulation::ChooseCore() {
  std::vector<size_t> voters;
  size_t newest = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i]->up() &&
        (!members_[newest]->up() ||
         members_[i]->state().applied_index() > members_[newest]->state().applied_index())) {
      newest = i;
    }
  }
  nemesis_->LookForRepaired();
  size_t majority = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (left(i)) continue;
    if (members_[newest]->up() && plan_.guests == Guests::kStorm) {
      const apply::Member* member =
          members_[newest]->state().membership().Find(members_[i]->options().id.value());
      if (member == nullptr || member->is_learner) continue;
    }
    if (!nemesis_->rotten(i)) voters.push_back(i);
    ++majority;
  }
  majority = majority / 2 + 1;
  CONCLAVE_CHECK(voters.size() >= majority, "a majority is rotten");
  // Half of the time the others must do without the leader that they have.
  if (const auto leader = Leader();
      leader.has_value() && voters.size() > majority && prng_.Chance(1, 2)) {
    std::erase(voters, *leader);
  }
  std::set<size_t> core;
  while (core.size() < majority) core.insert(voters[prng_.Below(voters.size())]);
  core.insert(nemesis_->filled().begin(), nemesis_->filled().end());
  return core;
}

void Simulation::PutRight(size_t member) {
  SimMember& server = *members_[member];
  server.set_latency(DiskLatency());
  server.RepairDisk();
  server.set_turn_delay({});
  server.Resume();
  clients_cut_.erase(member);
  if (server.up() && server.stopping()) Kill(member, SimMember::Crash::kProcess);
  if (!server.up() && !left(member)) Boot(member);
}

// The rest stays as it is: down, paused, slow, half cut off, its disk broken.
void Simulation::HealCore() {
  chaos_ = false;
  nemesis_->Stop();
  core_ = ChooseCore();
  core_only_ = true;
  std::string names;
  for (const size_t member : core_) absl::StrAppend(&names, " ", member);
  Tell(absl::StrCat("a majority is put right:", names));
  // Whose disk was full must reach the leader, to say that there is room: so nobody outside leads.
  if (!nemesis_->filled().empty()) CutOffAllBut(core_);
  network_->HealAmong(core_);
  for (const size_t member : core_) PutRight(member);
}

void Simulation::CutOffAllBut(const std::set<size_t>& core) {
  for (const size_t member : core) {
    for (size_t other = 0; other < members_.size(); ++other) {
      if (core.contains(other)) continue;
      network_->Cut(member, other, kLivenessBound);
      network_->Cut(other, member, kLivenessBound);
    }
  }
}

void Simulation::Heal() {
  Tell("everything is put right");
  chaos_ = false;
  core_only_ = false;
  nemesis_->Stop();
  network_->HealAll();
  for (size_t i = 0; i < members_.size(); ++i) PutRight(i);
  healed_at_ = schedule_.now();
  for (const auto& client : clients_) client->Heal();
}

// A write must get through, whichever of these it takes.
void Simulation::AwaitWrite(const std::set<size_t>& through, const char* when) {
  const Instant end = schedule_.now() + kLivenessBound;
  const auto committed = std::make_shared<bool>(false);
  // A put of "alive" with an empty value: field 1, 5 bytes.
  const std::string request(
      "\x0a\x05"
      "alive");
  while (!*committed && schedule_.now() < end) {
    for (const size_t member : through) {
      if (!members_[member]->up()) continue;
      Call(member, node::Method::kPut, request, [committed](const node::Reply* reply) {
        if (reply != nullptr && reply->error == nullptr) *committed = true;
      });
    }
    const Instant next = std::min(end, schedule_.now() + milliseconds(500));
    while (!*committed && schedule_.now() < next) {
      schedule_.RunUntil(std::min(next, schedule_.now() + milliseconds(50)));
    }
  }
  if (!*committed) Complain(absl::StrCat("no write gets through ", when));
}

// Every voter must serve a linearizable read: it follows a leader, and hears of what is committed.
void Simulation::AwaitReads() {
  const Instant end = schedule_.now() + kLivenessBound;
  const std::string request(
      "\x0a\x05"
      "alive");
  for (size_t i = 0; i < members_.size(); ++i) {
    const auto served = std::make_shared<bool>(false);
    while (!*served && schedule_.now() < end && members_[i]->up() && !left(i) &&
           !members_[i]->node().raft_status().is_learner) {
      Call(i, node::Method::kRange, request, [served](const node::Reply* reply) {
        if (reply != nullptr && reply->error == nullptr) *served = true;
      });
      const Instant next = std::min(end, schedule_.now() + milliseconds(500));
      while (!*served && schedule_.now() < next) {
        schedule_.RunUntil(std::min(next, schedule_.now() + milliseconds(20)));
      }
    }
    const bool must =
        members_[i]->up() && !left(i) && !members_[i]->node().raft_status().is_learner;
    if (!*served && must) Complain(absl::StrCat("member ", i, " serves no read after healing"));
  }
}

void Simulation::CheckLiveness() {
  // Whoever is known to be gone for good may be all that is left of a majority in a storm.
  if (plan_.guests != Guests::kStorm && plan_.guests != Guests::kAuth) {
    HealCore();
    AwaitWrite(core_, "with a majority put right");
  }
  Heal();
  std::set<size_t> all;
  for (size_t i = 0; i < members_.size(); ++i) all.insert(i);
  if (plan_.guests != Guests::kAuth) {
    AwaitWrite(all, "after healing");
    AwaitReads();
  }
}

// When all is well again nobody waits for long: nothing is forgotten that was asked.
void Simulation::CheckPromptness() {
  if (plan_.guests != Guests::kPlain) return;
  // Who joins has nothing to serve from for a while; to add it may have waited for all disks.
  const Instant from = std::max(calm_from_, newest_member_from_) + kOldFrames;
  for (const KvOperation& op : operations_) {
    if (op.invoked < from || op.returned - op.invoked <= kCalmAnswer) continue;
    const auto ms = [](Instant at) {
      return std::chrono::duration_cast<milliseconds>(at - Instant{}).count();
    };
    Complain(absl::StrCat(
        "an operation on ", op.key, " takes too long though all is well: begun at ", ms(op.invoked),
        " ms, ",
        op.returned == kNever ? "never ended" : absl::StrCat("ended at ", ms(op.returned))));
  }
}

void Simulation::WaitForCalm() {
  FinishClients();
  schedule_.RunUntil(schedule_.now() + kClientPatience + kLeaseLongest + kLeaseSlack);
}

void Simulation::FinishClients() {
  ending_ = true;
  for (const auto& client : clients_) client->Finish();
}

void Simulation::CheckAgreement() {
  uint64_t applied = 0;
  for (const auto& member : members_) {
    if (member->up()) applied = std::max(applied, member->node().state().applied_index());
  }
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!members_[i]->up()) {
      if (!left(i)) Complain(absl::StrCat("member ", i, " is down in the end"));
      continue;
    }
    const apply::StateMachine& state = members_[i]->node().state();
    if (state.applied_index() != applied) {
      Complain(absl::StrCat("member ", i, " has stopped at index ", state.applied_index(), " of ",
                            applied));
    }
    state.CheckInvariants();
  }
  for (const std::string& complaint : observer_.complaints()) Complain(complaint);
}

void Simulation::InviteGuests() {
  const bool recipes = plan_.guests == Guests::kRecipes;
  const bool auth = plan_.guests == Guests::kAuth;
  const int by_seed = auth ? 0 : recipes ? 1 : static_cast<int>(prng_.Between(2, 6));
  const int kv_clients = plan_.clients.has_value() ? static_cast<int>(*plan_.clients) : by_seed;
  for (int i = 0; plan_.Has(Part::kKeys) && i < kv_clients; ++i) {
    clients_.push_back(MakeKvClient(this, i, milliseconds(prng_.Between(5, 100))));
  }
  if (plan_.guests == Guests::kStorm && plan_.Has(Part::kGuests)) {
    clients_.push_back(MakeStorm(this));
  }
  if (has_learner_ && plan_.Has(Part::kGuests)) clients_.push_back(MakeLearnerOperator(this));
  if (plan_.guests == Guests::kAuth) {
    if (plan_.Has(Part::kGuests)) clients_.push_back(MakeAuthWorld(this));
    return;
  }
  if (recipes) {
    if (plan_.Has(Part::kGuests)) clients_.push_back(MakeRecipeWorld(this));
  } else {
    for (int i = 0; plan_.Has(Part::kWatches) && i < 3; ++i) {
      clients_.push_back(MakeWatchClient(this, i));
    }
    for (int i = 0; plan_.Has(Part::kLeases) && i < 6; ++i) {
      clients_.push_back(MakeLeaseClient(this, i));
    }
  }
  if (prng_.Chance(1, 2) && plan_.Has(Part::kCompactions)) {
    clients_.push_back(MakeCompactor(this));
  }
  if (plan_.guests != Guests::kPlain) return;
  clients_.push_back(prng_.Chance(1, 2) ? MakeMover(this) : MakeLonelyReader(this));
}

Verdict Simulation::Run() {
  for (size_t i = 0; i < members_.size(); ++i) {
    schedule_.After(milliseconds(prng_.Between(0, 200)), [this, i] { Boot(i); });
  }
  InviteGuests();
  schedule_.RunUntil(schedule_.now() + seconds(3));
  chaos_ = true;
  nemesis_->Start();
  const Duration chaos = std::min<Duration>(plan_.chaos_max, seconds(prng_.Between(10, 30)));
  schedule_.RunUntil(schedule_.now() + chaos);
  CheckLiveness();
  calm_from_ = schedule_.now();
  const bool operators = plan_.guests == Guests::kAuth;
  schedule_.RunUntil(schedule_.now() + (operators ? kCalmWorkOfOperators : kCalmWork));
  WaitForCalm();

  CheckAgreement();
  CheckPromptness();
  for (std::string& complaint : CheckKv(observer_.truth(), operations_)) {
    Complain(std::move(complaint));
  }
  for (const auto& client : clients_) {
    for (std::string& complaint : client->Check(observer_.truth())) Complain(std::move(complaint));
  }
  Verdict verdict;
  for (const auto& client : clients_) {
    client->Count(&verdict.recipes);
    client->Count(&verdict.storm);
    client->Count(&verdict.auth);
  }
  verdict.seed = seed_;
  verdict.trace_hash = trace_.hash();
  verdict.members = members_.size();
  faults().Add(Fault::kGuest, verdict.recipes.faults);
  verdict.faults = faults();
  verdict.operations = operations_.size();
  verdict.acknowledged = static_cast<uint64_t>(
      std::count_if(operations_.begin(), operations_.end(),
                    [](const KvOperation& op) { return op.outcome == Outcome::kDone; }));
  verdict.revisions = observer_.truth().size();
  verdict.events = schedule_.happened();
  verdict.elections = elections_;
  verdict.snapshots_installed = installed_;
  verdict.simulated = schedule_.now().time_since_epoch();
  verdict.complaints = complaints_;
  return verdict;
}

}  // namespace conclave::sim
