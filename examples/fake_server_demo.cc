// What happens to a lock, a leader and a registration when things go wrong: an hour and a half in a
// few milliseconds, in one process, without a network.
//
//   fake_server_demo
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/lock/mutex.h"
#include "conclave/registry/registry.h"
#include "conclave/testing/fake_server.h"

namespace conclave::examples {
namespace {

using testing::FakeServer;

void Say(const FakeServer& server, const std::string& what) {
  std::printf("%s  %s\n", absl::FormatDuration(server.elapsed()).c_str(), what.c_str());
}

absl::Status Tour() {
  FakeServer server;
  // An hour of outage is an hour of warnings; here nobody wants them.
  const LogSink silent = [](LogLevel, std::string_view) {};
  Client first = server.Connect({.log_sink = silent});
  Client second = server.Connect({.log_sink = silent});

  // 1. The holder of a lock loses the network.
  CONCLAVE_ASSIGN_OR_RETURN(Session session, first.OpenSession({.ttl = absl::Seconds(10)}));
  CONCLAVE_ASSIGN_OR_RETURN(LockGuard guard, Mutex(session, "locks/rebuild").Lock());
  Say(server, "a lock is held, token " + std::to_string(guard.token()));
  server.Partition(first);
  if (!server.AdvanceUntil([&] { return !guard.held(); })) {
    return absl::InternalError("the holder still believes in its lock");
  }
  Say(server, "its holder, cut off, does not believe in it any more");
  CONCLAVE_ASSIGN_OR_RETURN(Session other, second.OpenSession());
  if (!server.AdvanceUntil([&] { return server.Keys("locks/rebuild/").empty(); })) {
    return absl::InternalError("the lock is never free again");
  }
  CONCLAVE_ASSIGN_OR_RETURN(LockGuard next, Mutex(other, "locks/rebuild").Lock());
  Say(server, "the next one has it, token " + std::to_string(next.token()));
  server.Heal();

  // 2. A registration survives an hour without a server.
  Registry registry(second);
  CONCLAVE_ASSIGN_OR_RETURN(Registration registration,
                            registry.Register({.service = "billing", .address = "10.0.0.1:80"}));
  const auto there = [&server] { return server.Keys("billing/").size() == 1; };
  if (!server.AdvanceUntil(there)) return absl::InternalError("it is not registered");
  Say(server, "an instance is registered");
  server.Kill();
  server.Advance(absl::Hours(1));
  server.Start();
  if (!server.AdvanceUntil(there)) return absl::InternalError("it does not come back");
  Say(server, "after an hour without a server it is registered again");

  // 3. A write whose answer is lost.
  server.LoseAnswer("Put");
  const absl::Status status = second.Put("account", "100").status();
  Say(server, "a write of unknown outcome: " + std::string(status.message()));
  if (!IsOutcomeUnknown(status) || server.Value("account") != "100") {
    return absl::InternalError("it was to be written, and its writer not to know");
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace conclave::examples

int main() {
  const absl::Status status = conclave::examples::Tour();
  if (!status.ok()) {
    std::fprintf(stderr, "fake_server_demo: %s\n", status.ToString().c_str());
    return 1;
  }
  std::printf("fake_server_demo: ok\n");
  return 0;
}
