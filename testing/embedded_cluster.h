// EmbeddedCluster: a cluster of real servers inside a test, each with its own threads, ports on
// 127.0.0.1 and a disk in memory; to be killed, stopped and started again one by one.
//
//   auto cluster = conclave::testing::EmbeddedCluster::Start({.members = 3});
//   absl::StatusOr<conclave::Client> client = (*cluster)->Connect();
//   (*cluster)->Kill(*(*cluster)->Leader());
//   (void)client->Put("a", "1");                 // goes on with the new leader
//
// It lives on the machine's clock: an election takes a second. A test that wants no network and a
// clock of its own takes FakeServer. Thread: one at a time; the servers have their own.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"

namespace conclave::testing {

class EmbeddedCluster {
 public:
  static constexpr size_t kMembersMax = 9;

  struct Options {
    size_t members = 3;
    absl::Duration heartbeat_interval = absl::Milliseconds(100);
    absl::Duration election_timeout = absl::Seconds(1);
    // "debug", "info", "warn", "error": the logs go to stderr; empty: there are none.
    std::string log_level{};
  };

  // All members serve when it returns.
  //   InvalidArgument  members is not in 1..9, or the times do not fit together
  //   Unavailable      no ports, or the cluster does not become ready within 20 s
  static absl::StatusOr<std::unique_ptr<EmbeddedCluster>> Start(const Options& options);
  static absl::StatusOr<std::unique_ptr<EmbeddedCluster>> Start();
  ~EmbeddedCluster();
  EmbeddedCluster(const EmbeddedCluster&) = delete;
  EmbeddedCluster& operator=(const EmbeddedCluster&) = delete;

  size_t size() const;
  // Of member i, whether it runs or not; it stays the same.
  std::string endpoint(size_t i) const;
  std::vector<std::string> endpoints() const;
  bool running(size_t i) const;
  // A client of all members; the endpoints of `options` are replaced.
  absl::StatusOr<Client> Connect(ConnectOptions options = {}) const;

  // The member that leads, as a majority of the running ones see it; waits for one for 20 s at
  // most. Nothing if there is none then.
  std::optional<size_t> Leader() const;

  // Ends a member at once, without handing anything over. What it acknowledged is on its disk.
  void Kill(size_t i);
  // Ends it in order: a leader hands over first.
  void Stop(size_t i);
  // Lets it run again, with its disk, on the same ports. OK if it runs. It need not be ready when
  // this returns: without a majority it cannot be.
  absl::Status Restart(size_t i);

 private:
  class Impl;
  explicit EmbeddedCluster(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::testing
