// A process that takes locks and does what must not be done by two at once:
//   lock_worker ENDPOINTS NAME ROUNDS FILE
//   lock_worker ENDPOINTS NAME count ROUNDS
//   lock_worker ENDPOINTS NAME hold KIND         mutex, read, write, permit or multi
// The first: each round reads the last number of FILE, appends the next one and its fencing token.
// The second: each round reads the number in the key NAME-counter and writes the next one, under
// the condition that the lock is still held. Prints the last number it saw. The third: takes the
// lock, prints "holding", and writes under its token until that is refused. Exits 1 with a line on
// stderr if anything was wrong.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_split.h"
#include "conclave/lock/lock.h"

namespace {

int Fail(const std::string& why) {
  std::cerr << why << "\n";
  return 1;
}

// Quiet: the tests read what it says.
absl::StatusOr<conclave::Client> Connect(const std::vector<std::string>& endpoints) {
  return conclave::Client::Connect(
      {.endpoints = endpoints, .log_sink = [](conclave::LogLevel, std::string_view) {}});
}

struct Line {
  int64_t number = 0;
  int64_t token = 0;
};

Line LastLine(const std::string& path) {
  std::ifstream file(path);
  Line line;
  while (file >> line.number >> line.token) {
  }
  return line;
}

int Run(const std::vector<std::string>& endpoints, const std::string& name, int rounds,
        const std::string& path) {
  auto client = Connect(endpoints);
  if (!client.ok()) return Fail(client.status().ToString());
  auto session = client->OpenSession({.ttl = absl::Seconds(10)});
  if (!session.ok()) return Fail(session.status().ToString());
  conclave::Mutex mutex(*session, name);
  for (int i = 0; i < rounds; ++i) {
    auto guard = mutex.Lock({.timeout = absl::Seconds(60)});
    if (!guard.ok()) return Fail(guard.status().ToString());
    const Line last = LastLine(path);
    if (guard->token() <= last.token) return Fail("the token did not grow");
    std::ofstream(path, std::ios::app) << last.number + 1 << " " << guard->token() << "\n";
    if (absl::Status status = guard->Unlock(); !status.ok()) return Fail(status.ToString());
  }
  return 0;
}

int Count(const std::vector<std::string>& endpoints, const std::string& name, int rounds) {
  auto client = Connect(endpoints);
  if (!client.ok()) return Fail(client.status().ToString());
  auto session = client->OpenSession({.ttl = absl::Seconds(10)});
  if (!session.ok()) return Fail(session.status().ToString());
  conclave::Mutex mutex(*session, name);
  const std::string counter = name + "-counter";
  int64_t last = 0;
  for (int i = 0; i < rounds; ++i) {
    auto guard = mutex.Lock({.timeout = absl::Seconds(60)});
    if (!guard.ok()) return Fail(guard.status().ToString());
    auto kv = client->Get(counter);
    if (!kv.ok()) return Fail(kv.status().ToString());
    last = (kv->has_value() ? std::atoll((*kv)->value.c_str()) : 0) + 1;
    auto write = client->Txn()
                     .If(guard->StillHeld())
                     .Then(conclave::Put(counter, std::to_string(last)))
                     .Commit();
    if (!write.ok() || !write->succeeded) return Fail("the write was refused");
    if (absl::Status status = guard->Unlock(); !status.ok()) return Fail(status.ToString());
  }
  std::cout << "counted " << last << std::endl;
  return 0;
}

// Any kind of lock, while it is held.
struct AnyGuard {
  std::variant<std::monostate, conclave::LockGuard, conclave::MultiLockGuard> guard{};

  bool held() const {
    if (const auto* one = std::get_if<conclave::LockGuard>(&guard)) return one->held();
    const auto* many = std::get_if<conclave::MultiLockGuard>(&guard);
    return many != nullptr && many->held();
  }
  std::vector<conclave::Compare> StillHeld() const {
    if (const auto* one = std::get_if<conclave::LockGuard>(&guard)) return {one->StillHeld()};
    return std::get<conclave::MultiLockGuard>(guard).StillHeld();
  }
};

absl::Status Take(const conclave::Session& session, const std::string& name,
                  const std::string& kind, AnyGuard& into) {
  const conclave::CallOptions call{.timeout = absl::Seconds(20)};
  const auto keep = [&into](auto made) {
    if (made.ok()) into.guard = *std::move(made);
    return made.status();
  };
  if (kind == "mutex") return keep(conclave::Mutex(session, name).Lock(call));
  if (kind == "read") return keep(conclave::RWMutex(session, name).ReadLock(call));
  if (kind == "write") return keep(conclave::RWMutex(session, name).WriteLock(call));
  if (kind == "permit") {
    return keep(conclave::Semaphore(session, name, {.permits = 2}).Acquire(2, call));
  }
  if (kind == "multi") return keep(conclave::MultiLock(session, {name, name + "-b"}).Lock(call));
  return absl::InvalidArgumentError("no such kind: " + kind);
}

int Hold(const std::vector<std::string>& endpoints, const std::string& name,
         const std::string& kind) {
  auto client = Connect(endpoints);
  if (!client.ok()) return Fail(client.status().ToString());
  auto session = client->OpenSession({.ttl = absl::Seconds(2)});
  if (!session.ok()) return Fail(session.status().ToString());
  AnyGuard guard;
  if (absl::Status taken = Take(*session, name, kind, guard); !taken.ok()) {
    return Fail(taken.ToString());
  }
  std::cout << "holding" << std::endl;
  conclave::TxnRequest request{.conditions = guard.StillHeld(),
                               .success = {conclave::Put(name + "-data", kind)}};
  for (;;) {
    const bool held = guard.held();
    auto write = client->Commit(request, {.timeout = absl::Seconds(10)});
    if (!write.ok()) return Fail(write.status().ToString());
    if (!write->succeeded) break;
    if (!held) return Fail("a write under a lost lock was not refused");
  }
  if (guard.held()) return Fail("still believes that it holds the lock");
  std::cout << "refused" << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5)
    return Fail("usage: lock_worker ENDPOINTS NAME ROUNDS|count|hold FILE|ROUNDS|KIND");
  const std::vector<std::string> endpoints = absl::StrSplit(argv[1], ',');
  const std::string what = argv[3];
  if (what == "hold") return Hold(endpoints, argv[2], argv[4]);
  if (what == "count") return Count(endpoints, argv[2], std::atoi(argv[4]));
  return Run(endpoints, argv[2], std::atoi(argv[3]), argv[4]);
}
