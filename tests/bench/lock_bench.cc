// What a lock costs: against one transaction of the same client on the same server, in turn; and
// what it costs to hand it over when a hundred wait.
//
//   lock_bench [etcd|conclave] [--rounds N]
//
// It starts a server of its own (TestCluster). Requests are counted by the store's own clock where
// they write, and by the server's metrics where it has them (etcd).
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "conclave/lock/lock.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

constexpr int kWaiters = 100;

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "lock_bench: %s\n", why.c_str());
  std::exit(1);
}

template <typename Result>
auto Must(Result result) {
  if (!result.ok()) Die(result.status().ToString());
  return *std::move(result);
}

double Microseconds(const std::function<void()>& work) {
  const absl::Time start = absl::Now();
  work();
  return absl::ToDoubleMicroseconds(absl::Now() - start);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// All Txn and Range calls that the server has begun; -1: it does not say.
double Requests(const std::string& endpoint) {
  auto page = testing::RunCommand({"curl", "-s", absl::StrCat("http://", endpoint, "/metrics")});
  if (!page.ok()) return -1;
  double sum = -1;
  for (absl::string_view line : absl::StrSplit(*page, '\n')) {
    if (line.rfind("grpc_server_started_total", 0) != 0) continue;
    if (line.find("\"Txn\"") == line.npos && line.find("\"Range\"") == line.npos) continue;
    double value = 0;
    if (absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &value))
      sum = std::max(sum, 0.0) + value;
  }
  return sum;
}

void Uncontended(const Client& client, const Session& session, int rounds) {
  std::vector<double> txn, lock, unlock, try_lock, read, permit, two;
  Mutex mutex(session, "bench/mutex");
  RWMutex rw(session, "bench/rw");
  Semaphore semaphore(session, "bench/semaphore", {.permits = 4});
  MultiLock multi(session, {"bench/a", "bench/b"});
  const TxnRequest put{
      .conditions = {Absent("bench/absent")},
      .success = {Put("bench/key", "v", {.lease = session.lease_id()}), Range("bench/key")}};
  const auto time_lock = [](auto acquire, std::vector<double>& times) {
    using Guard = std::decay_t<decltype(*acquire())>;
    std::optional<Guard> guard;
    times.push_back(Microseconds([&] { guard.emplace(Must(acquire())); }));
    if (absl::Status status = guard->Unlock(); !status.ok()) Die(status.ToString());
  };
  for (int i = 0; i < rounds; ++i) {
    txn.push_back(Microseconds([&] { Must(client.Commit(put)); }));
    std::optional<LockGuard> guard;
    lock.push_back(Microseconds([&] { guard.emplace(Must(mutex.Lock())); }));
    unlock.push_back(Microseconds([&] { (void)guard->Unlock(); }));
    try_lock.push_back(Microseconds([&] { guard = std::move(*Must(mutex.TryLock()).guard); }));
    (void)guard->Unlock();
    time_lock([&] { return rw.ReadLock(); }, read);
    time_lock([&] { return semaphore.Acquire(); }, permit);
    time_lock([&] { return multi.Lock(); }, two);
  }
  const double base = Median(txn);
  const auto row = [base](const char* what, std::vector<double>& times) {
    const double median = Median(times);
    std::printf("%-28s %8.0f us  %5.2f of a transaction\n", what, median, median / base);
  };
  row("one Txn (put, range)", txn);
  row("Mutex::Lock", lock);
  row("Mutex::TryLock", try_lock);
  row("LockGuard::Unlock", unlock);
  row("RWMutex::ReadLock", read);
  row("Semaphore::Acquire", permit);
  row("MultiLock::Lock, two names", two);
}

// A hundred sessions wait for one lock; each that gets it unlocks at once.
void HandOver(const Client& client, const std::string& endpoint) {
  std::vector<Session> sessions;
  for (int i = 0; i <= kWaiters; ++i) {
    sessions.push_back(Must(client.OpenSession({.ttl = absl::Seconds(60)})));
  }
  LockGuard first = Must(Mutex(sessions[0], "bench/crowd").Lock());
  std::mutex mutex;
  std::condition_variable bell;
  int done = 0;  // guarded by mutex
  for (int i = 1; i <= kWaiters; ++i) {
    Mutex(sessions[i], "bench/crowd").LockAsync({}, [&](absl::StatusOr<LockGuard> guard) {
      if (!guard.ok()) Die(guard.status().ToString());
      { LockGuard over = *std::move(guard); }
      std::lock_guard lock(mutex);
      ++done;
      bell.notify_one();
    });
  }
  while (Must(client.Range(Prefix("bench/crowd/"), {.count_only = true})).count < kWaiters + 1) {
    std::this_thread::yield();
  }
  const double before = Requests(endpoint);
  const double us = Microseconds([&] {
    (void)first.Unlock();
    std::unique_lock lock(mutex);
    bell.wait(lock, [&] { return done == kWaiters; });
  });
  const double after = Requests(endpoint);
  std::printf("%-28s %8.0f us", "hand-over, of 100 waiters", us / kWaiters);
  if (before >= 0) std::printf("  %5.2f requests", (after - before) / kWaiters);
  std::printf("\n");
}

int Main(int argc, char** argv) {
  testing::ServerUnderTest server{testing::ServerKind::kConclave, 1};
  int rounds = 1000;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "etcd") server.kind = testing::ServerKind::kEtcd;
    if (argument == "--rounds" && i + 1 < argc) rounds = std::max(1, std::atoi(argv[++i]));
  }
  auto cluster = Must(testing::TestCluster::Start(server));
  Client client = Must(Client::Connect({.endpoints = cluster->endpoints()}));
  Session session = Must(client.OpenSession({.ttl = absl::Seconds(60)}));
  Uncontended(client, session, rounds);
  HandOver(client, cluster->endpoint(0));
  return 0;
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) { return conclave::Main(argc, argv); }
