#include "conclave/discovery/picking/hub.h"

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

namespace conclave::picking {
namespace {

// How long one watch of a connection lasts until it is renewed. A hub that ends has to wait for its
// watches, hence not long; and all watches together shall not be renewed more often than 200 times
// a second.
constexpr std::chrono::milliseconds kWatchMin(250);
constexpr std::chrono::milliseconds kWatchMax(5'000);
constexpr std::chrono::milliseconds kRenewalPause(10);

constexpr int kEventsPerTurnMax = 256;

}  // namespace

Instant SteadyNow() {
  return Instant(
      std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

struct Hub::Event {
  explicit Event(uint64_t of) : member(of) {}
  virtual ~Event() = default;
  const uint64_t member;
};

struct Hub::StateEvent final : Event {
  StateEvent(uint64_t of, uint64_t number, const std::shared_ptr<grpc::Channel>& watched)
      : Event(of), connection(number), channel(watched) {}
  const uint64_t connection;
  const std::weak_ptr<grpc::Channel> channel;
  grpc_connectivity_state state = GRPC_CHANNEL_IDLE;  // as last reported
};

struct Hub::WakeEvent final : Event {
  using Event::Event;
  grpc::Alarm alarm;
};

// What threads that outlive the hub may still touch.
struct Hub::Queue {
  std::mutex mutex;
  bool stopping = false;         // guarded by mutex
  std::set<uint64_t> waking;     // guarded by mutex: members with a wake-up under way
  int watches = 0;               // guarded by mutex
  grpc::CompletionQueue events;  // nothing is put in once stopping

  // Takes the event if it could be armed.
  bool Arm(StateEvent* event, grpc::Channel& channel, grpc_connectivity_state state) {
    const std::lock_guard lock(mutex);
    if (stopping) return false;
    const auto lasts = std::clamp(kRenewalPause * watches, kWatchMin, kWatchMax);
    channel.NotifyOnStateChange(state, std::chrono::system_clock::now() + lasts, &events, event);
    return true;
  }
  void Count(int more) {
    const std::lock_guard lock(mutex);
    watches += more;
  }
  void Wake(uint64_t member) {
    const std::lock_guard lock(mutex);
    if (stopping || !waking.insert(member).second) return;
    auto event = std::make_unique<WakeEvent>(member);
    event->alarm.Set(&events, std::chrono::system_clock::now(), event.get());
    event.release();  // the queue's
  }
};

std::shared_ptr<Hub> Hub::Shared() {
  static std::mutex mutex;
  static std::weak_ptr<Hub> shared;
  const std::lock_guard lock(mutex);
  std::shared_ptr<Hub> hub = shared.lock();
  if (hub == nullptr) {
    hub = std::shared_ptr<Hub>(new Hub());
    shared = hub;
  }
  return hub;
}

Hub::Hub() : queue_(std::make_shared<Queue>()) {
  thread_ = std::thread([this] { Run(); });
}

Hub::~Hub() {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->stopping = true;
    queue_->events.Shutdown();
  }
  thread_.join();
}

uint64_t Hub::Join(Member* member) {
  const std::lock_guard lock(mutex_);
  members_.emplace(next_member_, Entry{.member = member, .due = kNever});
  return next_member_++;
}

void Hub::Leave(uint64_t member) {
  std::unique_lock lock(mutex_);
  members_.erase(member);
  if (std::this_thread::get_id() == thread_.get_id()) return;
  idle_.wait(lock, [this, member] { return running_ != member; });
}

void Hub::Watch(uint64_t member, uint64_t connection,
                const std::shared_ptr<grpc::Channel>& channel) {
  auto event = std::make_unique<StateEvent>(member, connection, channel);
  queue_->Count(1);
  (void)channel->GetState(/*try_to_connect=*/true);
  // The channel may be further already; then this is reported at once.
  if (queue_->Arm(event.get(), *channel, GRPC_CHANNEL_IDLE)) {
    event.release();  // the queue's
  } else {
    queue_->Count(-1);
  }
}

std::function<void()> Hub::Waker(uint64_t member) {
  return [queue = std::weak_ptr<Queue>(queue_), member] {
    if (const auto alive = queue.lock()) alive->Wake(member);
  };
}

void Hub::Run() {
  while (true) {
    const Instant due = NextDue();
    auto deadline = std::chrono::system_clock::time_point::max();
    if (due != kNever) {
      const Duration left = std::max(Duration::zero(), due - SteadyNow());
      deadline = std::chrono::system_clock::now() +
                 std::chrono::duration_cast<std::chrono::system_clock::duration>(left);
    }
    void* tag = nullptr;
    bool ok = false;
    std::set<uint64_t> touched;
    auto next = queue_->events.AsyncNext(&tag, &ok, deadline);
    for (int n = 0; next == grpc::CompletionQueue::GOT_EVENT; ++n) {
      Handle(static_cast<Event*>(tag), &touched);
      if (n == kEventsPerTurnMax) break;
      // The epoch, which is past; time_point::min() means "never" to gRPC.
      next = queue_->events.AsyncNext(&tag, &ok, std::chrono::system_clock::time_point());
    }
    if (next == grpc::CompletionQueue::SHUTDOWN) return;
    Turn(touched);
  }
}

void Hub::Handle(Event* event, std::set<uint64_t>* touched) {
  std::unique_ptr<Event> owned(event);
  if (dynamic_cast<WakeEvent*>(event) != nullptr) {
    const std::lock_guard lock(queue_->mutex);
    queue_->waking.erase(event->member);
    touched->insert(event->member);
    return;
  }
  auto* change = static_cast<StateEvent*>(event);
  // This may be the last owner; then the connection ends here.
  const std::shared_ptr<grpc::Channel> channel = change->channel.lock();
  if (channel != nullptr) {
    const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
    if (state != change->state) {
      change->state = state;
      With(change->member,
           [change, state](Member& member) { member.OnState(change->connection, state); });
      touched->insert(change->member);
    }
    if (queue_->Arm(change, *channel, state)) {
      owned.release();  // the queue's
      return;
    }
  }
  queue_->Count(-1);
}

void Hub::Turn(const std::set<uint64_t>& touched) {
  const Instant now = SteadyNow();
  std::set<uint64_t> due = touched;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [number, entry] : members_) {
      if (entry.due <= now) due.insert(number);
    }
  }
  for (const uint64_t number : due) {
    Instant next = kNever;
    With(number, [now, &next](Member& member) { next = member.OnTurn(now); });
    const std::lock_guard lock(mutex_);
    const auto found = members_.find(number);
    if (found != members_.end()) found->second.due = next;
  }
}

void Hub::With(uint64_t number, const std::function<void(Member&)>& action) {
  Member* member = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto found = members_.find(number);
    if (found == members_.end()) return;
    member = found->second.member;
    running_ = number;
  }
  action(*member);
  {
    const std::lock_guard lock(mutex_);
    running_ = 0;
  }
  idle_.notify_all();
}

Instant Hub::NextDue() {
  const std::lock_guard lock(mutex_);
  Instant due = kNever;
  for (const auto& [number, entry] : members_) due = std::min(due, entry.due);
  return due;
}

}  // namespace conclave::picking
