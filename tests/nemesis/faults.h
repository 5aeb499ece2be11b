// Faults: what goes wrong with the processes and networks of a cluster, one thing after the other,
// as a seed says.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "conclave/base/prng.h"
#include "conclave/tests/faults/small_disk.h"
#include "conclave/tests/support/tcp_proxy.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::nemesis {

class Faults {
 public:
  // `clients`: the proxies in front of the members' client ports, in their order; `disks`: those of
  // their data, or none, if none can be had. The cluster was started with peer proxies. Only the
  // thread that started the cluster may call (its processes die with it).
  Faults(testing::TestCluster* cluster, std::vector<testing::TcpProxy*> clients,
         std::vector<std::unique_ptr<testing::SmallDisk>> disks, uint64_t seed);

  // Does harm for `duration`, with pauses; everything is whole again at its end.
  absl::Status Run(absl::Duration duration);
  // By name: how often.
  const std::map<std::string, int>& counts() const { return counts_; }
  // What cannot be done here, and why; empty: everything can.
  const std::string& left_out() const { return left_out_; }

 private:
  enum class Kind {
    kKill,
    kTerminate,
    kPause,
    kKillLeader,
    kPauseLeader,
    kKillAll,
    kRestartStorm,
    kFailSync,
    kFillDisk,
    kCutPeers,
    kStallPeers,
    kStallFromPeers,
    kDelayPeers,
    kHalfClosePeers,
    kResetPeers,
    kCutClients,
    kStallClients,
    kStallToClients,
    kDelayClients,
    kHalfCloseClients,
    kResetClients,
    kCount,
  };
  static std::string_view NameOf(Kind kind);
  // Whether it can be done here.
  bool Possible(Kind kind);
  void LeaveOut(const std::string& what);

  absl::Status Begin(Kind kind, int member);
  absl::Status RestartStorm();
  void FailSync(int member);
  void HarmPeers(Kind kind, testing::TcpProxy& proxy);
  void HarmClients(Kind kind, testing::TcpProxy& proxy);
  absl::Status HealAll();
  void Rest(absl::Duration longest);

  testing::TestCluster* const cluster_;
  const std::vector<testing::TcpProxy*> clients_;
  const std::vector<std::unique_ptr<testing::SmallDisk>> disks_;
  Prng prng_;
  std::map<std::string, int> counts_;
  std::string left_out_;
  std::vector<int> paused_;
};

}  // namespace conclave::nemesis
