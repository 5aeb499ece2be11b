// Claim: the caller's half of a Contender. What locks and elections hand out stands on this.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/claim_metrics.h"
#include "conclave/client/client.h"

namespace conclave {

class Contender;
class TurnRule;

// Thread: any; the parts that touch the contender run on the loop's thread.
class Claim : public std::enable_shared_from_this<Claim> {
 public:
  // A lock that is to be given up by force after some time.
  struct Overrun {
    absl::Duration max_hold = absl::InfiniteDuration();
    std::function<void()> on_overrun{};  // on the callback thread
  };

  struct Request {
    std::string_view kind;         // in metrics: "mutex", "election"
    bool name_in_metrics = false;  // where names are few
    std::string name{};
    std::string value{};
    bool only_try = false;
    // For other kinds than "one at a time under `name`". The rule is for this request alone.
    std::shared_ptr<TurnRule> rule{};
    std::vector<std::string> keys{};
    // Keys that are to be unique: a number of the session is appended to each.
    bool number_keys = false;
    std::string key_suffix{};  // behind that number
    std::vector<std::string> local_queues{};
    std::vector<std::string> companions{};  // deleted with the keys
    std::string beside_key{};               // put with the keys; see Contender::Request
    std::string beside_value{};
    // Keep the name from others for so long after we vanish, as `holder`; zero: no.
    absl::Duration delay{};
    std::string holder{};
    Overrun overrun{};
  };

  struct Attempt {
    std::shared_ptr<Claim> claim{};   // null: not ours
    std::optional<KeyValue> owner{};  // of a try that failed, if known
  };
  using Acquired = absl::AnyInvocable<void(absl::StatusOr<Attempt>)>;

  // Waits until the claim is ours, as long as the session lives and `call` allows (no timeout: for
  // ever). Aborted: the session or our place was lost. DeadlineExceeded, Cancelled: as asked; our
  // key is removed.
  static absl::StatusOr<Attempt> Acquire(const std::shared_ptr<SessionRep>& session,
                                         const Request& request, const CallOptions& call);
  // The same without waiting; `done` runs on the loop's thread, or here if it fails at once.
  static void AcquireAsync(const std::shared_ptr<SessionRep>& session, const Request& request,
                           const CallOptions& call, Acquired done);
  ~Claim();
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  const std::string& key() const { return keys_.front(); }
  const std::vector<std::string>& keys() const { return keys_; }
  int64_t token() const { return token_; }
  const std::string& value() const { return value_; }  // as it was when it became ours
  Compare StillHeld() const { return CreateRevision(key()) == token_; }
  // False as soon as it is lost, released, or the session's local deadline has passed by the clock.
  bool held() const;
  std::stop_token stop_token() const { return stop_.get_token(); }
  const std::shared_ptr<SessionRep>& session() const { return session_; }

  // Gives it up. OK; Aborted if it was not ours any more.
  absl::Status Release(const CallOptions& call);
  // The same without waiting. At most one of both does anything.
  void ReleaseAsync();
  // Replaces the value of the first key. Repeated while the outcome is unknown.
  absl::Status Update(std::string_view value, const CallOptions& call);

 private:
  struct Attempting;

  Claim(std::shared_ptr<SessionRep> session, const Request& request);
  static absl::Status CheckStart(const std::shared_ptr<SessionRep>& session,
                                 const CallOptions& call);
  void OnOwned(const Overrun& overrun);
  void OnLost();
  void OnOverrun(const std::function<void()>& on_overrun);

  const std::shared_ptr<SessionRep> session_;
  ClaimMetrics metrics_;
  std::vector<std::string> keys_{""};
  int64_t token_ = 0;
  std::string value_;
  std::shared_ptr<Contender> contender_;  // on the loop's thread
  std::atomic<bool> held_ = false;
  std::atomic<bool> released_ = false;
  std::stop_source stop_;
};

}  // namespace conclave
