// What the processes did with the recipes of coordination/, and what they were told. Plain data;
// all times are the world's.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/tests/sim/history.h"

namespace conclave::sim {

// One call of a blocking recipe. One that died with its process is of unknown outcome.
struct CallTrace {
  Instant asked;
  Instant answered = kNever;
  Outcome outcome = Outcome::kUnknown;
};

// To add to a counter. No two of a history add the same.
struct AddTrace {
  CallTrace call{};
  int64_t delta = 0;
  int64_t value = 0;  // the answer
};

struct IdsTrace {
  int allocator = 0;  // one IdRanges
  int64_t begin = 0;
  int64_t end = 0;  // not in it
};

// Values that are pushed are unique.
struct PushTrace {
  CallTrace call{};
  std::string value{};
  int priority = 0;
  std::string id{};  // the answer
};

// To get an item: to pop it, or to take it and settle it.
struct SeizeTrace {
  CallTrace call{};
  bool takes = false;
  int64_t lease = 0;
  std::string id{};  // the answer
  std::string value{};
  Instant last_ours;  // when its handle said so for the last time
  enum class Settling : uint8_t { kNone, kAck, kGiveBack } settling = Settling::kNone;
  CallTrace settle{};
};

struct BarrierTrace {
  enum class Kind : uint8_t { kHold, kRelease, kWait } kind = Kind::kWait;
  CallTrace call{};
};

// One round of a double barrier, for one member.
struct RoundTrace {
  int64_t lease = 0;
  CallTrace enter{};
  CallTrace leave{};
  int64_t round = 0;                               // the answer of leaving
  std::optional<std::vector<std::string>> lost{};  // likewise
};

struct MemberTrace {
  CallTrace join{};
  std::string id{};
  int64_t lease = 0;
  int64_t revision = 0;  // the answer
  Instant last_alive;    // when its handle said so for the last time
};

// A run of a cron's job.
struct JobTrace {
  std::string tick{};  // as the store has it
  int64_t term = 0;
  Instant at;
};

// Deques: a thread that waits may know of its entry while others add theirs.
struct CoordinationHistory {
  std::deque<AddTrace> adds{};
  std::deque<IdsTrace> ids{};
  std::deque<PushTrace> pushes{};
  std::deque<SeizeTrace> seizes{};
  std::deque<BarrierTrace> barriers{};
  std::deque<RoundTrace> rounds{};
  std::deque<MemberTrace> members{};
  std::deque<JobTrace> jobs{};
};

// The names.
constexpr char kCounterName[] = "numbers/counter";
constexpr char kIdsName[] = "numbers/ids";
constexpr char kQueueName[] = "queue/0";
constexpr char kBarrierName[] = "barrier/0";
constexpr char kDoubleBarrierName[] = "double/0";
constexpr int kDoubleBarrierMembers = 3;
constexpr char kGroupName[] = "group/0";
constexpr char kCronName[] = "cron/0";

}  // namespace conclave::sim
