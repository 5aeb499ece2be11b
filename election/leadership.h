// What an election hands out: who leads (LeaderInfo), and to lead (Leadership).
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "conclave/client/client.h"

namespace conclave {

class Claim;

struct LeaderInfo {
  std::string proposal{};  // what it campaigned with, or proclaimed last
  std::string key{};
  LeaseId lease = 0;
  int64_t term = 0;  // create revision of the key; grows with every leader
  // Of candidates that name them (CandidateInfo), in Leader and Participants; observers and other
  // kinds of clients do not know them.
  std::string id{};
  int priority = 0;

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

}  // namespace conclave
