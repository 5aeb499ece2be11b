#include "conclave/server/recipes/recipe_door.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/api/wire/errors.h"
#include "conclave/base/check.h"
#include "conclave/base/mailbox.h"
#include "conclave/server/recipes/caller_client.h"
#include "conclave/server/recipes/recipe_call.h"

namespace conclave::recipes {
namespace {

using Clock = std::chrono::steady_clock;

// How long a caller's client outlives its last call: what a contender has to clean up behind the
// scenes takes this long at most.
constexpr Duration kLinger = std::chrono::seconds(30);
constexpr Duration kSweepInterval = std::chrono::seconds(10);

Instant Now() {
  return Instant(std::chrono::duration_cast<Duration>(Clock::now().time_since_epoch()));
}

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::unique_ptr<node::CallError> ErrorOf(const wire::Error& error) {
  return std::make_unique<node::CallError>(
      node::CallError{static_cast<int>(error.code), std::string(error.message)});
}

}  // namespace

class RecipeDoor::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {}
  ~Impl() { Stop(); }

  void Begin(Call call) {
    Post([this, call = std::make_shared<Call>(std::move(call))] { Open(std::move(*call)); });
  }
  void Cancel(node::CallId id) {
    Post([this, id] {
      if (const auto found = calls_.find(id.value()); found != calls_.end()) {
        found->second->recipe->Cancel();
      }
    });
  }
  void Sent(node::CallId id, uint64_t bytes) {
    Post([this, id, bytes] {
      if (const auto found = calls_.find(id.value()); found != calls_.end()) {
        found->second->recipe->OnSent(bytes);
      }
    });
  }
  void Stop();

 private:
  struct Caller {
    std::shared_ptr<CallerClient> client;
    size_t calls = 0;
    Instant idle_since{};
  };
  // One call of a client: answers it, once, and goes.
  struct Pending final : Answerer {
    Pending(Impl* owner, Call call, Caller* from)
        : door(owner), id(call.id), is_stream(call.method.ends_with("/Observe")), caller(from) {}
    void Message(std::string message) override {
      if (over) return;
      node::StreamEffect effect;
      effect.id = id;
      effect.charge = static_cast<uint32_t>(message.size());
      effect.prefix = Bytes::Copy(message);
      door->options_.stream(std::move(effect));
    }
    void Done(std::string message) override {
      if (!over) door->End(this, Bytes::Copy(message), nullptr);
    }
    void Fail(int code, std::string_view text) override {
      if (over) return;
      door->End(this, {},
                std::make_unique<node::CallError>(node::CallError{code, std::string(text)}));
    }

    Impl* const door;
    const node::CallId id;
    const bool is_stream;
    Caller* const caller;
    bool over = false;
    std::unique_ptr<RecipeCall> recipe;
  };

  void Post(std::function<void()> work);
  void Run();
  void Advance();
  void Open(Call call);
  Caller* CallerOf(const node::CredentialsRef& credentials);
  void End(Pending* call, Bytes message, std::unique_ptr<node::CallError> error);
  void Refuse(const Call& call, const wire::Error& error);
  void Sweep();
  bool EvictIdle();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable bell_;
  bool stopping_ = false;                      // guarded by mutex_
  std::vector<std::function<void()>> posted_;  // guarded by mutex_

  // Of the thread, after the first call.
  std::map<uint64_t, std::unique_ptr<Pending>> calls_;
  std::map<std::string, Caller> callers_;  // by token
  std::vector<std::unique_ptr<Pending>> over_;
  Instant sweep_at_ = kNever;
  uint64_t clients_made_ = 0;
  std::thread thread_;  // guarded by mutex_ until Stop
};

void RecipeDoor::Impl::Post(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    posted_.push_back(std::move(work));
    if (!thread_.joinable()) {
      thread_ = std::thread([this] { Run(); });
      pthread_setname_np(thread_.native_handle(), "conclave-recipes");
    }
  }
  bell_.notify_one();
}

void RecipeDoor::Impl::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  bell_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void RecipeDoor::Impl::Run() {
  std::vector<std::function<void()>> work;
  for (;;) {
    Instant until = sweep_at_;
    for (auto& [token, caller] : callers_) {
      until = std::min(until, caller.client->engine().NextDeadline());
    }
    {
      std::unique_lock lock(mutex_);
      const auto stirred = [this] { return stopping_ || !posted_.empty(); };
      if (until == kNever) {
        bell_.wait(lock, stirred);
      } else {
        bell_.wait_until(lock, Clock::time_point(until.time_since_epoch()), stirred);
      }
      if (stopping_) break;
      work.swap(posted_);
    }
    Advance();
    for (auto& each : work) each();
    work.clear();
    Advance();
    over_.clear();
    if (Now() >= sweep_at_) Sweep();
  }
  while (!calls_.empty()) End(calls_.begin()->second.get(), {}, ErrorOf(wire::kErrStopped));
  // What is under way ends with a word to its call, which must still be there.
  for (auto& [token, caller] : callers_) caller.client->Shutdown();
  over_.clear();
  callers_.clear();
}

void RecipeDoor::Impl::Advance() {
  for (auto& [token, caller] : callers_) caller.client->engine().Advance(Now());
}

void RecipeDoor::Impl::Open(Call call) {
  if (calls_.size() >= kCallsMax) return Refuse(call, wire::kErrTooManyRequests);
  if (call.credentials != nullptr && !IsPrintable(call.credentials->token)) {
    return Refuse(call, wire::kErrInvalidAuthToken);
  }
  Caller* const caller = CallerOf(call.credentials);
  if (caller == nullptr) return Refuse(call, wire::kErrTooManyRequests);
  auto open = std::make_unique<Pending>(this, call, caller);
  const std::string_view request(call.request.data(), call.request.size());
  open->recipe = MakeRecipeCall(call.method, request, caller->client, open.get());
  if (open->recipe == nullptr) return Refuse(call, wire::kErrMalformed);
  ++caller->calls;
  Pending* const started = open.get();
  CONCLAVE_CHECK(calls_.emplace(call.id.value(), std::move(open)).second, "a call begins twice");
  started->recipe->Start();
}

RecipeDoor::Impl::Caller* RecipeDoor::Impl::CallerOf(const node::CredentialsRef& credentials) {
  const std::string token = credentials == nullptr ? std::string() : credentials->token;
  const auto found = callers_.find(token);
  if (found != callers_.end()) return &found->second;
  if (callers_.size() >= kCallersMax && !EvictIdle()) return nullptr;
  Caller& caller = callers_[token];
  EngineOptions engine{.endpoints = {"local"}, .seed = options_.seed + ++clients_made_};
  caller.client = std::make_shared<CallerClient>(
      options_.channel, [this](std::function<void()> work) { Post(std::move(work)); }, token,
      std::move(engine));
  caller.client->engine().Advance(Now());
  if (sweep_at_ == kNever) sweep_at_ = Now() + kSweepInterval;
  return &caller;
}

// The object goes later: it may be in the middle of something.
void RecipeDoor::Impl::End(Pending* call, Bytes message, std::unique_ptr<node::CallError> error) {
  call->over = true;
  if (call->is_stream) {
    node::StreamEffect effect;
    effect.id = call->id;
    effect.finish = true;
    effect.error = std::move(error);
    options_.stream(std::move(effect));
  } else {
    options_.reply({call->id, std::move(error), std::move(message)});
  }
  if (--call->caller->calls == 0) call->caller->idle_since = Now();
  const auto found = calls_.find(call->id.value());
  over_.push_back(std::move(found->second));
  calls_.erase(found);
}

void RecipeDoor::Impl::Refuse(const Call& call, const wire::Error& error) {
  if (!call.method.ends_with("/Observe")) return options_.reply({call.id, ErrorOf(error), {}});
  node::StreamEffect effect;
  effect.id = call.id;
  effect.finish = true;
  effect.error = ErrorOf(error);
  options_.stream(std::move(effect));
}

void RecipeDoor::Impl::Sweep() {
  const Instant now = Now();
  for (auto entry = callers_.begin(); entry != callers_.end();) {
    const auto caller = entry++;
    if (caller->second.calls > 0 || now - caller->second.idle_since < kLinger) continue;
    caller->second.client->Shutdown();
    callers_.erase(caller);
  }
  sweep_at_ = callers_.empty() ? kNever : now + kSweepInterval;
}

bool RecipeDoor::Impl::EvictIdle() {
  auto oldest = callers_.end();
  for (auto entry = callers_.begin(); entry != callers_.end(); ++entry) {
    if (entry->second.calls > 0) continue;
    if (oldest == callers_.end() || entry->second.idle_since < oldest->second.idle_since) {
      oldest = entry;
    }
  }
  if (oldest == callers_.end()) return false;
  oldest->second.client->Shutdown();
  callers_.erase(oldest);
  return true;
}

RecipeDoor::RecipeDoor(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
RecipeDoor::~RecipeDoor() = default;

void RecipeDoor::Begin(Call call) { impl_->Begin(std::move(call)); }
void RecipeDoor::Cancel(node::CallId id) { impl_->Cancel(id); }
void RecipeDoor::Sent(node::CallId id, uint64_t bytes) { impl_->Sent(id, bytes); }
void RecipeDoor::Stop() { impl_->Stop(); }

}  // namespace conclave::recipes
