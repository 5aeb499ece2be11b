#include "conclave/server/rpc/http2_call.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/timeout.h"
#include "conclave/base/check.h"
#include "conclave/base/utf8.h"
#include "conclave/server/rpc/http2_connection.h"
#include "conclave/server/rpc/http2_host.h"

namespace conclave::rpc {
namespace {

using wire::Code;

// Credit is given back in lumps of this size, and whenever nothing more waits.
constexpr uint64_t kCreditBytes = 64 * 1024;
// A slot's list of messages gives its memory back when it has grown beyond this.
constexpr size_t kKeptMessages = 1024;

uint32_t ReadLength(const char* frame) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(frame);
  return uint32_t{bytes[1]} << 24 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 8 | bytes[4];
}

void WriteLength(char* frame, size_t length) {
  frame[0] = 0;  // not compressed
  frame[1] = static_cast<char>(length >> 24);
  frame[2] = static_cast<char>(length >> 16);
  frame[3] = static_cast<char>(length >> 8);
  frame[4] = static_cast<char>(length);
}

// HealthCheckResponse.status.
constexpr std::string_view kServing = "\x08\x01";
constexpr std::string_view kNotServing = "\x08\x02";
constexpr std::string_view kServiceUnknown = "\x08\x03";

}  // namespace

node::CallId Http2Call::id() const {
  const uint64_t address = reinterpret_cast<uint64_t>(this);
  CONCLAVE_CHECK(address >> kAddressBits == 0);
  return node::CallId(address | generation_ << kAddressBits);
}

Http2Call* Http2Call::Find(node::CallId id) {
  auto* call = reinterpret_cast<Http2Call*>(id.value() & ((uint64_t{1} << kAddressBits) - 1));
  CONCLAVE_CHECK(call->generation_ == id.value() >> kAddressBits, "reply to a call that is over");
  return call;
}

void Http2Call::Begin(Http2Connection* connection, int32_t stream) {
  generation_ = (generation_ + 1) & kGenerationMask;
  connection_ = connection;
  stream_ = stream;
  method_ = nullptr;
  counters_ = nullptr;
  unknown_path_.clear();
  authority_.clear();
  encoding_.clear();
  token_.clear();
  credentials_.reset();
  is_post_ = is_grpc_ = require_leader_ = is_http_ = false;
  http_.reset();
  http_error_ = nullptr;
  deadline_ = kNever;
  header_bytes_ = 0;
  frame_have_ = want_ = 0;
  has_message_ = refused_ = at_core_ = core_told_ = counted_ = out_complete_ = response_submitted =
      has_bad_version_ = watches_health_ = false;
  out_head_ = out_offset_ = out_bytes_ = 0;
  credit_ = 0;
}

void Http2Call::OnHeader(std::string_view name, std::string_view value) {
  header_bytes_ += name.size() + value.size();
  if (name == ":path") {
    method_ = FindMethod(value);
    if (method_ == nullptr) unknown_path_ = value;
  } else if (name == ":method") {
    is_post_ = value == "POST";
  } else if (name == "content-type") {
    constexpr std::string_view kGrpc = "application/grpc";
    is_grpc_ =
        value.substr(0, kGrpc.size()) == kGrpc &&
        (value.size() == kGrpc.size() || value[kGrpc.size()] == '+' || value[kGrpc.size()] == ';');
  } else if (name == "hasleader") {
    require_leader_ = value == "true";
  } else if (name == "grpc-encoding") {
    encoding_ = value;
  } else if (name == "token" || (name == "authorization" && token_.empty())) {
    token_ = value;
  } else if (name == "grpc-timeout") {
    if (const auto timeout = wire::ParseTimeout(value)) {
      deadline_ = host_->loop().now() + *timeout;
      connection_->ExpectDeadlines();
    }
  } else if (name == "client-api-version") {
    has_bad_version_ = !IsUtf8(value);
  }
  if (method_ == nullptr) KeepHeader(name, value);
}

void Http2Call::OnHeadersComplete() {
  if (header_bytes_ > kHeaderListBytesMax) {
    refused_ = true;
    return connection_->Reset(this, NGHTTP2_ENHANCE_YOUR_CALM);
  }
  if (!is_post_ || !is_grpc_ || !connection_->takes_grpc()) [[unlikely]]
    return OnOtherRequest();
  http_.reset();
  if (method_ == nullptr) return Refuse(Code::kUnimplemented, RejectMessage(unknown_path_));
  counters_ = &host_->loop().counters().methods[method_ - AllMethods().data()];
  counters_->started.Add();
  arrived_ = host_->loop().now();
  if (at_door() && host_->options().door == nullptr) {
    return Refuse(Code::kUnimplemented, RejectMessage(method_->path));
  }
  if (host_->stopping()) return Refuse(wire::kErrStopped);
  if (has_bad_version_) return Refuse(wire::kErrInvalidClientApiVersion);
  if (connection_->is_clogged()) {
    return Refuse(wire::kErrTooManyRequests);
  }
  if (!token_.empty() || connection_->is_somebody()) [[unlikely]]
    credentials_ = connection_->CredentialsOf(token_);
  if (streams_from_node()) {
    at_core_ = true;
    host_->loop().inputs().emplace_back(
        node::StreamOpened{id(), method_->stream, require_leader_, std::move(credentials_)});
  }
}

// What a request needs that names no method of gRPC, beside what all need. Pseudo-headers come
// first, in any order.
void Http2Call::KeepHeader(std::string_view name, std::string_view value) {
  if (!connection_->takes_http() || header_bytes_ > kHeaderListBytesMax) return;
  if (name == ":authority") {
    authority_ = value;
  } else if (name == ":method" ? !is_post_ : !name.starts_with(':')) {
    if (http_ == nullptr) http_ = std::make_unique<HttpDoor::Request>();
    if (name == ":method") {
      http_->method = value;
    } else {
      http_->fields.emplace_back(name, value);
    }
  }
}

// It is no call of gRPC, or not here.
void Http2Call::OnOtherRequest() {
  const bool names_a_method = method_ != nullptr;
  if (connection_->takes_http() && !names_a_method && (!is_grpc_ || !connection_->takes_grpc()))
    return BeginHttp();
  http_.reset();
  RefuseHttp(!connection_->takes_grpc() ? "404" : is_post_ ? "415" : "405");
}

// Some clients do not expect an answer before they have said all.
void Http2Call::RefuseHttp(const char* status) {
  refused_ = true;
  http_error_ = status;
}

void Http2Call::BeginHttp() {
  std::unique_ptr<HttpDoor::Request> request = std::move(http_);
  if (host_->stopping() || connection_->is_clogged())
    return RefuseHttp(host_->stopping() ? "503" : "429");
  if (request == nullptr) request = std::make_unique<HttpDoor::Request>();
  request->id = id();
  request->target = unknown_path_;
  request->authority = authority_;
  request->is_tls = connection_->is_tls();
  request->port = connection_->http_port();
  is_http_ = at_core_ = true;
  host_->options().http->Begin(std::move(*request));
}

void Http2Call::HttpBody(std::string_view data, bool is_last) {
  if (!at_core_ || core_told_) return;
  if (host_->options().http->Body(id(), Bytes::Copy(data), is_last)) return;
  refused_ = true;
  TellCoreGone();
  connection_->Reset(this, NGHTTP2_ENHANCE_YOUR_CALM);
}

void Http2Call::OnData(std::string_view data) {
  if (is_http_ && !refused_) [[unlikely]]
    return HttpBody(data, /*is_last=*/false);
  while (!data.empty() && !refused_) {
    if (frame_have_ < kMessagePrefixBytes) {
      const size_t count = std::min(data.size(), kMessagePrefixBytes - frame_have_);
      std::memcpy(frame_ + frame_have_, data.data(), count);
      frame_have_ += count;
      data.remove_prefix(count);
      if (frame_have_ == kMessagePrefixBytes) StartMessage();
      continue;
    }
    const size_t count = std::min(data.size(), want_);
    std::memcpy(fill_, data.data(), count);
    fill_ += count;
    want_ -= count;
    data.remove_prefix(count);
    if (want_ == 0) MessageComplete();
  }
}

void Http2Call::StartMessage() {
  const uint32_t length = ReadLength(frame_);
  if (frame_[0] != 0) {
    return Refuse(
        Code::kUnimplemented,
        absl::StrCat("grpc: Decompressor is not installed for grpc-encoding \"", encoding_, "\""));
  }
  const uint64_t limit = host_->options().receive_bytes_max;
  if (length > limit) {
    return Refuse(Code::kResourceExhausted, absl::StrCat("grpc: received message larger than max (",
                                                         length, " vs. ", limit, ")"));
  }
  if (has_one_request() && has_message_)
    return Refuse(Code::kInternal, "more than one message in a call that has one request");
  const size_t headroom = is_unary() ? node::kRequestHeadroom : 0;
  message_ = Bytes::Uninitialized(headroom + length, &fill_);
  fill_ += headroom;
  want_ = length;
  if (want_ == 0) MessageComplete();
}

void Http2Call::MessageComplete() {
  frame_have_ = 0;
  counters_->received_messages.Add();
  host_->loop().counters().received_bytes.Add(ReadLength(frame_));
  has_message_ = has_one_request();
  if (!streams_from_node()) return;
  if (!at_core_ || core_told_) return;  // the core has ended the stream
  host_->loop().inputs().emplace_back(node::StreamMessage{id(), std::move(message_)});
}

void Http2Call::OnEndOfRequest() {
  if (http_error_ != nullptr) [[unlikely]]
    return connection_->SubmitHttpError(this, std::exchange(http_error_, nullptr));
  if (refused_) return;
  if (is_http_) [[unlikely]]
    return HttpBody({}, /*is_last=*/true);
  if (method_->served == Served::kNodeStream ||
      (method_->served == Served::kNodeServerStream && has_message_ && frame_have_ == 0)) {
    if (at_core_) host_->loop().inputs().emplace_back(node::StreamHalfClosed{id()});
    return;
  }
  if (!has_message_ || frame_have_ != 0)
    return Refuse(Code::kInternal, "the request has no whole message");
  has_message_ = false;
  Bytes request = std::move(message_);
  if (method_->served == Served::kNodeUnary) {
    at_core_ = true;
    host_->loop().inputs().emplace_back(node::UnaryCall{id(), method_->method, std::move(request),
                                                        require_leader_, std::move(credentials_)});
    return;
  }
  if (at_door()) return KnockAtDoor(std::move(request));
  HealthRequest(request);
}

void Http2Call::KnockAtDoor(Bytes request) {
  at_core_ = true;
  const size_t headroom = is_unary() ? node::kRequestHeadroom : 0;
  host_->options().door->Begin({id(), method_->path,
                                request.Slice(headroom, request.size() - headroom),
                                std::move(credentials_), require_leader_});
}

// Only the server as a whole ("") is known. A watch of its health says so, and of each pause, and
// stays open until one of both goes.
void Http2Call::HealthRequest(const Bytes& request) {
  const size_t headroom = is_unary() ? node::kRequestHeadroom : 0;
  const bool known = request.size() == headroom;
  if (is_unary() && !known) return Refuse(Code::kNotFound, "unknown service");
  QueueMessage(Bytes::Copy(known ? kServing : kServiceUnknown), {}, 0);
  if (is_unary()) return Complete(nullptr);
  watches_health_ = known;
}

bool Http2Call::CheckDeadline(Instant now) {
  if (deadline_ > now || is_http_) return deadline_ != kNever;
  if (counters_ == nullptr) return true;  // its headers are not complete
  deadline_ = kNever;
  if (!out_complete_) Refuse(wire::kErrDeadlineExceeded);
  return false;
}

void Http2Call::TellOfPause() {
  if (!watches_health_ || connection_ == nullptr || connection_->is_clogged()) return;
  for (const std::string_view status : {kNotServing, kServing}) {
    QueueMessage(Bytes::Copy(status), {}, 0);
  }
}

void Http2Call::OnStreamGone() {
  connection_->Unqueued(out_bytes_);
  connection_ = nullptr;
  message_ = Bytes();
  out_.clear();
  out_head_ = out_bytes_ = 0;
  TellCoreGone();
  if (counters_ != nullptr && !counted_) CountHandled(static_cast<int>(Code::kCancelled));
  ReleaseIfOver();
}

void Http2Call::TellCoreGone() {
  if (!at_core_ || core_told_) return;
  core_told_ = true;
  if (Answerer* door = answerer()) {
    door->Cancel(id());
  } else if (is_unary()) {
    host_->loop().inputs().emplace_back(node::CallCancelled{id()});
  } else {
    host_->loop().inputs().emplace_back(node::StreamClosed{id()});
  }
}

Answerer* Http2Call::answerer() const {
  if (is_http_) return host_->options().http;
  return at_door() ? host_->options().door : nullptr;
}

void Http2Call::Answer(node::Reply reply) {
  CONCLAVE_CHECK(at_core_ && is_unary(), "an answer that nobody waits for");
  at_core_ = false;
  if (connection_ == nullptr) return ReleaseIfOver();
  if (reply.error == nullptr) QueueMessage(std::move(reply.body), {}, 0);
  Complete(std::move(reply.error));
}

void Http2Call::Add(node::StreamEffect effect) {
  CONCLAVE_CHECK(at_core_, "a stream effect after its finish");
  if (is_http_) [[unlikely]]
    return AddHttp(std::move(effect));
  if (effect.finish) {
    at_core_ = false;
    if (connection_ == nullptr) return ReleaseIfOver();
    return Complete(std::move(effect.error));
  }
  if (connection_ == nullptr) return;
  QueueMessage(std::move(effect.prefix), std::move(effect.shared), effect.charge);
}

void Http2Call::Answer(const HttpHead& head) {
  CONCLAVE_CHECK(at_core_ && is_http_ && !response_submitted, "a second answer");
  if (connection_ != nullptr) connection_->SubmitHttpHead(this, head);
}

void Http2Call::AddHttp(node::StreamEffect effect) {
  if (effect.finish) at_core_ = false;
  if (connection_ == nullptr) return ReleaseIfOver();
  if (effect.finish && effect.error != nullptr) {
    out_complete_ = true;
    return connection_->Reset(this, NGHTTP2_INTERNAL_ERROR);
  }
  CONCLAVE_CHECK(response_submitted, "a body without a head");
  if (effect.finish) return Complete(nullptr);
  Outgoing& piece = out_.emplace_back();
  piece.frame_bytes = 0;
  piece.prefix = std::move(effect.prefix);
  piece.charge = effect.charge;
  out_bytes_ += piece.size();
  connection_->Queued(piece.size());
  connection_->Resume(this);
}

void Http2Call::Refuse(const wire::Error& error) { Refuse(error.code, std::string(error.message)); }

void Http2Call::Refuse(Code code, std::string message) {
  refused_ = true;
  message_ = Bytes();
  TellCoreGone();  // of a broken message in a stream; the core's finish will find the trailers sent
  Complete(std::make_unique<node::CallError>(
      node::CallError{static_cast<int>(code), std::move(message)}));
}

void Http2Call::QueueMessage(Bytes prefix, Bytes shared, uint64_t charge) {
  if (out_complete_) return;
  Outgoing& message = out_.emplace_back();
  WriteLength(message.frame, prefix.size() + shared.size());
  message.prefix = std::move(prefix);
  message.shared = std::move(shared);
  message.charge = charge;
  out_bytes_ += message.size();
  connection_->Queued(message.size());
  counters_->sent_messages.Add();
  host_->loop().counters().sent_bytes.Add(message.size() - kMessagePrefixBytes);
  connection_->Resume(this);
}

void Http2Call::Complete(std::unique_ptr<node::CallError> status) {
  if (out_complete_) return;
  out_complete_ = true;
  status_ = std::move(status);
  if (counters_ != nullptr) CountHandled(status_code());
  connection_->Resume(this);
}

void Http2Call::TakeOut(size_t length, OutBuffer* out) {
  out_bytes_ -= length;
  connection_->Unqueued(length);
  while (length > 0) {
    Outgoing& message = out_[out_head_];
    // The message is three parts one behind the other.
    const auto take = [&](size_t part_begin, size_t part_size, const auto& append) {
      if (length == 0 || out_offset_ < part_begin || out_offset_ >= part_begin + part_size) return;
      const size_t offset = out_offset_ - part_begin;
      const size_t count = std::min(length, part_size - offset);
      append(offset, count);
      out_offset_ += count;
      length -= count;
    };
    const size_t shared_begin = message.frame_bytes + message.prefix.size();
    take(0, message.frame_bytes, [&](size_t offset, size_t count) {
      out->Append(std::string_view(message.frame + offset, count));
    });
    take(message.frame_bytes, message.prefix.size(),
         [&](size_t offset, size_t count) { out->Append(message.prefix, offset, count); });
    take(shared_begin, message.shared.size(),
         [&](size_t offset, size_t count) { out->Append(message.shared, offset, count); });
    if (out_offset_ < message.size()) return;
    credit_ += message.charge;
    message = Outgoing();
    ++out_head_;
    out_offset_ = 0;
  }
  if (out_head_ == out_.size()) {
    if (out_.capacity() > kKeptMessages) out_.shrink_to_fit();
    out_.clear();
    out_head_ = 0;
  }
  if (out_bytes_ == 0 || credit_ >= kCreditBytes) GiveCredit();
}

void Http2Call::GiveCredit() {
  if (credit_ > 0 && at_core_) {
    if (Answerer* door = answerer()) {
      door->Sent(id(), credit_);
    } else {
      host_->loop().inputs().emplace_back(node::StreamSent{id(), credit_});
    }
  }
  credit_ = 0;
}

void Http2Call::CountHandled(int code) {
  counted_ = true;
  const auto index = static_cast<size_t>(code);
  counters_->handled[index < kStatusCodes ? index : static_cast<size_t>(Code::kUnknown)].Add();
  if (!host_->options().handling_histograms || !is_unary()) return;
  const Duration taken = Now() - arrived_;
  const double seconds = std::chrono::duration<double>(taken).count();
  const auto bound = std::lower_bound(kHandlingBounds.begin(), kHandlingBounds.end(), seconds);
  counters_->handling[static_cast<size_t>(bound - kHandlingBounds.begin())].Add();
  counters_->handling_nanoseconds.Add(static_cast<uint64_t>(taken.count()));
}

void Http2Call::ReleaseIfOver() {
  if (connection_ != nullptr || at_core_) return;
  status_.reset();
  host_->ReturnCall(this);
}

}  // namespace conclave::rpc
