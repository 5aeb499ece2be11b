#include "conclave/client/waiting_thread.h"

#include <atomic>
#include <mutex>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/client/client_impl.h"

namespace conclave {

struct WaitingThread::State {
  std::function<void()> wake;
  std::mutex mutex;   // held while `wake` runs
  bool gone = false;  // guarded by mutex
  std::atomic<bool> expired = false;
  TimerId timer{};  // of the loop's thread
};

WaitingThread::WaitingThread(std::shared_ptr<ClientImpl> impl, Instant deadline,
                             std::function<void()> wake)
    : impl_(std::move(impl)), state_(std::make_shared<State>()) {
  CONCLAVE_CHECK(!impl_->loop().OnThisThread(), "a blocking call on the IO thread");
  state_->wake = std::move(wake);
  if (deadline != kNever) {
    impl_->loop().Post([state = state_, deadline](Engine& engine) {
      state->timer = engine.At(deadline, [state] {
        state->expired = true;
        const std::lock_guard lock(state->mutex);
        if (!state->gone) state->wake();
      });
    });
  }
  impl_->loop().WaitBegins(EngineLoop::Wait::kCall);
}

WaitingThread::~WaitingThread() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->gone = true;
  }
  impl_->loop().WaitEnds(EngineLoop::Wait::kCall);
  impl_->loop().Post([state = state_](Engine& engine) { engine.CancelTimer(state->timer); });
}

bool WaitingThread::expired() const { return state_->expired; }

}  // namespace conclave
