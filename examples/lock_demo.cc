// A lock that one process in the whole cluster holds.
//
//   lock_demo --endpoints 127.0.0.1:2379 --name locks/demo --holder alice --rounds 5
//
// Takes and gives back the lock some times. Each time it gets a fencing token, which is larger than
// that of every holder before it: whatever the lock protects should refuse an older token than the
// newest it has seen, because a process that was stopped for too long cannot know that its lock is
// gone. With --journal it writes "<holder> <token>" to a file while it holds the lock: a resource
// that is not the store, where the order of the lines is the order of the holders.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/examples/flags.h"
#include "conclave/examples/pause.h"
#include "conclave/lock/mutex.h"

namespace conclave::examples {
namespace {

struct Settings {
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  std::string name = "locks/demo";
  std::string holder = "process-" + std::to_string(getpid());
  int64_t rounds = 5;
  absl::Duration hold = absl::Milliseconds(100);
  absl::Duration ttl = absl::Seconds(10);
  absl::Duration timeout = absl::Seconds(60);
  std::string journal;
};

absl::Status Append(const std::string& path, const std::string& line) {
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (file == nullptr) return absl::UnavailableError("cannot write " + path);
  std::fputs(line.c_str(), file);
  std::fclose(file);
  return absl::OkStatus();
}

absl::Status TakeTurns(const Settings& settings) {
  CONCLAVE_ASSIGN_OR_RETURN(Client client, Client::Connect({.endpoints = settings.endpoints}));
  // The lock lives on the session: should this process die, its lease runs out, and the next one is
  // let in.
  CONCLAVE_ASSIGN_OR_RETURN(Session session, client.OpenSession({.ttl = settings.ttl}));
  Mutex mutex(session, settings.name, {.info = settings.holder});
  for (int64_t round = 0; round < settings.rounds; ++round) {
    CONCLAVE_ASSIGN_OR_RETURN(LockGuard guard, mutex.Lock({.timeout = settings.timeout}));
    std::printf("%s has the lock, token %lld\n", settings.holder.c_str(),
                static_cast<long long>(guard.token()));
    std::fflush(stdout);
    if (!settings.journal.empty()) {
      CONCLAVE_RETURN_IF_ERROR(
          Append(settings.journal, settings.holder + " " + std::to_string(guard.token()) + "\n"));
    }
    // A write to the store that takes effect only while the lock is ours, whatever has happened
    // meanwhile.
    CONCLAVE_ASSIGN_OR_RETURN(TxnResult fenced,
                              client.Txn()
                                  .If(guard.StillHeld())
                                  .Then(Put(settings.name + ".last-holder", settings.holder))
                                  .Commit());
    if (!fenced.succeeded) return absl::AbortedError("the lock was lost");
    WaitForSignal(settings.hold);
    CONCLAVE_RETURN_IF_ERROR(guard.Unlock());  // says so if it was lost before
  }
  return session.Close();
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  conclave::examples::BlockSignals();
  conclave::examples::Settings settings;
  conclave::examples::Flags("Takes and gives back a lock, in turns with others.")
      .List("endpoints", "members of the cluster, host:port", &settings.endpoints)
      .Text("name", "of the lock", &settings.name)
      .Text("holder", "who we are", &settings.holder)
      .Number("rounds", "how often to take it", 1, &settings.rounds)
      .Time("hold", "how long to keep it each time", &settings.hold)
      .Time("ttl", "of the session: how long a dead holder keeps the lock", &settings.ttl)
      .Time("timeout", "how long to wait for our turn", &settings.timeout)
      .Text("journal", "a file that holders write to", &settings.journal)
      .Parse(argc, argv);
  const absl::Status status = conclave::examples::TakeTurns(settings);
  if (!status.ok()) std::fprintf(stderr, "lock_demo: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
