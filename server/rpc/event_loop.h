// EventLoop: one epoll instance, its thread, and what the thread has in hand. All sockets of a
// server hang on one.
//
// The loop works in bursts: it handles the sockets that are ready, hands what they brought to the
// core in one call (BurstHandler::OnBurst), and then lets every connection that has something to
// say write once. So a burst of requests costs one turn of the core, and a connection's replies of
// a turn one system call.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/base/mailbox.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/rpc/call_counters.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::rpc {

// Sockets handled before the core gets its turn: a bound on how long the first request waits for
// the last one.
inline constexpr int kBurstEventsMax = 256;

// Owned by its thread except where a member says "any thread".
class EventLoop {
 public:
  // A socket on the loop.
  class Socket {
   public:
    virtual ~Socket() = default;
    // `events` are EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR.
    virtual void OnReady(uint32_t events) = 0;
    // Asked for by FlushLater: the burst is over, and the core has answered.
    virtual void OnFlush() {}

   private:
    friend class EventLoop;
    bool flush_wanted_ = false;
    bool retired_ = false;
  };

  EventLoop(int index, BurstHandler* handler);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  void StartThread();
  // Any other thread. Closes nothing: the sockets' owners have done that before.
  void StopAndJoin();

  // Any thread: the burst handler will be called.
  void Wake();
  // Any thread: runs `task` on the loop's thread.
  void Post(std::function<void()> task);
  // True on the loop's own thread.
  bool IsCurrent() const;

  void Add(int fd, uint32_t events, Socket* socket);
  void Modify(int fd, uint32_t events, Socket* socket);
  void Remove(int fd);
  // OnFlush will be called once after the core's turn.
  void FlushLater(Socket* socket);
  // Destroys a socket that has been removed, when nothing of this burst can refer to it any more.
  void Retire(std::unique_ptr<Socket> socket);

  // Runs `task` at `when`. Few at a time (a peer's next attempt, a sweep).
  void At(Instant when, std::function<void()> task);

  // What the burst has brought so far.
  std::vector<node::Input>& inputs() { return inputs_; }
  QueueCounters& counters() { return counters_; }
  int index() const { return index_; }
  // When the burst under way began: near enough to now for everything but latencies.
  Instant now() const { return now_; }

 private:
  void Run();
  void HandleEvents(const epoll_event* events, int count);
  void EndBurst();
  void Flush();
  void RunTasks();
  void RunTimers();
  int WaitEvents(epoll_event* events, int max);

  const int index_;
  BurstHandler* const handler_;
  int epoll_ = -1;
  int bell_ = -1;  // eventfd
  std::thread thread_;
  Instant now_{};
  Instant sleep_until_{};  // the first burst comes at once
  bool woken_ = false;
  bool stop_ = false;

  std::vector<node::Input> inputs_;
  std::vector<Socket*> flushing_;
  std::vector<Socket*> flushing_now_;
  std::vector<std::unique_ptr<Socket>> retired_;
  std::vector<std::pair<Instant, std::function<void()>>> timers_;
  QueueCounters counters_;

  std::atomic<bool> bell_rung_{false};
  Mailbox<std::function<void()>> tasks_;
  std::vector<std::function<void()>> tasks_in_hand_;
};

}  // namespace conclave::rpc
