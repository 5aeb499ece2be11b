#include "conclave/server/rpc/peer_link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/server/rpc/addresses.h"

namespace conclave::rpc {

PeerLink::PeerLink(EventLoop* loop, PeerIdentity self, node::PeerAddress address,
                   node::PeerLane lane, tls::Policy* tls_policy,
                   const std::function<void(node::LogLine)>* log)
    : loop_(loop),
      self_(self),
      address_(std::move(address)),
      lane_(lane),
      tls_policy_(tls_policy),
      log_(log) {}

PeerLink::~PeerLink() {
  CONCLAVE_CHECK(fd_ < 0, "a peer link with an open socket");
  *alive_ = false;
}

void PeerLink::Start() { Dial(); }

void PeerLink::Dial() {
  if (state_ != State::kDown || address_.peer_urls.empty()) return;
  const uint64_t attempt = ++attempt_;
  const auto target = ParsePeerUrl(address_.peer_urls[url_++ % address_.peer_urls.size()]);
  state_ = State::kResolving;
  if (!target.has_value()) return Broken(kLinkRetryRefused);
  target_ = *target;
  if (target_.is_tls && tls_policy_ == nullptr) {
    LogRefusal("its URL wants TLS, and this member has no certificate for members");
    return Broken(kLinkRetryRefused);
  }
  if (target_.is_unix) {
    const auto address = UnixAddress(target_.host);
    return address.has_value() ? Connect(*address) : Broken(kLinkRetryRefused);
  }
  const auto literal = Resolve(target_.host, target_.port, /*literal_only=*/true);
  if (!literal.empty()) return Connect(literal.front());
  // A name: asking the resolver blocks, so it is asked beside the loop.
  std::thread([this, alive = alive_, loop = loop_, attempt, target = target_] {
    auto found = Resolve(target.host, target.port, /*literal_only=*/false);
    loop->Post([this, alive, attempt, found = std::move(found)] {
      if (!*alive || attempt != attempt_ || state_ != State::kResolving) return;
      if (found.empty()) return Broken(kLinkRetryRefused);
      Connect(found.front());
    });
  }).detach();
}

void PeerLink::Connect(const std::vector<char>& address) {
  const auto* target = reinterpret_cast<const sockaddr*>(address.data());
  fd_ = socket(target->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return Broken(kLinkRetryRefused);
  const int one = 1;
  const auto dead_after = static_cast<unsigned>(
      std::chrono::duration_cast<std::chrono::milliseconds>(kDeadLinkTimeout).count());
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_after, sizeof dead_after);
  state_ = State::kConnecting;
  writable_wanted_ = true;
  loop_->Add(fd_, EPOLLIN | EPOLLOUT, this);
  // A unix socket connects at once, or is full (EAGAIN).
  if (connect(fd_, target, static_cast<socklen_t>(address.size())) != 0 && errno != EINPROGRESS) {
    return Broken(kLinkRetry);
  }
  loop_->At(loop_->now() + kConnectTimeout, [this, alive = alive_, attempt = attempt_] {
    if (!*alive || attempt != attempt_) return;
    if (state_ != State::kUp && state_ != State::kDown && state_ != State::kClosed) {
      Broken(kLinkRetry);
    }
  });
}

void PeerLink::OnReady(uint32_t events) {
  if (fd_ < 0) return;
  if (state_ == State::kConnecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return Broken(kLinkRetry);
    if ((events & EPOLLOUT) == 0) return;
    return OnConnected();
  }
  if (state_ == State::kHandshaking) return Handshake();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) ReadAnswer();
  if (fd_ >= 0 && (events & EPOLLOUT) != 0) loop_->FlushLater(this);
}

void PeerLink::OnConnected() {
  if (!target_.is_tls) return Greet();
  state_ = State::kHandshaking;
  tls_ = tls_policy_->Connect(fd_, target_.is_unix ? std::string() : target_.host);
  Handshake();
}

void PeerLink::Handshake() {
  switch (tls_->Handshake()) {
    case tls::Stream::Step::kDone:
      judged_by_ = tls_->material_number();
      return Greet();
    case tls::Stream::Step::kWantRead:
      return WantWritable(false);
    case tls::Stream::Step::kWantWrite:
      return WantWritable(true);
    case tls::Stream::Step::kFailed:
      // A connection that only broke is tried again soon; certificates do not mend themselves.
      if (!tls_->error().starts_with("tls: ")) return Broken(kLinkRetry);
      LogRefusal(tls_->error());
      return Broken(kLinkRetryRefused);
  }
}

void PeerLink::Greet() {
  state_ = State::kGreeting;
  answer_.clear();
  out_.Append(EncodeHello({kPeerVersion, lane_, self_.cluster_id, self_.member, address_.id}));
  loop_->FlushLater(this);
}

void PeerLink::ReadAnswer() {
  char buffer[kPeerLengthBytes + kRefusalBytesMax];
  const ssize_t count =
      tls_ == nullptr ? recv(fd_, buffer, sizeof buffer, 0) : tls_->Read(buffer, sizeof buffer);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (state_ != State::kGreeting) return Broken(kLinkRetry);  // it has nothing to say but the end
  if (count > 0) answer_.append(buffer, static_cast<size_t>(count));
  if (answer_ == EncodeU32(0)) {
    state_ = State::kUp;
    last_refusal_.clear();
    loop_->inputs().emplace_back(node::PeerConnection{address_.id, lane_, true});
    return;
  }
  if (count > 0 && answer_.size() <= sizeof buffer) {
    if (answer_.size() < kPeerLengthBytes) return;
    if (answer_.size() < kPeerLengthBytes + DecodeU32(answer_)) return;
  }
  if (answer_.size() <= kPeerLengthBytes) return Broken(kLinkRetry);
  const std::string reason = answer_.substr(kPeerLengthBytes);
  LogRefusal(reason);
  if (reason == kRemovedRefusal) loop_->inputs().emplace_back(node::RemovedByPeer{address_.id});
  Broken(kLinkRetryRefused);
}

void PeerLink::Send(Bytes frame) {
  if (state_ != State::kUp) {
    ++dropped_frames_;
    return;
  }
  outbox_bytes_ += frame.size();
  outbox_.push_back(std::move(frame));
  while (outbox_bytes_ > kPeerOutboxBytesMax && outbox_.size() > 1) {
    outbox_bytes_ -= outbox_.front().size();
    outbox_.pop_front();
    ++dropped_frames_;
  }
  loop_->FlushLater(this);
}

OutBuffer::Result PeerLink::Write() {
  return tls_ == nullptr ? out_.WriteTo(fd_) : out_.WriteTo(tls_.get());
}

void PeerLink::WantWritable(bool wanted) {
  if (wanted == writable_wanted_) return;
  writable_wanted_ = wanted;
  loop_->Modify(fd_, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN, this);
}

void PeerLink::OnFlush() {
  if (fd_ < 0 || state_ == State::kConnecting || state_ == State::kHandshaking) return;
  for (;;) {
    while (!outbox_.empty() && out_.size() < kPeerPortionBytes) {
      const Bytes& frame = outbox_.front();
      out_.Append(EncodeU32(static_cast<uint32_t>(frame.size())));
      out_.Append(frame, 0, frame.size());
      outbox_bytes_ -= frame.size();
      sent_bytes_ += kPeerLengthBytes + frame.size();
      outbox_.pop_front();
    }
    const OutBuffer::Result result = Write();
    if (result == OutBuffer::Result::kBroken) return Broken(kLinkRetry);
    const bool blocked = result == OutBuffer::Result::kBlocked;
    WantWritable(blocked);
    if (blocked || outbox_.empty()) return;
  }
}

void PeerLink::Broken(Duration retry) {
  const bool was_up = state_ == State::kUp;
  tls_.reset();
  if (fd_ >= 0) {
    loop_->Remove(fd_);
    close(std::exchange(fd_, -1));
  }
  out_ = OutBuffer();
  outbox_.clear();
  outbox_bytes_ = 0;
  state_ = State::kDown;
  if (was_up) loop_->inputs().emplace_back(node::PeerConnection{address_.id, lane_, false});
  loop_->At(loop_->now() + retry, [this, alive = alive_, attempt = attempt_] {
    if (*alive && attempt == attempt_) Dial();
  });
}

void PeerLink::Sweep(uint64_t material) {
  if (tls_ == nullptr || state_ != State::kUp || judged_by_ == material) return;
  judged_by_ = material;
  if (tls_policy_->StillAccepts(*tls_)) return;
  LogRefusal("tls: its certificate does not count any more");
  Broken(kLinkRetryRefused);
}

void PeerLink::ConnectNow() { Dial(); }

void PeerLink::Close() {
  if (state_ == State::kClosed) return;
  Broken(kLinkRetry);
  state_ = State::kClosed;
}

void PeerLink::LogRefusal(const std::string& reason) {
  if (reason == last_refusal_) return;
  last_refusal_ = reason;
  (*log_)({node::Severity::kWarning,
           "peer refused our connection",
           {{"remote-peer-id", Hex(address_.id.value())},
            {"remote-peer-urls", address_.peer_urls.front()},
            {"error", reason}}});
}

}  // namespace conclave::rpc
