#include "conclave/election/election.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"
#include "conclave/election/leader_tracker.h"

namespace conclave {
namespace {

KeyRange CandidatesOf(const std::string& name) { return Prefix(absl::StrCat(name, "/")); }

RangeOptions OldestFirst(int64_t limit) {
  return {
      .limit = limit, .sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision};
}

}  // namespace

// ---- Leadership
// ------------------------------------------------------------------------------------

Leadership::Leadership(std::shared_ptr<Claim> claim) : claim_(std::move(claim)) {}
Leadership::Leadership(Leadership&&) noexcept = default;
Leadership& Leadership::operator=(Leadership&& other) noexcept {
  std::swap(claim_, other.claim_);
  return *this;
}
Leadership::~Leadership() {
  if (claim_ != nullptr) claim_->ReleaseAsync();
}

int64_t Leadership::term() const { return claim_->token(); }
Compare Leadership::StillLeader() const { return claim_->StillHeld(); }
bool Leadership::leading() const { return claim_ != nullptr && claim_->held(); }
std::stop_token Leadership::stop_token() const { return claim_->stop_token(); }
absl::Status Leadership::Resign(const CallOptions& call) { return claim_->Release(call); }
absl::Status Leadership::Proclaim(std::string_view value, const CallOptions& call) {
  return claim_->Update(value, call);
}

// ---- Observation
// -----------------------------------------------------------------------------------

Observation::Observation() = default;
Observation::Observation(conclave::Watch watch) : watch_(std::move(watch)) {}
Observation::Observation(Observation&&) noexcept = default;
Observation& Observation::operator=(Observation&&) noexcept = default;
Observation::~Observation() = default;

// ---- Election
// --------------------------------------------------------------------------------------

Election::Election(const Client& client, std::string_view name) : client_(client), name_(name) {}

absl::StatusOr<Leadership> Election::Campaign(const Session& session, std::string_view value,
                                              const CallOptions& call) {
  absl::StatusOr<Claim::Attempt> attempt =
      Claim::Acquire(session.rep(), {.name = name_, .value = std::string(value)}, call);
  if (!attempt.ok()) return attempt.status();
  return Leadership(std::move(attempt->claim));
}

absl::StatusOr<std::optional<LeaderInfo>> Election::Leader(const CallOptions& call) const {
  absl::StatusOr<RangeResult> range = client_.Range(CandidatesOf(name_), OldestFirst(1), call);
  if (!range.ok()) return range.status();
  if (range->kvs.empty()) return std::optional<LeaderInfo>();
  return std::optional<LeaderInfo>(LeaderInfoOf(range->kvs.front()));
}

absl::StatusOr<std::vector<LeaderInfo>> Election::Participants(const CallOptions& call) const {
  absl::StatusOr<RangeResult> range = client_.Range(CandidatesOf(name_), OldestFirst(0), call);
  if (!range.ok()) return range.status();
  std::vector<LeaderInfo> participants;
  for (const KeyValue& kv : range->kvs) participants.push_back(LeaderInfoOf(kv));
  return participants;
}

Observation Election::Observe(LeaderCallback callback,
                              absl::AnyInvocable<void(const absl::Status&)> on_end) const {
  return Observation(client_.Watch(CandidatesOf(name_), {.list_first = true},
                                   [tracker = LeaderTracker(), callback = std::move(callback),
                                    on_end = std::move(on_end)](const WatchBatch& batch) mutable {
                                     if (!batch.status.ok()) {
                                       if (on_end) on_end(batch.status);
                                       return;
                                     }
                                     for (const std::optional<LeaderInfo>& leader :
                                          tracker.Apply(batch))
                                       callback(leader);
                                   }));
}

}  // namespace conclave
