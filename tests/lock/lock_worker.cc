// A process that takes a lock many times and does in it what must not be done by two at once:
//   lock_worker ENDPOINTS NAME ROUNDS FILE
//   lock_worker ENDPOINTS NAME hold FILE
// The first: each round reads the last number of FILE, appends the next one and its fencing token.
// Exits 1 with a line on stderr if anything was wrong.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "conclave/lock/mutex.h"

namespace {

int Fail(const std::string& why) {
  std::cerr << why << "\n";
  return 1;
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
  auto client = conclave::Client::Connect({.endpoints = endpoints});
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

int Hold(const std::vector<std::string>& endpoints, const std::string& name) {
  auto client = conclave::Client::Connect({.endpoints = endpoints});
  if (!client.ok()) return Fail(client.status().ToString());
  auto session = client->OpenSession({.ttl = absl::Seconds(2)});
  if (!session.ok()) return Fail(session.status().ToString());
  conclave::Mutex mutex(*session, name);
  auto guard = mutex.Lock({.timeout = absl::Seconds(20)});
  if (!guard.ok()) return Fail(guard.status().ToString());
  std::cout << "holding" << std::endl;
  for (;;) {
    const bool held = guard->held();
    auto write = client->Txn()
                     .If(guard->StillHeld())
                     .Then(conclave::Put(name + "-data", std::to_string(guard->token())))
                     .Commit({.timeout = absl::Seconds(10)});
    if (!write.ok()) return Fail(write.status().ToString());
    if (!write->succeeded) break;
    if (!held) return Fail("a write under a lost lock was not refused");
  }
  if (guard->held()) return Fail("still believes that it holds the lock");
  std::cout << "refused" << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return Fail("usage: lock_worker ENDPOINTS NAME ROUNDS FILE");
  if (std::string(argv[3]) == "hold") return Hold(absl::StrSplit(argv[1], ','), argv[2]);
  return Run(absl::StrSplit(argv[1], ','), argv[2], std::atoi(argv[3]), argv[4]);
}
