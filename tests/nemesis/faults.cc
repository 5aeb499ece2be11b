#include "conclave/tests/nemesis/faults.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/base/check.h"
#include "conclave/tests/support/strace.h"

namespace conclave::nemesis {

using testing::TcpProxy;

namespace {

constexpr absl::Duration kFaultMax = absl::Seconds(4);
constexpr absl::Duration kRestMax = absl::Seconds(2);
constexpr absl::Duration kDelayMax = absl::Milliseconds(300);
constexpr int kStormRestartsMin = 4;
constexpr int kStormRestartsMax = 12;
constexpr absl::Duration kStormGapMax = absl::Milliseconds(600);
constexpr absl::Duration kHealPatience = absl::Seconds(60);

}  // namespace

Faults::Faults(testing::TestCluster* cluster, std::vector<TcpProxy*> clients,
               std::vector<std::unique_ptr<testing::SmallDisk>> disks, uint64_t seed)
    : cluster_(cluster), clients_(std::move(clients)), disks_(std::move(disks)), prng_(seed) {}

std::string_view Faults::NameOf(Kind kind) {
  static constexpr std::array<std::string_view, static_cast<size_t>(Kind::kCount)> kNames = {
      "kill",
      "terminate",
      "pause",
      "kill the leader",
      "pause the leader",
      "kill all",
      "restart storm",
      "fail a sync",
      "fill a disk",
      "cut peers",
      "stall to peers",
      "stall from peers",
      "delay peers",
      "half-close peers",
      "reset peers",
      "cut clients",
      "stall clients",
      "stall to clients",
      "delay clients",
      "half-close clients",
      "reset clients"};
  return kNames[static_cast<size_t>(kind)];
}

absl::Status Faults::Run(absl::Duration duration) {
  const absl::Time end = absl::Now() + duration;
  while (absl::Now() < end) {
    // One thing, or two at once: of two different members, or of a member and its own network.
    const int at_once = prng_.Chance(1, 3) ? 2 : 1;
    for (int i = 0; i < at_once; ++i) {
      const auto kind = static_cast<Kind>(prng_.Below(static_cast<uint64_t>(Kind::kCount)));
      if (!Possible(kind)) continue;
      ++counts_[std::string(NameOf(kind))];
      const absl::Status begun =
          Begin(kind, static_cast<int>(prng_.Below(static_cast<uint64_t>(cluster_->size()))));
      if (!begun.ok()) return begun;
    }
    Rest(kFaultMax);
    if (absl::Status healed = HealAll(); !healed.ok()) return healed;
    Rest(kRestMax);
  }
  return cluster_->WaitAllHealthy(kHealPatience);
}

void Faults::Rest(absl::Duration longest) { absl::SleepFor(longest * prng_.Unit()); }

bool Faults::Possible(Kind kind) {
  if (kind == Kind::kFillDisk && disks_.empty()) {
    LeaveOut("no file system can be mounted here");
    return false;
  }
  if (kind != Kind::kFailSync) return true;
  const absl::Status can = testing::CanTrace();
  if (!can.ok()) LeaveOut(std::string(can.message()));
  return can.ok();
}

void Faults::LeaveOut(const std::string& what) {
  if (left_out_.find(what) != std::string::npos) return;
  absl::StrAppend(&left_out_, left_out_.empty() ? "" : "; ", what);
}

// Under the load it syncs at once; a member that does not is left alone.
void Faults::FailSync(int member) {
  const auto tracer = testing::FailNext("fdatasync,fsync", cluster_->pid(member));
  if (tracer.ok()) (void)cluster_->WaitEnd(member, kFaultMax);
}

// As members behave whose supervisor starts them again at once whatever ends them: one ends while
// another still reads its log, and some before they have served anything.
absl::Status Faults::RestartStorm() {
  const auto restarts = prng_.Between(kStormRestartsMin, kStormRestartsMax);
  for (auto i = restarts; i > 0; --i) {
    const int member = static_cast<int>(prng_.Below(static_cast<uint64_t>(cluster_->size())));
    cluster_->Kill(member);
    std::erase(paused_, member);
    if (absl::Status restarted = cluster_->Restart(member); !restarted.ok()) return restarted;
    Rest(kStormGapMax);
  }
  return absl::OkStatus();
}

absl::Status Faults::Begin(Kind kind, int member) {
  if (kind == Kind::kKillLeader || kind == Kind::kPauseLeader) {
    const absl::StatusOr<int> leader = cluster_->Leader(absl::Seconds(2));
    if (leader.ok()) member = *leader;
  }
  const bool runs = cluster_->pid(member) > 0;
  const bool paused = std::count(paused_.begin(), paused_.end(), member) > 0;
  switch (kind) {
    case Kind::kKill:
    case Kind::kKillLeader:
      if (runs) cluster_->Kill(member);
      std::erase(paused_, member);
      break;
    case Kind::kTerminate:
      if (runs && !paused) cluster_->Terminate(member);
      break;
    case Kind::kPause:
    case Kind::kPauseLeader:
      if (!runs || paused) break;
      cluster_->Pause(member);
      paused_.push_back(member);
      break;
    case Kind::kFailSync:
      if (runs && !paused) FailSync(member);
      break;
    case Kind::kFillDisk:
      disks_.at(static_cast<size_t>(member))->Fill();
      break;
    case Kind::kKillAll:
      for (int i = 0; i < cluster_->size(); ++i) cluster_->Kill(i);
      paused_.clear();
      break;
    case Kind::kRestartStorm:
      return RestartStorm();
    default:
      HarmPeers(kind, cluster_->peer_proxy(member));
      HarmClients(kind, *clients_.at(static_cast<size_t>(member)));
  }
  return absl::OkStatus();
}

void Faults::HarmPeers(Kind kind, TcpProxy& proxy) {
  switch (kind) {
    case Kind::kCutPeers:
      return proxy.Cut();
    case Kind::kStallPeers:
      return proxy.Stall(TcpProxy::Direction::kToServer);
    case Kind::kStallFromPeers:
      return proxy.Stall(TcpProxy::Direction::kToClient);
    case Kind::kDelayPeers:
      return proxy.Delay(kDelayMax * prng_.Unit());
    case Kind::kHalfClosePeers:
      return proxy.HalfClose(TcpProxy::Direction::kToServer);
    case Kind::kResetPeers:
      return proxy.Reset();
    default:
      return;
  }
}

void Faults::HarmClients(Kind kind, TcpProxy& proxy) {
  switch (kind) {
    case Kind::kCutClients:
      return proxy.Cut();
    case Kind::kStallClients:
      return proxy.Stall();
    case Kind::kStallToClients:
      return proxy.Stall(TcpProxy::Direction::kToClient);
    case Kind::kDelayClients:
      return proxy.Delay(kDelayMax * prng_.Unit());
    case Kind::kHalfCloseClients:
      return proxy.HalfClose(TcpProxy::Direction::kToClient);
    case Kind::kResetClients:
      return proxy.Reset();
    default:
      return;
  }
}

absl::Status Faults::HealAll() {
  for (const auto& disk : disks_) disk->Free();
  for (int i = 0; i < cluster_->size(); ++i) {
    cluster_->peer_proxy(i).Heal();
    clients_[static_cast<size_t>(i)]->Heal();
    if (cluster_->pid(i) > 0) continue;
    if (absl::Status restarted = cluster_->Restart(i); !restarted.ok()) return restarted;
  }
  for (const int member : std::exchange(paused_, {})) cluster_->Resume(member);
  return absl::OkStatus();
}

}  // namespace conclave::nemesis
