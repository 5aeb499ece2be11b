#include "conclave/tests/sim/member.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/server/apply/command.h"

namespace conclave::sim {

using std::chrono::microseconds;

SimMember::SimMember(Schedule* schedule, Prng* prng, node::Options options,
                     const node::InitialCluster* cluster, Others others, Callbacks callbacks)
    : schedule_(schedule),
      prng_(prng),
      options_(std::move(options)),
      cluster_(cluster),
      others_(std::move(others)),
      callbacks_(std::move(callbacks)),
      disk_(options_.name) {
  disk_.set_hook(
      [this](env::MemoryDisk::Operation operation, std::string_view) { return OnDisk(operation); });
}

SimMember::~SimMember() = default;

absl::Status SimMember::Start() {
  CONCLAVE_CHECK(!up());
  ++life_;
  options_.seed = prng_->Next();
  disk_has_failed_ = false;
  node::OpenOptions open;
  open.segment_bytes = wal::kSegmentBytesMin * 4;
  open.ask_others = others_;
  const auto knows_none = node::KnowsNoCluster(disk_);
  const auto has_log = wal::Log::Exists(disk_);
  // A founder that has lost its state asks as one that joins does.
  const bool lost = knows_none.ok() && *knows_none && has_log.ok() && *has_log;
  if (cluster_ == nullptr || lost) open.joining = others_();
  auto opened = node::OpenMember(disk_, options_, cluster_, open);
  if (!opened.ok()) {
    disk_.KillProcess();
    return opened.status();
  }
  notes_ = std::move(opened->notes);
  saver_ = std::make_unique<snapshot::Saver>(&disk_, options_.cluster_id, 2);
  node_ = std::make_unique<node::Node>(options_, std::move(opened->recovered), LocalNow());
  inbox_.clear();
  paused_ = false;
  stopping_ = false;
  planned_ = kNever;
  StartLog(std::move(opened->log));
  PlanTurn(schedule_->now());
  return absl::OkStatus();
}

void SimMember::Stop(Crash crash) {
  CONCLAVE_CHECK(up());
  ++life_;
  node_.reset();
  saver_.reset();
  log_writer_.reset();
  inbox_.clear();
  pieces_.clear();
  switch (crash) {
    case Crash::kPower:
      return disk_.Crash(*prng_);
    case Crash::kLazyPower:
      return disk_.CrashLosingAll();
    case Crash::kProcess:
      return disk_.KillProcess();
  }
}

// ---- Its disk -----------------------------------------------------------------------------------

void SimMember::StartLog(std::unique_ptr<wal::Log> log) {
  log_writer_ = std::make_unique<LogWriter>(
      schedule_, prng_, std::move(log),
      LogWriter::Callbacks{.synced =
                               [this](uint64_t batch) {
                                 Put(node::LogSynced{batch, {}});
                               },
                           .space = [this](const node::DiskSpace& space) { Put(space); },
                           .failed =
                               [this](const absl::Status& status) {
                                 schedule_->After({}, [this, status, life = life_] {
                                   if (life == life_) callbacks_.disk_failed(status);
                                 });
                               },
                           .sync_time = [this] { return SyncTime(); }});
  log_writer_->Start();
}

absl::Status SimMember::OnDisk(env::MemoryDisk::Operation operation) {
  using Operation = env::MemoryDisk::Operation;
  if (!operations_until_error_.has_value() || operation == Operation::kRead ||
      operation == Operation::kLock) {
    return absl::OkStatus();
  }
  if (*operations_until_error_ > 0) {
    --*operations_until_error_;
    return absl::OkStatus();
  }
  if (!fails_for_good_) operations_until_error_.reset();
  disk_has_failed_ = true;
  return absl::InternalError("input/output error");
}

void SimMember::FailDisk(uint64_t after_operations, bool for_good) {
  operations_until_error_ = after_operations;
  fails_for_good_ = for_good;
}

void SimMember::FillDisk(uint64_t room_bytes) {
  MakeRoom();
  const env::Space space = *disk_.FreeSpace();
  disk_.set_capacity_bytes(space.total_bytes - space.free_bytes + room_bytes);
  disk_is_full_ = true;
}

void SimMember::MakeRoom() {
  disk_.set_capacity_bytes(UINT64_MAX);
  disk_is_full_ = false;
}

void SimMember::RepairDisk() {
  operations_until_error_.reset();
  MakeRoom();
}

// ---- Its clock ----------------------------------------------------------------------------------

Instant SimMember::LocalNow() const {
  const Duration passed = schedule_->now() - world_zero_;
  return local_zero_ + passed + passed * drift_ppm_ / 1'000'000;
}

Instant SimMember::WorldTime(Instant local) const {
  if (local == kNever) return kNever;
  const Duration passed = local - local_zero_;
  // Rounded up, so that the clock shows at least that.
  return world_zero_ + passed - passed * drift_ppm_ / 1'000'000 + microseconds(kClockDriftPpmMax);
}

void SimMember::set_drift_ppm(int64_t drift_ppm) {
  local_zero_ = LocalNow();
  world_zero_ = schedule_->now();
  drift_ppm_ = drift_ppm;
}

// ---- Turns --------------------------------------------------------------------------------------

void SimMember::Resume() {
  if (!paused_) return;
  paused_ = false;
  planned_ = kNever;
  if (up()) PlanTurn(schedule_->now());
}

void SimMember::Put(node::Input input) {
  if (!up()) return;
  stopping_ |= std::holds_alternative<node::StopRequest>(input);
  inbox_.push_back(std::move(input));
  // What comes within a moment is one turn's, as with real threads.
  PlanTurn(schedule_->now() + turn_delay_ + microseconds(prng_->Between(5, 100)));
}

void SimMember::PlanTurn(Instant at) {
  at = std::max(at, schedule_->now());
  if (at >= planned_) return;
  planned_ = at;
  schedule_->At(at, [this, at, life = life_] {
    if (life != life_ || planned_ != at || paused_) return;
    Turn();
  });
}

void SimMember::Turn() {
  planned_ = kNever;
  std::vector<node::Input> inputs = std::exchange(inbox_, {});
  effects_.Clear();
  const Instant now = LocalNow();
  const uint64_t applied = node_->raft_status().applied.value();
  node_->Turn(now, inputs, &effects_);
  const bool stopped = effects_.stopped;
  // A node that wants to turn again and again without doing anything would burn a core.
  const bool nothing = inputs.empty() && effects_.replies.empty() && effects_.streams.empty() &&
                       effects_.peer_sends.empty() && !effects_.append.has_value() &&
                       effects_.snapshot_pieces.empty();
  const Instant again = node_->NextDeadline();
  idle_turns_ = nothing && again <= now ? idle_turns_ + 1 : 0;
  CONCLAVE_CHECK(idle_turns_ < 1000, options_.name, " turns without end");
  const raft::NodeId candidate = VoteIn(effects_);
  const bool renews = HasRenewal(effects_);
  if (effects_.append.has_value()) log_writer_->Append(*std::move(effects_.append));
  std::optional<bool> saves;  // one that it was sent
  for (node::SnapshotPiece& piece : effects_.snapshot_pieces) {
    if (piece.last && !piece.abandon) saves = piece.meta.index.value() > applied;
    TakePiece(std::move(piece));
  }
  for (auth::PasswordJob& job : effects_.password_jobs) RunPasswordJob(job);
  if (effects_.truncate.has_value()) log_writer_->TruncatePrefix(effects_.truncate->index);
  const uint64_t life = life_;
  callbacks_.turned();
  if (renews) callbacks_.renews();
  callbacks_.effects(effects_);
  if (life != life_) return;
  if (candidate) callbacks_.votes(candidate);
  if (saves.has_value()) callbacks_.saves(*saves);
  if (stopped) {
    callbacks_.stopped();
    return;
  }
  // A turn takes time: what is left over is for the next one.
  PlanTurn(again <= now                                    ? schedule_->now() + microseconds(20)
           : drift_ppm_ == 0 && world_zero_ == local_zero_ ? again
                                                           : WorldTime(again));
}

// For whom this turn has voted; 0: nobody.
raft::NodeId SimMember::VoteIn(const node::Effects& effects) {
  if (!effects.append.has_value() || !effects.append->hard_state.has_value()) return {};
  const raft::HardState& state = *effects.append->hard_state;
  const std::pair vote(state.term, state.vote);
  return std::exchange(last_vote_, vote) == vote ? raft::NodeId() : state.vote;
}

// What leases have left is written too; nobody waits for that, so it has no number.
bool SimMember::HasRenewal(const node::Effects& effects) const {
  if (!effects.append.has_value()) return false;
  return std::any_of(effects.append->entries.begin(), effects.append->entries.end(),
                     [&](const raft::Entry& entry) {
                       const auto header = apply::ReadCommandHeader(entry.payload.view());
                       return header.has_value() &&
                              header->Is(apply::CommandKind::kLeaseCheckpoint) &&
                              header->proposer == options_.id.value() && header->sequence != 0;
                     });
}

Duration SimMember::SyncTime() {
  return Duration(prng_->Between(latency_.sync_min.count(), latency_.sync_max.count()));
}

void SimMember::RunPasswordJob(const auth::PasswordJob& job) {
  auth::RandomBytes random;
  for (uint8_t& byte : random) byte = static_cast<uint8_t>(prng_->Next());
  auto outcome = std::make_shared<auth::PasswordOutcome>(
      auth::RunPasswordJob(job, /*signer=*/nullptr, /*unix_seconds=*/0, random));
  schedule_->After(SyncTime(), [this, life = life_, outcome] {
    if (life == life_) Put(std::make_unique<auth::PasswordOutcome>(std::move(*outcome)));
  });
}

// The writer of snapshots is a thread of its own: it takes its time for each piece, and for the
// end.
void SimMember::TakePiece(node::SnapshotPiece piece) {
  pieces_.push_back(std::move(piece));
  if (pieces_.size() == 1) SavePieceLater();
}

void SimMember::SavePieceLater() {
  constexpr Duration kLongest = std::chrono::seconds(3);
  const int64_t syncs = pieces_.front().last ? prng_->Between(1, 40) : 1;
  schedule_->After(std::min(kLongest, SyncTime() * syncs), [this, life = life_] {
    if (life == life_) SavePiece();
  });
}

void SimMember::SavePiece() {
  node::SnapshotPiece piece = std::move(pieces_.front());
  pieces_.pop_front();
  if (!piece.data.empty()) Put(node::SnapshotWritten{piece.data.size()});
  const auto saved = saver_->Take({.meta = piece.meta,
                                   .data = std::move(piece.data),
                                   .first = piece.first,
                                   .last = piece.last,
                                   .abandon = piece.abandon});
  CONCLAVE_CHECK(saved.ok() || disk_has_failed_ || disk_is_full_, saved.status().ToString());
  if (!pieces_.empty()) SavePieceLater();
  if (saved.ok() && !saved->has_value()) return;
  auto done = std::make_unique<node::SnapshotSaved>();
  done->meta = std::move(piece.meta);
  done->failed = !saved.ok();
  if (saved.ok()) done->bytes = (*saved)->bytes;
  Put(std::move(done));
}

}  // namespace conclave::sim
