#include "conclave/tests/sim/simulation.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/base/crc32c.h"
#include "conclave/server/node/directory.h"
#include "conclave/server/node/stats.h"
#include "conclave/tests/node/request.h"
#include "conclave/tests/sim/clients.h"
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

}  // namespace

Simulation::Simulation(uint64_t seed, bool verbose, Guests guests)
    : seed_(seed), verbose_(verbose), guests_(guests), prng_(seed) {
  Configure();
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
  static constexpr size_t kSizes[] = {1, 3, 3, 3, 5};
  const size_t count = kSizes[prng_.Below(5)];
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
  if (guests_ == Guests::kStorm) strict_ = prng_.Chance(2, 3);
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
  return options;
}

void Simulation::AddServer(node::Options options, bool founder) {
  const size_t number = members_.size();
  peers_.emplace_back();
  directories_.emplace_back();
  members_.push_back(std::make_unique<SimMember>(
      &schedule_, &prng_, std::move(options), founder ? &cluster_ : nullptr,
      [this] { return Others(); },
      SimMember::Callbacks{
          .effects = [this, number](node::Effects& effects) { OnEffects(number, effects); },
          .turned =
              [this, number] {
                observer_.Look(number, members_[number]->node().state(), schedule_.now());
              },
          .stopped = [this, number] { OnStopped(number); }}));
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
  schedule_.After(after, [this, number] {
    if (!members_[number]->up() && !left(number)) Boot(number);
  });
}

// As somebody who is up would tell it.
std::vector<node::PeerAddress> Simulation::Others() const {
  size_t newest = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!directories_[i].members.empty() &&
        directories_[i].removed.size() >= directories_[newest].removed.size()) {
      newest = i;
    }
  }
  std::vector<node::PeerAddress> others;
  const auto directory = node::DecodeDirectory(directories_[newest].members);
  if (!directory.ok()) return others;
  for (const apply::Member& member : directory->members) {
    others.push_back({raft::NodeId(member.id), member.peer_urls});
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
    const auto found = calls_.find(reply.id.value());
    if (found == calls_.end()) {
      Complain(absl::StrCat("member ", member, " answers a call that is not open"));
      continue;
    }
    schedule_.After(ClientDelay(), [answer = std::move(found->second.answer),
                                    reply = std::make_shared<node::Reply>(std::move(reply))] {
      answer(reply.get());
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

Duration Simulation::ClientDelay() { return std::chrono::microseconds(prng_.Between(50, 2000)); }

void Simulation::Call(size_t member, node::Method method, const std::string& request,
                      Answer answer) {
  const uint64_t id = ++last_call_;
  schedule_.After(ClientDelay(), [=, this, answer = std::move(answer)] {
    if (!members_[member]->up()) {
      schedule_.After(ClientDelay(), [answer] { answer(nullptr); });
      return;
    }
    calls_[id] = {member, answer};
    members_[member]->Put(node::UnaryCall{node::CallId(id), method, node::WithHeadroom(request)});
  });
}

uint64_t Simulation::OpenStream(size_t member, node::StreamKind kind, StreamHandler handler,
                                Duration read_delay) {
  const uint64_t id = ++last_call_;
  Stream& stream = streams_[id];
  stream.member = member;
  stream.handler = std::move(handler);
  stream.read_delay = read_delay;
  stream.last_up = schedule_.now() + ClientDelay();
  schedule_.At(stream.last_up, [=, this] {
    const auto found = streams_.find(id);
    if (found == streams_.end()) return;
    if (members_[member]->up()) {
      members_[member]->Put(node::StreamOpened{node::CallId(id), kind, false});
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
  stream.last_up = std::max(stream.last_up, schedule_.now() + ClientDelay());
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
  stream.last_up = std::max(stream.last_up, schedule_.now() + ClientDelay());
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
  const Instant at =
      std::max(stream.last_down, schedule_.now() + ClientDelay() + stream.read_delay);
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
  if (!status.ok()) {
    Complain(absl::StrCat("member ", member, " does not start: ", status.ToString()));
    return;
  }
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

// ---- What goes wrong ----------------------------------------------------------------------------

void Simulation::Nemesis() {
  if (!chaos_) return;
  Disturb();
  schedule_.After(milliseconds(prng_.Between(100, 3000)), [this] { Nemesis(); });
}

void Simulation::Disturb() {
  ++faults_;
  const size_t member = prng_.Below(members_.size());
  switch (prng_.Below(14)) {
    case 0:
    case 1:
      return CrashMember(
          member, prng_.Chance(2, 3) ? SimMember::Crash::kPower : SimMember::Crash::kProcess);
    case 2:
      return PauseMember(member);
    case 3:
      return SlowDisk(member);
    case 4:
      Tell("everybody loses power");
      for (size_t i = 0; i < members_.size(); ++i) CrashMember(i, SimMember::Crash::kPower);
      return;
    case 5:
    case 6:
      return MoveLeadership(member);
    case 7:
      return StopLeader();
    default:
      return DisturbNetwork(member);
  }
}

void Simulation::CrashMember(size_t member, SimMember::Crash crash) {
  if (!members_[member]->up()) return;
  Tell(absl::StrCat("member ", member,
                    crash == SimMember::Crash::kPower ? " loses power" : " is killed"));
  Kill(member, crash);
  schedule_.After(milliseconds(prng_.Between(10, 6000)), [this, member] {
    if (!members_[member]->up()) Boot(member);
  });
}

void Simulation::PauseMember(size_t member) {
  if (!members_[member]->up() || members_[member]->paused()) return;
  Tell(absl::StrCat("member ", member, " pauses"));
  members_[member]->Pause();
  schedule_.After(milliseconds(prng_.Between(50, 4000)),
                  [this, member] { members_[member]->Resume(); });
}

void Simulation::SlowDisk(size_t member) {
  DiskLatency slow;
  slow.sync_max = milliseconds(prng_.Chance(1, 4) ? 1500 : 50);
  Tell(absl::StrCat("the disk of member ", member, " is slow"));
  members_[member]->set_latency(slow);
  schedule_.After(milliseconds(prng_.Between(500, 5000)),
                  [this, member] { members_[member]->set_latency(DiskLatency()); });
}

void Simulation::DisturbNetwork(size_t member) {
  const size_t other = prng_.Below(members_.size());
  switch (prng_.Below(6)) {
    case 0:
      if (member == other) return;
      Tell(absl::StrCat("nothing reaches ", other, " from ", member));
      network_->Cut(member, other);
      return;
    case 1:
      Tell(absl::StrCat("member ", member, " is cut off"));
      for (size_t peer = 0; peer < members_.size(); ++peer) {
        if (peer == member) continue;
        network_->Cut(member, peer);
        network_->Cut(peer, member);
      }
      return;
    case 2: {
      NetworkQuality quality;
      quality.loss_permille = static_cast<uint32_t>(prng_.Below(200));
      quality.repeat_permille = static_cast<uint32_t>(prng_.Below(100));
      quality.reorder_permille = static_cast<uint32_t>(prng_.Below(100));
      quality.garble_permille = static_cast<uint32_t>(prng_.Below(20));
      quality.delay_max = milliseconds(prng_.Between(1, 60));
      Tell("the network is bad");
      network_->set_quality(quality);
      return;
    }
    case 3:
      if (member != other) network_->Reset(member, other);
      return;
    default:
      Tell("the network heals");
      network_->HealAll();
      return;
  }
}

// By a call, as an operator does; whoever is asked.
void Simulation::MoveLeadership(size_t member) {
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(members_[prng_.Below(members_.size())]->options().id.value());
  Tell(absl::StrCat("member ", member, " is to hand the leadership over"));
  Call(member, node::Method::kMoveLeader, request.SerializeAsString(), [](const node::Reply*) {});
}

void Simulation::StopLeader() {
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!members_[i]->up() || !members_[i]->node().raft_status().is_leader) continue;
    Tell(absl::StrCat("member ", i, " is to stop"));
    members_[i]->Put(node::StopRequest{});
    // It dies when it says so; or hangs, and is killed.
    schedule_.After(milliseconds(prng_.Between(1500, 5000)), [this, i, life = members_[i]->life()] {
      if (members_[i]->up() && members_[i]->life() == life) Kill(i, SimMember::Crash::kProcess);
      if (!members_[i]->up()) Boot(i);
    });
    return;
  }
}

// ---- The run ------------------------------------------------------------------------------------

void Simulation::Heal() {
  Tell("everything is put right");
  chaos_ = false;
  network_->HealAll();
  for (size_t i = 0; i < members_.size(); ++i) {
    members_[i]->set_latency(DiskLatency());
    members_[i]->Resume();
    if (!members_[i]->up() && !left(i)) Boot(i);
  }
  healed_at_ = schedule_.now();
  for (const auto& client : clients_) client->Heal();
}

// After everything is put right, a write must get through.
void Simulation::CheckLiveness() {
  const Instant end = schedule_.now() + kLivenessBound;
  const auto committed = std::make_shared<bool>(false);
  const auto attempt = std::make_shared<std::function<void(size_t)>>();
  // A put of "alive" with an empty value: field 1, 5 bytes.
  const std::string request(
      "\x0a\x05"
      "alive");
  *attempt = [this, committed, attempt, request, end](size_t member) {
    if (*committed || schedule_.now() >= end) return;
    for (size_t i = 0; i < members_.size() && !members_[member]->up(); ++i) {
      member = (member + 1) % members_.size();
    }
    Call(member, node::Method::kPut, request, [this, committed](const node::Reply* reply) {
      if (reply != nullptr && reply->error == nullptr) *committed = true;
    });
    schedule_.After(milliseconds(500),
                    [attempt, member, this] { (*attempt)((member + 1) % members_.size()); });
  };
  (*attempt)(0);
  while (!*committed && schedule_.now() < end) {
    schedule_.RunUntil(std::min(end, schedule_.now() + milliseconds(100)));
  }
  if (!*committed) Complain("no write gets through after healing");
  schedule_.After(kLivenessBound, [attempt] { *attempt = nullptr; });
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
  const bool recipes = guests_ == Guests::kRecipes;
  const int kv_clients = recipes ? 1 : static_cast<int>(prng_.Between(2, 6));
  for (int i = 0; i < kv_clients; ++i) {
    clients_.push_back(MakeKvClient(this, i, milliseconds(prng_.Between(5, 100))));
  }
  if (guests_ == Guests::kStorm) clients_.push_back(MakeStorm(this));
  if (recipes) {
    clients_.push_back(MakeRecipeWorld(this));
  } else {
    for (int i = 0; i < 2; ++i) clients_.push_back(MakeWatchClient(this, i));
    for (int i = 0; i < 6; ++i) clients_.push_back(MakeLeaseClient(this, i));
  }
  if (prng_.Chance(1, 2)) clients_.push_back(MakeCompactor(this));
}

Verdict Simulation::Run() {
  for (size_t i = 0; i < members_.size(); ++i) {
    schedule_.After(milliseconds(prng_.Between(0, 200)), [this, i] { Boot(i); });
  }
  InviteGuests();
  schedule_.RunUntil(schedule_.now() + seconds(3));
  chaos_ = true;
  Nemesis();
  schedule_.RunUntil(schedule_.now() + seconds(prng_.Between(10, 30)));
  Heal();
  CheckLiveness();
  schedule_.RunUntil(schedule_.now() + seconds(2));
  WaitForCalm();

  CheckAgreement();
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
  }
  verdict.seed = seed_;
  verdict.trace_hash = trace_.hash();
  verdict.members = members_.size();
  verdict.faults = faults_ + network_->faults() + verdict.recipes.faults;
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
