#include "conclave/server/rpc/event_loop.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "conclave/base/check.h"
#include "conclave/server/rpc/method_table.h"

namespace conclave::rpc {
namespace {

thread_local const EventLoop* current_loop = nullptr;

}  // namespace

Instant Now() { return Instant(std::chrono::steady_clock::now().time_since_epoch()); }

EventLoop::EventLoop(int index, BurstHandler* handler) : index_(index), handler_(handler) {
  counters_.methods = std::make_unique<MethodCounters[]>(AllMethods().size());
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  bell_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  CONCLAVE_CHECK(epoll_ >= 0 && bell_ >= 0, std::strerror(errno));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;  // each ring is heard once, and needs no read
  event.data.ptr = nullptr;          // the bell
  CONCLAVE_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, bell_, &event) == 0, std::strerror(errno));
}

EventLoop::~EventLoop() {
  CONCLAVE_CHECK(!thread_.joinable(), "the loop's thread still runs");
  close(bell_);
  close(epoll_);
}

void EventLoop::StartThread() {
  thread_ = std::thread([this] { Run(); });
}

void EventLoop::StopAndJoin() {
  if (!thread_.joinable()) return;
  Post([this] { stop_ = true; });
  thread_.join();
}

bool EventLoop::IsCurrent() const { return current_loop == this; }

void EventLoop::Wake() {
  if (bell_rung_.exchange(true, std::memory_order_acq_rel)) return;
  const uint64_t one = 1;
  const ssize_t written = write(bell_, &one, sizeof one);
  CONCLAVE_CHECK(written == sizeof one || errno == EAGAIN, std::strerror(errno));
}

void EventLoop::Post(std::function<void()> task) {
  if (tasks_.Put(std::move(task))) Wake();
}

void EventLoop::Add(int fd, uint32_t events, Socket* socket) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = socket;
  CONCLAVE_CHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0, std::strerror(errno));
}

void EventLoop::Modify(int fd, uint32_t events, Socket* socket) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = socket;
  CONCLAVE_CHECK(epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0, std::strerror(errno));
}

void EventLoop::Remove(int fd) {
  CONCLAVE_CHECK(epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr) == 0, std::strerror(errno));
}

void EventLoop::FlushLater(Socket* socket) {
  if (socket->flush_wanted_) return;
  socket->flush_wanted_ = true;
  flushing_.push_back(socket);
}

void EventLoop::Retire(std::unique_ptr<Socket> socket) {
  socket->retired_ = true;
  retired_.push_back(std::move(socket));
}

void EventLoop::At(Instant when, std::function<void()> task) {
  timers_.emplace_back(when, std::move(task));
  sleep_until_ = std::min(sleep_until_, when);
}

void EventLoop::RunTimers() {
  if (timers_.empty()) return;
  std::vector<std::function<void()>> due;
  std::erase_if(timers_, [&](auto& timer) {
    if (timer.first > now_) return false;
    due.push_back(std::move(timer.second));
    return true;
  });
  for (auto& task : due) task();
}

void EventLoop::RunTasks() {
  tasks_.TakeAll(&tasks_in_hand_);
  for (auto& task : tasks_in_hand_) task();
  tasks_in_hand_.clear();
}

int EventLoop::WaitEvents(epoll_event* events, int max) {
  if (sleep_until_ == kNever) return epoll_wait(epoll_, events, max, -1);
  const int64_t left = std::max<int64_t>(0, (sleep_until_ - Now()).count());
  timespec timeout{};
  timeout.tv_sec = left / 1'000'000'000;
  timeout.tv_nsec = left % 1'000'000'000;
  return epoll_pwait2(epoll_, events, max, &timeout, nullptr);
}

void EventLoop::HandleEvents(const epoll_event* events, int count) {
  for (int i = 0; i < count; ++i) {
    counters_.events.Add();
    auto* socket = static_cast<Socket*>(events[i].data.ptr);
    if (socket == nullptr) {
      bell_rung_.store(false, std::memory_order_release);
      woken_ = true;
    } else if (!socket->retired_) {
      socket->OnReady(events[i].events);
    }
  }
}

void EventLoop::Flush() {
  // A flush may close its connection, which may make others want a flush.
  while (!flushing_.empty()) {
    flushing_now_.swap(flushing_);
    for (Socket* socket : flushing_now_) {
      socket->flush_wanted_ = false;
      if (!socket->retired_) socket->OnFlush();
    }
    flushing_now_.clear();
  }
}

void EventLoop::EndBurst() {
  counters_.bursts.Add();
  woken_ = false;
  RunTasks();
  RunTimers();
  sleep_until_ = handler_->OnBurst(index_, &inputs_);
  for (const auto& timer : timers_) sleep_until_ = std::min(sleep_until_, timer.first);
}

void EventLoop::Run() {
  current_loop = this;
  epoll_event events[kBurstEventsMax];
  while (!stop_) {
    const int count = WaitEvents(events, kBurstEventsMax);
    CONCLAVE_CHECK(count >= 0 || errno == EINTR, std::strerror(errno));
    now_ = Now();
    HandleEvents(events, std::max(count, 0));
    if (!inputs_.empty() || woken_ || now_ >= sleep_until_) EndBurst();
    Flush();
    retired_.clear();
    // A flush that closed a connection may have told the core.
    if (!inputs_.empty()) sleep_until_ = now_;
  }
  current_loop = nullptr;
}

}  // namespace conclave::rpc
