#include "conclave/server/http/http2_desk.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "conclave/api/wire/errors.h"
#include "conclave/server/http/http_connection.h"

namespace conclave::http {
namespace {

namespace asio = boost::asio;

std::unique_ptr<node::CallError> Broken() {
  return std::make_unique<node::CallError>(
      node::CallError{static_cast<int>(wire::Code::kCancelled), "broken off"});
}

void MakeLowerCase(Fields* fields) {
  for (auto& [name, value] : *fields) absl::AsciiStrToLower(&name);
}

Response TooMany() {
  return GatewayError(429, static_cast<int>(wire::Code::kResourceExhausted),
                      wire::kErrTooManyRequests.message);
}

}  // namespace

// One request and its answer.
class Http2Exchange final : public std::enable_shared_from_this<Http2Exchange>,
                            private GatewayCall::Client {
 public:
  Http2Exchange(Http2Desk* desk, HttpShared* shared, Http2Request request)
      : desk_(desk),
        shared_(shared),
        request_(std::move(request)),
        timer_(*shared->gateway.context) {}

  void Start();
  void OnBody(const Bytes& piece, bool is_last);
  void OnSent(uint64_t bytes);
  // The answer is broken off.
  void Break();
  // Nothing is answered any more.
  void Close();
  void Respond(Response response) override;

 private:
  void OpenPage();
  void OpenCall(GatewayTarget target);
  void Arm(std::chrono::seconds timeout);
  void WantBody() override;
  void WriteChunk(std::string chunk) override;
  void EndChunks() override;
  void Deliver();
  void Head(int status, Fields fields);
  void Send(std::string bytes);
  void Complete();
  void Finish(std::unique_ptr<node::CallError> error);

  Http2Desk* const desk_;
  HttpShared* const shared_;
  const Http2Request request_;
  asio::steady_timer timer_;  // for the whole body, a client that takes nothing, and the rest
  std::shared_ptr<GatewayCall> call_;
  Fields cors_;
  std::string ahead_;  // of the body
  bool body_ended_ = false;
  bool wants_body_ = false;
  bool head_sent_ = false;
  bool answered_ = false;  // all but the end
  bool over_ = false;
  uint64_t unsent_bytes_ = 0;
};

void Http2Exchange::Start() {
  RequestHead head;
  head.method = request_.method;
  head.target = request_.target;
  head.is_tls = request_.is_tls;
  head.field = [this](std::string_view name) {
    for (const auto& [field, value] : request_.fields) {
      if (field == name) return std::string_view(value);
    }
    return std::string_view();
  };
  head.host = request_.authority.empty() ? head.field("host") : request_.authority;
  Routed routed = Route(head, request_.serves, shared_->access, /*is_upgrade=*/false);
  cors_ = std::move(routed.cors);
  if (auto* response = std::get_if<Response>(&routed.to)) return Respond(std::move(*response));
  if (auto* target = std::get_if<GatewayTarget>(&routed.to)) return OpenCall(std::move(*target));
  OpenPage();
}

void Http2Exchange::OpenPage() {
  Answer({request_.method, request_.target}, shared_->gateway.backend,
         [self = shared_from_this()](Response response) {
           asio::post(*self->shared_->gateway.context,
                      [self, response = std::move(response)]() mutable {
                        self->Respond(std::move(response));
                      });
         });
}

void Http2Exchange::OpenCall(GatewayTarget target) {
  GatewayCall::Client* const client = this;
  call_ = std::make_shared<GatewayCall>(&shared_->gateway, target.method,
                                        std::move(target.metadata), target.timeout, client);
  if (!target.method->client_streams) Arm(kBodyTimeout);
  const std::shared_ptr<GatewayCall> call = call_;
  call->Begin();
}

void Http2Exchange::Arm(std::chrono::seconds timeout) {
  timer_.expires_after(timeout);
  timer_.async_wait([this, weak = weak_from_this()](boost::system::error_code error) {
    if (error) return;
    // A wait that was about to end when it was armed anew or given up counts no more.
    const std::shared_ptr<Http2Exchange> self = weak.lock();
    if (self != nullptr && timer_.expiry() <= asio::steady_timer::clock_type::now()) Break();
  });
}

// ---- The request
// -----------------------------------------------------------------------------------

void Http2Exchange::OnBody(const Bytes& piece, bool is_last) {
  body_ended_ = is_last;
  if (answered_ && is_last) return Finish(nullptr);
  if (call_ == nullptr) return;  // a page's, or one that has been answered
  ahead_.append(piece.view());
  if (is_last) timer_.expires_at(asio::steady_timer::time_point::max());
  Deliver();
  if (over_ || answered_ || ahead_.size() <= kBodyAheadBytesMax) return;
  if (head_sent_) return Break();
  call_->Abandon();
  Respond(TooMany());
}

void Http2Exchange::WantBody() {
  wants_body_ = true;
  Deliver();
}

void Http2Exchange::Deliver() {
  if (!wants_body_ || call_ == nullptr || (ahead_.empty() && !body_ended_)) return;
  wants_body_ = false;
  const std::shared_ptr<GatewayCall> call = call_;  // it may answer, and be forgotten
  if (ahead_.empty()) return call->OnBodyEnd();
  call->OnBody(std::exchange(ahead_, {}));
}

// ---- The answer
// ------------------------------------------------------------------------------------

void Http2Exchange::Head(int status, Fields fields) {
  head_sent_ = true;
  fields.insert(fields.begin(), cors_.begin(), cors_.end());
  MakeLowerCase(&fields);
  desk_->Head({request_.id, status, std::move(fields)});
}

void Http2Exchange::Send(std::string bytes) {
  if (bytes.empty()) return;
  node::StreamEffect effect;
  effect.id = request_.id;
  effect.prefix = Bytes::Copy(bytes);
  effect.charge = static_cast<uint32_t>(bytes.size());
  unsent_bytes_ += bytes.size();
  desk_->Effect(std::move(effect));
}

void Http2Exchange::Respond(Response response) {
  if (over_ || answered_) return;  // a page that nobody waits for any more
  call_.reset();
  Head(response.status, FieldsOf(response));
  if (request_.method != "HEAD") Send(std::move(response.body));
  Complete();
}

// Some clients do not expect an end of the answer before they have said all.
void Http2Exchange::Complete() {
  answered_ = true;
  body_ended_ ? Finish(nullptr) : Arm(kDrainTimeout);
}

void Http2Exchange::WriteChunk(std::string chunk) {
  if (!head_sent_) Head(200, StreamFields());
  Arm(kStallTimeout);
  Send(std::move(chunk));
}

void Http2Exchange::OnSent(uint64_t bytes) {
  unsent_bytes_ -= bytes;
  if (unsent_bytes_ > 0 || answered_) return;
  timer_.expires_at(asio::steady_timer::time_point::max());
  if (const std::shared_ptr<GatewayCall> call = call_) call->OnWritten();
}

void Http2Exchange::EndChunks() {
  call_.reset();
  if (!head_sent_) Head(200, StreamFields());
  Complete();
}

void Http2Exchange::Break() {
  if (std::shared_ptr<GatewayCall> call = std::exchange(call_, nullptr)) call->Abandon();
  if (!over_) Finish(answered_ ? nullptr : Broken());
}

void Http2Exchange::Close() {
  over_ = true;
  timer_.cancel();
  if (std::shared_ptr<GatewayCall> call = std::exchange(call_, nullptr)) call->Abandon();
}

void Http2Exchange::Finish(std::unique_ptr<node::CallError> error) {
  const std::shared_ptr<Http2Exchange> self = shared_from_this();
  over_ = true;
  timer_.cancel();
  node::StreamEffect effect;
  effect.id = request_.id;
  effect.finish = true;
  effect.error = std::move(error);
  desk_->Effect(std::move(effect));
  desk_->Forget(request_.id);
}

// ---- The desk
// --------------------------------------------------------------------------------------

Http2Desk::Http2Desk(HttpShared* shared, Http2Answers answers)
    : shared_(shared), answers_(std::move(answers)) {}

Http2Desk::~Http2Desk() = default;

void Http2Desk::Begin(Http2Request request) {
  asio::post(*shared_->gateway.context,
             [this, request = std::move(request)]() mutable { Open(std::move(request)); });
}

void Http2Desk::Open(Http2Request request) {
  const node::CallId id = request.id;
  const auto exchange = std::make_shared<Http2Exchange>(this, shared_, std::move(request));
  const bool too_many = open_.size() >= kHttp2RequestsMax;
  open_[id.value()] = exchange;
  too_many ? exchange->Respond(TooMany()) : exchange->Start();
}

std::shared_ptr<Http2Exchange> Http2Desk::Find(node::CallId id) {
  const auto found = open_.find(id.value());
  return found == open_.end() ? nullptr : found->second;
}

bool Http2Desk::Body(node::CallId id, Bytes piece, bool is_last) {
  const size_t size = piece.size();
  if (posted_bytes_.fetch_add(size, std::memory_order_relaxed) + size > kPostedBytesMax) {
    posted_bytes_.fetch_sub(size, std::memory_order_relaxed);
    return false;
  }
  asio::post(*shared_->gateway.context, [this, id, piece = std::move(piece), is_last] {
    posted_bytes_.fetch_sub(piece.size(), std::memory_order_relaxed);
    if (const auto exchange = Find(id)) exchange->OnBody(piece, is_last);
  });
  return true;
}

void Http2Desk::Sent(node::CallId id, uint64_t bytes) {
  asio::post(*shared_->gateway.context, [this, id, bytes] {
    if (const auto exchange = Find(id)) exchange->OnSent(bytes);
  });
}

void Http2Desk::Cancel(node::CallId id) {
  asio::post(*shared_->gateway.context, [this, id] {
    if (const auto exchange = Find(id)) exchange->Break();
  });
}

void Http2Desk::Head(Http2Head head) {
  std::lock_guard lock(mutex_);
  if (!stopped_) answers_.head(std::move(head));
}

void Http2Desk::Effect(node::StreamEffect effect) {
  std::lock_guard lock(mutex_);
  if (!stopped_) answers_.body(std::move(effect));
}

void Http2Desk::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
}

void Http2Desk::CloseAll() {
  for (const auto& [id, exchange] : std::exchange(open_, {})) exchange->Close();
}

}  // namespace conclave::http
