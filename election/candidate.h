// Candidate: takes part in an election for as long as it lives, and runs a function whenever it
// leads.
//
//   absl::StatusOr<conclave::Candidate> candidate = election.RunWhileLeader(
//       {.id = "node-1", .proposal = "10.1.2.3:9000"},
//       [&](conclave::Leadership& leadership, std::stop_token stop) {
//         return scheduler.Run(leadership.term(), stop);     // return = resign
//       });
//
// It opens its own session and campaigns; when the function returns or the leadership is lost it
// resigns, waits `cooldown`, and campaigns again, through outages of any length.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/election/leadership.h"

namespace conclave {

struct CandidateInfo {
  std::string id{};        // for TransferTo, and for whoever asks for the participants
  std::string proposal{};  // what observers see
  int priority = 0;        // the higher one leads, where `settle` is set
};

struct CandidateOptions {
  std::string id{};        // empty: one of host, process and chance
  std::string proposal{};  // empty: the id
  int priority = 0;
  // A leader makes way for a candidate of a higher priority that has stood in the queue for this
  // long. Infinite: it does not. Other kinds of clients know no priorities, and do not make way.
  absl::Duration settle = absl::InfiniteDuration();
  absl::Duration ttl = absl::Seconds(8);
  absl::Duration cooldown = absl::Seconds(1);  // between two terms, so that others get their turn
};

// A handle; moving it is cheap. Thread: one of its own, on which the function runs; its methods may
// be called from any thread.
class [[nodiscard]] Candidate {
 public:
  // `stop` fires when the leadership is lost or cannot be shown to last, when the candidate makes
  // way for another one, and when it goes: the function must return then. A status that is not OK
  // is logged, and the pauses before the next term grow while they come in a row.
  using Term = std::function<absl::Status(Leadership& leadership, std::stop_token stop)>;

  static absl::StatusOr<Candidate> Start(const Client& client, std::string_view election,
                                         const CandidateOptions& options, Term term);
  Candidate(Candidate&&) noexcept;
  Candidate& operator=(Candidate&&) noexcept;
  // Asks the function to return, waits for it, and resigns. From within the function itself it does
  // not wait.
  ~Candidate();

  const std::string& id() const;
  // From the clock: false as soon as the local deadline has passed.
  bool IsLeader() const;
  // While it leads.
  std::optional<int64_t> term() const;
  // Waits until this candidate leads, or has led since the call; without a timeout for ever.
  absl::Status Await(const CallOptions& call = {}) const;
  // The leader, then those who wait, in order.
  absl::StatusOr<std::vector<LeaderInfo>> Participants(const CallOptions& call = {}) const;
  // Makes way for the candidate of that id, which must stand in the queue; those between us and it
  // let it pass if they are candidates of this library (Go's clients do not know of this, and lead
  // when it is their turn). OK: it leads. DeadlineExceeded: it does not yet; if it was not in time
  // the wish is forgotten. FailedPrecondition: we do not lead. NotFound: no such candidate. From
  // within the function it does not wait: the function returns, then the other one leads.
  absl::Status TransferTo(std::string_view id, const CallOptions& call = {});

 private:
  struct Rep;
  Candidate(std::shared_ptr<Rep> rep, std::jthread thread);
  void Stop();

  std::shared_ptr<Rep> rep_;
  std::jthread thread_;
};

}  // namespace conclave
