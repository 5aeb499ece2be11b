// One line about each member of a cluster: "<endpoint> leader|follower|unreachable ...".
//
//   cluster_status --endpoints 127.0.0.1:2379,127.0.0.1:22379
//
// The exit code is 0 if some member leads.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/examples/flags.h"

namespace conclave::examples {
namespace {

int Run(const std::vector<std::string>& endpoints, absl::Duration timeout) {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = endpoints});
  if (!client.ok()) {
    std::fprintf(stderr, "cluster_status: %s\n", client.status().ToString().c_str());
    return 1;
  }
  bool led = false;
  for (const std::string& endpoint : client->endpoints()) {
    const absl::StatusOr<MemberStatus> status = client->Status(endpoint, {.timeout = timeout});
    if (!status.ok()) {
      std::printf("%s unreachable: %s\n", endpoint.c_str(),
                  std::string(status.status().message()).c_str());
      continue;
    }
    const bool leads = status->leader == status->member_id;
    led |= leads;
    std::printf("%s %s term %llu revision %lld version %s\n", endpoint.c_str(),
                leads ? "leader" : "follower", static_cast<unsigned long long>(status->raft_term),
                static_cast<long long>(status->revision), status->version.c_str());
  }
  return led ? 0 : 1;
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  absl::Duration timeout = absl::Seconds(2);
  conclave::examples::Flags("Tells who leads a cluster.")
      .List("endpoints", "members of the cluster, host:port", &endpoints)
      .Time("timeout", "for each member", &timeout)
      .Parse(argc, argv);
  return conclave::examples::Run(endpoints, timeout);
}
