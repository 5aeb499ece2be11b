#include "conclave/tests/sim/recipes/blocking_thread.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/core/engine_loop.h"

namespace conclave::sim {

// The client's loop is the process: whoever would run it runs the world. It outlives its thread.
class BlockingThread::Loop : public EngineLoop {
 public:
  explicit Loop(BlockingThread* thread) : thread_(*thread), process_(*thread->process_) {}

  void Post(absl::AnyInvocable<void(Engine&)> work) override {
    auto shared = std::make_shared<absl::AnyInvocable<void(Engine&)>>(std::move(work));
    process_.RunAfter(Duration(0), [shared](Engine& engine) { (*shared)(engine); });
  }
  bool OnThisThread() const override { return false; }  // callers are never within the engine
  Instant Now() const override { return process_.LocalNow(); }
  bool RunDirectly(absl::FunctionRef<void(Engine&)> work, absl::FunctionRef<bool()> done) override {
    process_.Run([work](Engine& engine) { work(engine); });
    thread_.Wait(done);
    return true;
  }

 private:
  BlockingThread& thread_;  // who blocks is there
  Process& process_;
};

BlockingThread::BlockingThread(Simulation* simulation, Process* process, Main main)
    : simulation_(simulation), process_(process), main_(std::move(main)), thread_([this] {
        turn_.acquire();
        Live();
        ended_ = true;
        turn_over_.release();
      }) {
  process_->SetAtRest([this] {
    if (Ready()) PlanTurn();
  });
  PlanTurn();
}

BlockingThread::~BlockingThread() {
  RunOut();
  thread_.join();
}

void BlockingThread::RunOut() {
  process_->SetAtRest(nullptr);
  if (ended_) return;
  process_->RunOut([this] {
    while (!ended_ && Ready()) TakeTurn();
    return ended_;
  });
}

void BlockingThread::Live() {
  ConnectOptions options;
  options.log_sink = [](LogLevel, std::string_view) {};
  std::vector<std::string> endpoints;
  for (size_t i = 0; i < simulation_->member_count(); ++i) {
    endpoints.push_back(absl::StrCat("m", i));
  }
  const std::shared_ptr<ClientImpl> client = ClientImpl::Make(
      options, endpoints, [this](EngineOptions) { return std::make_unique<Loop>(this); });
  process_->Keep(client);
  main_(conclave::Client(client));
  // Nothing that hangs on the engine is left to the client's threads.
  while (!client->callbacks().idle() || !client->signals().idle()) std::this_thread::yield();
}

void BlockingThread::Wait(absl::FunctionRef<bool()> done) {
  done_ = &done;
  while (!done()) {
    turn_over_.release();
    turn_.acquire();
  }
  done_ = nullptr;
}

bool BlockingThread::Ready() const { return !ended_ && (done_ == nullptr || (*done_)()); }

void BlockingThread::PlanTurn() {
  if (std::exchange(*planned_, true)) return;
  simulation_->schedule().After(Duration(0), [this, known = std::weak_ptr<bool>(planned_)] {
    const std::shared_ptr<bool> planned = known.lock();
    if (planned == nullptr) return;  // it is no more
    *planned = false;
    // A paused one gets its turn when it goes on: the engine comes to rest then, too.
    if (Ready() && !process_->paused()) TakeTurn();
  });
}

void BlockingThread::TakeTurn() {
  turn_.release();
  turn_over_.acquire();
}

}  // namespace conclave::sim
