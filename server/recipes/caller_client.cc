#include "conclave/server/recipes/caller_client.h"

#include <deque>
#include <utility>

#include "conclave/base/check.h"

namespace conclave::recipes {

// One unary call. Hears on the channel's thread, and passes it on.
class CallerClient::Attempt final : public local::Listener {
 public:
  Attempt(std::weak_ptr<CallerClient> owner, Post post, WireId id)
      : owner_(std::move(owner)), post_(std::move(post)), id_(id) {}

  void Begin(std::shared_ptr<local::Call> call, std::string_view request) {
    call_ = std::move(call);
    call_->Send(request);
    call_->HalfClose();
    call_->Read();
  }

  void OnSent() override {}
  void OnMessage(std::string message) override {
    message_ = std::move(message);
    Read();
  }
  void OnDone(int code, std::string text) override {
    post_([owner = owner_, id = id_, code, text = std::move(text),
           message = std::move(message_)]() mutable {
      if (auto client = owner.lock()) {
        client->OnAnswer(id, code, std::move(text), std::move(message));
      }
    });
  }

 private:
  // On the channel's thread; call_ was set on the loop's before anything could come.
  void Read() { call_->Read(); }

  const std::weak_ptr<CallerClient> owner_;
  const Post post_;
  const WireId id_;
  std::shared_ptr<local::Call> call_;
  std::string message_;
};

// One stream. All but the listener's half is the loop's.
class CallerClient::StreamLink final : public local::Listener,
                                       public std::enable_shared_from_this<StreamLink> {
 public:
  StreamLink(std::weak_ptr<CallerClient> owner, Post post, WireId id)
      : owner_(std::move(owner)), post_(std::move(post)), id_(id) {}

  void Begin(std::shared_ptr<local::Call> call) {
    call_ = std::move(call);
    call_->Read();
  }
  void Send(std::string_view message) {
    outbox_.emplace_back(message);
    SendNext();
  }
  void Pause(bool paused) {
    paused_ = paused;
    if (!paused_ && std::exchange(read_wanted_, false)) call_->Read();
  }
  void Close() {
    outbox_.clear();
    call_->Cancel();
  }

  void OnSent() override {
    OnLoop([](StreamLink& link, CallerClient&) {
      link.sending_ = false;
      link.SendNext();
    });
  }
  void OnMessage(std::string message) override {
    OnLoop([message = std::move(message)](StreamLink& link, CallerClient& owner) {
      owner.engine_->OnStreamMessage(link.id_, message);
      if (link.paused_) {
        link.read_wanted_ = true;
      } else {
        link.call_->Read();
      }
    });
  }
  void OnDone(int code, std::string text) override {
    OnLoop([code, text = std::move(text)](StreamLink& link, CallerClient& owner) {
      const WireId id = link.id_;
      owner.streams_.erase(id);
      owner.engine_->OnStreamClosed(id, {.code = code == 0 ? kUnavailable : code, .message = text});
    });
  }

 private:
  // A stream that the server ends without an error is lost all the same.
  static constexpr int kUnavailable = 14;

  template <typename Work>
  void OnLoop(Work work) {
    post_([self = shared_from_this(), work = std::move(work)] {
      const std::shared_ptr<CallerClient> owner = self->owner_.lock();
      if (owner != nullptr && owner->streams_.contains(self->id_)) work(*self, *owner);
    });
  }
  void SendNext() {
    if (sending_ || outbox_.empty()) return;
    sending_ = true;
    call_->Send(outbox_.front());
    outbox_.pop_front();
  }

  const std::weak_ptr<CallerClient> owner_;
  const Post post_;
  const WireId id_;
  std::shared_ptr<local::Call> call_;
  std::deque<std::string> outbox_;  // a message or two for each watch
  bool sending_ = false;
  bool paused_ = false;
  bool read_wanted_ = false;
};

CallerClient::CallerClient(local::LocalChannel* channel, Post post, std::string token,
                           EngineOptions options)
    : channel_(channel), post_(std::move(post)), token_(std::move(token)) {
  Transport& transport = *this;
  engine_ = std::make_unique<Engine>(std::move(options), transport);
}

CallerClient::~CallerClient() = default;

void CallerClient::Shutdown() {
  engine_->Shutdown();
  for (auto& [id, call] : calls_) call->Cancel();
  for (auto& [id, stream] : std::exchange(streams_, {})) stream->Close();
}

local::CallOptions CallerClient::OptionsFor(std::string_view method, bool require_leader) const {
  local::CallOptions options;
  options.method = method;
  if (!token_.empty()) options.metadata.emplace_back("token", token_);
  if (require_leader) options.metadata.emplace_back("hasleader", "true");
  return options;
}

void CallerClient::StartUnary(const Unary& call) {
  local::CallOptions options = OptionsFor(call.method, call.require_leader);
  options.timeout = call.timeout;
  auto attempt = std::make_shared<Attempt>(weak_from_this(), post_, call.id);
  std::shared_ptr<local::Call> started = channel_->Start(std::move(options), attempt);
  calls_[call.id] = started;
  attempt->Begin(std::move(started), call.request);
}

void CallerClient::CancelUnary(WireId id) {
  if (const auto found = calls_.find(id); found != calls_.end()) found->second->Cancel();
}

void CallerClient::OnAnswer(WireId id, int code, std::string text, std::string message) {
  calls_.erase(id);
  if (code == 0) NoteHeader(message);
  engine_->OnUnaryDone(id, {.code = code, .message = std::move(text)}, std::move(message));
}

// Every answer has its header in the same field.
void CallerClient::NoteHeader(const std::string& message) {
  etcdserverpb::LeaseRevokeResponse any;
  if (any.ParseFromString(message) && any.header().revision() >= header_.revision()) {
    header_.Swap(any.mutable_header());
  }
}

void CallerClient::OpenStream(WireId id, size_t /*endpoint*/, std::string_view method) {
  auto link = std::make_shared<StreamLink>(weak_from_this(), post_, id);
  streams_[id] = link;
  link->Begin(channel_->Start(OptionsFor(method, /*require_leader=*/true), link));
}

void CallerClient::OpenDownload(WireId /*id*/, size_t /*endpoint*/, std::string_view method,
                                std::string_view /*request*/) {
  CONCLAVE_CHECK(false, "recipes download nothing: ", method);
}

void CallerClient::SendOnStream(WireId id, std::string_view message) {
  if (const auto found = streams_.find(id); found != streams_.end()) found->second->Send(message);
}

void CallerClient::CloseStream(WireId id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  found->second->Close();
  streams_.erase(found);
}

void CallerClient::PauseStream(WireId id, bool paused) {
  if (const auto found = streams_.find(id); found != streams_.end()) found->second->Pause(paused);
}

}  // namespace conclave::recipes
