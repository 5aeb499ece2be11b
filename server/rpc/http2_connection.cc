#include "conclave/server/rpc/http2_connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>

#include "conclave/base/check.h"
#include "conclave/server/node/server_itself.h"

namespace conclave::rpc {
namespace {

constexpr size_t kReadBytes = 64 * 1024;
// A connection that has said nothing for so long gives its buffer back.
constexpr Duration kIdleAfter = std::chrono::seconds(10);
// Reads of one burst from one connection; another one waits for its turn.
constexpr int kReadsPerBurst = 4;

std::string_view View(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

nghttp2_nv Header(std::string_view name, std::string_view value, uint8_t flags = 0) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          flags};
}
// Name and value outlive the session.
nghttp2_nv StaticHeader(std::string_view name, std::string_view value) {
  return Header(name, value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}

const nghttp2_nv kResponseHeaders[] = {StaticHeader(":status", "200"),
                                       StaticHeader("content-type", "application/grpc")};

// grpc-message: UTF-8 in which everything but printable ASCII, and the percent sign, is
// percent-encoded.
std::string PercentEncode(std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (c >= 0x20 && c <= 0x7e && c != '%') {
      encoded.push_back(c);
    } else {
      encoded.push_back('%');
      encoded.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
      encoded.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
    }
  }
  return encoded;
}

Http2Call* CallOf(nghttp2_session* session, int32_t stream) {
  return static_cast<Http2Call*>(nghttp2_session_get_stream_user_data(session, stream));
}

}  // namespace

void Http2Connection::SetCallbacks(nghttp2_session_callbacks* callbacks) {
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, OnBeginHeaders);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrameRecv);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnDataChunk);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnStreamClose);
  nghttp2_session_callbacks_set_send_callback(callbacks, OnSend);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, OnSendData);
}

Http2Connection::Http2Connection(Http2Host* host, Accepted accepted)
    : host_(host),
      fd_(accepted.fd),
      tls_(std::move(accepted.tls)),
      slot_(std::move(accepted.slot)),
      is_server_itself_(accepted.is_server_itself),
      takes_grpc_(accepted.takes_grpc),
      http_port_(accepted.http_port) {
  if (tls_ != nullptr) judged_by_ = tls_->material_number();
  last_read_ = host_->loop().now();
  nghttp2_session_server_new2(&session_, host_->callbacks(), this, host_->option());
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, host_->options().concurrent_streams_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindowBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kHeaderListBytesMax},
  };
  CONCLAVE_CHECK(
      nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings)) == 0);
  CONCLAVE_CHECK(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                                       kConnectionWindowBytes) == 0);
}

void Http2Connection::Start() {
  host_->loop().Add(fd_, EPOLLIN, this);
  host_->loop().FlushLater(this);
  // The first bytes may have come with the end of the handshake.
  if (tls_ != nullptr && tls_->HasBuffered()) Read();
}

Http2Connection::~Http2Connection() { CONCLAVE_CHECK(closed_); }

void Http2Connection::OnReady(uint32_t events) {
  if (closed_) return;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Read();
  if ((events & EPOLLOUT) != 0 && !closed_) host_->loop().FlushLater(this);
}

ssize_t Http2Connection::Receive(void* buffer, size_t size, bool is_last) {
  if (tls_ == nullptr) return recv(fd_, buffer, size, 0);
  // What stays behind in the socket, the loop will tell of; what stays in the stream, nobody would.
  return is_last ? tls_->ReadBuffered(buffer, size) : tls_->Read(buffer, size);
}

OutBuffer::Result Http2Connection::Send() {
  return tls_ == nullptr ? out_.WriteTo(fd_) : out_.WriteTo(tls_.get());
}

void Http2Connection::Read() {
  thread_local uint8_t buffer[kReadBytes];
  for (int i = 0; i < kReadsPerBurst; ++i) {
    const ssize_t count = Receive(buffer, sizeof buffer, /*is_last=*/i + 1 == kReadsPerBurst);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (count <= 0) return Close();
    last_read_ = host_->loop().now();
    ping_sent_ = Instant();
    // A protocol error ends in a GOAWAY that nghttp2 has queued; anything else that fails here is
    // beyond repair.
    if (nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(count)) < 0) return Close();
    if (static_cast<size_t>(count) < sizeof buffer) break;
  }
  host_->loop().FlushLater(this);
}

void Http2Connection::OnFlush() {
  if (closed_) return;
  for (;;) {
    if (nghttp2_session_send(session_) != 0) return Close();
    const OutBuffer::Result result = Send();
    if (result == OutBuffer::Result::kBroken) return Close();
    const bool blocked = result == OutBuffer::Result::kBlocked;
    if (blocked != writable_wanted_) {
      writable_wanted_ = blocked;
      host_->loop().Modify(fd_, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, this);
    }
    if (blocked) return;
    if (nghttp2_session_want_write(session_) == 0) break;
  }
  if (nghttp2_session_want_read(session_) == 0) Close();
}

void Http2Connection::SubmitResponse(Http2Call* call) {
  call->response_submitted = true;
  if (call->out_complete() && call->queued_bytes() == 0) {
    // Nothing but a status: one header block is headers and trailers.
    const std::string code = std::to_string(call->status_code());
    const std::string message = PercentEncode(call->status_message());
    const nghttp2_nv headers[] = {kResponseHeaders[0], kResponseHeaders[1],
                                  Header("grpc-status", code), Header("grpc-message", message)};
    const size_t count = message.empty() ? 3 : 4;
    nghttp2_submit_response(session_, call->stream(), headers, count, nullptr);
  } else {
    nghttp2_data_provider provider{};
    provider.source.ptr = call;
    provider.read_callback = ReadResponse;
    nghttp2_submit_response(session_, call->stream(), kResponseHeaders, std::size(kResponseHeaders),
                            &provider);
  }
  host_->loop().FlushLater(this);
}

void Http2Connection::Resume(Http2Call* call) {
  if (!call->response_submitted) {
    // A unary reply is submitted once it is whole.
    if (call->out_complete() || call->streams_out()) SubmitResponse(call);
    return;
  }
  nghttp2_session_resume_data(session_, call->stream());
  host_->loop().FlushLater(this);
}

void Http2Connection::SubmitHttpError(Http2Call* call, const char* status) {
  const nghttp2_nv headers[] = {Header(":status", status)};
  nghttp2_submit_response(session_, call->stream(), headers, std::size(headers), nullptr);
  host_->loop().FlushLater(this);
}

void Http2Connection::SubmitHttpHead(Http2Call* call, const HttpHead& head) {
  call->response_submitted = true;
  const std::string status = std::to_string(head.status);
  std::vector<nghttp2_nv> headers{Header(":status", status)};
  for (const auto& [name, value] : head.fields) headers.push_back(Header(name, value));
  nghttp2_data_provider provider{};
  provider.source.ptr = call;
  provider.read_callback = ReadResponse;
  nghttp2_submit_response(session_, call->stream(), headers.data(), headers.size(), &provider);
  host_->loop().FlushLater(this);
}

void Http2Connection::Reset(Http2Call* call, uint32_t code) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call->stream(), code);
  host_->loop().FlushLater(this);
}

const std::string& Http2Connection::certificate_name() const {
  static const std::string kNone;
  return tls_ == nullptr ? kNone : tls_->certificate_name();
}

void Http2Connection::AddCall(Http2Call* call) {
  call->index_in_connection = calls_.size();
  calls_.push_back(call);
}

void Http2Connection::RemoveCall(Http2Call* call) {
  calls_[call->index_in_connection] = calls_.back();
  calls_[call->index_in_connection]->index_in_connection = call->index_in_connection;
  calls_.pop_back();
}

node::CredentialsRef Http2Connection::CredentialsOf(const std::string& token) {
  // A signed token expires by the date, so that one is kept fresh.
  constexpr Duration kDatedFor = std::chrono::seconds(1);
  if (is_server_itself_) [[unlikely]]
    return node::ServerItself();
  if (token.empty() && certificate_name().empty()) return nullptr;
  const Instant now = host_->loop().now();
  if (credentials_ == nullptr || credentials_->token != token ||
      now - credentials_dated_ >= kDatedFor) {
    auto shown = std::make_shared<node::Credentials>();
    shown->token = token;
    shown->certificate_name = certificate_name();
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    shown->unix_seconds = std::chrono::duration_cast<std::chrono::seconds>(wall).count();
    credentials_ = std::move(shown);
    credentials_dated_ = now;
  }
  return credentials_;
}

void Http2Connection::SayFarewell() {
  if (closed_) return;
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
  host_->loop().FlushLater(this);
}

bool Http2Connection::Sweep(Instant now, uint64_t material, bool may_judge) {
  const TransportOptions& options = host_->options();
  const bool judges = tls_ != nullptr && judged_by_ != material && may_judge;
  if (judges) {
    judged_by_ = material;
    if (!options.client_tls->StillAccepts(*tls_)) {
      Close();
      return true;
    }
  }
  if (has_deadlines_) CheckDeadlines(now);
  if (now - last_read_ > kIdleAfter) out_.Trim();
  if (ping_sent_ != Instant() && now - ping_sent_ > options.keepalive_timeout) {
    Close();
  } else if (ping_sent_ == Instant() && now - last_read_ > options.keepalive_interval) {
    ping_sent_ = now;
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
    host_->loop().FlushLater(this);
  }
  return judges;
}

// A call that ends here leaves calls_ later, with its stream.
void Http2Connection::CheckDeadlines(Instant now) {
  has_deadlines_ = false;
  for (Http2Call* call : calls_) {
    if (call->CheckDeadline(now)) has_deadlines_ = true;
  }
}

void Http2Connection::Close() {
  if (closed_) return;
  closed_ = true;
  if (tls_ != nullptr) tls_->Shutdown();
  host_->loop().Remove(fd_);
  close(fd_);
  while (!calls_.empty()) {
    Http2Call* call = calls_.back();
    calls_.pop_back();
    call->OnStreamGone();
  }
  nghttp2_session_del(session_);
  host_->Forget(this);
}

void Http2Connection::OnPing(Instant now) {
  const bool early =
      last_ping_ != Instant() && now - last_ping_ < host_->options().keepalive_min_time;
  last_ping_ = now;
  if (!early || ++ping_strikes_ <= kPingStrikesMax) return;
  constexpr std::string_view kReason = "too_many_pings";
  nghttp2_submit_goaway(
      session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
      NGHTTP2_ENHANCE_YOUR_CALM, reinterpret_cast<const uint8_t*>(kReason.data()), kReason.size());
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
}

int Http2Connection::OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame,
                                    void* user) {
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  auto* self = static_cast<Http2Connection*>(user);
  if (self->calls_.size() >= kCallsOpenMax) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  Http2Call* call = self->host_->TakeCall(self, frame->hd.stream_id);
  self->AddCall(call);
  nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
  return 0;
}

int Http2Connection::OnHeader(nghttp2_session* session, const nghttp2_frame* frame,
                              const uint8_t* name, size_t name_size, const uint8_t* value,
                              size_t value_size, uint8_t /*flags*/, void* /*user*/) {
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  if (Http2Call* call = CallOf(session, frame->hd.stream_id); call != nullptr) {
    call->OnHeader(View(name, name_size), View(value, value_size));
  }
  return 0;
}

int Http2Connection::OnFrameRecv(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
  auto* self = static_cast<Http2Connection*>(user);
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: {
      Http2Call* call = CallOf(session, frame->hd.stream_id);
      if (call == nullptr) return 0;
      if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        call->OnHeadersComplete();
      }
      if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) call->OnEndOfRequest();
      return 0;
    }
    case NGHTTP2_PING:
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) self->OnPing(self->host_->loop().now());
      return 0;
    default:
      return 0;
  }
}

int Http2Connection::OnDataChunk(nghttp2_session* session, uint8_t /*flags*/, int32_t stream,
                                 const uint8_t* data, size_t size, void* /*user*/) {
  if (Http2Call* call = CallOf(session, stream); call != nullptr) call->OnData(View(data, size));
  return 0;
}

int Http2Connection::OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t /*code*/,
                                   void* user) {
  Http2Call* call = CallOf(session, stream);
  if (call == nullptr) return 0;
  nghttp2_session_set_stream_user_data(session, stream, nullptr);
  static_cast<Http2Connection*>(user)->RemoveCall(call);
  call->OnStreamGone();
  return 0;
}

ssize_t Http2Connection::OnSend(nghttp2_session* /*session*/, const uint8_t* data, size_t size,
                                int /*flags*/, void* user) {
  auto* self = static_cast<Http2Connection*>(user);
  if (self->out_.size() >= kOutBytesMax) return NGHTTP2_ERR_WOULDBLOCK;
  self->out_.Append(View(data, size));
  return static_cast<ssize_t>(size);
}

int Http2Connection::OnSendData(nghttp2_session* /*session*/, nghttp2_frame* /*frame*/,
                                const uint8_t* header, size_t size, nghttp2_data_source* source,
                                void* user) {
  auto* self = static_cast<Http2Connection*>(user);
  if (self->out_.size() >= kOutBytesMax) return NGHTTP2_ERR_WOULDBLOCK;
  constexpr size_t kFrameHeaderBytes = 9;
  self->out_.Append(View(header, kFrameHeaderBytes));
  static_cast<Http2Call*>(source->ptr)->TakeOut(size, &self->out_);
  self->ping_strikes_ = 0;
  return 0;
}

ssize_t Http2Connection::ReadResponse(nghttp2_session* session, int32_t stream, uint8_t* /*buffer*/,
                                      size_t size, uint32_t* flags, nghttp2_data_source* source,
                                      void* /*user*/) {
  auto* call = static_cast<Http2Call*>(source->ptr);
  const size_t count = std::min(size, call->queued_bytes());
  if (count == 0 && !call->out_complete()) return NGHTTP2_ERR_DEFERRED;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (count == call->queued_bytes() && call->out_complete()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (call->is_http()) return static_cast<ssize_t>(count);  // no trailers
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (call->status_code() == 0) {
      static const nghttp2_nv kOk[] = {StaticHeader("grpc-status", "0")};
      nghttp2_submit_trailer(session, stream, kOk, std::size(kOk));
    } else {
      const std::string code = std::to_string(call->status_code());
      const std::string message = PercentEncode(call->status_message());
      const nghttp2_nv trailers[] = {Header("grpc-status", code), Header("grpc-message", message)};
      nghttp2_submit_trailer(session, stream, trailers, std::size(trailers));
    }
  }
  return static_cast<ssize_t>(count);
}

}  // namespace conclave::rpc
