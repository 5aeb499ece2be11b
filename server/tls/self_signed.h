// Certificates that a member makes for itself, for --auto-tls and --peer-auto-tls.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace conclave::tls {

struct SelfSigned {
  std::string cert_file;
  std::string key_file;
  bool is_new = false;
};

// cert.pem and key.pem in `directory`, for the names and addresses in `hosts`, for clients and
// servers alike. Made if they are not there, or if the certificate has expired; else kept as they
// are, so that those who have seen them know them again.
//   InvalidArgument     less than a year
//   FailedPrecondition  the directory cannot be written; names it
absl::StatusOr<SelfSigned> KeepSelfSigned(const std::string& directory,
                                          const std::vector<std::string>& hosts, int years);

}  // namespace conclave::tls
