#include "conclave/tests/crash/cluster.h"

#include <algorithm>
#include <utility>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/base/concat.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/directory.h"
#include "conclave/tests/node/request.h"

namespace conclave::crash {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kStep{10};
constexpr size_t kSnapshotsKept = 2;
constexpr uint64_t kSegmentBytes = 2 * wal::kSegmentBytesMin;

std::string UrlOf(size_t member) { return Concat("http://10.0.0.", member, ":1"); }

wal::LogBatch BatchOf(const node::LogAppend& append) {
  wal::LogBatch batch;
  if (append.reset.has_value()) batch.reset = {append.reset->index, append.reset->term};
  batch.hard_state = append.hard_state;
  batch.entries = append.entries;
  return batch;
}

}  // namespace

struct Cluster::Member {
  explicit Member(const std::string& name) : disk(name) {}

  node::Options options;
  bool joins = false;
  std::vector<node::PeerAddress> acquaintances;  // of one that joins
  env::MemoryDisk disk;
  std::unique_ptr<Plug> plug;

  // While it runs.
  std::unique_ptr<node::Node> node;
  std::unique_ptr<wal::Log> log;
  std::unique_ptr<snapshot::Saver> saver;
  std::vector<node::Input> inputs;
  std::deque<node::LogAppend> appends;
  std::deque<node::SnapshotPiece> pieces;
  std::optional<raft::Index> truncate;
  std::vector<node::PeerAddress> peers;
  bool log_changed = false;
  bool ready = false;
  size_t installed = 0;
};

Cluster::Cluster(const ClusterOptions& options) : options_(options), prng_(options.seed) {
  std::vector<node::FoundingMember> founding;
  for (size_t i = 0; i < options.voters; ++i) founding.push_back({Concat("m", i), {UrlOf(i)}});
  founders_ = *node::FoundCluster(founding, "crash");
  for (const node::FoundingMember& founder : founding) {
    AddMember(founder.name, founders_.Find(founder.name)->id, /*joins=*/false);
  }
  for (size_t i = 0; i < size(); ++i) CONCLAVE_CHECK(Start(i).ok());
  CONCLAVE_CHECK(AwaitCalm(), "the founders agree");
  if (options.learner) AddLearner();
}

Cluster::~Cluster() = default;

bool Cluster::running(size_t member) const { return members_[member]->node != nullptr; }
size_t Cluster::installed(size_t member) const { return members_[member]->installed; }
uint64_t Cluster::id(size_t member) const { return members_[member]->options.id.value(); }
const node::Node& Cluster::node(size_t member) const { return *members_[member]->node; }

void Cluster::AddMember(const std::string& name, raft::NodeId id, bool joins) {
  auto member = std::make_unique<Member>(name);
  member->joins = joins;
  node::Options& options = member->options;
  options.name = name;
  options.id = id;
  options.cluster_id = founders_.cluster_id;
  options.version = "3.5.0";
  options.snapshot_entries = options_.snapshot_entries;
  options.catch_up_entries = options_.catch_up_entries;
  options.snapshot_chunk_bytes = 2048;
  options.snapshot_bytes_per_second = uint64_t{1} << 62;  // as fast as the disk takes it
  options.health_interval = kHealthInterval;
  members_.push_back(std::move(member));
}

void Cluster::AddLearner() {
  etcdserverpb::MemberAddRequest request;
  request.add_peerurls(UrlOf(size()));
  request.set_islearner(true);
  const auto reply = Call(leader(), node::Method::kMemberAdd, request.SerializeAsString());
  CONCLAVE_CHECK(reply.has_value() && reply->error == nullptr);
  etcdserverpb::MemberAddResponse response;
  CONCLAVE_CHECK(response.ParseFromString(reply->body.ToString()));
  AddMember(Concat("m", size()), raft::NodeId(response.member().id()), /*joins=*/true);
  Member& learner = *members_.back();
  for (const node::InitialCluster::Member& founder : founders_.members) {
    learner.acquaintances.push_back({founder.id, founder.peer_urls});
  }
  CONCLAVE_CHECK(Start(size() - 1).ok() && AwaitCalm(), "the learner joins");
}

bool Cluster::has_leader() const {
  for (size_t i = 0; i < size(); ++i) {
    if (running(i) && node(i).raft_status().is_leader) return true;
  }
  return false;
}

size_t Cluster::leader() const {
  for (size_t i = 0; i < size(); ++i) {
    if (running(i) && node(i).raft_status().is_leader) return i;
  }
  CONCLAVE_CHECK(false, "no leader");
  return 0;
}

size_t Cluster::follower() const { return leader() == 0 ? 1 : 0; }

std::optional<size_t> Cluster::AnyBut(size_t other) const {
  std::optional<size_t> found;
  for (size_t i = 0; i < size(); ++i) {
    if (i == other || !running(i) || node(i).raft_status().is_learner) continue;
    if (!found.has_value() || node(i).raft_status().is_leader) found = i;
  }
  return found;
}

std::optional<size_t> Cluster::NumberOf(raft::NodeId id) const {
  for (size_t i = 0; i < size(); ++i) {
    if (members_[i]->options.id == id) return i;
  }
  return std::nullopt;
}

void Cluster::MoveLeader() {
  if (!has_leader()) return;
  const size_t from = leader();
  const auto to = [&]() -> std::optional<size_t> {
    for (size_t i = 0; i < options_.voters; ++i) {
      if (i != from && running(i)) return i;
    }
    return std::nullopt;
  }();
  if (!to.has_value()) return;
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(id(*to));
  (void)Call(from, node::Method::kMoveLeader, request.SerializeAsString());
  (void)Await([&] { return has_leader(); });
}

// ---- Lives --------------------------------------------------------------------------------------

void Cluster::ArmPlug(size_t member, Mode mode, uint64_t at, uint64_t seed) {
  members_[member]->plug = std::make_unique<Plug>(&members_[member]->disk, mode, at, seed);
}

std::string Cluster::Unplug(size_t member) {
  const std::unique_ptr<Plug> plug = std::move(members_[member]->plug);
  return plug == nullptr || !plug->pulled() ? "" : plug->point();
}

absl::Status Cluster::Start(size_t which) {
  Member& member = *members_[which];
  CONCLAVE_CHECK(member.node == nullptr);
  member.options.seed = prng_.Next();
  node::OpenOptions open;
  open.segment_bytes = kSegmentBytes;
  if (member.joins) open.joining = member.acquaintances;
  auto opened =
      node::OpenMember(member.disk, member.options, member.joins ? nullptr : &founders_, open);
  if (!opened.ok()) return opened.status();
  if (member.plug != nullptr && member.plug->pulled()) {
    return absl::UnavailableError("the machine went off again");
  }
  if (opened->recovered.lost_index) {
    return absl::DataLossError("the crash was taken for damage of what had been acknowledged");
  }
  member.log = std::move(opened->log);
  member.saver =
      std::make_unique<snapshot::Saver>(&member.disk, founders_.cluster_id, kSnapshotsKept);
  member.node = std::make_unique<node::Node>(member.options, std::move(opened->recovered), now_);
  for (size_t i = 0; i < size(); ++i) {
    if (i == which || !running(i)) continue;
    for (const node::PeerAddress& peer : members_[i]->peers) {
      if (peer.id == member.options.id) Connect(i, which, true);
    }
  }
  return absl::OkStatus();
}

bool Cluster::Died(size_t which, const absl::Status& status) {
  Member& member = *members_[which];
  if (member.plug == nullptr || !member.plug->pulled()) {
    CONCLAVE_CHECK(status.ok(), status.ToString());
    return false;
  }
  End(which);
  return true;
}

void Cluster::LosePower(size_t which) {
  members_[which]->disk.CrashLosingAll();
  End(which);
}

void Cluster::End(size_t which) {
  Member& member = *members_[which];
  member.node.reset();
  member.log.reset();
  member.saver.reset();
  member.inputs.clear();
  member.appends.clear();
  member.pieces.clear();
  member.truncate.reset();
  member.peers.clear();
  member.log_changed = false;
  member.ready = false;
  for (size_t i = 0; i < size(); ++i) {
    if (i != which && running(i)) Connect(i, which, false);
  }
}

// ---- The network --------------------------------------------------------------------------------

void Cluster::Connect(size_t member, size_t peer, bool connected) {
  if (connected && (isolated_.contains(member) || isolated_.contains(peer))) return;
  for (const node::PeerLane lane : {node::PeerLane::kMessages, node::PeerLane::kSnapshot}) {
    members_[member]->inputs.push_back(
        node::PeerConnection{members_[peer]->options.id, lane, connected});
  }
}

void Cluster::Isolate(size_t member) {
  for (size_t i = 0; i < size(); ++i) {
    if (i == member) continue;
    if (running(i)) Connect(i, member, false);
    if (running(member)) Connect(member, i, false);
  }
  isolated_.insert(member);
}

void Cluster::Rejoin(size_t member) {
  isolated_.erase(member);
  for (size_t i = 0; i < size(); ++i) {
    if (i == member || !running(i) || !running(member)) continue;
    Connect(i, member, true);
    Connect(member, i, true);
  }
}

// ---- Time ---------------------------------------------------------------------------------------

void Cluster::Settle() {
  bool busy = true;
  for (int round = 0; busy; ++round) {
    CONCLAVE_CHECK(round < 10'000, "the members never come to rest");
    busy = false;
    for (size_t i = 0; i < size(); ++i) {
      busy |= Turn(i);
      busy |= WriteLog(i) || SeeToLog(i);
      busy |= WriteSnapshot(i);
    }
  }
}

void Cluster::Advance() {
  for (size_t i = 0; i < size(); ++i) LeaveProof(i);
  Instant next = now_ + kStep;
  for (size_t i = 0; i < size(); ++i) {
    if (running(i)) next = std::min(next, std::max(node(i).NextDeadline(), now_));
  }
  now_ = std::max(next, now_ + milliseconds(1));
  Settle();
}

void Cluster::Pass(Duration duration) {
  const Instant end = now_ + duration;
  Settle();
  while (now_ < end) Advance();
}

bool Cluster::Turn(size_t which) {
  Member& member = *members_[which];
  if (member.node == nullptr) return false;
  if (member.inputs.empty() && member.node->NextDeadline() > now_) return false;
  node::Effects effects;
  std::vector<node::Input> inputs = std::exchange(member.inputs, {});
  member.node->Turn(now_, inputs, &effects);
  CarryOut(which, effects);
  return true;
}

void Cluster::CarryOut(size_t which, node::Effects& effects) {
  Member& member = *members_[which];
  if (effects.append.has_value() && effects.append->reset.has_value()) ++member.installed;
  if (effects.append.has_value()) member.appends.push_back(*std::move(effects.append));
  if (effects.truncate.has_value()) member.truncate = effects.truncate->index;
  std::move(effects.snapshot_pieces.begin(), effects.snapshot_pieces.end(),
            std::back_inserter(member.pieces));
  for (node::PeerSend& send : effects.peer_sends) {
    const auto to = NumberOf(send.to);
    if (!to.has_value() || !running(*to)) continue;
    if (isolated_.contains(which) || isolated_.contains(*to)) continue;
    members_[*to]->inputs.push_back(
        node::PeerFrame{member.options.id, send.lane, std::move(send.frame)});
  }
  for (node::Reply& reply : effects.replies) {
    const uint64_t id = reply.id.value();
    replies_.insert_or_assign(id, std::move(reply));
  }
  member.ready |= effects.ready;
  CONCLAVE_CHECK(!effects.stopped && !effects.diverged, member.options.name,
                 " is not that of the others");
  if (!effects.peers.has_value()) return;
  const auto before = std::exchange(member.peers, *std::move(effects.peers));
  for (const node::PeerAddress& peer : member.peers) {
    const bool known = std::any_of(before.begin(), before.end(),
                                   [&](const auto& old) { return old.id == peer.id; });
    const auto number = NumberOf(peer.id);
    if (!known && number.has_value() && running(*number)) Connect(which, *number, true);
  }
}

// ---- Disks --------------------------------------------------------------------------------------

bool Cluster::WriteLog(size_t which) {
  Member& member = *members_[which];
  if (member.node == nullptr || member.appends.empty()) return false;
  std::vector<wal::LogBatch> batches;
  for (const node::LogAppend& append : member.appends) batches.push_back(BatchOf(append));
  absl::Status status = member.log->Append(batches);
  if (status.ok()) status = member.log->Sync();
  if (Died(which, status)) return true;
  member.log_changed = true;
  member.inputs.push_back(node::LogSynced{member.appends.back().batch, {}});
  member.appends.clear();
  return true;
}

bool Cluster::SeeToLog(size_t which) {
  Member& member = *members_[which];
  if (member.node == nullptr) return false;
  wal::Log& log = *member.log;
  if (member.truncate.has_value()) {
    const raft::Index upto = *std::exchange(member.truncate, std::nullopt);
    return Died(which, log.TruncatePrefix(upto)) || true;
  }
  if (!member.log_changed) return false;
  if (log.BeginSpare()) {
    const absl::Status made = wal::Log::MakeSpare(member.disk, kSegmentBytes);
    if (!Died(which, made)) log.EndSpare(true);
    return true;
  }
  if (log.BeginReserve()) {
    const absl::Status made = wal::Log::MakeReserve(member.disk, kSegmentBytes);
    if (!Died(which, made)) log.EndReserve(true);
    return true;
  }
  return false;
}

// As a log thread that has rested for a while.
void Cluster::LeaveProof(size_t which) {
  Member& member = *members_[which];
  if (member.node == nullptr || !member.appends.empty()) return;
  if (!std::exchange(member.log_changed, false)) return;
  Died(which, member.log->MarkSynced());
}

bool Cluster::WriteSnapshot(size_t which) {
  Member& member = *members_[which];
  if (member.node == nullptr || member.pieces.empty()) return false;
  node::SnapshotPiece piece = std::move(member.pieces.front());
  member.pieces.pop_front();
  if (!piece.data.empty()) member.inputs.push_back(node::SnapshotWritten{piece.data.size()});
  const auto saved = member.saver->Take({.meta = piece.meta,
                                         .data = std::move(piece.data),
                                         .first = piece.first,
                                         .last = piece.last,
                                         .abandon = piece.abandon});
  if (Died(which, saved.status()) || !saved->has_value()) return true;
  auto done = std::make_unique<node::SnapshotSaved>();
  done->meta = (*saved)->meta;
  done->bytes = (*saved)->bytes;
  member.inputs.emplace_back(std::move(done));
  return true;
}

// ---- Clients ------------------------------------------------------------------------------------

std::optional<node::Reply> Cluster::Call(size_t member, node::Method method,
                                         const std::string& encoded) {
  const uint64_t call = ++last_call_;
  members_[member]->inputs.push_back(
      node::UnaryCall{node::CallId(call), method, node::WithHeadroom(encoded), false});
  Settle();
  for (int i = 0; i < 1000 && running(member) && !replies_.contains(call); ++i) Advance();
  const auto found = replies_.find(call);
  if (found == replies_.end()) return std::nullopt;
  node::Reply reply = std::move(found->second);
  replies_.erase(found);
  return reply;
}

bool Cluster::AwaitCalm() {
  return Await([&] {
    const node::RaftStatus first = running(0) ? node(0).raft_status() : node::RaftStatus();
    for (size_t i = 0; i < size(); ++i) {
      if (!running(i) || !members_[i]->ready) return false;
      const node::RaftStatus status = node(i).raft_status();
      if (!status.leader || status.leader != first.leader || status.applied != first.applied ||
          status.applied != status.commit) {
        return false;
      }
    }
    return true;
  });
}

}  // namespace conclave::crash
