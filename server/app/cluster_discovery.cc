#include "conclave/server/app/cluster_discovery.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/server/node/bootstrap.h"

namespace conclave::app {
namespace {

// Between two attempts, or when a watch should have told but did not.
constexpr auto kLookAgain = std::chrono::seconds(1);
constexpr auto kLookAnyway = std::chrono::seconds(10);

absl::Duration FromChrono(Duration duration) { return absl::Nanoseconds(duration.count()); }

ConnectOptions Connection(const DiscoverySettings& settings, Log* log) {
  ConnectOptions connect;
  connect.endpoints = settings.endpoints;
  const bool has_files = !settings.ca_file.empty() || !settings.cert_file.empty();
  if (has_files || settings.insecure_skip_tls_verify || !settings.insecure_transport) {
    connect.tls = TlsOptions{.ca_file = settings.ca_file,
                             .cert_file = settings.cert_file,
                             .key_file = settings.key_file,
                             .insecure_skip_verify = settings.insecure_skip_tls_verify};
  }
  // "name:password", as etcdctl has it too.
  const size_t colon = settings.password.empty() ? settings.user.find(':') : std::string::npos;
  connect.user = settings.user.substr(0, colon);
  connect.password =
      colon == std::string::npos ? settings.password : settings.user.substr(colon + 1);
  connect.request_timeout = FromChrono(settings.request_timeout);
  connect.attempt_timeout = FromChrono(settings.dial_timeout);
  connect.keepalive_time = FromChrono(settings.keepalive_time);
  connect.keepalive_timeout = FromChrono(settings.keepalive_timeout);
  connect.log_sink = [log](LogLevel level, std::string_view line) {
    if (level >= LogLevel::kWarning) log->Warn("discovery", {{"note", std::string(line)}});
  };
  return connect;
}

absl::Status Refused(std::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("--discovery-token: ", std::string(why)));
}

// One server's part in it. Thread: one; the doorbell is rung by another.
class Registration {
 public:
  Registration(Client client, const Config& config, Log* log)
      : client_(std::move(client)), log_(log), name_(config.name) {
    const std::string registry = absl::StrCat("/_etcd/registry/", config.discovery.token);
    size_key_ = registry + "/_config/size";
    members_ = registry + "/members/";
    std::vector<std::string> urls;
    std::vector<std::string> named;
    for (const Url& url : config.initial_advertise_peer_urls) {
      urls.push_back(url.Text());
      named.push_back(absl::StrCat(name_, "=", url.Text()));
    }
    key_ = absl::StrCat(members_, absl::Hex(node::MemberId(urls, config.discovery.token).value()));
    value_ = absl::StrJoin(named, ",");
  }

  absl::StatusOr<InitialClusterMap> Complete() {
    // Rung by every registration; after a lost connection too.
    const Watch doorbell =
        client_.Watch(Members(), {.list_first = true}, [this](const WatchBatch&) {
          std::lock_guard lock(mutex_);
          rung_ = true;
          changed_.notify_one();
        });
    for (;;) {
      auto founders = Look();
      if (founders.ok() && founders->has_value()) return **std::move(founders);
      if (!founders.ok()) {
        if (!IsRetryable(founders.status()) && !absl::IsDeadlineExceeded(founders.status())) {
          return founders.status();
        }
        log_->Warn("the discovery service does not answer; trying again",
                   {{"error", std::string(founders.status().message())}});
      }
      std::unique_lock lock(mutex_);
      if (founders.ok()) {
        changed_.wait_for(lock, kLookAnyway, [this] { return rung_; });
      } else {
        changed_.wait_for(lock, kLookAgain, [] { return false; });
      }
      rung_ = false;
    }
  }

 private:
  KeyRange Members() const {
    return KeyRange(members_, members_.substr(0, members_.size() - 1) + "0");
  }

  // Nullopt: not complete yet.
  absl::StatusOr<std::optional<InitialClusterMap>> Look() {
    CONCLAVE_ASSIGN_OR_RETURN(const size_t size, Size());
    CONCLAVE_ASSIGN_OR_RETURN(std::vector<KeyValue> members, Registered());
    const auto is_self = [this](const KeyValue& member) { return member.key == key_; };
    if (std::none_of(members.begin(), members.end(), is_self)) {
      if (members.size() >= size) return Refused("discovery: cluster is full");
      CONCLAVE_RETURN_IF_ERROR(client_.Put(key_, value_).status());
      log_->Info("registered with the discovery service", {{"key", key_}, {"value", value_}});
      CONCLAVE_ASSIGN_OR_RETURN(members, Registered());
    }
    const auto self = std::find_if(members.begin(), members.end(), is_self);
    if (static_cast<size_t>(self - members.begin()) >= size) {
      return Refused("discovery: cluster is full");
    }
    if (members.size() < size) {
      if (members.size() != told_) {
        log_->Info("waiting for other members to register",
                   {{"registered", absl::StrCat(members.size())}, {"size", absl::StrCat(size)}});
      }
      told_ = members.size();
      return std::nullopt;
    }
    members.resize(size);
    return Map(members);
  }

  absl::StatusOr<size_t> Size() {
    CONCLAVE_ASSIGN_OR_RETURN(const auto kv, client_.Get(size_key_));
    if (!kv.has_value()) {
      return Refused(absl::StrCat("discovery: size key not found (", size_key_, ")"));
    }
    int64_t size = 0;
    if (!absl::SimpleAtoi(kv->value, &size) || size <= 0 || size > kFoundersMax) {
      return Refused(absl::StrCat("discovery: size key is bad (", size_key_, " is to be 1 to ",
                                  kFoundersMax, ")"));
    }
    return static_cast<size_t>(size);
  }

  // In the order in which they came.
  absl::StatusOr<std::vector<KeyValue>> Registered() {
    CONCLAVE_ASSIGN_OR_RETURN(RangeResult result, client_.Range(Members()));
    std::sort(result.kvs.begin(), result.kvs.end(), [](const KeyValue& a, const KeyValue& b) {
      return a.create_revision < b.create_revision;
    });
    return std::move(result.kvs);
  }

  static absl::StatusOr<InitialClusterMap> Map(const std::vector<KeyValue>& members) {
    InitialClusterMap all;
    for (const KeyValue& member : members) {
      const auto one = ParseInitialCluster(member.value);
      if (!one.ok() || one->size() != 1) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--discovery-token: ", member.key, " is none of a member's: it should be name=url"));
      }
      if (!all.insert(*one->begin()).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("--discovery-token: two members call themselves ", one->begin()->first,
                         "; give each a --name of its own"));
      }
    }
    return all;
  }

  const Client client_;
  Log* const log_;
  const std::string name_;
  std::string size_key_;
  std::string members_;  // what their keys begin with
  std::string key_;
  std::string value_;
  size_t told_ = 0;  // in the log

  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;  // guarded by mutex_
};

}  // namespace

absl::StatusOr<InitialClusterMap> DiscoverFounders(const Config& config, Log* log) {
  CONCLAVE_ASSIGN_OR_RETURN(Client client, Client::Connect(Connection(config.discovery, log)));
  Registration registration(std::move(client), config, log);
  CONCLAVE_ASSIGN_OR_RETURN(InitialClusterMap founders, registration.Complete());
  std::vector<std::string> members;
  for (const auto& [name, urls] : founders) {
    for (const Url& url : urls) members.push_back(absl::StrCat(name, "=", url.Text()));
  }
  log->Info("discovered the members of the cluster",
            {{"initial-cluster", absl::StrJoin(members, ",")}});
  return founders;
}

}  // namespace conclave::app
