#include "conclave/testing/client_loop.h"

#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "conclave/api/wire/requests.h"
#include "conclave/base/check.h"
#include "conclave/client/client_impl.h"
#include "conclave/server/node/method_name.h"

namespace conclave::testing {
namespace {

// What gRPC's keep-alive needs to notice that the other end is silent: a ping every 10 s, an answer
// within 3 s.
constexpr Duration kSilenceMax = std::chrono::seconds(13);
constexpr int kMethodsEnd = 128;  // clients' methods are below
constexpr Duration kConnectTimeout = std::chrono::seconds(5);

WireStatus Unavailable(const char* why, bool sent) {
  return {.code = static_cast<int>(absl::StatusCode::kUnavailable), .message = why, .sent = sent};
}

WireStatus WireOf(const node::CallError* error) {
  if (error == nullptr) return {};
  return {.code = error->code, .message = error->message};
}

std::string_view NameOf(std::string_view method) { return method.substr(method.rfind('/') + 1); }

std::optional<node::StreamKind> StreamKindOf(std::string_view name) {
  if (name == "Watch") return node::StreamKind::kWatch;
  if (name == "LeaseKeepAlive") return node::StreamKind::kLeaseKeepAlive;
  if (name == "RangeStream") return node::StreamKind::kRangeStream;
  if (name == "Snapshot") return node::StreamKind::kSnapshot;
  return std::nullopt;
}

std::optional<node::Method> MethodOf(std::string_view name) {
  for (int i = 1; i < kMethodsEnd; ++i) {
    const auto method = static_cast<node::Method>(i);
    if (node::MethodName(method) == name) return method;
  }
  return std::nullopt;
}

Bytes WithHeadroom(std::string_view request) {
  char* out = nullptr;
  Bytes bytes = Bytes::Uninitialized(node::kRequestHeadroom + request.size(), &out);
  std::memset(out, 0, node::kRequestHeadroom);
  std::memcpy(out + node::kRequestHeadroom, request.data(), request.size());
  return bytes;
}

}  // namespace

ClientLoop::ClientLoop(std::shared_ptr<World> world, EngineOptions options, bool privileged)
    : world_(std::move(world)), privileged_(privileged) {
  engine_ = std::make_unique<Engine>(std::move(options), static_cast<Transport&>(*this));
  world_->RunAndWait([this] {
    engine_->Advance(world_->now());
    world_->Join(this);
  });
}

ClientLoop::~ClientLoop() {
  CONCLAVE_CHECK(!OnThisThread(), "a client's loop cannot end itself");
  world_->RunAndWait([this] {
    frozen_ = false;
    engine_->Shutdown();
    while (DoWork()) {
    }
    std::vector<WireId> open;
    for (const auto& [id, stream] : streams_) open.push_back(id);
    for (WireId id : open) CloseStream(id);
    world_->Leave(this);
  });
}

void ClientLoop::Post(absl::AnyInvocable<void(Engine&)> work) {
  if (mailbox_.Put(std::move(work))) world_->Ring();
}

void ClientLoop::WaitBegins(Wait kind) {
  if (kind == Wait::kLastWord) world_->Post([this] { frozen_ = false; });
  world_->WaitBegins(kind == Wait::kLastWord);
}

bool ClientLoop::DoWork() {
  if (frozen_) return false;
  bool did = engine_->NextDeadline() <= world_->now();
  engine_->Advance(world_->now());
  mailbox_.TakeAll(&taken_);
  did |= !taken_.empty();
  for (absl::AnyInvocable<void(Engine&)>& work : taken_) work(*engine_);
  taken_.clear();
  while (!events_.empty()) {
    did = true;
    absl::AnyInvocable<void(Engine&)> event = std::move(events_.front());
    events_.pop_front();
    event(*engine_);
    engine_->Advance(world_->now());
  }
  engine_->Advance(world_->now());
  return did;
}

Instant ClientLoop::NextDeadline() const { return frozen_ ? kNever : engine_->NextDeadline(); }

bool ClientLoop::ThreadRests(Executor& executor, Rest& rest) {
  if (rest.asked->load()) return rest.given_up;
  rest.given_up = false;
  if (executor.idle()) return true;
  rest.asked->store(true);
  executor.Run([asked = rest.asked, world = world_] {
    asked->store(false);
    world->Ring();
  });
  return false;
}

bool ClientLoop::CallbacksRest() {
  std::shared_ptr<ClientImpl> client = client_.lock();
  if (client == nullptr) return true;
  const bool signals = ThreadRests(client->signals(), signals_);
  const bool callbacks = ThreadRests(client->callbacks(), callbacks_);
  return signals && callbacks;
}

void ClientLoop::GiveUpOnCallbacks() {
  signals_.given_up = signals_.asked->load();
  callbacks_.given_up = callbacks_.asked->load();
}

// ---- Calls -------------------------------------------------------------------------------------

void ClientLoop::ToServer(node::Input input) {
  if (!connected_) {
    unconnected_.push_back(std::move(input));
  } else if (cut_ && !privileged_) {
    outbound_.push_back(std::move(input));
  } else {
    world_->member().Put(std::move(input));
  }
}

void ClientLoop::FinishCall(WireId id, WireStatus status, std::string body) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return;
  world_->CancelTimer(found->second.timeout);
  calls_.erase(found);
  events_.push_back([id, status = std::move(status), body = std::move(body)](Engine& engine) {
    engine.OnUnaryDone(id, status, body);
  });
}

void ClientLoop::StartUnary(const Unary& unary) {
  const WireId id = unary.id;
  Call& call = calls_[id];
  call.method = NameOf(unary.method);
  call.sent = connected_;
  Fault fault;
  if (!privileged_ && world_->TakeFault(call.method, /*answer=*/false, &fault)) {
    if (fault.kind == Fault::Kind::kDrop)
      return FinishCall(id, Unavailable("connection lost", true), "");
    const int code = static_cast<int>(fault.status.code());
    return FinishCall(id, {.code = code, .message = std::string(fault.status.message())}, "");
  }
  if (!world_->member().up() && !Silent()) {
    return FinishCall(id, Unavailable("cannot connect", false), "");
  }
  const std::optional<node::Method> method = MethodOf(call.method);
  if (!method.has_value()) {
    return FinishCall(id,
                      {.code = static_cast<int>(absl::StatusCode::kUnimplemented),
                       .message = "not a method of this server"},
                      "");
  }
  call.lose_answer = !privileged_ && world_->TakeFault(call.method, /*answer=*/true, &fault);
  if (unary.timeout < kNever - world_->now()) {
    call.timeout = world_->At(world_->now() + unary.timeout, [this, id] {
      auto found = calls_.find(id);
      if (found == calls_.end()) return;
      found->second.timeout = {};
      TakeBack(found->second);
      FinishCall(id,
                 {.code = static_cast<int>(absl::StatusCode::kDeadlineExceeded),
                  .message = found->second.sent ? "no answer in time" : "not connected in time",
                  .sent = found->second.sent},
                 "");
    });
  }
  call.server = world_->Open(this, id);
  ToServer(node::UnaryCall{call.server, *method, WithHeadroom(unary.request), unary.require_leader,
                           credentials_});
}

// What was not sent is not sent any more; else the server is told.
void ClientLoop::TakeBack(const Call& call) {
  if (call.sent) return ToServer(node::CallCancelled{call.server});
  std::erase_if(unconnected_, [&call](const node::Input& input) {
    const auto* unary = std::get_if<node::UnaryCall>(&input);
    return unary != nullptr && unary->id.value() == call.server.value();
  });
}

void ClientLoop::CancelUnary(WireId id) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return;
  const bool sent = found->second.sent;
  TakeBack(found->second);
  FinishCall(id,
             {.code = static_cast<int>(absl::StatusCode::kCancelled),
              .message = "cancelled",
              .sent = sent},
             "");
}

void ClientLoop::OnReply(WireId id, node::Reply reply) {
  if (cut_ && !privileged_) {
    inbound_.push_back(
        [this, id, held = std::move(reply)]() mutable { OnReply(id, std::move(held)); });
    return;
  }
  auto found = calls_.find(id);
  if (found == calls_.end()) return;
  if (found->second.lose_answer) return FinishCall(id, Unavailable("connection lost", true), "");
  FinishCall(id, WireOf(reply.error.get()),
             reply.error == nullptr ? std::string(reply.body.view()) : std::string());
}

// ---- Streams -----------------------------------------------------------------------------------

void ClientLoop::OpenStream(WireId id, size_t, std::string_view method) {
  Open(id, method, /*require_leader=*/true);
}

void ClientLoop::OpenDownload(WireId id, size_t, std::string_view method,
                              std::string_view request) {
  Open(id, method, /*require_leader=*/false);
  SendOnStream(id, request);
  const auto found = streams_.find(id);
  if (found == streams_.end() || found->second.server.value() == 0) return;
  ToServer(node::StreamHalfClosed{found->second.server});
}

void ClientLoop::Open(WireId id, std::string_view method, bool require_leader) {
  Stream& stream = streams_[id];
  const std::string_view name = NameOf(method);
  Fault fault;
  if (!privileged_ && world_->TakeFault(name, /*answer=*/false, &fault)) {
    return EndStream(id, {.code = static_cast<int>(fault.kind == Fault::Kind::kDrop
                                                       ? absl::StatusCode::kUnavailable
                                                       : fault.status.code()),
                          .message = std::string(fault.status.message())});
  }
  if (!world_->member().up() && !Silent())
    return EndStream(id, Unavailable("cannot connect", false));
  stream.server = world_->Open(this, id);
  const std::optional<node::StreamKind> kind = StreamKindOf(name);
  CONCLAVE_CHECK(kind.has_value(), "an unknown stream: ", name);
  stream.renews = kind == node::StreamKind::kLeaseKeepAlive;
  if (!connected_) {
    world_->At(world_->now() + kConnectTimeout, [this, id, server = stream.server] {
      auto found = streams_.find(id);
      if (connected_ || found == streams_.end() || found->second.server != server) return;
      EndStream(id, Unavailable("cannot connect", false));
    });
  }
  ToServer(node::StreamOpened{stream.server, *kind, require_leader, credentials_});
}

void ClientLoop::SetToken(std::string_view token) {
  credentials_.reset();
  if (token.empty()) return;
  auto shown = std::make_shared<node::Credentials>();
  shown->token = std::string(token);
  credentials_ = std::move(shown);
}

void ClientLoop::SendOnStream(WireId id, std::string_view message) {
  auto found = streams_.find(id);
  if (found == streams_.end() || found->second.server.value() == 0) return;
  wire::LeaseKeepAliveRequest renewal;
  if (found->second.renews && wire::Parse(message, &renewal) && world_->Muted(renewal.id)) return;
  ToServer(node::StreamMessage{found->second.server, Bytes::Copy(message)});
}

void ClientLoop::CloseStream(WireId id) {
  auto found = streams_.find(id);
  if (found == streams_.end()) return;
  if (found->second.server.value() != 0) ToServer(node::StreamClosed{found->second.server});
  streams_.erase(found);
}

void ClientLoop::PauseStream(WireId id, bool paused) {
  auto found = streams_.find(id);
  if (found == streams_.end()) return;
  found->second.paused = paused;
  while (!found->second.paused && !found->second.held.empty()) {
    node::StreamEffect effect = std::move(found->second.held.front());
    found->second.held.pop_front();
    Hear(id, std::move(effect));
    found = streams_.find(id);
    if (found == streams_.end()) return;
  }
}

void ClientLoop::EndStream(WireId id, WireStatus status) {
  if (streams_.erase(id) == 0) return;
  events_.push_back(
      [id, status = std::move(status)](Engine& engine) { engine.OnStreamClosed(id, status); });
}

void ClientLoop::OnStreamEffect(WireId id, node::StreamEffect effect) {
  if (cut_ && !privileged_) {
    inbound_.push_back(
        [this, id, held = std::move(effect)]() mutable { OnStreamEffect(id, std::move(held)); });
    return;
  }
  auto found = streams_.find(id);
  if (found == streams_.end()) return;
  if (found->second.paused) {
    found->second.held.push_back(std::move(effect));
    return;
  }
  Hear(id, std::move(effect));
}

void ClientLoop::Hear(WireId id, node::StreamEffect effect) {
  if (effect.finish) return EndStream(id, WireOf(effect.error.get()));
  std::string message(effect.prefix.view());
  message += effect.shared.view();
  // The reader's credit goes back when the engine has taken it: a frozen client reads nothing.
  events_.push_back([this, id, server = effect.id, charge = effect.charge,
                     message = std::move(message)](Engine& engine) {
    if (charge > 0) ToServer(node::StreamSent{server, charge});
    engine.OnStreamMessage(id, message);
  });
}

// ---- What goes wrong ---------------------------------------------------------------------------

void ClientLoop::Cut() {
  if (cut_ || privileged_) return;
  cut_ = true;
  BreakWhenSilent();
}

void ClientLoop::ServerPaused() { BreakWhenSilent(); }

void ClientLoop::BreakWhenSilent() {
  world_->At(world_->now() + kSilenceMax, [this, silence = ++silence_] {
    if (!Silent() || silence != silence_ || !connected_) return;
    Break("the connection is silent");
    connected_ = false;
  });
}

void ClientLoop::Heal() {
  if (!cut_) return;
  cut_ = false;
  ++silence_;
  if (std::exchange(server_died_, false) && connected_) Break("connection reset");
  std::deque<node::Input> outbound = std::exchange(outbound_, {});
  for (node::Input& input : outbound) world_->member().Put(std::move(input));
  std::deque<World::Work> inbound = std::exchange(inbound_, {});
  for (World::Work& work : inbound) work();
  Connect();
}

void ClientLoop::ServerResumed() {
  ++silence_;
  Connect();
}

void ClientLoop::Connect() {
  if (Silent()) return BreakWhenSilent();
  connected_ = true;
  std::deque<node::Input> waiting = std::exchange(unconnected_, {});
  if (world_->member().up()) {
    for (auto& [id, call] : calls_) call.sent = true;
    for (node::Input& input : waiting) world_->member().Put(std::move(input));
    return;
  }
  Break("cannot connect");
}

void ClientLoop::Reset() {
  if (privileged_) return;
  if (connected_) Break("connection reset");
}

void ClientLoop::ServerDied() {
  if (cut_ && !privileged_) {
    server_died_ = true;
    return;
  }
  Break("connection reset");
  connected_ = true;  // or rather: refused at once
}

void ClientLoop::Break(const char* why) {
  outbound_.clear();
  inbound_.clear();
  std::vector<WireId> calls;
  for (const auto& [id, call] : calls_) {
    if (call.sent || connected_) calls.push_back(id);
  }
  for (WireId id : calls) {
    const Call& call = calls_.at(id);
    world_->member().Put(node::CallCancelled{call.server});
    FinishCall(id, Unavailable(why, call.sent), "");
  }
  std::vector<WireId> streams;
  for (const auto& [id, stream] : streams_) streams.push_back(id);
  for (WireId id : streams) {
    world_->member().Put(node::StreamClosed{streams_.at(id).server});
    EndStream(id, Unavailable(why, true));
  }
}

}  // namespace conclave::testing
