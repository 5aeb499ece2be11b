#include "conclave/election/candidate.h"

#include <algorithm>
#include <utility>

namespace conclave {
namespace {

constexpr absl::Duration kRetryMin = absl::Milliseconds(100);
constexpr absl::Duration kRetryMax = absl::Seconds(5);

}  // namespace

Candidate::Candidate(const Client& client, std::string_view election,
                     const CandidateOptions& options, Term term)
    : client_(client),
      election_(election),
      options_(options),
      term_(std::move(term)),
      thread_([this](std::stop_token stop) { Run(std::move(stop)); }) {}

Candidate::~Candidate() = default;  // jthread asks to stop, and joins

bool Candidate::IsLeader() const {
  std::lock_guard lock(mutex_);
  return leadership_ != nullptr && leadership_->leading();
}

void Candidate::Wait(const std::stop_token& stop, absl::Duration duration) {
  std::unique_lock lock(mutex_);
  bell_.wait_for(lock, stop, absl::ToChronoMicroseconds(duration), [] { return false; });
}

void Candidate::Run(std::stop_token stop) {
  absl::Duration pause = kRetryMin;
  while (!stop.stop_requested()) {
    const bool led = Lead(stop).ok();
    pause = led ? kRetryMin : std::min(pause * 2, kRetryMax);
    Wait(stop, led ? options_.cooldown : pause);
  }
}

// One term: OK if we led, whatever ended it.
absl::Status Candidate::Lead(const std::stop_token& stop) {
  absl::StatusOr<Session> session = client_.OpenSession({.ttl = options_.ttl}, {.stop = stop});
  if (!session.ok()) return session.status();
  Election election(client_, election_);
  absl::StatusOr<Leadership> leadership =
      election.Campaign(*session, options_.proposal, {.stop = stop});
  if (!leadership.ok()) return leadership.status();
  {
    std::lock_guard lock(mutex_);
    leadership_ = &*leadership;
  }
  std::stop_source ended;
  {
    std::stop_callback on_stop(stop, [&ended] { ended.request_stop(); });
    std::stop_callback on_lost(leadership->stop_token(), [&ended] { ended.request_stop(); });
    term_(*leadership, ended.get_token());
  }
  {
    std::lock_guard lock(mutex_);
    leadership_ = nullptr;
  }
  (void)leadership->Resign();  // or it was lost: either way it is over
  return absl::OkStatus();
}

}  // namespace conclave
