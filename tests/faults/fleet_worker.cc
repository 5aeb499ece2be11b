// A process that registers one instance and goes on until it is killed.
//   fleet_worker ENDPOINTS SERVICE ADDRESS TTL_SECONDS
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_split.h"
#include "conclave/client/client.h"
#include "conclave/registry/graceful_stop.h"
#include "conclave/registry/registry.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  auto client = conclave::Client::Connect({.endpoints = absl::StrSplit(argv[1], ',')});
  if (!client.ok()) return 1;
  conclave::Registry registry(*client);
  auto registration = registry.Register({.service = argv[2], .address = argv[3]},
                                        {.ttl = absl::Seconds(std::atoi(argv[4]))});
  if (!registration.ok() || !registration->WaitRegistered(absl::Seconds(20)).ok()) return 1;
  std::printf("registered\n");
  std::fflush(stdout);
  conclave::RunUntilSignal({&*registration}, {});
  return 0;
}
