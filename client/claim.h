// Claim: the caller's half of a Contender. What Mutex and Election hand out stands on this.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"

namespace conclave {

class Contender;

// Thread: any; the parts that touch the contender run on the loop's thread.
class Claim {
 public:
  struct Request {
    std::string name{};
    std::string value{};
    bool only_try = false;
  };

  struct Attempt {
    std::shared_ptr<Claim> claim{};   // null: not ours
    std::optional<KeyValue> owner{};  // of a try that failed, if known
  };

  // Waits until the claim is ours, as long as the session lives and `call` allows (no timeout: for
  // ever). Aborted: the session or our place was lost. DeadlineExceeded, Cancelled: as asked; our
  // key is removed.
  static absl::StatusOr<Attempt> Acquire(const std::shared_ptr<SessionRep>& session,
                                         const Request& request, const CallOptions& call);
  ~Claim();
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  const std::string& key() const { return key_; }
  int64_t token() const { return token_; }
  Compare StillHeld() const { return CreateRevision(key_) == token_; }
  // False as soon as it is lost, released, or the session's local deadline has passed by the clock.
  bool held() const;
  std::stop_token stop_token() const { return stop_.get_token(); }
  const std::shared_ptr<SessionRep>& session() const { return session_; }

  // Gives it up. OK; Aborted if it was not ours any more.
  absl::Status Release(const CallOptions& call);
  // The same without waiting. At most one of both does anything.
  void ReleaseAsync();
  absl::Status Update(std::string_view value, const CallOptions& call);

 private:
  explicit Claim(std::shared_ptr<SessionRep> session);
  void OnLost();

  const std::shared_ptr<SessionRep> session_;
  std::string key_;
  int64_t token_ = 0;
  std::shared_ptr<Contender> contender_;  // on the loop's thread
  std::atomic<bool> held_ = false;
  std::atomic<bool> released_ = false;
  std::stop_source stop_;
};

}  // namespace conclave
