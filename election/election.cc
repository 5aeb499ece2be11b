#include "conclave/election/election.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/claim.h"
#include "conclave/client/client_impl.h"
#include "conclave/election/candidate_note.h"
#include "conclave/election/leader_tracker.h"

namespace conclave {
namespace {

KeyRange CandidatesOf(const std::string& name) { return Prefix(absl::StrCat(name, "/")); }

RangeOptions OldestFirst(int64_t limit) {
  return {
      .limit = limit, .sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision};
}

absl::Status NoName() { return absl::InvalidArgumentError("an election's name is not empty"); }

absl::StatusOr<std::shared_ptr<Claim>> Contend(const Session& session,
                                               const Claim::Request& request,
                                               const CallOptions& call) {
  if (request.name.empty()) return NoName();
  absl::StatusOr<Claim::Attempt> attempt = Claim::Acquire(session.rep(), request, call);
  if (!attempt.ok()) return attempt.status();
  return std::move(attempt->claim);
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
  absl::StatusOr<std::shared_ptr<Claim>> claim = Contend(
      session,
      {.kind = "election", .name_in_metrics = true, .name = name_, .value = std::string(value)},
      call);
  if (!claim.ok()) return claim.status();
  return Leadership(*std::move(claim));
}

absl::StatusOr<Leadership> Election::CampaignAs(const Session& session,
                                                const CandidateInfo& candidate,
                                                const CallOptions& call) {
  if (candidate.id.empty() || candidate.id.size() > kCandidateIdMax) {
    return absl::InvalidArgumentError("a candidate's id has 1 to 256 bytes");
  }
  const std::string note_key = absl::StrCat(NotePrefix(name_), absl::Hex(session.lease_id()));
  absl::StatusOr<std::shared_ptr<Claim>> claim =
      Contend(session,
              {.kind = "election",
               .name_in_metrics = true,
               .name = name_,
               .value = candidate.proposal,
               .companions = {note_key},
               .beside_key = note_key,
               .beside_value = EncodeNote({.id = candidate.id, .priority = candidate.priority})},
              call);
  if (!claim.ok()) return claim.status();
  return Leadership(*std::move(claim));
}

absl::StatusOr<Candidate> Election::RunWhileLeader(const CandidateOptions& options,
                                                   Candidate::Term term) const {
  return Candidate::Start(client_, name_, options, std::move(term));
}

absl::StatusOr<std::vector<LeaderInfo>> Election::Look(int64_t limit,
                                                       const CallOptions& call) const {
  if (name_.empty()) return NoName();
  // The notes in the order of the keys of the same leases' candidates, whatever that is: matched.
  absl::StatusOr<TxnResult> look =
      client_.Txn()
          .Then(conclave::Range(CandidatesOf(name_), OldestFirst(limit)),
                conclave::Range(Prefix(NotePrefix(name_))))
          .Commit(call);
  if (!look.ok()) return look.status();
  std::map<std::string, CandidateNote> notes;
  for (const KeyValue& kv : look->range(1).kvs) {
    if (std::optional<CandidateNote> note = ParseNote(kv.value)) notes[kv.key] = *std::move(note);
  }
  std::vector<LeaderInfo> candidates;
  for (const KeyValue& kv : look->range(0).kvs) {
    LeaderInfo info = LeaderInfoOf(kv);
    if (auto note = notes.find(NoteKeyOf(name_, kv.key)); note != notes.end()) {
      info.id = note->second.id;
      info.priority = note->second.priority;
    }
    candidates.push_back(std::move(info));
  }
  return candidates;
}

absl::StatusOr<std::optional<LeaderInfo>> Election::Leader(const CallOptions& call) const {
  absl::StatusOr<std::vector<LeaderInfo>> first = Look(1, call);
  if (!first.ok()) return first.status();
  if (first->empty()) return std::optional<LeaderInfo>();
  return std::optional<LeaderInfo>(std::move(first->front()));
}

absl::StatusOr<std::vector<LeaderInfo>> Election::Participants(const CallOptions& call) const {
  return Look(0, call);
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
