// One leader among many candidates.
//
//   election_demo --endpoints 127.0.0.1:2379 --name elections/demo --id red
//
// Campaigns, leads until it is stopped or its session is lost, then campaigns again. Prints "leads,
// term N" when it leads; terms grow from leader to leader, so they fence off what an old leader may
// still be doing. Prints, too, whom the others see leading. SIGINT and SIGTERM make it resign, so
// that the next candidate need not wait for its lease to run out.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <semaphore>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/election/election.h"
#include "conclave/examples/flags.h"
#include "conclave/examples/pause.h"

namespace conclave::examples {
namespace {

struct Settings {
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  std::string name = "elections/demo";
  std::string id = "candidate-" + std::to_string(getpid());
  absl::Duration ttl = absl::Seconds(10);
};

void WaitForEither(const std::stop_token& one, const std::stop_token& other) {
  std::counting_semaphore<2> stopped(0);
  const auto release = [&stopped] { stopped.release(); };
  const std::stop_callback first(one, release);
  const std::stop_callback second(other, release);
  stopped.acquire();
}

// One term: from candidate to leader to the end of it.
absl::Status Serve(const Client& client, Election& election, const Settings& settings,
                   const std::stop_token& stop) {
  // A session is one lease. When it is lost, so is what was won with it; the next try needs a new
  // one.
  CONCLAVE_ASSIGN_OR_RETURN(Session session,
                            client.OpenSession({.ttl = settings.ttl}, {.stop = stop}));
  CONCLAVE_ASSIGN_OR_RETURN(Leadership leadership,
                            election.Campaign(session, settings.id, {.stop = stop}));
  std::printf("leads, term %lld\n", static_cast<long long>(leadership.term()));
  std::fflush(stdout);
  // Here a leader does its work, for as long as its stop_token does not fire.
  WaitForEither(stop, leadership.stop_token());
  CONCLAVE_RETURN_IF_ERROR(leadership.Resign());
  return session.Close();
}

int Run(const Settings& settings) {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = settings.endpoints});
  if (!client.ok()) {
    std::fprintf(stderr, "election_demo: %s\n", client.status().ToString().c_str());
    return 1;
  }
  Election election(*client, settings.name);
  Observation observation = election.Observe([](const std::optional<LeaderInfo>& leader) {
    std::printf("the leader is %s\n", leader.has_value() ? leader->proposal.c_str() : "nobody");
    std::fflush(stdout);
  });
  std::jthread candidate([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      const absl::Status status = Serve(*client, election, settings, stop);
      if (!status.ok() && !stop.stop_requested()) {
        std::fprintf(stderr, "election_demo: %s; trying again\n", status.ToString().c_str());
        std::binary_semaphore stopped(0);
        const std::stop_callback wake(stop, [&stopped] { stopped.release(); });
        (void)stopped.try_acquire_for(std::chrono::milliseconds(500));
      }
    }
  });
  WaitForSignal();
  candidate.request_stop();
  candidate.join();
  return 0;
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  conclave::examples::BlockSignals();
  conclave::examples::Settings settings;
  conclave::examples::Flags("Takes part in an election, and leads when it wins.")
      .List("endpoints", "members of the cluster, host:port", &settings.endpoints)
      .Text("name", "of the election", &settings.name)
      .Text("id", "who we are; what observers see", &settings.id)
      .Time("ttl", "of the session: how long a dead leader blocks the others", &settings.ttl)
      .Parse(argc, argv);
  return conclave::examples::Run(settings);
}
