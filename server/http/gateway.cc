#include "conclave/server/http/gateway.h"

#include <boost/asio/post.hpp>
#include <boost/beast/http/status.hpp>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/errors.h"

namespace conclave::http {
namespace {

using wire::Code;

constexpr char kJson[] = "application/json";

std::string StatusText(int status) {
  const auto text = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return std::string(text.data(), text.size());
}

// In the middle of a stream the error is a line of its own.
std::string StreamErrorLine(int code, std::string_view text) {
  const int status = HttpStatusOf(code);
  return absl::StrCat("{\"error\":{\"grpc_code\":", code, ",\"http_code\":", status,
                      ",\"message\":", JsonText(text),
                      ",\"http_status\":", JsonText(StatusText(status)), ",\"code\":", code,
                      "}}\n");
}

}  // namespace

int HttpStatusOf(int code) {
  switch (static_cast<Code>(code)) {
    case Code::kOk:
      return 200;
    case Code::kCancelled:
      return 499;
    case Code::kInvalidArgument:
    case Code::kFailedPrecondition:
    case Code::kOutOfRange:
      return 400;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
    case Code::kAborted:
      return 409;
    case Code::kPermissionDenied:
      return 403;
    case Code::kUnauthenticated:
      return 401;
    case Code::kResourceExhausted:
      return 429;
    case Code::kUnimplemented:
      return 501;
    case Code::kUnavailable:
      return 503;
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss:
      return 500;
  }
  return 500;
}

std::string ErrorBody(int code, std::string_view text) {
  const std::string quoted = JsonText(text);
  return absl::StrCat("{\"error\":", quoted, ",\"message\":", quoted, ",\"code\":", code, "}");
}

GatewayCall::GatewayCall(GatewayShared* shared, const GatewayMethod* method, Metadata metadata,
                         std::optional<Duration> timeout, Client* client)
    : shared_(shared),
      method_(method),
      metadata_(std::move(metadata)),
      timeout_(timeout),
      client_(client) {}

GatewayCall::~GatewayCall() = default;

template <typename Work>
void GatewayCall::OnHttpThread(Work work) {
  boost::asio::post(*shared_->context,
                    [self = shared_from_this(), work = std::move(work)]() mutable {
                      if (self->client_ != nullptr) work(self.get());
                    });
}

template <typename Convert, typename Then>
void GatewayCall::Converted(size_t bytes, Convert convert, Then then) {
  if (bytes <= kInlineBytesMax) return then(this, convert());
  boost::asio::post(*shared_->converter, [self = shared_from_this(), convert = std::move(convert),
                                          then = std::move(then)]() mutable {
    self->OnHttpThread([result = convert(), then = std::move(then)](GatewayCall* call) mutable {
      then(call, std::move(result));
    });
  });
}

void GatewayCall::Hold(size_t bytes) {
  shared_->held_bytes += bytes - held_;
  held_ = bytes;
}

void GatewayCall::Finish() {
  client_ = nullptr;
  Hold(0);
}

void GatewayCall::Abandon() {
  Finish();
  if (call_ != nullptr) call_->Cancel();
}

// ---- The request
// -----------------------------------------------------------------------------------

void GatewayCall::OnBody(std::string_view piece) {
  // Where there is one request only, what follows it does not matter.
  const bool whole = !method_->client_streams && (sent_one_ || sending_);
  absl::Status fed = whole ? absl::OkStatus() : body_.Feed(piece, shared_->message_bytes_max);
  if (!method_->client_streams && body_.has_next()) fed = absl::OkStatus();
  Hold(body_.bytes());
  if (!fed.ok() && sent_one_ && method_->client_streams) {
    // What came before is answered first.
    body_error_ = fed;
    return OnBodyEnd();
  }
  if (!fed.ok()) return Fail(fed);
  if (shared_->held_bytes > kHeldBytesMax) {
    const std::string_view text = wire::kErrTooManyRequests.message;
    return Fail(absl::ResourceExhaustedError({text.data(), text.size()}));
  }
  SendNext();
}

void GatewayCall::OnBodyEnd() {
  body_ended_ = true;
  SendNext();
}

void GatewayCall::SendNext() {
  if (sending_) return;
  if (sent_one_ && !method_->client_streams) {
    if (!body_ended_) client_->WantBody();
    return;
  }
  if (std::optional<std::string> object = body_.Next()) {
    sending_ = true;
    const size_t bytes = object->size();
    return Converted(
        bytes,
        [method = method_, object = *std::move(object)] { return RequestOfJson(*method, object); },
        [](GatewayCall* call, absl::StatusOr<std::string> message) {
          if (!message.ok()) return call->Fail(message.status());
          call->SendMessage(*std::move(message));
        });
  }
  if (!body_ended_) return client_->WantBody();
  if (body_.in_object() && body_error_.ok()) {
    body_error_ = absl::InvalidArgumentError("unexpected EOF");
    if (!sent_one_ || !method_->client_streams) return Fail(body_error_);
  }
  if (!sent_one_ && !method_->client_streams) return SendMessage("");  // an empty body is "{}"
  Open();
  call_->HalfClose();
}

void GatewayCall::Open() {
  if (call_ != nullptr) return;
  call_ =
      shared_->backend->Open({method_->path, std::move(metadata_), timeout_}, shared_from_this());
  call_->Read();
}

void GatewayCall::SendMessage(std::string message) {
  Open();
  sending_ = true;
  sent_one_ = true;
  call_->Send(message);
  if (!method_->client_streams) call_->HalfClose();
}

void GatewayCall::OnSent() {
  OnHttpThread([](GatewayCall* call) {
    call->sending_ = false;
    call->Hold(call->body_.bytes());
    call->SendNext();
  });
}

// ---- The answer
// ------------------------------------------------------------------------------------

void GatewayCall::OnMessage(std::string message) {
  OnHttpThread([message = std::move(message)](GatewayCall* call) mutable {
    call->Hold(call->body_.bytes() + message.size());
    const size_t bytes = message.size();
    call->Converted(
        bytes,
        [method = call->method_, message = std::move(message)] {
          return JsonOfResponse(*method, message);
        },
        [](GatewayCall* self, absl::StatusOr<std::string> json) {
          self->Answered(std::move(json));
        });
  });
}

void GatewayCall::Answered(absl::StatusOr<std::string> json) {
  if (!json.ok()) return Fail(json.status());
  Hold(body_.bytes() + json->size());
  if (!is_streaming()) {
    answer_ = *std::move(json);
    return call_->Read();  // for the status
  }
  wrote_chunk_ = true;
  client_->WriteChunk(absl::StrCat("{\"result\":", *json, "}\n"));
}

void GatewayCall::OnWritten() {
  if (client_ == nullptr) return;  // that was the last chunk
  Hold(body_.bytes());
  call_->Read();
}

void GatewayCall::OnDone(int code, std::string text) {
  OnHttpThread([code, text = std::move(text)](GatewayCall* call) {
    if (code == 0 && !call->body_error_.ok()) return call->Fail(call->body_error_);
    // The client library inside this server has words of its own for it.
    const bool is_late = code == static_cast<int>(Code::kDeadlineExceeded);
    call->End(code, is_late ? std::string(wire::kErrDeadlineExceeded.message) : text);
  });
}

// The request or the answer cannot be understood.
void GatewayCall::Fail(const absl::Status& status) {
  if (call_ != nullptr) call_->Cancel();
  End(static_cast<int>(status.code()), std::string(status.message()));
}

void GatewayCall::End(int code, const std::string& text) {
  Client* const client = client_;
  const bool ok = code == static_cast<int>(Code::kOk);
  Finish();
  if (is_streaming() && (wrote_chunk_ || ok)) {
    if (!ok) client->WriteChunk(StreamErrorLine(code, text));
    return client->EndChunks();
  }
  Response response;
  response.content_type = kJson;
  response.grpc = true;
  response.status = HttpStatusOf(code);
  if (ok) {
    response.body = std::move(answer_);
  } else {
    response.body = is_streaming() ? StreamErrorLine(code, text) : ErrorBody(code, text);
  }
  client->Respond(std::move(response));
}

}  // namespace conclave::http
