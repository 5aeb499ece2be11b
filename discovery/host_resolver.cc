#include "conclave/discovery/host_resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"

namespace conclave {

absl::StatusOr<std::vector<std::string>> HostResolver::System(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &list); error != 0) {
    return absl::UnavailableError(gai_strerror(error));
  }
  std::vector<std::string> addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text.data());
    }
  }
  freeaddrinfo(list);
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  if (addresses.size() > kAddressesMax) addresses.resize(kAddressesMax);
  return addresses;
}

uint64_t HostResolver::Join(Listener listener) {
  const std::lock_guard lock(mutex_);
  members_.emplace(next_number_, Member{.listener = std::move(listener)});
  return next_number_++;
}

std::map<std::string, HostResolver::Answer> HostResolver::Want(uint64_t number,
                                                               const std::set<std::string>& hosts) {
  std::map<std::string, Answer> answers;
  const std::lock_guard lock(mutex_);
  members_.at(number).wanted = hosts;
  for (const std::string& host : hosts) {
    const auto found = hosts_.find(host);
    if (found != hosts_.end()) {
      answers.emplace(host, found->second);
    } else if (hosts_.size() >= kHostsMax) {
      answers.emplace(host, Answer{.resolved = true, .error = "too many host names"});
    } else {
      answers.emplace(host, hosts_[host]);
      ScheduleRefresh(host, absl::ZeroDuration());
    }
  }
  return answers;
}

void HostResolver::ScheduleRefresh(const std::string& host, absl::Duration delay) {
  worker_->RunAfter(delay, [weak = weak_from_this(), host] {
    if (const auto self = weak.lock()) self->Refresh(host);
  });
}

void HostResolver::Refresh(const std::string& host) {
  const absl::StatusOr<std::vector<std::string>> addresses = resolve_(host);
  const std::lock_guard calling(calling_);
  std::vector<Listener> listeners;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, member] : members_) {
      if (member.wanted.contains(host)) listeners.push_back(member.listener);
    }
    if (listeners.empty()) {
      hosts_.erase(host);
      return;
    }
    Answer answer{.resolved = true, .addresses = hosts_[host].addresses};
    if (addresses.ok()) {
      answer.addresses = *addresses;
    } else {
      answer.error = std::string(addresses.status().message());
    }
    if (answer == hosts_[host]) listeners.clear();
    hosts_[host] = std::move(answer);
  }
  for (const Listener& listener : listeners) listener();
  ScheduleRefresh(host, refresh_);
}

void HostResolver::Leave(uint64_t number) {
  const std::lock_guard calling(calling_);
  const std::lock_guard lock(mutex_);
  members_.erase(number);
}

}  // namespace conclave
