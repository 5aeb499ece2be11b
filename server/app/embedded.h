// EmbeddedServer: a Conclave server of one member inside this process. For tests, examples and
// tools.
//
//   auto server = conclave::EmbeddedServer::Start({});
//   // ... connect to (*server)->client_endpoint()
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace conclave {

class EmbeddedServer {
 public:
  struct Options {
    // Where the data stays. Empty: a temporary directory, which is removed when the server ends.
    std::string data_dir;
    // "host:port" to serve at; port 0 picks a free one.
    std::string listen = "127.0.0.1:0";
    // "debug", "info", "warn", "error": the log goes to stderr; empty: there is none.
    std::string log_level;
  };

  // Serves when it returns.
  //   Unavailable         the address is in use, or the server does not become ready within 10 s
  //   FailedPrecondition  the data directory is in use, or another member's
  static absl::StatusOr<std::unique_ptr<EmbeddedServer>> Start(Options options);
  ~EmbeddedServer();
  EmbeddedServer(const EmbeddedServer&) = delete;
  EmbeddedServer& operator=(const EmbeddedServer&) = delete;

  // "127.0.0.1:34567"
  std::string client_endpoint() const;
  const std::string& data_dir() const;

  // Ends it; idempotent, and done by the destructor. Everything acknowledged is on the disk.
  void Stop();

 private:
  class Impl;
  explicit EmbeddedServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave
