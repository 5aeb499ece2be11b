#include "conclave/tests/bench/load/http2_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "conclave/base/check.h"

namespace conclave::bench {
namespace {

constexpr int32_t kWindowBytes = 64 << 20;  // a range of 100,000 keys never waits for credit
constexpr size_t kReadBytes = 256 * 1024;

int ConnectTo(const std::string& endpoint, std::string* error) {
  const size_t colon = endpoint.rfind(':');
  if (colon == std::string::npos) {
    *error = endpoint + " is not host:port";
    return -1;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(endpoint.substr(0, colon).c_str(),
                                   endpoint.substr(colon + 1).c_str(), &hints, &found);
      code != 0) {
    *error = endpoint + ": " + gai_strerror(code);
    return -1;
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool connected = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  freeaddrinfo(found);
  if (!connected) {
    *error = endpoint + ": " + std::strerror(errno);
    if (fd >= 0) close(fd);
    return -1;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

nghttp2_nv Header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

UnaryCall* CallOf(nghttp2_session* session, int32_t stream) {
  return static_cast<UnaryCall*>(nghttp2_session_get_stream_user_data(session, stream));
}

}  // namespace

std::unique_ptr<Http2Client> Http2Client::Connect(const std::string& endpoint, std::string* error) {
  const int fd = ConnectTo(endpoint, error);
  if (fd < 0) return nullptr;
  return std::unique_ptr<Http2Client>(new Http2Client(fd, endpoint));
}

Http2Client::Http2Client(int fd, std::string authority)
    : fd_(fd), authority_(std::move(authority)) {
  nghttp2_session_callbacks* callbacks = nullptr;
  CONCLAVE_CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnStreamClose);
  CONCLAVE_CHECK(nghttp2_session_client_new(&session_, callbacks, this) == 0);
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes);
}

Http2Client::~Http2Client() {
  nghttp2_session_del(session_);
  close(fd_);
}

void Http2Client::Start(const std::string& method, std::string_view message, UnaryCall* call) {
  const size_t size = message.size();
  call->request.assign({0, static_cast<char>(size >> 24), static_cast<char>(size >> 16),
                        static_cast<char>(size >> 8), static_cast<char>(size)});
  call->request.append(message);
  call->sent = 0;
  call->status = -1;
  call->message.clear();
  call->received_bytes = 0;
  const nghttp2_nv headers[] = {Header(":method", "POST"),
                                Header(":scheme", "http"),
                                Header(":path", method),
                                Header(":authority", authority_),
                                Header("content-type", "application/grpc"),
                                Header("user-agent", "conclave-load"),
                                Header("te", "trailers")};
  nghttp2_data_provider provider{};
  provider.source.ptr = call;
  provider.read_callback = ReadRequest;
  CONCLAVE_CHECK(
      nghttp2_submit_request(session_, nullptr, headers, std::size(headers), &provider, call) > 0);
}

bool Http2Client::OnReady() {
  thread_local uint8_t buffer[kReadBytes];
  for (;;) {
    const ssize_t count = recv(fd_, buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return true;
    if (count <= 0) return false;
    if (nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(count)) < 0) return false;
    if (static_cast<size_t>(count) < sizeof buffer) return true;
  }
}

bool Http2Client::Flush() {
  for (;;) {
    const uint8_t* data = nullptr;
    const ssize_t count = nghttp2_session_mem_send(session_, &data);
    if (count < 0) return false;
    if (count == 0) break;
    out_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(count));
  }
  while (sent_ < out_.size()) {
    const ssize_t count = send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno == EAGAIN;
    sent_ += static_cast<size_t>(count);
  }
  out_.clear();
  sent_ = 0;
  return true;
}

ssize_t Http2Client::ReadRequest(nghttp2_session* /*session*/, int32_t /*stream*/, uint8_t* buffer,
                                 size_t size, uint32_t* flags, nghttp2_data_source* source,
                                 void* /*user*/) {
  auto* call = static_cast<UnaryCall*>(source->ptr);
  const size_t count = std::min(size, call->request.size() - call->sent);
  std::memcpy(buffer, call->request.data() + call->sent, count);
  call->sent += count;
  if (call->sent == call->request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(count);
}

int Http2Client::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                          size_t name_size, const uint8_t* value, size_t value_size,
                          uint8_t /*flags*/, void* /*user*/) {
  UnaryCall* call = CallOf(session, frame->hd.stream_id);
  if (call == nullptr) return 0;
  const std::string_view key(reinterpret_cast<const char*>(name), name_size);
  const std::string_view text(reinterpret_cast<const char*>(value), value_size);
  if (key == "grpc-status") call->status = std::atoi(std::string(text).c_str());
  if (key == "grpc-message") call->message = text;
  return 0;
}

int Http2Client::OnData(nghttp2_session* session, uint8_t /*flags*/, int32_t stream,
                        const uint8_t* /*data*/, size_t size, void* /*user*/) {
  if (UnaryCall* call = CallOf(session, stream); call != nullptr) call->received_bytes += size;
  return 0;
}

int Http2Client::OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t /*code*/,
                               void* user) {
  if (UnaryCall* call = CallOf(session, stream); call != nullptr) {
    static_cast<Http2Client*>(user)->on_end(call);
  }
  return 0;
}

}  // namespace conclave::bench
