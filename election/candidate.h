// Candidate: takes part in an election for as long as it lives, and runs a function whenever it
// leads.
//
//   conclave::Candidate candidate(client, "elections/scheduler", {.proposal = "10.1.2.3:9000"},
//       [&](const conclave::Leadership& leadership, std::stop_token stop) {
//         scheduler.Run(leadership.term(), stop);          // return = resign
//       });
//
// It opens its own session and campaigns; when the function returns or the leadership is lost it
// resigns, waits `cooldown`, and campaigns again, through outages of any length.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/election/election.h"

namespace conclave {

struct CandidateOptions {
  std::string proposal{};
  absl::Duration ttl = absl::Seconds(8);
  absl::Duration cooldown = absl::Seconds(1);  // between two terms, so that others get their turn
};

// Thread: one of its own, on which the function runs.
class Candidate {
 public:
  // `stop` fires when the leadership is lost or cannot be shown to last, and when the candidate
  // goes: the function must return then.
  using Term = std::function<void(Leadership& leadership, std::stop_token stop)>;

  Candidate(const Client& client, std::string_view election, const CandidateOptions& options,
            Term term);
  ~Candidate();  // asks the function to return, waits for it, resigns
  Candidate(const Candidate&) = delete;
  Candidate& operator=(const Candidate&) = delete;

  // From the clock: false as soon as the local deadline has passed.
  bool IsLeader() const;

 private:
  void Run(std::stop_token stop);
  absl::Status Lead(const std::stop_token& stop);
  void Wait(const std::stop_token& stop, absl::Duration duration);

  Client client_;
  const std::string election_;
  const CandidateOptions options_;
  const Term term_;
  mutable std::mutex mutex_;
  std::condition_variable_any bell_;
  Leadership* leadership_ = nullptr;  // guarded by mutex_; while it lasts
  std::jthread thread_;               // last: it uses all of the above
};

}  // namespace conclave
