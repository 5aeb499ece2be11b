// Core: drives the Node, and carries out what it asks for. The one place where the threads of a
// server meet.
//
// Where it runs is chosen at the start:
//   kOnQueue   on the thread of event loop 0, at the end of each of its bursts. A request, its turn
//              and its reply need no change of threads; a turn takes what one burst brought. For
//              one core, and for few.
//   kOwnThread on a thread that sleeps on an eventfd. The framing and sending of replies can run
//              beside it.
// Inputs of other threads (the log thread's reports, other loops, the HTTP side) come through a
// mailbox.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "conclave/base/mailbox.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/node.h"
#include "conclave/server/node/server_itself.h"
#include "conclave/server/node/stats.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::app {

enum class CorePlacement : uint8_t { kOnQueue, kOwnThread };

// Where the effects go that the transport does not carry out. All called on the core's thread; none
// may block.
struct CoreSinks {
  std::function<void(node::LogAppend)> append;
  std::function<void(node::SnapshotPiece)> snapshot_piece;
  std::function<void(node::LogTruncate)> truncate;
  std::function<void(auth::PasswordJob)> password_job;
  std::function<void(node::LogLine)> log;
  Duration slow_turn = Duration::max();  // turns that take longer are logged
  std::function<void()> ready;
  std::function<void()> stopped;
  std::function<void()> diverged;
  std::function<void()> reload;
  std::function<void()> check_files;
  std::function<void()> defragmented;
};

class Core final : public rpc::BurstHandler {
 public:
  Core(CorePlacement placement, std::unique_ptr<node::Node> node, CoreSinks sinks);
  ~Core() override;

  // Turns begin. The transport must live until Stop has returned.
  void Start(rpc::Transport* transport);
  // No turn begins after this; inputs are dropped. Any thread but the core's.
  void Stop();

  // Turns that took longer than CoreSinks::slow_turn. Any thread.
  uint64_t slow_turns() const { return slow_turns_.load(std::memory_order_relaxed); }

  // Any thread.
  void Post(node::Input input);
  // As the server itself, unless it is somebody else who asks.
  void Call(node::Method method, std::string request, std::function<void(node::Reply)> done,
            node::CredentialsRef who = node::ServerItself());
  void GetStats(std::function<void(std::shared_ptr<const node::Stats>)> done);

  // On a queue's thread.
  Instant OnBurst(int queue, std::vector<node::Input>* inputs) override;
  // On the core's thread: the answer to a Call.
  void OnLocalReply(node::Reply reply);

 private:
  void Run();
  void Ring();
  // Takes the mailbox and *more, runs one turn, carries it out. Gives the node's next deadline.
  Instant RunTurn(std::vector<node::Input>* more);
  void CarryOut();

  const CorePlacement placement_;
  const std::unique_ptr<node::Node> node_;
  const CoreSinks sinks_;
  std::atomic<rpc::Transport*> transport_{nullptr};
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> slow_turns_{0};
  std::mutex
      turn_mutex_;  // held during a turn, so that Stop can wait for it; never contended otherwise

  Mailbox<node::Input> mailbox_;
  std::vector<node::Input> inputs_;  // of the turn
  node::Effects effects_;
  int bell_ = -1;  // eventfd, of kOwnThread
  std::thread thread_;

  std::mutex pending_mutex_;
  uint64_t last_local_id_ = 0;
  std::unordered_map<uint64_t, std::function<void(node::Reply)>> pending_calls_;
  std::unordered_map<uint64_t, std::function<void(std::shared_ptr<const node::Stats>)>>
      pending_stats_;
};

}  // namespace conclave::app
