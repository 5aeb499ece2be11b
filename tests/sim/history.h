// What clients did and heard, and what really happened: the material of the checkers. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conclave/base/time.h"

namespace conclave::sim {

// The clocks of members run too fast or too slow by up to that: so exact is what leases promise.
inline constexpr int64_t kClockDriftPpmMax = 1000;

// One change of one key, as the store has it.
struct Write {
  std::string key;
  std::string value;
  int64_t create_revision = 0;
  int64_t version = 0;
  int64_t lease = 0;
  bool tombstone = false;

  friend bool operator==(const Write&, const Write&) = default;
};

// The writes of one main revision, in order, and when the first member had applied them.
struct TrueRevision {
  int64_t revision = 0;
  std::vector<Write> writes;
  Instant applied;
};

// Revisions 2, 3, 4 ... without a gap.
using TrueHistory = std::vector<TrueRevision>;

enum class Outcome : uint8_t {
  kDone,     // answered, and it took effect
  kRefused,  // answered with an error that says it did not
  kUnknown,  // no answer, or an error that leaves it open
};

struct SeenKey {
  std::string key;
  std::string value;
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
  int64_t version = 0;

  friend bool operator==(const SeenKey&, const SeenKey&) = default;
};

// One call of a client. Values that are written are unique in a history.
struct KvOperation {
  enum class Kind : uint8_t {
    kPut,     // key = value
    kDelete,  // key
    kRange,   // [key, range_end), or key alone
    kSwap,    // if mod_revision(key) == expected: key = value, second_key = value; else read key
    kPast,    // a transaction that reads key as of revision expected_mod; and key = value, if any
    kDoomed,  // key = value, and a put that cannot be: both, or rather none
  };
  Kind kind = Kind::kPut;
  int client = 0;
  Instant invoked;
  Instant returned;  // kNever: not
  Outcome outcome = Outcome::kUnknown;
  std::string key;
  std::string range_end;
  std::string second_key;
  std::string value;
  int64_t expected_mod = 0;
  bool serializable = false;

  // The answer, if kDone.
  int64_t revision = 0;  // of the header
  int64_t deleted = 0;
  bool succeeded = false;
  std::vector<SeenKey> keys;
};

// One watch, over all the streams that it took to keep it going.
struct WatchHistory {
  std::string key;
  std::string range_end;
  int64_t start_revision = 0;
  struct Heard {
    int64_t revision = 0;
    Write write;
    int64_t previous_mod = 0;  // what the key was before, if that was told
    std::string previous_value{};
  };
  struct Note {  // in the order of arrival
    enum class Kind : uint8_t { kEvent, kProgress, kCompacted } kind = Kind::kEvent;
    Heard heard;  // kEvent
    int64_t revision =
        0;  // kProgress: up to there nothing is missing; kCompacted: goes on from there
  };
  std::vector<Note> notes;
  bool must_be_complete = false;  // it was given the time to hear everything
};

// One lease with one key of its own that nobody else writes.
struct LeaseHistory {
  int64_t id = 0;
  std::string key;
  Duration ttl{};
  Instant granted;               // when the acknowledged grant was sent
  std::vector<Instant> renewed;  // when acknowledged renewals were sent
  Instant last_attempt;          // of any renewal, acknowledged or not
  Instant told_gone = kNever;    // when a renewal was first answered so
  bool key_written = false;      // acknowledged
  Instant calm = kNever;         // from then on nothing goes wrong any more
  bool must_be_gone = false;     // its time is long over
};

}  // namespace conclave::sim
