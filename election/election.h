// Election: at most one leader for a name in the whole cluster, and everybody can see who it is.
//
//   conclave::Election election(client, "elections/scheduler");
//   absl::StatusOr<conclave::Leadership> leader = election.Campaign(session, "10.1.2.3:9000");
//   if (!leader.ok()) return leader.status();
//   scheduler.Run(leader->term(), leader->stop_token());
//
// A candidate puts one key on his session's lease; the oldest key leads, the others queue in the
// order of arrival. Keys and values are those of Go's concurrency.Election and of `etcdctl elect`,
// so all of these take part in the same election.
//
// Names are prefixes: an election "a" counts the keys of an election "a/b" among its own, as Go's
// does. So do not nest them.
//
// A leader that was stopped for longer than its lease cannot know that by itself: what it changes
// must be fenced by term(), or written under StillLeader().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/election/candidate.h"
#include "conclave/election/leadership.h"

namespace conclave {

// An observer as long as it lives. After its destructor has returned no callback runs; it may go in
// its own.
class [[nodiscard]] Observation {
 public:
  Observation();
  Observation(Observation&&) noexcept;
  Observation& operator=(Observation&&) noexcept;
  ~Observation();

 private:
  friend class Election;
  explicit Observation(conclave::Watch watch);
  conclave::Watch watch_;
};

// The leader; nullopt: there is none.
using LeaderCallback = absl::AnyInvocable<void(const std::optional<LeaderInfo>&)>;

class Election {
 public:
  // The name is not empty; every call says InvalidArgument else.
  Election(const Client& client, std::string_view name);

  // Waits until we lead; without a timeout as long as the session lives. DeadlineExceeded and
  // Cancelled as asked, with no key left behind. Aborted at once when the session is lost or our
  // key.
  absl::StatusOr<Leadership> Campaign(const Session& session, std::string_view value,
                                      const CallOptions& call = {});
  // The same, and others see who we are: the id and the priority, which stand beside the key.
  absl::StatusOr<Leadership> CampaignAs(const Session& session, const CandidateInfo& candidate,
                                        const CallOptions& call = {});
  // Takes part for as long as the candidate lives: its own session, its own thread, one call of
  // `term` for each term (see candidate.h). InvalidArgument for options that cannot be.
  absl::StatusOr<Candidate> RunWhileLeader(const CandidateOptions& options,
                                           Candidate::Term term) const;

  // Who leads; nullopt: nobody.
  absl::StatusOr<std::optional<LeaderInfo>> Leader(const CallOptions& call = {}) const;
  // The leader, then those who wait, in order.
  absl::StatusOr<std::vector<LeaderInfo>> Participants(const CallOptions& call = {}) const;

  // On the callback thread: who leads now, first; then every change, in order, "nobody" included.
  // Goes on across lost connections and compactions (changes that were compacted away come as one).
  // `on_end`, if given, gets the status when observing cannot go on at all (no permission).
  // LeaderInfo::id and priority stay empty here.
  Observation Observe(LeaderCallback callback,
                      absl::AnyInvocable<void(const absl::Status&)> on_end = nullptr) const;

 private:
  absl::StatusOr<std::vector<LeaderInfo>> Look(int64_t limit, const CallOptions& call) const;

  Client client_;
  std::string name_;
};

}  // namespace conclave
