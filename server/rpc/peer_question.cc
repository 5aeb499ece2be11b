#include "conclave/server/rpc/peer_question.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"
#include "conclave/server/rpc/addresses.h"
#include "conclave/server/rpc/peer_wire.h"
#include "conclave/server/rpc/transport.h"
#include "conclave/server/tls/stream.h"

namespace conclave::rpc {
namespace {

absl::Status Failed(const std::string& what) { return absl::UnavailableError(what); }

// One connection for one question; closes itself.
class Question {
 public:
  explicit Question(Instant deadline) : deadline_(deadline) {}
  ~Question() {
    if (fd_ >= 0) close(fd_);
  }
  Question(const Question&) = delete;
  Question& operator=(const Question&) = delete;

  absl::StatusOr<std::string> Ask(const SocketAddress& address, const PeerUrl& url,
                                  tls::Policy* tls_policy) {
    CONCLAVE_RETURN_IF_ERROR(Connect(address));
    if (url.is_tls) {
      tls_ = tls_policy->Connect(fd_, url.is_unix ? std::string() : url.host);
      CONCLAVE_RETURN_IF_ERROR(Handshake());
    }
    CONCLAVE_RETURN_IF_ERROR(Send(EncodeHello({.question = true})));
    CONCLAVE_ASSIGN_OR_RETURN(const std::string head, Receive(kPeerLengthBytes));
    const uint32_t refusal = DecodeU32(head);
    if (refusal != 0) {
      CONCLAVE_ASSIGN_OR_RETURN(const std::string reason,
                                Receive(std::min<size_t>(refusal, kRefusalBytesMax)));
      return Failed(absl::StrCat("it says: ", reason));
    }
    CONCLAVE_ASSIGN_OR_RETURN(const std::string length, Receive(kPeerLengthBytes));
    const size_t bytes = DecodeU32(length);
    if (bytes > kDirectoryBytesMax) return Failed("its answer is too long");
    return Receive(bytes);
  }

 private:
  absl::Status WaitFor(short event) {
    for (;;) {
      const auto left = deadline_ - Now();
      if (left <= Duration::zero()) return Failed("it does not answer in time");
      pollfd socket{fd_, event, 0};
      const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
      const int ready = poll(&socket, 1, static_cast<int>(milliseconds) + 1);
      if (ready > 0) return absl::OkStatus();
      if (ready < 0 && errno != EINTR) return Failed(std::strerror(errno));
    }
  }

  absl::Status Connect(const SocketAddress& address) {
    const auto* target = reinterpret_cast<const sockaddr*>(address.data());
    fd_ = socket(target->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) return Failed(std::strerror(errno));
    if (connect(fd_, target, static_cast<socklen_t>(address.size())) == 0) return absl::OkStatus();
    if (errno != EINPROGRESS) return Failed(std::strerror(errno));
    CONCLAVE_RETURN_IF_ERROR(WaitFor(POLLOUT));
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0 ? absl::OkStatus() : Failed(std::strerror(error));
  }

  absl::Status Handshake() {
    for (;;) {
      switch (tls_->Handshake()) {
        case tls::Stream::Step::kDone:
          return absl::OkStatus();
        case tls::Stream::Step::kWantRead:
          CONCLAVE_RETURN_IF_ERROR(WaitFor(POLLIN));
          break;
        case tls::Stream::Step::kWantWrite:
          CONCLAVE_RETURN_IF_ERROR(WaitFor(POLLOUT));
          break;
        case tls::Stream::Step::kFailed:
          return Failed(tls_->error());
      }
    }
  }

  // A Hello: the socket takes it at once, or something is wrong with it.
  absl::Status Send(const std::string& bytes) {
    const auto size = static_cast<ssize_t>(bytes.size());
    const bool sent =
        tls_ == nullptr ? send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == size
                        : tls_->Write(bytes) == size && tls_->Flush() == tls::Stream::Flushed::kAll;
    return sent ? absl::OkStatus() : Failed("the connection breaks");
  }

  absl::StatusOr<std::string> Receive(size_t bytes) {
    std::string out(bytes, '\0');
    size_t have = 0;
    while (have < bytes) {
      char* const to = out.data() + have;
      const ssize_t count =
          tls_ == nullptr ? recv(fd_, to, bytes - have, 0) : tls_->Read(to, bytes - have);
      if (count > 0) {
        have += static_cast<size_t>(count);
      } else if (count == 0) {
        return Failed("it hangs up");
      } else if (errno == EAGAIN) {
        CONCLAVE_RETURN_IF_ERROR(WaitFor(POLLIN));
      } else if (errno != EINTR) {
        return Failed(std::strerror(errno));
      }
    }
    return out;
  }

  const Instant deadline_;
  int fd_ = -1;
  std::unique_ptr<tls::Stream> tls_;  // null: plain text
};

absl::StatusOr<std::string> AskOne(const std::string& text, tls::Policy* tls_policy,
                                   Duration timeout) {
  const auto url = ParsePeerUrl(text);
  if (!url.has_value()) return Failed("it is no peer URL");
  if (url->is_tls && tls_policy == nullptr) {
    return Failed("it wants TLS, and this server has no certificate for members");
  }
  std::vector<SocketAddress> found;
  if (!url->is_unix) {
    found = Resolve(url->host, url->port, /*literal_only=*/false);
  } else if (const auto address = UnixAddress(url->host)) {
    found.push_back(*address);
  }
  if (found.empty()) return Failed("no such host");
  return Question(Now() + timeout).Ask(found.front(), *url, tls_policy);
}

}  // namespace

absl::StatusOr<std::string> AskForDirectory(const std::vector<std::string>& peer_urls,
                                            tls::Policy* tls_policy, Duration timeout) {
  absl::Status last = Failed("there is nobody to ask");
  for (const std::string& url : peer_urls) {
    auto answer = AskOne(url, tls_policy, timeout);
    if (answer.ok()) return answer;
    last = Failed(absl::StrCat(url, ": ", std::string(answer.status().message())));
  }
  return last;
}

}  // namespace conclave::rpc
