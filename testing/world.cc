#include "conclave/testing/world.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/testing/client_loop.h"

namespace conclave::testing {
namespace {

// How long, by the machine's clock, time stands for callbacks that do not end. They wait for time
// itself then.
constexpr auto kCallbackPatience = std::chrono::milliseconds(200);
// Before the clock jumps by itself: whoever is about to say something gets this long.
constexpr auto kJumpPause = std::chrono::microseconds(200);
// For a thread that got its answer to say what it wants next.
constexpr auto kReleasePause = std::chrono::milliseconds(1);
// For which a thread may wait, by the machine's clock, before the clock takes pity on it.
constexpr auto kPatience = std::chrono::seconds(2);
// Rounds of work at one instant. More would never end.
constexpr int kRoundsMax = 1'000'000;

}  // namespace

World::World(const Member::Settings& settings, bool auto_advance)
    : now_(kBeginning.time_since_epoch().count()),
      auto_advance_(auto_advance),
      member_(settings, {.reply =
                             [this](node::Reply reply) {
                               auto found = calls_.find(reply.id.value());
                               if (found == calls_.end()) return;
                               const Peer peer = found->second;
                               calls_.erase(found);
                               peer.loop->OnReply(peer.wire_id, std::move(reply));
                             },
                         .stream =
                             [this](node::StreamEffect effect) {
                               auto found = calls_.find(effect.id.value());
                               if (found == calls_.end()) return;
                               const Peer peer = found->second;
                               if (effect.finish) calls_.erase(found);
                               peer.loop->OnStreamEffect(peer.wire_id, std::move(effect));
                             }}),
      thread_([this] { Run(); }) {}

World::~World() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  Ring();
  thread_.join();
}

void World::Ring() {
  {
    std::lock_guard lock(mutex_);
    rung_ = true;
  }
  bell_.notify_one();
}

void World::Post(Work work) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(work));
  }
  Ring();
}

void World::RunAndWait(absl::FunctionRef<void()> work) {
  if (OnThisThread()) return work();
  bool done = false;
  Post([this, work, &done] {
    work();
    std::lock_guard lock(mutex_);
    done = true;
    answered_.notify_all();
  });
  std::unique_lock lock(mutex_);
  answered_.wait(lock, [&done] { return done; });
}

// ---- Time --------------------------------------------------------------------------------------

void World::Await(Request& request) {
  CONCLAVE_CHECK(!OnThisThread(), "the world's own thread cannot wait for it");
  std::unique_lock lock(mutex_);
  requests_.push_back(&request);
  rung_ = true;
  bell_.notify_one();
  answered_.wait(lock, [&request] { return request.done; });
}

void World::Advance(Duration duration) {
  Request request{.target = now() + std::max(duration, Duration(0))};
  Await(request);
}

bool World::Step(Instant limit) {
  Request request{.target = limit, .one_step = true};
  Await(request);
  return !request.reached;
}

World::TimerId World::At(Instant when, Work work) {
  const TimerId id{when, next_id_++};
  timers_.emplace(id, std::move(work));
  return id;
}

void World::CancelTimer(TimerId& timer) {
  timers_.erase(timer);
  timer = TimerId{};
}

Instant World::NextDeadline() const {
  Instant next = paused_ ? kNever : member_.NextDeadline();
  if (!timers_.empty()) next = std::min(next, timers_.begin()->first.first);
  for (const ClientLoop* loop : loops_) next = std::min(next, loop->NextDeadline());
  return next;
}

void World::SetNow(Instant now) {
  now_.store(std::max(now, this->now()).time_since_epoch().count(), std::memory_order_release);
}

bool World::CompleteRequests() {
  std::lock_guard lock(mutex_);
  const auto is_done = [now = now()](Request* request) {
    request->reached = now >= request->target;
    request->done = request->reached || (request->one_step && request->moved);
    return request->done;
  };
  const bool any = std::erase_if(requests_, is_done) > 0;
  if (any) answered_.notify_all();
  return any;
}

bool World::CallbacksRest() {
  bool rest = true;
  for (ClientLoop* loop : loops_) rest &= loop->CallbacksRest();
  if (rest) return true;
  {
    std::unique_lock lock(mutex_);
    if (bell_.wait_for(lock, kCallbackPatience, [this] { return rung_; })) return false;
  }
  for (ClientLoop* loop : loops_) loop->GiveUpOnCallbacks();
  return true;
}

void World::WaitBegins(bool last_word) {
  ++waiting_;
  if (last_word) ++last_words_;
  Ring();
}

void World::WaitEnds(bool last_word, bool give_way) {
  if (give_way) {
    std::lock_guard lock(mutex_);
    released_ = true;
  }
  --waiting_;
  if (last_word) --last_words_;
}

bool World::RunsByItself() const {
  return last_words_ > 0 || (waiting_ > 0 && (auto_advance_ || abandoned_ || impatient_));
}

bool World::GiveWay() {
  std::unique_lock lock(mutex_);
  if (!std::exchange(released_, false)) return false;
  return bell_.wait_for(lock, kReleasePause, [this] { return rung_; });
}

bool World::MoveTime() {
  bool asked = false;
  {
    std::lock_guard lock(mutex_);
    asked = !requests_.empty();
  }
  if (asked) impatient_ = false;
  if (!asked && !RunsByItself()) return false;
  if (!CallbacksRest()) return true;
  if (CompleteRequests() || GiveWay()) return true;
  const Instant next = NextDeadline();
  std::unique_lock lock(mutex_);
  // A callback may have said something between the last round and its rest.
  if (rung_) return true;
  if (!requests_.empty()) {
    Instant target = next;
    for (Request* request : requests_) {
      target = std::min(target, request->target);
      request->moved = true;
    }
    SetNow(target);
    return true;
  }
  if (next == kNever) return false;
  if (bell_.wait_for(lock, kJumpPause, [this] { return rung_; })) return true;
  if (RunsByItself()) SetNow(next);
  return true;
}

// ---- The thread --------------------------------------------------------------------------------

bool World::Settle() {
  for (int round = 0;; ++round) {
    CONCLAVE_CHECK(round < kRoundsMax, "the world goes round and round at one instant");
    std::deque<Work> posted;
    {
      std::lock_guard lock(mutex_);
      rung_ = false;
      posted.swap(posted_);
    }
    bool did = !posted.empty();
    for (Work& work : posted) work();
    if (!paused_) did |= member_.Work(now());
    while (!timers_.empty() && timers_.begin()->first.first <= now()) {
      Work work = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      work();
      did = true;
    }
    for (ClientLoop* loop : loops_) did |= loop->DoWork();
    if (!did) return round > 0;
  }
}

void World::Run() {
  for (;;) {
    Settle();
    if (MoveTime()) continue;
    std::unique_lock lock(mutex_);
    if (ending_) return;
    if (waiting_ == 0) impatient_ = false;
    if (waiting_ == 0 || impatient_) {
      bell_.wait(lock, [this] { return rung_; });
    } else if (!bell_.wait_for(lock, kPatience, [this] { return rung_; })) {
      impatient_ = true;
      std::fprintf(
          stderr,
          "FakeServer: a call waits for time to pass, and nobody moves the clock (Advance, "
          "or Options::auto_advance): it runs until the call returns\n");
    }
  }
}

// ---- The server's side -------------------------------------------------------------------------

void World::Join(ClientLoop* loop) { loops_.push_back(loop); }

void World::Leave(ClientLoop* loop) {
  std::erase(loops_, loop);
  std::erase_if(calls_, [loop](const auto& call) { return call.second.loop == loop; });
}

node::CallId World::Open(ClientLoop* loop, uint64_t wire_id) {
  const uint64_t id = next_id_++;
  calls_[id] = {loop, wire_id};
  return node::CallId(id);
}

bool World::TakeFault(std::string_view method, bool answer, Fault* fault) {
  for (auto it = faults_.begin(); it != faults_.end(); ++it) {
    if (it->method != method || (it->kind == Fault::Kind::kLoseAnswer) != answer) continue;
    if (it->passing-- > 0) return false;
    *fault = std::move(*it);
    faults_.erase(it);
    return true;
  }
  return false;
}

bool World::Muted(int64_t lease) const {
  return std::find(muted_.begin(), muted_.end(), lease) != muted_.end();
}

void World::KillMember() {
  if (!member_.up()) return;
  member_.Kill();
  ResumeMember();
  calls_.clear();
  for (ClientLoop* loop : loops_) loop->ServerDied();
}

void World::PauseMember() {
  if (paused_ || !member_.up()) return;
  paused_ = true;
  for (ClientLoop* loop : loops_) loop->ServerPaused();
}

void World::ResumeMember() {
  if (!paused_) return;
  paused_ = false;
  for (ClientLoop* loop : loops_) loop->ServerResumed();
}

void World::Abandon() {
  RunAndWait([this] {
    KillMember();
    for (ClientLoop* loop : loops_) loop->Heal();
    abandoned_ = true;
  });
}

}  // namespace conclave::testing
