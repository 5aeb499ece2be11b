// Server: one member, assembled: disk, log thread, worker, node, core, gRPC, HTTP.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/app/config.h"
#include "conclave/server/app/log.h"
#include "conclave/server/env/disk.h"

namespace conclave::app {

struct ServerOptions {
  Config config;
  std::shared_ptr<Log> log;
  bool peers = true;  // false: no peer port (an embedded member has no peers)
  // Where everything is kept instead of in config.data_dir; null: there. One server at a time.
  std::shared_ptr<env::Disk> disk;
  std::function<void()> on_ready;  // once, when it serves clients; any thread
  std::function<void()>
      on_stopped;  // the member has stopped of its own accord, or was asked to; any thread
};

class Server {
 public:
  // Binds the ports, opens the data directory, recovers, serves.
  //   Unavailable         an address is in use
  //   FailedPrecondition  the data directory is in use, or of another cluster, member or program
  //   others              of the disk; the message names the path
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  ~Server();

  // A leader is known and this member is published. False after `timeout`.
  bool WaitReady(Duration timeout);

  // Hands the leadership over and stops; done when on_stopped is called, or after `timeout`. Then
  // shuts everything down. Idempotent.
  void Stop(Duration timeout);

  // Why it has stopped of its own accord, if that was not in order.
  absl::Status failure() const;
  // Or because its state was not that of the majority. Its data is set aside; started again, it
  // gets the others'.
  bool diverged() const;
  // Or because its memory did not hold what had been written to it. Started again, it has the data
  // of its disk.
  bool wants_reload() const;

  // Of listen_client_urls, in order; those with port 0 have their real one here.
  std::vector<Url> client_urls() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::app
