// What the recipes' processes did and heard: the material of their checkers. Plain data; all times
// are the world's, not the processes' own.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/tests/sim/recipes/coordination_history.h"

namespace conclave::sim {

// One lease, as seen on its client's wire.
struct LeaseTrace {
  struct Renewal {
    Instant sent;
    Instant returned;
  };
  struct Belief {
    Instant told;
    Instant until;
  };
  int64_t id = 0;
  Duration ttl{};
  Instant granted;                   // when the acknowledged grant was sent
  std::vector<Renewal> renewals{};   // the acknowledged ones
  std::vector<Belief> beliefs{};     // until when its session said that it lives
  Instant last_attempt;              // of any renewal, or of the grant
  Instant revoked = kNever;          // when its client first asked for its end
  Instant told_gone = kNever;        // when a renewal was first answered so
  std::vector<std::string> marks{};  // keys on it, written in one transaction, that nobody deletes
};

// What those who claim a name at the same time may be to each other.
enum class LockKind : uint8_t {
  kAlone,    // Mutex, MultiLock, elections: keys "<name>/..."
  kShared,   // RWMutex: keys "<name>/read/..." and "<name>/write/..."
  kPermits,  // Semaphore: keys "<name>/queue/...x<permits>"
};
// A writer takes all of a name, a reader one part: so many readers there may be.
constexpr int64_t kReadersMax = 1'000'000;

// One attempt to own a lock's or an election's name. A MultiLock is one for each of its names.
struct ClaimTrace {
  int process = 0;  // and its life: another one after a crash
  std::string name{};
  LockKind kind = LockKind::kAlone;
  int64_t wanted = 1;  // of
  int64_t parts = 1;   // of the name, which all holders together never exceed
  std::string key{};
  int64_t lease = 0;
  int together = 0;         // the same number: one MultiLock; 0: none
  bool downgraded = false;  // a reader by the key and the token of the writer that it was
  Instant asked;
  Instant answered = kNever;
  bool granted = false;
  int64_t token = 0;
  // Of a granted one: when its handle said for the first time that it is not held any more: given
  // up, lost, the local deadline passed by the clock, or the process died.
  Instant invalid = kNever;
  // When nothing of it may be left, as far as its owner was told: not granted, or given up.
  Instant over = kNever;
};

// What an observer of an election heard, batch by batch of its watch.
struct LeaderSeen {
  std::string key{};
  std::string proposal{};
  int64_t lease = 0;
  int64_t term = 0;
  friend bool operator==(const LeaderSeen&, const LeaderSeen&) = default;
};
struct ObserverTrace {
  struct Batch {
    int64_t revision = 0;
    bool resynced = false;
    std::vector<std::optional<LeaderSeen>> changes{};
  };
  std::string prefix{};
  std::vector<Batch> batches{};
  bool must_be_complete = false;  // it was given the time to hear everything
};

// What a resolver's view of a service was, whenever it changed.
struct ViewTrace {
  struct View {
    Instant at;
    int64_t revision = 0;
    std::vector<std::string> keys{};  // ascending
  };
  std::string prefix{};
  std::vector<View> views{};
  Instant attentive_from = kNever;  // from then on it is in touch, and must be up to date
  bool must_be_complete = false;
};

// One registered instance, as its process sees it.
struct InstanceTrace {
  std::string key{};
  Duration ttl{};
  Instant started;
  Instant stopped = kNever;  // deregistered, or killed
  bool disturbed = false;    // its process was paused, killed, or cut off from the cluster
};

struct RecipeHistory {
  std::map<int64_t, LeaseTrace> leases{};
  std::vector<ClaimTrace> claims{};
  std::vector<ObserverTrace> observers{};
  std::vector<ViewTrace> views{};
  std::vector<InstanceTrace> instances{};
  CoordinationHistory coordination{};
  // From when to when no majority of the members was up.
  std::vector<std::pair<Instant, Instant>> outages{};
  Instant calm = kNever;  // from then on nothing goes wrong any more
  Instant end = kNever;
};

}  // namespace conclave::sim
