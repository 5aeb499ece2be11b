// Policy: what one kind of port demands of TLS, and what a server shows when it dials: one object
// for the client port's listeners, one for the peer port's listeners and the links to peers. There
// is no other place where a certificate is judged.
//
// Files are read anew without a restart: each handshake compares the files' identities (inode,
// size, time of change) with those that were loaded, and loads all of them again when one differs:
// certificate, key, CA and revocation list. What does not load, is inconsistent or half written
// leaves the old material in place, with one line in the log per state of the files; the next
// change is tried again.
//
// No session is ever resumed: a resumed one would not show its certificate again, and a revocation
// would not be seen.
//
// Threads: any; a mutex guards the material, which is immutable and lives as long as a connection
// uses it. Limits: kFileBytesMax a file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/tls/names.h"

namespace conclave::tls {

class Material;
class Stream;

inline constexpr size_t kFileBytesMax = 4u << 20;
// Certificates between a leaf and its root.
inline constexpr int kChainDepthMax = 10;

struct Options {
  std::string cert_file{};  // PEM: the leaf, then what leads to the root
  std::string key_file{};
  // What is shown when dialling; empty: the two above.
  std::string client_cert_file{};
  std::string client_key_file{};
  // PEM: who is believed. With it, clients must show a certificate. Empty: nobody is asked for one,
  // and when dialling, the machine's own list counts.
  std::string ca_file{};
  std::string crl_file{};  // PEM or DER
  // The name in a client's certificate is the client's user name.
  bool client_cert_auth = false;
  // Of clients' certificates; one must match. Empty: any.
  std::vector<std::string> allowed_names{};
  std::vector<std::string> allowed_hostnames{};
  std::vector<std::string> cipher_suites{};  // Go's names
  Version version_min = Version::kTls12;
  Version version_max = Version::kAny;
  // Callers' certificates must be made for where they call from (address_check.h), if they say so.
  bool check_addresses = false;
  // When dialling, believe everybody: certificates that members made for themselves.
  bool trust_any_server = false;

  bool empty() const { return cert_file.empty() && key_file.empty(); }
};

// What a listener speaks inside TLS, for the choice of a protocol in the handshake (ALPN).
enum class Speaks : uint8_t {
  kHttp,         // HTTP/2 for whoever knows it, HTTP/1.1 for all others
  kHttp2,        // HTTP/2 only
  kPeerStreams,  // a protocol of our own; nothing is negotiated
};

class Policy {
 public:
  struct Note {
    bool is_warning = false;
    std::string message;
    std::vector<std::pair<std::string, std::string>> fields;
  };
  using Log = std::function<void(Note)>;  // any thread

  //   InvalidArgument     options that do not fit together; the message is etcd's where it has one
  //   FailedPrecondition  a file that cannot be read or is not what it should be; names it
  static absl::StatusOr<std::unique_ptr<Policy>> Create(Options options, Log log);
  ~Policy();
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

  // The server's side of a connection on `fd`, which does not block and stays the caller's.
  std::unique_ptr<Stream> Accept(int fd, Speaks speaks);
  // The dialling side. `host` is a name or an IP address that the other side's certificate must be
  // made for; empty: any (unix sockets).
  std::unique_ptr<Stream> Connect(int fd, const std::string& host);

  // The same for who has shown a certificate to somebody else's TLS: `leaf` and what leads from it
  // to its root, in PEM; no leaf is good where nobody is asked for one.
  //   Unauthenticated  says why not
  absl::Status JudgeClient(std::string_view leaf, std::string_view chain);

  // Loads the files if they have changed. Gives the material's number, which grows with each load.
  uint64_t Refresh();
  // Whether the other side of an established connection would still be believed: its certificate
  // is not revoked now, has not expired, and comes from whom we believe.
  bool StillAccepts(const Stream& stream) const;

  const Options& options() const { return options_; }

 private:
  Policy(Options options, Log log);
  std::shared_ptr<const Material> current() const;

  const Options options_;
  const Log log_;
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace conclave::tls
