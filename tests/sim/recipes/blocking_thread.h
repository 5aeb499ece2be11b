// BlockingThread: a thread of a simulated process, for the recipes that block their caller. It runs
// their production code, on a real thread, and yet all follows from the seed: of the world's thread
// and all of these one runs at a time. Whoever waits for an answer gives the turn back to the
// world, and gets it again when the answer is there.
//
// What runs there must not leave work to the client's own threads for callbacks and signals whose
// outcome the world can see: watches' callbacks and stop callbacks of sessions and guards.
#pragma once

#include <functional>
#include <memory>
#include <semaphore>
#include <thread>

#include "absl/functional/function_ref.h"
#include "conclave/client/client.h"
#include "conclave/tests/sim/recipes/process.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {

class BlockingThread {
 public:
  using Main = std::function<void(const conclave::Client& client)>;

  // `main` begins soon. Every wait of it must have an end, by a timeout or by its session.
  BlockingThread(Simulation* simulation, Process* process, Main main);
  // Its process must be alive, if it has not ended.
  ~BlockingThread();
  BlockingThread(const BlockingThread&) = delete;
  BlockingThread& operator=(const BlockingThread&) = delete;

  // Its process dies: lets it run to its end (Process::RunOut).
  void RunOut();

 private:
  class Loop;

  void Live();
  // By the thread: gives the turn away until `done`.
  void Wait(absl::FunctionRef<bool()> done);
  // By the world: whether it waits for nothing any more; plans its turn; gives it the turn.
  bool Ready() const;
  void PlanTurn();
  void TakeTurn();

  Simulation* const simulation_;
  Process* const process_;
  const Main main_;
  const absl::FunctionRef<bool()>* done_ = nullptr;  // what it waits for
  bool ended_ = false;
  std::shared_ptr<bool> planned_ = std::make_shared<bool>(false);  // a turn; planned work knows us
  std::binary_semaphore turn_{0};
  std::binary_semaphore turn_over_{0};
  std::thread thread_;  // last
};

}  // namespace conclave::sim
