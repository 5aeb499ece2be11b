// FakeServer: a whole Conclave inside a test, on a clock that the test moves, and with faults at
// its command.
//
//   conclave::testing::FakeServer server;
//   conclave::Client client = server.Connect();                  // an ordinary client
//   absl::StatusOr<conclave::Session> session = client.OpenSession({.ttl = absl::Seconds(10)});
//   server.Partition(client);
//   server.Advance(absl::Seconds(10));                            // takes a millisecond
//   EXPECT_FALSE(session->alive());
//
// Nothing in it is a mock: the server is the production node with its log and its recovery, on a
// disk in memory; the client is the production client with all recipes on it. Only the sockets, the
// disk and the clock are others. So it behaves as a server does, and in an hour as well.
//
// Time stands until Advance or AdvanceUntil moves it. Calls, answers and events of watches need no
// time, so blocking calls work while it stands; leases, timeouts, retries and pauses wait for it.
// It goes from one deadline to the next: whatever is due at one happens, with all that follows from
// it, and the callbacks of clients that are queued run, before it goes on. A callback that does not
// return is waited for 200 ms of the machine's time. A thread of the test's own that got an answer
// is given a millisecond to say what it wants next, and no more: let it wait on the client's clock
// (in a call), and use AdvanceUntil for what it does.
//
// A call that can only end by its timeout (the server is paused, say) blocks its thread until
// another one moves the clock. With auto_advance it does not: then the clock runs, from deadline to
// deadline, whenever a thread waits in a call of a client and nothing else can happen. It always
// does so for the calls of destructors; and, with a line on stderr, when a thread has waited for 2
// s of the machine's time and nobody has moved the clock, so that no test hangs.
//
// Thread-safe. Not to be called from the log sink of a client. Clients may outlive the server: it
// is then gone for good, and what they still want fails at its deadline, at once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"

namespace conclave::testing {

class FakeServer {
 public:
  struct Options {
    bool auto_advance = false;
    uint64_t seed = 1;        // of the server's own choices (lease ids, jitter)
    int64_t quota_bytes = 0;  // 0: 2 GiB
  };

  FakeServer();
  explicit FakeServer(const Options& options);
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  // A client of its own, with a connection of its own. Of the options, endpoints and what else is
  // of the network have no meaning here.
  Client Connect(ConnectOptions options = {});

  // ---- Time.

  // Since the server began.
  absl::Duration elapsed() const;
  // Moves the clock. Advance(absl::ZeroDuration()) waits until all that can happen now, callbacks
  // included, has happened.
  void Advance(absl::Duration duration);
  // Moves the clock from deadline to deadline until the condition holds, at most by `limit`. Gives
  // whether it holds; false comes half a second late, in case other threads are behind.
  bool AdvanceUntil(absl::FunctionRef<bool()> condition, absl::Duration limit = absl::Minutes(10));

  // ---- The network. While a connection is cut, what is sent on it waits, as with TCP, and arrives
  // after Heal; after 13 s both ends give it up, and what was under way fails.

  void Partition();                      // of all clients
  void Partition(const Client& client);  // of this one
  void Heal();
  // All connections break, and can be made anew at once. Watches and renewals resume.
  void BreakConnections();

  // ---- Single calls. `method` is the protocol's name without the service: "Put", "Range", "Txn",
  // "DeleteRange", "LeaseGrant", "LeaseRevoke", ...; for streams "Watch", "LeaseKeepAlive" (when
  // one is opened). A fault waits for the next call of its method, or lets `passing` of them by
  // first.

  // The server refuses the next `count` calls with this status and does nothing.
  void FailNext(std::string_view method, const absl::Status& status, int count = 1);
  // The next call gets lost together with its connection: it is not carried out, and the caller
  // cannot know that.
  void DropNext(std::string_view method, int passing = 0);
  // The next call is carried out, and its answer gets lost together with the connection. For the
  // caller it looks the same.
  void LoseAnswer(std::string_view method, int passing = 0);
  // Faults of the three kinds above that no call has met yet will not come.
  void ForgetFaults();

  // ---- The server's process.

  void Kill();  // connections break, and are refused from now on
  // Recovers from its disk. The clock moves until it serves: a second or two.
  void Start();
  void Restart();  // both
  // It stands still, as under SIGSTOP: nothing is answered, and it gives up nothing.
  void Pause();
  void Resume();

  // ---- A client's process. A frozen client does nothing, while its leases run out; calls of it
  // block until it thaws. It thaws by itself when a handle of it that must say goodbye (a Session,
  // a Registration) is destroyed.

  void Freeze(const Client& client);
  void Thaw(const Client& client);

  // ---- The hands of others. FailedPrecondition while the server is killed or paused; else what a
  // client would get.

  absl::Status Put(std::string_view key, std::string_view value);
  absl::Status DeleteKey(std::string_view key);
  absl::Status RevokeLease(LeaseId lease);
  // Its renewals do not reach the server any more, and the clock moves until it has run out (or a
  // session has given it up a little before, at its local deadline). NotFound: there is no such
  // lease.
  absl::Status ExpireLease(LeaseId lease);
  // Forgets the history before `revision`; 0: all of it.
  absl::Status Compact(int64_t revision = 0);

  // ---- What is in it. Empty while it is killed.

  // In the order of keys.
  std::vector<KeyValue> Keys(std::string_view prefix = "") const;
  std::optional<std::string> Value(std::string_view key) const;
  int64_t revision() const;

  struct LeaseInfo {
    LeaseId id = 0;
    absl::Duration granted_ttl{};
    absl::Duration remaining_ttl{};
    std::vector<std::string> keys{};
  };
  // By id. FailedPrecondition while the server is paused or killed.
  absl::StatusOr<std::vector<LeaseInfo>> Leases() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::testing
