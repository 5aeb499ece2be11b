// AcknowledgedWrites: threads that put one key after the other on a cluster, and what they were
// told that it has.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

// Thread-safe, but for End.
class AcknowledgedWrites {
 public:
  static absl::StatusOr<std::unique_ptr<AcknowledgedWrites>> Start(const TestCluster& cluster);
  ~AcknowledgedWrites() { End(); }

  void End();
  size_t count() const;
  // After End: how many of them members lack, summed up over the members.
  absl::StatusOr<int> CountLost(const TestCluster& cluster) const;

 private:
  void Run(const Client& client, int id);

  mutable std::mutex mutex_;
  std::set<std::string> keys_;
  std::atomic<bool> ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace conclave::testing
