// How a client speaks TLS.
#pragma once

#include <string>

namespace conclave {

// Paths of PEM files. They are looked at again every few seconds: new connections use what stands
// there then, and the Client stays as it is.
struct TlsOptions {
  // Authorities that servers' certificates come from. Empty: the machine's own list.
  std::string ca_file{};
  // Shown to servers that ask for it; both or neither.
  std::string cert_file{};
  std::string key_file{};
  // The name that servers' certificates must be made for, instead of the host that is dialled.
  std::string server_name{};
  // Believe whoever answers: for tests, and for servers that made their certificate themselves.
  bool insecure_skip_verify = false;
};

}  // namespace conclave
