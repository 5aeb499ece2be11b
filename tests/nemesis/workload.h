// Workload: threads that put, delete, read and swap, hold leases and locks, and watch, each with a
// client of its own, and keep a history of it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/base/prng.h"
#include "conclave/client/client.h"
#include "conclave/tests/nemesis/history_keeper.h"

namespace conclave::nemesis {

struct WorkloadOptions {
  int kv_clients = 6;
  int lease_clients = 3;
  int lock_clients = 3;
  int watches = 4;
  uint64_t seed = 1;
};

class Workload {
 public:
  // `endpoints`: where clients connect; `monitor`: the members themselves, past bad networks.
  static absl::StatusOr<std::unique_ptr<Workload>> Start(const WorkloadOptions& options,
                                                         const std::vector<std::string>& endpoints,
                                                         const std::vector<std::string>& monitor,
                                                         HistoryKeeper* keeper);
  ~Workload();

  // Ends all threads; the watches get the time to hear everything up to then, and the leases to
  // end. Once.
  absl::Status Finish();

 private:
  struct Watched;
  Workload(const WorkloadOptions& options, HistoryKeeper* keeper);
  void RunKv(Client client, int id, Prng prng);
  void RunLeases(Client client, int id, Prng prng);
  void RunLocks(Client client, int id, Prng prng);
  void KeepLease(const Client& client, const std::string& key, Prng& prng);
  void HoldLock(const Session& session, int id, Prng& prng);
  void LiveUntil(absl::Time time);
  void Join();
  absl::Status EndWatches();
  bool LeasesAreGone();

  const WorkloadOptions options_;
  HistoryKeeper* const keeper_;
  std::atomic<bool> ending_ = false;
  std::vector<std::thread> threads_;
  std::unique_ptr<Client> monitor_;
  Watch heard_;
  std::vector<std::unique_ptr<Watched>> watched_;
  std::mutex mutex_;
  absl::Time leases_end_ = absl::InfinitePast();  // the last one must be gone then; under mutex_
};

}  // namespace conclave::nemesis
