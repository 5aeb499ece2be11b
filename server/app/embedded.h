// EmbeddedServer: a Conclave server of one member inside this process. For tests, examples, tools,
// and programs that bring their coordination along.
//
//   auto server = conclave::EmbeddedServer::Start({.in_memory = true});
//   // ... connect to (*server)->client_endpoint()
//
// It is the whole server, on a port of its own and on the machine's clock; any client may connect.
// A test that wants to move the clock, or faults, takes conclave::testing::FakeServer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace conclave {

class EmbeddedServer {
 public:
  struct Options {
    // Where the data stays. Empty: a temporary directory, which is removed when the server ends.
    std::string data_dir{};
    // Everything stays in memory, twice, and ends with the server; nothing is written anywhere.
    // data_dir must be empty then.
    bool in_memory = false;
    // "host:port" to serve at; port 0 picks a free one.
    std::string listen = "127.0.0.1:0";
    // PEM files, which are read anew when they change. Both empty: plain text.
    std::string tls_cert_file{};  // with what leads to its root
    std::string tls_key_file{};
    // Clients must show a certificate that comes from there; empty: none.
    std::string tls_ca_file{};
    bool tls_client_cert_auth = false;  // the common name in it is the client's user
    // As clients see it in the list of members. A data directory belongs to one name.
    std::string name = "embedded";
    // Of live data; beyond it writes are refused. 0: 2 GiB.
    int64_t quota_bytes = 0;
    // "debug", "info", "warn", "error": the log goes to stderr; empty: there is none.
    std::string log_level{};
  };

  // Serves when it returns.
  //   Unavailable         the address is in use, or the server does not become ready within 10 s
  //   FailedPrecondition  the data directory is in use, or another member's
  //   InvalidArgument     the options do not fit together; the message says why
  static absl::StatusOr<std::unique_ptr<EmbeddedServer>> Start(Options options);
  ~EmbeddedServer();
  EmbeddedServer(const EmbeddedServer&) = delete;
  EmbeddedServer& operator=(const EmbeddedServer&) = delete;

  // "127.0.0.1:34567"; with TLS "https://127.0.0.1:34567"
  std::string client_endpoint() const;
  // Empty if it is in memory.
  const std::string& data_dir() const;

  // Ends it; idempotent, and done by the destructor. Everything acknowledged is on the disk, if
  // there is one.
  void Stop();

 private:
  class Impl;
  explicit EmbeddedServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave
