#include "conclave/coordination/cron.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "conclave/coordination/cron_leader.h"
#include "conclave/coordination/names.h"

namespace conclave {
namespace {

// The wall clock may be set: look at it again after that long.
constexpr absl::Duration kWaitMax = absl::Seconds(10);

class RealClock : public CronClock {
 public:
  absl::Time Now() override { return absl::Now(); }
  void WaitUntil(absl::Time time, std::stop_token stop) override {
    const absl::Duration left = std::min(time - absl::Now(), kWaitMax);
    if (left <= absl::ZeroDuration()) return;
    std::mutex mutex;
    std::condition_variable_any bell;
    std::unique_lock lock(mutex);
    bell.wait_for(lock, stop, absl::ToChronoNanoseconds(left), [] { return false; });
  }
};

}  // namespace

std::shared_ptr<CronClock> WallClock() { return std::make_shared<RealClock>(); }

absl::StatusOr<Cron> Cron::Start(const Client& client, std::string_view name,
                                 const CronOptions& options, Job job) {
  if (absl::Status valid = CheckName("a cron", name); !valid.ok()) return valid;
  absl::StatusOr<Schedule> schedule = Schedule::Parse(options.schedule);
  if (!schedule.ok()) return schedule.status();
  if (schedule->Next(absl::UnixEpoch()) == absl::InfiniteFuture()) {
    return absl::InvalidArgumentError("the schedule's day never comes");
  }
  if (!job) return absl::InvalidArgumentError("a cron wants a job");
  if (options.grace < absl::ZeroDuration() || options.retry_pause <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("the grace is not negative, and the retry's pause is not 0");
  }
  CronOptions complete = options;
  if (complete.clock == nullptr) complete.clock = WallClock();
  auto leader = std::make_shared<CronLeader>(client, name, *schedule, complete, std::move(job));
  absl::StatusOr<Candidate> candidate =
      Election(client, CronLeader::ElectionOf(name))
          .RunWhileLeader({.id = options.id, .ttl = options.ttl},
                          [leader](Leadership& leadership, std::stop_token stop) {
                            return leader->Lead(leadership, stop);
                          });
  if (!candidate.ok()) return candidate.status();
  return Cron(client, CronLeader::LastKeyOf(name), *std::move(candidate));
}

Cron::Cron(const Client& client, std::string last_key, Candidate candidate)
    : client_(client), last_key_(std::move(last_key)), candidate_(std::move(candidate)) {}
Cron::Cron(Cron&&) noexcept = default;
Cron& Cron::operator=(Cron&&) noexcept = default;
Cron::~Cron() = default;

bool Cron::IsLeader() const { return candidate_.IsLeader(); }

absl::StatusOr<std::optional<absl::Time>> Cron::LastTick(const CallOptions& call) const {
  absl::StatusOr<std::optional<KeyValue>> key = client_.Get(last_key_, {}, call);
  if (!key.ok()) return key.status();
  if (!key->has_value()) return std::optional<absl::Time>();
  std::optional<CronRecord> record = ParseRecord((*key)->value);
  if (!record.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(last_key_, " does not hold a tick"));
  }
  return std::optional<absl::Time>(record->tick);
}

}  // namespace conclave
