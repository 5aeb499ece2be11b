#include "conclave/server/recipes/xds_door.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/discovery_impl.h"
#include "conclave/discovery/endpoint_feed.h"
#include "conclave/discovery/xds/ads_server.h"

namespace conclave::recipes {
namespace {

using Clock = std::chrono::steady_clock;

// Lets a few lines through per period and counts the rest. Thread-safe.
class TroubleLog {
 public:
  explicit TroubleLog(LogSink sink) : sink_(std::move(sink)) {}

  void Write(std::string_view line) {
    std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    if (now >= period_end_) {
      if (lines_ > XdsDoor::kTroubleLinesMax) {
        sink_(LogLevel::kWarning, absl::StrCat("left out ", lines_ - XdsDoor::kTroubleLinesMax,
                                               " lines like the last"));
      }
      lines_ = 0;
      period_end_ = now + absl::ToChronoNanoseconds(XdsDoor::kTroublePeriod);
    }
    if (++lines_ <= XdsDoor::kTroubleLinesMax) sink_(LogLevel::kWarning, line);
  }

 private:
  const LogSink sink_;
  std::mutex mutex_;
  size_t lines_ = 0;                   // in this period; guarded by mutex_
  Clock::time_point period_end_ = {};  // guarded by mutex_
};

}  // namespace

class XdsDoor::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)), trouble_(options_.log) {}

  ~Impl() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
    names_.clear();  // the feeds deliver to the servers
  }

  absl::Status Start() {
    ConnectOptions connect{.endpoints = {options_.store}, .log_sink = options_.log};
    // A connection to this very process needs no pings, and the server may be set up to send away
    // those who ping.
    connect.keepalive_time = absl::Hours(24);
    CONCLAVE_ASSIGN_OR_RETURN(Client client, Client::Connect(std::move(connect)));
    discovery_.emplace(std::move(client));
    for (const std::string& address : options_.listen) {
      xds::AdsServer::Options ads;
      ads.address = address;
      ads.catalog.open = true;
      ads.credentials = options_.credentials;
      ads.may_see = options_.may_see;
      ads.on_interest = [this, server = servers_.size()](const std::string& name, bool wanted) {
        OnInterest(name, server, wanted);
      };
      ads.on_trouble = [this](const std::string& line) { trouble_.Write(line); };
      CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<xds::AdsServer> server,
                                xds::AdsServer::Start(std::move(ads)));
      servers_.push_back(std::move(server));
    }
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  std::vector<int> ports() const {
    std::vector<int> ports;
    for (const auto& server : servers_) ports.push_back(server->port());
    return ports;
  }
  size_t watched() const { return watched_; }

  Figures figures() const {
    Figures figures{.watched = watched_, .waiting = waiting_count_};
    for (const auto& server : servers_) {
      const xds::AdsServer::Stats stats = server->stats();
      figures.streams += stats.streams;
      figures.responses += stats.responses;
      figures.acks += stats.acks;
      figures.nacks += stats.nacks;
    }
    return figures;
  }

 private:
  struct Name {
    std::set<size_t> wanted_by;          // indices of servers
    bool watched = false;                // it has a place
    std::unique_ptr<EndpointFeed> feed;  // null though watched: what cannot be a service's name
    Clock::time_point idle_since = {};   // when wanted_by became empty
  };
  using Names = std::map<std::string, Name>;
  // What has changed since the thread looked last. What comes and goes in between leaves no trace,
  // so it is never larger than what the servers know.
  using News = std::map<std::pair<std::string, size_t>, bool>;

  void OnInterest(const std::string& name, size_t server, bool wanted) {
    {
      std::lock_guard lock(mutex_);
      const auto [entry, is_new] = news_.try_emplace({name, server}, wanted);
      if (!is_new && entry->second != wanted) news_.erase(entry);
    }
    changed_.notify_one();
  }

  void Run() {
    std::optional<Clock::time_point> deadline;
    while (true) {
      News news;
      {
        std::unique_lock lock(mutex_);
        const auto stirred = [this] { return stopping_ || !news_.empty(); };
        if (deadline.has_value()) {
          changed_.wait_until(lock, *deadline, stirred);
        } else {
          changed_.wait(lock, stirred);
        }
        if (stopping_) return;
        news.swap(news_);
      }
      for (const auto& [what, wanted] : news) Take(what.first, what.second, wanted);
      deadline = LetGo(Clock::now());
      GivePlaces();
      waiting_count_ = waiting_.size();
    }
  }

  void Take(const std::string& name, size_t server, bool wanted) {
    auto found = names_.find(name);
    if (wanted) {
      if (found == names_.end()) {
        if (names_.size() - watched_ >= kWaitingMax) {
          trouble_.Write(absl::StrCat("too many services are asked for; \"", name,
                                      "\" will be served when a client asks for it again later"));
          return;
        }
        found = names_.try_emplace(name).first;
        waiting_.insert(name);
      }
      found->second.wanted_by.insert(server);
      return;
    }
    if (found == names_.end()) return;
    found->second.wanted_by.erase(server);
    if (!found->second.wanted_by.empty()) return;
    if (found->second.watched) {
      found->second.idle_since = Clock::now();
    } else {
      waiting_.erase(name);
      names_.erase(found);
    }
  }

  // Ends the watches that nobody has wanted for a while; when to look again.
  std::optional<Clock::time_point> LetGo(Clock::time_point now) {
    std::optional<Clock::time_point> next;
    for (auto entry = names_.begin(); entry != names_.end();) {
      const auto name = entry++;
      if (!name->second.wanted_by.empty()) continue;
      const Clock::time_point due =
          name->second.idle_since + absl::ToChronoNanoseconds(options_.linger);
      if (due <= now) {
        Unwatch(name);
      } else {
        next = std::min(due, next.value_or(due));
      }
    }
    return next;
  }

  // Watches what waits, as far as there is place.
  void GivePlaces() {
    const size_t missing = waiting_.size() - std::min(waiting_.size(), FreePlaces());
    if (missing > 0) EvictIdle(missing);
    while (!waiting_.empty() && FreePlaces() > 0) {
      Watch(names_.find(*waiting_.begin()));
      waiting_.erase(waiting_.begin());
    }
    if (!waiting_.empty()) {
      trouble_.Write(absl::StrCat(options_.names_max, " services are watched, ", waiting_.size(),
                                  " more have to wait until others are not asked for any more"));
    }
  }

  size_t FreePlaces() const { return options_.names_max - watched_; }

  void EvictIdle(size_t count) {
    for (auto entry = names_.begin(); entry != names_.end() && count > 0;) {
      const auto name = entry++;
      if (!name->second.watched || !name->second.wanted_by.empty()) continue;
      Unwatch(name);
      --count;
    }
  }

  void Watch(Names::iterator entry) {
    CONCLAVE_CHECK(entry != names_.end(), "what waits has an entry");
    const std::string& name = entry->first;
    const auto deliver = [this, name](const xds::EndpointSet& endpoints) {
      for (const auto& server : servers_) server->SetEndpoints(name, endpoints);
    };
    entry->second.watched = true;
    ++watched_;
    auto feed = discovery_->impl()->MakeFeed(name, deliver);
    if (feed.ok()) {
      entry->second.feed = *std::move(feed);
    } else {
      deliver({});  // so that calls fail at once, and do not wait for what cannot come
    }
  }

  void Unwatch(Names::iterator entry) {
    entry->second.feed.reset();
    for (const auto& server : servers_) server->ForgetEndpoints(entry->first);
    names_.erase(entry);
    --watched_;
  }

  const Options options_;
  TroubleLog trouble_;
  std::mutex mutex_;
  std::condition_variable changed_;
  News news_;              // guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_

  // In the order of their lives: what stands below uses what stands above.
  std::optional<Discovery> discovery_;
  std::vector<std::unique_ptr<xds::AdsServer>> servers_;

  // Of the thread only.
  Names names_;
  std::set<std::string> waiting_;  // names without a place

  // Changed by the thread only.
  std::atomic<size_t> watched_ = 0;
  std::atomic<size_t> waiting_count_ = 0;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<XdsDoor>> XdsDoor::Start(Options options) {
  CONCLAVE_CHECK(options.log != nullptr && options.names_max > 0, "an XdsDoor needs these");
  auto impl = std::make_unique<Impl>(std::move(options));
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<XdsDoor>(new XdsDoor(std::move(impl)));
}

XdsDoor::XdsDoor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
XdsDoor::~XdsDoor() = default;

std::vector<int> XdsDoor::ports() const { return impl_->ports(); }
size_t XdsDoor::watched() const { return impl_->watched(); }
XdsDoor::Figures XdsDoor::figures() const { return impl_->figures(); }

}  // namespace conclave::recipes
