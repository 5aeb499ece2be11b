#include "conclave/tests/bench/load/unary_load.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/tests/bench/load/http2_client.h"

namespace conclave::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kEventsMax = 256;
constexpr auto kPatience = std::chrono::seconds(60);  // without any answer

class Runner {
 public:
  explicit Runner(const UnaryLoad& load)
      : load_(load),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        calls_(static_cast<size_t>(load.clients)) {
    report_.operation = load.operation;
  }
  ~Runner() { close(epoll_); }

  Report Run() {
    const bool connected = Connect();
    started_ = Clock::now();
    if (!connected) return report_;
    if (load_.seconds > 0) {
      end_ = started_ + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(load_.seconds));
    }
    for (Call& call : calls_) idle_.push_back(&call);
    StartDue();
    while (!broken_ && (in_flight_ > 0 || (!Over() && !idle_.empty()))) {
      Wait();
      StartDue();
    }
    report_.seconds = std::chrono::duration<double>(Clock::now() - started_).count();
    return report_;
  }

 private:
  struct Connection {
    std::unique_ptr<Http2Client> client;
    bool dirty = false;
    bool polls_write = false;
  };
  struct Call : UnaryCall {
    Connection* connection = nullptr;
    Clock::time_point started;
  };

  bool Connect() {
    for (int i = 0; i < load_.connections; ++i) {
      auto connection = std::make_unique<Connection>();
      std::string error;
      connection->client = Http2Client::Connect(
          load_.endpoints[static_cast<size_t>(i) % load_.endpoints.size()], &error);
      if (connection->client == nullptr) {
        Broken(error);
        return false;
      }
      connection->client->on_end = [this](UnaryCall* call) { Finished(static_cast<Call*>(call)); };
      Poll(connection.get(), EPOLL_CTL_ADD, EPOLLIN);
      connections_.push_back(std::move(connection));
    }
    for (size_t i = 0; i < calls_.size(); ++i) {
      calls_[i].connection = connections_[i % connections_.size()].get();
    }
    return true;
  }

  void Poll(Connection* connection, int operation, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = connection;
    CONCLAVE_CHECK(epoll_ctl(epoll_, operation, connection->client->fd(), &event) == 0,
                   std::strerror(errno));
  }

  void Broken(const std::string& why) {
    broken_ = true;
    if (report_.errors++ == 0) report_.first_error = why;
  }

  bool Over() const {
    if (load_.total > 0 && issued_ >= load_.total) return true;
    return load_.seconds > 0 && now_ >= end_;
  }

  Clock::time_point NextDue() const {
    return started_ + std::chrono::duration_cast<Clock::duration>(
                          std::chrono::duration<double>(static_cast<double>(issued_) / load_.rate));
  }

  void StartDue() {
    now_ = Clock::now();
    while (!idle_.empty() && !Over()) {
      auto start = now_;
      if (load_.rate > 0) {
        start = NextDue();
        if (start > now_) break;
      }
      Call* call = idle_.back();
      idle_.pop_back();
      Start(call, start);
    }
    for (Connection* connection : dirty_) {
      connection->dirty = false;
      if (!connection->client->Flush()) return Broken("the connection broke");
      const bool polls_write = connection->client->wants_write();
      if (polls_write == connection->polls_write) continue;
      connection->polls_write = polls_write;
      Poll(connection, EPOLL_CTL_MOD, polls_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    dirty_.clear();
  }

  void Start(Call* call, Clock::time_point start) {
    call->started = start;
    call->connection->client->Start(load_.method, load_.request(issued_), call);
    MarkDirty(call->connection);
    ++issued_;
    ++in_flight_;
  }

  void MarkDirty(Connection* connection) {
    if (std::exchange(connection->dirty, true)) return;
    dirty_.push_back(connection);
  }

  void Wait() {
    Clock::duration longest = kPatience;
    const bool next_is_timed = load_.rate > 0 && !Over() && !idle_.empty();
    if (next_is_timed) longest = std::max(NextDue() - Clock::now(), Clock::duration::zero());
    timespec timeout{};
    timeout.tv_sec = static_cast<time_t>(longest.count() / 1'000'000'000);
    timeout.tv_nsec = static_cast<long>(longest.count() % 1'000'000'000);
    epoll_event events[kEventsMax];
    const int count = epoll_pwait2(epoll_, events, kEventsMax, &timeout, nullptr);
    if (count == 0 && !next_is_timed) return Broken("no answer for a minute");
    now_ = Clock::now();
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if (!connection->client->OnReady()) return Broken("the connection broke");
      MarkDirty(connection);  // acknowledgements, window updates
    }
  }

  void Finished(Call* call) {
    --in_flight_;
    if (call->status == 0) {
      ++report_.operations;
      report_.latency.Record(
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - call->started)
              .count());
    } else if (report_.errors++ == 0) {
      report_.first_error = "status " + std::to_string(call->status) + ": " + call->message;
    }
    idle_.push_back(call);
  }

  const UnaryLoad& load_;
  const int epoll_;
  std::vector<Call> calls_;
  std::vector<std::unique_ptr<Connection>> connections_;  // destroyed before the calls
  std::vector<Connection*> dirty_;
  std::vector<Call*> idle_;
  Clock::time_point now_;
  Clock::time_point started_;
  Clock::time_point end_ = Clock::time_point::max();
  uint64_t issued_ = 0;
  uint64_t in_flight_ = 0;
  bool broken_ = false;
  Report report_;
};

}  // namespace

Report Run(const UnaryLoad& load) { return Runner(load).Run(); }

}  // namespace conclave::bench
