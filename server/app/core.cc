#include "conclave/server/app/core.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/time/time.h"
#include "conclave/api/wire/errors.h"
#include "conclave/base/check.h"

namespace conclave::app {
namespace {

using rpc::Now;

constexpr auto kNotStartedYet = std::chrono::milliseconds(1);

node::Reply ServerStopped() {
  node::Reply reply;
  reply.error = std::make_unique<node::CallError>(node::CallError{
      static_cast<int>(wire::kErrStopped.code), std::string(wire::kErrStopped.message)});
  return reply;
}

}  // namespace

Core::Core(CorePlacement placement, std::unique_ptr<node::Node> node, CoreSinks sinks)
    : placement_(placement), node_(std::move(node)), sinks_(std::move(sinks)) {
  if (placement_ == CorePlacement::kOwnThread) {
    bell_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CONCLAVE_CHECK(bell_ >= 0, "eventfd: ", std::strerror(errno));
  }
}

Core::~Core() {
  Stop();
  if (bell_ >= 0) close(bell_);
}

void Core::Start(rpc::Transport* transport) {
  transport_.store(transport, std::memory_order_release);
  if (placement_ == CorePlacement::kOwnThread) {
    thread_ = std::thread([this] { Run(); });
  } else {
    transport->Wake(0);
  }
}

void Core::Stop() {
  if (stopping_.exchange(true)) return;
  if (thread_.joinable()) {
    Ring();
    thread_.join();
  }
  std::unordered_map<uint64_t, std::function<void(node::Reply)>> calls;
  {
    std::scoped_lock lock(turn_mutex_, pending_mutex_);  // a turn that has begun is over after this
    calls.swap(pending_calls_);
    pending_stats_.clear();
  }
  for (auto& [id, done] : calls) done(ServerStopped());
}

void Core::Ring() {
  if (placement_ == CorePlacement::kOwnThread) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(bell_, &one, sizeof one);
    return;
  }
  if (rpc::Transport* transport = transport_.load(std::memory_order_acquire)) transport->Wake(0);
}

void Core::Post(node::Input input) {
  if (mailbox_.Put(std::move(input)) && !stopping_.load(std::memory_order_acquire)) Ring();
}

void Core::Call(node::Method method, std::string request, std::function<void(node::Reply)> done,
                node::CredentialsRef who) {
  char* out = nullptr;
  Bytes bytes = Bytes::Uninitialized(node::kRequestHeadroom + request.size(), &out);
  std::memcpy(out + node::kRequestHeadroom, request.data(), request.size());
  uint64_t id = 0;
  {
    std::lock_guard lock(pending_mutex_);
    if (!stopping_.load(std::memory_order_acquire)) {
      id = ++last_local_id_ | rpc::kLocalCallBit;
      pending_calls_.emplace(id, std::move(done));
    }
  }
  if (id == 0) return done(ServerStopped());
  Post(node::UnaryCall{node::CallId(id), method, std::move(bytes), false, std::move(who)});
}

void Core::GetStats(std::function<void(std::shared_ptr<const node::Stats>)> done) {
  uint64_t id = 0;
  {
    std::lock_guard lock(pending_mutex_);
    if (stopping_.load(std::memory_order_acquire)) return;
    id = ++last_local_id_;
    pending_stats_.emplace(id, std::move(done));
  }
  Post(node::StatsRequest{id});
}

void Core::OnLocalReply(node::Reply reply) {
  std::function<void(node::Reply)> done;
  {
    std::lock_guard lock(pending_mutex_);
    const auto found = pending_calls_.find(reply.id.value());
    if (found == pending_calls_.end()) return;
    done = std::move(found->second);
    pending_calls_.erase(found);
  }
  done(std::move(reply));
}

Instant Core::OnBurst(int queue, std::vector<node::Input>* inputs) {
  const bool started = transport_.load(std::memory_order_acquire) != nullptr;
  if (placement_ == CorePlacement::kOnQueue && queue == 0) {
    if (!started) return Now() + kNotStartedYet;
    Instant deadline = RunTurn(inputs);
    // What came meanwhile rang no bell that this thread would hear late: it is in the mailbox, or
    // in *inputs.
    while (!inputs->empty()) deadline = RunTurn(inputs);
    return deadline;
  }
  bool ring = false;
  for (node::Input& input : *inputs) ring |= mailbox_.Put(std::move(input));
  inputs->clear();
  if (ring && !stopping_.load(std::memory_order_acquire)) Ring();
  return kNever;
}

Instant Core::RunTurn(std::vector<node::Input>* more) {
  std::lock_guard lock(turn_mutex_);
  if (stopping_.load(std::memory_order_acquire)) {
    if (more != nullptr) more->clear();
    return kNever;
  }
  mailbox_.TakeAll(&inputs_);
  if (more != nullptr) {
    if (inputs_.empty()) {
      inputs_.swap(*more);
    } else {
      std::move(more->begin(), more->end(), std::back_inserter(inputs_));
      more->clear();
    }
  }
  const Instant begin = Now();
  node_->Turn(begin, inputs_, &effects_);
  if (const Duration took = Now() - begin; took > sinks_.slow_turn) [[unlikely]] {
    slow_turns_.fetch_add(1, std::memory_order_relaxed);
    sinks_.log({.severity = node::Severity::kWarning,
                .message = "apply request took too long",
                .fields = {{"expected-duration",
                            absl::FormatDuration(absl::Nanoseconds(sinks_.slow_turn.count()))}},
                .numbers = {{"inputs", static_cast<int64_t>(inputs_.size())}},
                .took = took});
  }
  inputs_.clear();
  CarryOut();
  return node_->NextDeadline();
}

void Core::CarryOut() {
  // The disk first: it is what everything else waits for.
  if (effects_.append.has_value()) sinks_.append(*std::move(effects_.append));
  if (effects_.truncate.has_value()) sinks_.truncate(*effects_.truncate);
  for (node::SnapshotPiece& piece : effects_.snapshot_pieces) {
    sinks_.snapshot_piece(std::move(piece));
  }
  for (auth::PasswordJob& job : effects_.password_jobs) sinks_.password_job(std::move(job));
  transport_.load(std::memory_order_relaxed)->CarryOut(&effects_);
  for (node::LogLine& line : effects_.log_lines) sinks_.log(std::move(line));
  for (node::StatsReply& reply : effects_.stats_replies) {
    std::function<void(std::shared_ptr<const node::Stats>)> done;
    {
      std::lock_guard lock(pending_mutex_);
      const auto found = pending_stats_.find(reply.id);
      if (found == pending_stats_.end()) continue;
      done = std::move(found->second);
      pending_stats_.erase(found);
    }
    done(std::move(reply.stats));
  }
  if (effects_.ready) sinks_.ready();
  if (effects_.stopped) sinks_.stopped();
  if (effects_.diverged) sinks_.diverged();
  if (effects_.reload) sinks_.reload();
  if (effects_.check_files) sinks_.check_files();
  if (effects_.defragmented) sinks_.defragmented();
  effects_.Clear();
}

void Core::Run() {
  while (!stopping_.load(std::memory_order_acquire)) {
    const Instant deadline = RunTurn(nullptr);
    const Instant now = Now();
    if (deadline <= now) continue;
    timespec timeout{};
    if (deadline != kNever) {
      const auto left = (deadline - now).count();
      timeout.tv_sec = static_cast<time_t>(left / 1'000'000'000);
      timeout.tv_nsec = static_cast<long>(left % 1'000'000'000);
    }
    pollfd bell{bell_, POLLIN, 0};
    if (ppoll(&bell, 1, deadline == kNever ? nullptr : &timeout, nullptr) > 0) {
      uint64_t rung = 0;
      [[maybe_unused]] const ssize_t got = read(bell_, &rung, sizeof rung);
    }
  }
}

}  // namespace conclave::app
