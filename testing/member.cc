#include "conclave/testing/member.h"

#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/status.h"

namespace conclave::testing {
namespace {

constexpr char kName[] = "fake";
constexpr char kPeerUrl[] = "http://fake.invalid:2380";
constexpr char kClientUrl[] = "http://fake.invalid:2379";
constexpr char kToken[] = "fake";
constexpr char kVersion[] = "3.5.0";
// Small, for every file of the disk stands in memory twice.
constexpr uint64_t kSegmentBytes = uint64_t{1} << 20;
constexpr uint64_t kSnapshotLogBytes = uint64_t{4} << 20;
constexpr size_t kSnapshotsKept = 2;
// A node that wants to turn again and again at the same instant would hang the test.
constexpr int kTurnsAtOnceMax = 100'000;

}  // namespace

Member::Member(const Settings& settings, Sinks sinks)
    : sinks_(std::move(sinks)), disk_(kName), prng_(settings.seed) {
  absl::StatusOr<node::InitialCluster> cluster =
      node::FoundCluster(std::vector<node::FoundingMember>{{kName, {kPeerUrl}}}, kToken);
  CONCLAVE_CHECK(cluster.ok(), cluster.status().ToString());
  cluster_ = *std::move(cluster);
  options_.id = cluster_.Find(kName)->id;
  options_.cluster_id = cluster_.cluster_id;
  options_.name = kName;
  options_.client_urls = {kClientUrl};
  options_.version = kVersion;
  options_.seed = settings.seed;
  options_.bcrypt_cost = auth::kBcryptCostMin;  // nothing in memory needs a slow hash
  options_.quota_bytes = settings.quota_bytes;
  options_.snapshot_log_bytes_min = kSnapshotLogBytes;
}

Member::~Member() = default;

absl::Status Member::Start(Instant now) {
  CONCLAVE_CHECK(!up(), "the member runs already");
  options_.seed += ++starts_;
  CONCLAVE_ASSIGN_OR_RETURN(
      node::Opened opened,
      node::OpenMember(disk_, options_, &cluster_, {.segment_bytes = kSegmentBytes}));
  log_ = std::move(opened.log);
  saver_ = std::make_unique<snapshot::Saver>(&disk_, options_.cluster_id, kSnapshotsKept);
  node_ = std::make_unique<node::Node>(options_, std::move(opened.recovered), now);
  return absl::OkStatus();
}

void Member::Kill() {
  node_.reset();
  saver_.reset();
  log_.reset();
  inbox_.clear();
  node_ready_ = false;
  disk_.KillProcess();
}

void Member::Put(node::Input input) {
  if (up()) inbox_.push_back(std::move(input));
}

bool Member::Work(Instant now) {
  if (!up()) return false;
  int turns = 0;
  while (!inbox_.empty() || node_->NextDeadline() <= now) {
    CONCLAVE_CHECK(++turns < kTurnsAtOnceMax, "the member turns without end");
    Turn(now);
  }
  return turns > 0;
}

void Member::Turn(Instant now) {
  std::vector<node::Input> inputs = std::exchange(inbox_, {});
  effects_.Clear();
  node_->Turn(now, inputs, &effects_);
  if (effects_.append.has_value()) Write(*std::move(effects_.append));
  for (node::SnapshotPiece& piece : effects_.snapshot_pieces) Save(std::move(piece));
  for (const auth::PasswordJob& job : effects_.password_jobs) {
    auth::RandomBytes random;
    for (uint8_t& byte : random) byte = static_cast<uint8_t>(prng_.Next());
    inbox_.push_back(std::make_unique<auth::PasswordOutcome>(
        auth::RunPasswordJob(job, /*signer=*/nullptr, /*unix_seconds=*/0, random)));
  }
  if (effects_.truncate.has_value()) {
    const absl::Status status = log_->TruncatePrefix(effects_.truncate->index);
    CONCLAVE_CHECK(status.ok(), status.ToString());
  }
  node_ready_ |= effects_.ready;
  for (node::Reply& reply : effects_.replies) sinks_.reply(std::move(reply));
  for (node::StreamEffect& effect : effects_.streams) sinks_.stream(std::move(effect));
}

void Member::Write(node::LogAppend append) {
  wal::LogBatch batch;
  if (append.reset.has_value()) batch.reset = {append.reset->index, append.reset->term};
  batch.hard_state = append.hard_state;
  batch.entries = append.entries;
  absl::Status status = log_->Append(std::vector<wal::LogBatch>{batch});
  if (status.ok()) status = log_->Sync();
  CONCLAVE_CHECK(status.ok(), status.ToString());
  inbox_.push_back(node::LogSynced{append.batch, {}});
}

void Member::Save(node::SnapshotPiece piece) {
  if (!piece.data.empty()) inbox_.push_back(node::SnapshotWritten{piece.data.size()});
  absl::StatusOr<std::optional<snapshot::Saved>> saved =
      saver_->Take({.meta = std::move(piece.meta),
                    .data = std::move(piece.data),
                    .first = piece.first,
                    .last = piece.last,
                    .abandon = piece.abandon});
  CONCLAVE_CHECK(saved.ok(), saved.status().ToString());
  if (!saved->has_value()) return;
  auto done = std::make_unique<node::SnapshotSaved>();
  done->meta = (*saved)->meta;
  done->bytes = (*saved)->bytes;
  inbox_.push_back(std::move(done));
}

}  // namespace conclave::testing
