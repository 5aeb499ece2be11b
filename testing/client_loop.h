// ClientLoop: the loop of a client that lives in a FakeServer's world: the engine is the production
// one, the network is a pair of queues, and the clock is the world's.
//
// The connection is as TCP's: while it is cut, what is sent waits and arrives after healing; when
// it was cut for longer than gRPC's keep-alive takes to notice, it breaks, and all that was under
// way fails. What was not sent before fails as "not sent", as behind the real transport.
//
// Threads: EngineLoop's methods are called from any; the rest is the world's.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "conclave/base/mailbox.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/engine_loop.h"
#include "conclave/client/core/transport.h"
#include "conclave/client/grpc/executor.h"
#include "conclave/server/node/io.h"
#include "conclave/testing/world.h"

namespace conclave {
class ClientImpl;
}

namespace conclave::testing {

class ClientLoop final : public EngineLoop, private Transport {
 public:
  // A privileged client is not touched by faults: the server's own.
  ClientLoop(std::shared_ptr<World> world, EngineOptions options, bool privileged);
  ~ClientLoop() override;

  // ---- EngineLoop
  void Post(absl::AnyInvocable<void(Engine&)> work) override;
  bool OnThisThread() const override { return world_->OnThisThread(); }
  Instant Now() const override { return world_->now(); }
  void WaitBegins(Wait kind) override;
  void WaitEnds(Wait kind) override {
    world_->WaitEnds(kind == Wait::kLastWord, /*give_way=*/!privileged_);
  }

  // ---- The world's side. True if there was anything to do.
  bool DoWork();
  Instant NextDeadline() const;
  // Whose callbacks are waited for before time moves on.
  void set_client(std::weak_ptr<ClientImpl> client) { client_ = std::move(client); }
  // True if the client's callback threads have nothing to do, or cannot go on before time does.
  bool CallbacksRest();
  // They were given their time.
  void GiveUpOnCallbacks();

  void OnReply(WireId id, node::Reply reply);
  void OnStreamEffect(WireId id, node::StreamEffect effect);

  // ---- What goes wrong.
  void Cut();
  void Heal();
  // Breaks the connection; the next one is there at once.
  void Reset();
  void ServerDied();
  // The server reads nothing, or does again.
  void ServerPaused();
  void ServerResumed();
  void set_frozen(bool frozen) { frozen_ = frozen; }

 private:
  struct Call {
    std::string method;
    node::CallId server;
    bool sent = false;
    bool lose_answer = false;
    World::TimerId timeout{};
  };
  struct Stream {
    node::CallId server;
    bool renews = false;
    bool paused = false;
    std::deque<node::StreamEffect> held{};
  };
  // Callbacks of one of the client's threads.
  struct Rest {
    std::shared_ptr<std::atomic<bool>> asked = std::make_shared<std::atomic<bool>>(false);
    bool given_up = false;
  };

  // ---- Transport
  void StartUnary(const Unary& unary) override;
  void CancelUnary(WireId id) override;
  void OpenStream(WireId id, size_t endpoint, std::string_view method) override;
  void OpenDownload(WireId id, size_t endpoint, std::string_view method,
                    std::string_view request) override;
  void SendOnStream(WireId id, std::string_view message) override;
  void CloseStream(WireId id) override;
  void PauseStream(WireId id, bool paused) override;
  void SetToken(std::string_view token) override;

  bool Silent() const { return (cut_ && !privileged_) || world_->paused(); }
  void ToServer(node::Input input);
  void Open(WireId id, std::string_view method, bool require_leader);
  void FinishCall(WireId id, WireStatus status, std::string body);
  void TakeBack(const Call& call);
  void EndStream(WireId id, WireStatus status);
  void Hear(WireId id, node::StreamEffect effect);
  void BreakWhenSilent();
  void Break(const char* why);
  void Connect();
  bool ThreadRests(Executor& executor, Rest& rest);

  const std::shared_ptr<World> world_;
  const bool privileged_;
  node::CredentialsRef credentials_;
  Mailbox<absl::AnyInvocable<void(Engine&)>> mailbox_;
  std::vector<absl::AnyInvocable<void(Engine&)>> taken_;
  std::deque<absl::AnyInvocable<void(Engine&)>> events_;  // for the engine, of the network
  std::unique_ptr<Engine> engine_;
  std::weak_ptr<ClientImpl> client_;
  Rest callbacks_;
  Rest signals_;

  std::map<WireId, Call> calls_;
  std::map<WireId, Stream> streams_;
  bool cut_ = false;
  bool frozen_ = false;
  bool connected_ = true;
  bool server_died_ = false;             // and this end does not know yet
  uint64_t silence_ = 0;                 // counts them
  std::deque<node::Input> outbound_;     // sent while the connection was cut
  std::deque<World::Work> inbound_;      // likewise, the other way
  std::deque<node::Input> unconnected_;  // waits for a connection
};

}  // namespace conclave::testing
