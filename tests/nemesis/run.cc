#include "conclave/tests/nemesis/run.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/tests/faults/small_disk.h"
#include "conclave/tests/nemesis/faults.h"
#include "conclave/tests/nemesis/workload.h"
#include "conclave/tests/support/tcp_proxy.h"

namespace conclave::nemesis {

using testing::SmallDisk;
using testing::TcpProxy;
using testing::TestCluster;

namespace {

constexpr char kDiskSize[] = "140m";
constexpr absl::Duration kStartPatience = absl::Seconds(60);

// Disks of their own for all members, which were just started; none, if that takes more than we
// may.
absl::StatusOr<std::vector<std::unique_ptr<SmallDisk>>> GiveDisks(TestCluster& cluster) {
  std::vector<std::unique_ptr<SmallDisk>> disks;
  for (int member = 0; member < cluster.size(); ++member) {
    cluster.Terminate(member);
    auto disk = SmallDisk::Over(cluster.data_dir(member), kDiskSize);
    absl::Status up = cluster.Restart(member);
    if (up.ok()) up = cluster.WaitAllHealthy(kStartPatience);
    if (!up.ok()) return up;
    if (disk == nullptr) return std::vector<std::unique_ptr<SmallDisk>>();
    disks.push_back(std::move(disk));
  }
  return disks;
}

}  // namespace

absl::StatusOr<Report> Run(const RunOptions& options) {
  absl::StatusOr<std::unique_ptr<TestCluster>> cluster = TestCluster::Start(
      TestCluster::Options{.kind = options.kind, .members = options.members, .peer_proxies = true});
  if (!cluster.ok()) return cluster.status();
  absl::StatusOr<std::vector<std::unique_ptr<SmallDisk>>> disks = GiveDisks(**cluster);
  if (!disks.ok()) return disks.status();
  std::vector<std::unique_ptr<TcpProxy>> proxies;
  std::vector<TcpProxy*> fronts;
  std::vector<std::string> endpoints;
  for (int i = 0; i < options.members; ++i) {
    absl::StatusOr<std::unique_ptr<TcpProxy>> proxy = TcpProxy::Start((*cluster)->client_port(i));
    if (!proxy.ok()) return proxy.status();
    fronts.push_back(proxy->get());
    endpoints.push_back((*proxy)->endpoint());
    proxies.push_back(*std::move(proxy));
  }
  HistoryKeeper keeper;
  absl::StatusOr<std::unique_ptr<Workload>> workload =
      Workload::Start({.seed = options.seed}, endpoints, (*cluster)->endpoints(), &keeper);
  if (!workload.ok()) return workload.status();
  Faults faults(cluster->get(), fronts, *std::move(disks), options.seed);
  if (absl::Status whole = faults.Run(options.duration); !whole.ok()) return whole;
  if (absl::Status finished = (*workload)->Finish(); !finished.ok()) return finished;
  absl::StatusOr<sim::Complaints> complaints = keeper.Check((*cluster)->endpoints());
  if (!complaints.ok()) return complaints.status();
  return Report{.complaints = *std::move(complaints),
                .counts = keeper.counts(),
                .faults = faults.counts(),
                .left_out = faults.left_out()};
}

std::string Describe(const Report& report) {
  const HistoryKeeper::Counts& counts = report.counts;
  std::string text = absl::StrCat(
      counts.done, " calls done, ", counts.refused, " refused, ", counts.unknown,
      " of unknown outcome; ", counts.revisions, " revisions, ", counts.watches, " watches, ",
      counts.leases, " leases, ", counts.holdings,
      " times a lock was held\nlongest time without a "
      "write: ",
      absl::FormatDuration(absl::Trunc(counts.longest_pause, absl::Milliseconds(1))), "\nfaults:");
  for (const auto& [name, times] : report.faults)
    absl::StrAppend(&text, " ", name, " x", times, ",");
  text.back() = '\n';
  if (!report.left_out.empty()) absl::StrAppend(&text, "left out: ", report.left_out, "\n");
  for (const std::string& complaint : report.complaints) absl::StrAppend(&text, complaint, "\n");
  absl::StrAppend(&text, report.complaints.size(), " complaints\n");
  return text;
}

}  // namespace conclave::nemesis
