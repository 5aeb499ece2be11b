// HostResolver: the IP addresses behind host names, since an xDS client takes nothing else.
//
// Want() answers from memory and never blocks; names that are new or due are resolved on the
// worker, and those who want them are told of changes. A name that cannot be resolved (any more)
// keeps its last addresses. Names that nobody wants are forgotten at their next refresh.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "conclave/discovery/worker.h"

namespace conclave {

class HostResolver : public std::enable_shared_from_this<HostResolver> {
 public:
  static constexpr size_t kHostsMax = 10'000;
  static constexpr size_t kAddressesMax = 64;  // per host

  using Resolve = std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host)>;
  using Listener = std::function<void()>;

  // By getaddrinfo: sorted, unique IP literals.
  static absl::StatusOr<std::vector<std::string>> System(const std::string& host);

  HostResolver(std::shared_ptr<Worker> worker, absl::Duration refresh, Resolve resolve = &System)
      : worker_(std::move(worker)), refresh_(refresh), resolve_(std::move(resolve)) {}

  struct Answer {
    bool resolved = false;  // false: not yet tried
    std::vector<std::string> addresses{};
    std::string error{};  // why there are none, or why they may be old

    friend bool operator==(const Answer&, const Answer&) = default;
  };

  // `listener` runs on the worker after each change of an answer that it wants. Gives the number to
  // want and to leave with.
  uint64_t Join(Listener listener);
  // The names that this listener wants from now on, and what is known of each.
  std::map<std::string, Answer> Want(uint64_t number, const std::set<std::string>& hosts);
  // After it has returned, the listener does not run. Not from the listener.
  void Leave(uint64_t number);

 private:
  struct Member {
    Listener listener;
    std::set<std::string> wanted{};
  };

  void ScheduleRefresh(const std::string& host, absl::Duration delay);
  void Refresh(const std::string& host);

  const std::shared_ptr<Worker> worker_;
  const absl::Duration refresh_;
  const Resolve resolve_;
  // std::mutex, not absl::Mutex: ThreadSanitizer cannot see through Debian's.
  std::mutex calling_;                   // held while listeners run
  std::mutex mutex_;                     // taken after calling_
  std::map<std::string, Answer> hosts_;  // guarded by mutex_
  uint64_t next_number_ = 1;             // guarded by mutex_
  std::map<uint64_t, Member> members_;   // guarded by mutex_
};

}  // namespace conclave
