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

namespace conclave {

class Claim;

struct LeaderInfo {
  std::string proposal{};  // what it campaigned with, or proclaimed last
  std::string key{};
  LeaseId lease = 0;
  int64_t term = 0;  // create revision of the key; grows with every leader

  friend bool operator==(const LeaderInfo&, const LeaderInfo&) = default;
};

// To lead, as long as it lasts. Giving up: Resign, or the destructor, which does not wait.
class [[nodiscard]] Leadership {
 public:
  Leadership(Leadership&&) noexcept;
  Leadership& operator=(Leadership&&) noexcept;
  ~Leadership();

  int64_t term() const;  // the fencing token
  // A condition for a transaction: it runs only while we lead.
  Compare StillLeader() const;
  // False as soon as the leadership is known to be lost, or can no longer be shown to last: the
  // session's local deadline has passed. From the clock; no call.
  bool leading() const;
  // Fires at the same moment, and at Resign.
  std::stop_token stop_token() const;

  // Changes what observers see. Aborted: we do not lead any more.
  absl::Status Proclaim(std::string_view value, const CallOptions& call = {});
  // leading() is false before anybody else can lead. Aborted: we did not lead any more.
  absl::Status Resign(const CallOptions& call = {});

 private:
  friend class Election;
  explicit Leadership(std::shared_ptr<Claim> claim);
  std::shared_ptr<Claim> claim_;
};

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
  Election(const Client& client, std::string_view name);

  // Waits until we lead; without a timeout as long as the session lives. DeadlineExceeded and
  // Cancelled as asked, with no key left behind. Aborted at once when the session is lost or our
  // key.
  absl::StatusOr<Leadership> Campaign(const Session& session, std::string_view value,
                                      const CallOptions& call = {});
  // Who leads; nullopt: nobody.
  absl::StatusOr<std::optional<LeaderInfo>> Leader(const CallOptions& call = {}) const;
  // The leader, then those who wait, in order.
  absl::StatusOr<std::vector<LeaderInfo>> Participants(const CallOptions& call = {}) const;

  // On the callback thread: who leads now, first; then every change, in order, "nobody" included.
  // Goes on across lost connections and compactions (changes that were compacted away come as one).
  // `on_end`, if given, gets the status when observing cannot go on at all (no permission).
  Observation Observe(LeaderCallback callback,
                      absl::AnyInvocable<void(const absl::Status&)> on_end = nullptr) const;

 private:
  Client client_;
  std::string name_;
};

}  // namespace conclave
