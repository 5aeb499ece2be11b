// Who is there? Prints a service's instances as they come and go.
//
//   discovery_demo --endpoints 127.0.0.1:2379 --service my-service
//
// For programs that balance by themselves, or want to see the fleet. Ends at SIGINT or SIGTERM.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/examples/flags.h"
#include "conclave/examples/pause.h"

namespace conclave::examples {
namespace {

void Print(const Snapshot& now, const Delta& delta) {
  for (const Instance& instance : delta.added) {
    std::printf("joined %s\n", instance.address.c_str());
  }
  for (const Instance& instance : delta.updated) {
    std::printf("changed %s: %s\n", instance.address.c_str(),
                std::string(InstanceStateName(instance.state)).c_str());
  }
  for (const Instance& instance : delta.removed) {
    std::printf("left %s\n", instance.address.c_str());
  }
  if (now.stale_since().has_value()) std::printf("the registry is out of reach\n");
  std::printf("%zu instances at revision %lld\n", now.instances().size(),
              static_cast<long long>(now.revision()));
  std::fflush(stdout);
}

int Run(const std::vector<std::string>& endpoints, const std::string& name) {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = endpoints});
  if (!client.ok()) {
    std::fprintf(stderr, "discovery_demo: %s\n", client.status().ToString().c_str());
    return 1;
  }
  Discovery discovery(*client);
  absl::StatusOr<Service> service = discovery.Watch(name);
  if (!service.ok()) {
    std::fprintf(stderr, "discovery_demo: %s\n", service.status().ToString().c_str());
    return 1;
  }
  // First comes all that is there, then each change.
  Subscription subscription = service->Subscribe(&Print);
  WaitForSignal();
  return 0;
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  conclave::examples::BlockSignals();
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  std::string service = "my-service";
  conclave::examples::Flags("Prints the instances of a service as they come and go.")
      .List("endpoints", "members of the cluster, host:port", &endpoints)
      .Text("service", "the name to watch", &service)
      .Parse(argc, argv);
  return conclave::examples::Run(endpoints, service);
}
