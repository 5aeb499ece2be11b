#include "conclave/server/rpc/peer_port.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/unix_socket.h"
#include "conclave/server/rpc/addresses.h"

namespace conclave::rpc {
namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr int kReadsPerBurst = 16;
constexpr int kBacklog = 128;
constexpr int kQuestionsMax = 16;  // to the DNS, at a time

}  // namespace

struct PeerPort::Outlet {
  std::mutex mutex;
  EventLoop* loop = nullptr;  // guarded by mutex; null: the port is gone
  int questions = 0;          // under way; guarded by mutex
};

class PeerPort::Listener final : public EventLoop::Socket {
 public:
  Listener(PeerPort* port, int fd, PeerUrl url) : port_(port), fd_(fd), url_(std::move(url)) {
    port_->loop_->Add(fd_, EPOLLIN, this);
  }
  ~Listener() override { CONCLAVE_CHECK(fd_ < 0); }
  void OnReady(uint32_t /*events*/) override {
    if (fd_ >= 0) port_->Accept(*this);
  }
  void Close() {
    port_->loop_->Remove(fd_);
    close(std::exchange(fd_, -1));
    if (url_.is_unix) unlink(url_.host.c_str());
  }
  int fd() const { return fd_; }
  bool is_tls() const { return url_.is_tls; }

 private:
  PeerPort* const port_;
  int fd_;
  const PeerUrl url_;
};

// One lane from another member: a handshake if the port wants TLS, its Hello, then its frames.
class PeerPort::Lane final : public EventLoop::Socket {
 public:
  Lane(PeerPort* port, int fd, std::unique_ptr<tls::Stream> tls)
      : port_(port), fd_(fd), tls_(std::move(tls)), secure_(tls_ == nullptr) {
    port_->loop_->Add(fd_, EPOLLIN, this);
  }
  ~Lane() override { CONCLAVE_CHECK(fd_ < 0); }

  void OnReady(uint32_t events) override {
    if (question_ != 0) {  // nothing is read meanwhile
      if ((events & (EPOLLHUP | EPOLLERR)) != 0) Close();
      return;
    }
    if (!secure_ && !Handshake()) return;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    thread_local char buffer[kReadBytes];
    for (int i = 0; i < kReadsPerBurst && fd_ >= 0; ++i) {
      const ssize_t count = Receive(buffer, sizeof buffer, /*is_last=*/i + 1 == kReadsPerBurst);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (count <= 0) return Close();
      Take(std::string_view(buffer, static_cast<size_t>(count)));
      if (static_cast<size_t>(count) < sizeof buffer) return;
    }
  }

  void Close() {
    if (fd_ < 0) return;
    port_->loop_->Remove(fd_);
    close(std::exchange(fd_, -1));
    port_->Forget(this);
  }

  // The answer to a question to the DNS: empty, or why it may not call from where it does.
  uint64_t question() const { return question_; }
  void OnAddressJudged(const std::string& why_not) {
    question_ = 0;
    port_->loop_->Modify(fd_, EPOLLIN, this);
    if (Admit(why_not)) OnReady(EPOLLIN);
  }

  // Nothing came that would show who it is.
  void TimeOut() {
    port_->Reject(fd_, {}, secure_ ? "no greeting in time" : "tls: handshake timed out");
    Close();
  }

  void Sweep(uint64_t material) {
    if (tls_ == nullptr || !secure_ || judged_by_ == material) return;
    judged_by_ = material;
    if (port_->tls_policy_->StillAccepts(*tls_)) return;
    port_->Reject(fd_, tls_->server_name(), "tls: its certificate does not count any more");
    Close();
  }

  bool is_stranger() const { return !from_; }
  raft::NodeId from() const { return from_; }
  node::PeerLane lane() const { return lane_; }

 private:
  // True when it is done.
  bool Handshake() {
    const tls::Stream::Step step = tls_->Handshake();
    if (step == tls::Stream::Step::kFailed) {
      port_->Reject(fd_, tls_->server_name(), tls_->error());
      Close();
      return false;
    }
    judged_by_ = tls_->material_number();
    port_->loop_->Modify(fd_, step == tls::Stream::Step::kWantWrite ? EPOLLIN | EPOLLOUT : EPOLLIN,
                         this);
    return step == tls::Stream::Step::kDone && CheckAddress();
  }

  // True if it may go on; else it is closed, or waits for the DNS.
  bool CheckAddress() {
    if (!port_->tls_policy_->options().check_addresses) return Admit({});
    tls::CertificateAddresses addresses = tls_->addresses();
    std::string ip = tls::RemoteIp(fd_);
    if (!tls::NeedsLookup(addresses, ip)) return Admit(tls::WhyNotFrom(addresses, ip));
    port_->loop_->Modify(fd_, 0, this);
    question_ = port_->AskWhyNot(std::move(addresses), std::move(ip));
    return false;
  }

  bool Admit(const std::string& why_not) {
    secure_ = why_not.empty();
    if (secure_) return true;
    port_->Reject(fd_, tls_->server_name(), why_not);
    Close();
    return false;
  }

  ssize_t Receive(char* buffer, size_t size, bool is_last) {
    if (tls_ == nullptr) return recv(fd_, buffer, size, 0);
    // What stays behind in the socket, the loop will tell of; in the stream, nobody would.
    return is_last ? tls_->ReadBuffered(buffer, size) : tls_->Read(buffer, size);
  }

  // A few bytes into a socket that has taken none yet.
  bool SendNow(const std::string& bytes) {
    const auto size = static_cast<ssize_t>(bytes.size());
    if (tls_ == nullptr) {
      return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == size;
    }
    return tls_->Write(bytes) == size && tls_->Flush() == tls::Stream::Flushed::kAll;
  }

  void Take(std::string_view data) {
    if (is_stranger()) {
      const size_t count = std::min(data.size(), kHelloBytes - head_.size());
      head_.append(data.substr(0, count));
      data.remove_prefix(count);
      if (head_.size() < kHelloBytes || !Greet()) return;
      head_.clear();
    }
    port_->received_bytes_[from_] += data.size();
    while (!data.empty()) {
      if (fill_ == nullptr) {
        const size_t count = std::min(data.size(), kPeerLengthBytes - head_.size());
        head_.append(data.substr(0, count));
        data.remove_prefix(count);
        if (head_.size() < kPeerLengthBytes) return;
        want_ = DecodeU32(head_);
        head_.clear();
        if (want_ == 0 || want_ > kPeerFrameBytesMax) return Close();
        frame_ = Bytes::Uninitialized(want_, &fill_);
      }
      const size_t count = std::min(data.size(), want_);
      std::memcpy(fill_, data.data(), count);
      fill_ += count;
      want_ -= count;
      data.remove_prefix(count);
      if (want_ > 0) return;
      fill_ = nullptr;
      port_->loop_->inputs().emplace_back(node::PeerFrame{from_, lane_, std::move(frame_)});
    }
  }

  std::string WhyNot(const std::optional<Hello>& hello) const {
    if (!hello.has_value()) return "not a member of any cluster";
    std::string reason = CheckHello(*hello, port_->self_);
    if (!reason.empty()) return reason;
    if (hello->question) {
      return port_->directory_.members.empty() ? "this member does not know its cluster yet" : "";
    }
    return std::string(port_->WasRemoved(hello->from) ? kRemovedRefusal : "");
  }

  bool Greet() {
    const std::optional<Hello> hello = DecodeHello(head_);
    const std::string reason = WhyNot(hello);
    if (!reason.empty()) {
      port_->Reject(fd_, tls_ == nullptr ? std::string() : tls_->server_name(), reason);
      // As much as the socket takes; the connection ends either way.
      SendNow(absl::StrCat(EncodeU32(static_cast<uint32_t>(reason.size())), reason));
      Close();
      return false;
    }
    if (hello->question) {
      const std::string& members = port_->directory_.members;
      SendNow(
          absl::StrCat(EncodeU32(0), EncodeU32(static_cast<uint32_t>(members.size())), members));
      Close();
      return false;
    }
    if (!SendNow(EncodeU32(0))) {
      Close();
      return false;
    }
    --port_->strangers_;
    from_ = hello->from;
    lane_ = hello->lane;
    port_->Replace(this);
    if (port_->on_peer) port_->on_peer(from_);
    return true;
  }

  PeerPort* const port_;
  int fd_;
  const std::unique_ptr<tls::Stream> tls_;  // null: plain text
  bool secure_;                             // or meant to be plain
  uint64_t question_ = 0;                   // to the DNS; 0: none
  uint64_t judged_by_ = 0;                  // the certificates by which the other's was judged last
  raft::NodeId from_;
  node::PeerLane lane_ = node::PeerLane::kMessages;
  std::string head_;  // of a Hello or a length, as far as it has come
  Bytes frame_;
  char* fill_ = nullptr;
  size_t want_ = 0;
};

PeerPort::PeerPort(EventLoop* loop, PeerIdentity self, tls::Policy* tls_policy,
                   const std::function<void(node::LogLine)>* log)
    : loop_(loop),
      self_(self),
      tls_policy_(tls_policy),
      log_(log),
      rejections_(
          "rejected connection on peer endpoint",
          [log](tls::Policy::Note note) {
            (*log)({node::Severity::kWarning, std::move(note.message), std::move(note.fields)});
          }),
      outlet_(std::make_shared<Outlet>()) {
  outlet_->loop = loop;
}

PeerPort::~PeerPort() {
  CONCLAVE_CHECK(listeners_.empty() && lanes_.empty(), "the peer port is open");
  *alive_ = false;
  std::lock_guard lock(outlet_->mutex);
  outlet_->loop = nullptr;
}

absl::Status PeerPort::Listen(const std::vector<std::string>& urls, bool reuse_port) {
  for (const std::string& url : urls) {
    const auto parsed = ParsePeerUrl(url);
    if (!parsed.has_value()) {
      return absl::UnavailableError(absl::StrCat("cannot listen for peers on ", url));
    }
    CONCLAVE_CHECK(!parsed->is_tls || tls_policy_ != nullptr, "TLS without a policy");
    auto fd = Bind(*parsed, reuse_port);
    if (!fd.ok()) {
      return absl::UnavailableError(absl::StrCat("cannot listen for peers on ", url, ": ",
                                                 std::string(fd.status().message())));
    }
    listeners_.push_back(std::make_unique<Listener>(this, *fd, *parsed));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> PeerPort::Bind(const PeerUrl& url, bool reuse_port) {
  std::vector<SocketAddress> found;
  if (url.is_unix) {
    const auto address = UnixAddress(url.host);
    if (address.has_value() && RemoveStaleSocket(url.host)) found.push_back(*address);
  } else {
    found = Resolve(url.host, url.port, /*literal_only=*/false);
  }
  if (found.empty()) {
    return absl::UnavailableError(url.is_unix ? "address already in use" : "no such host");
  }
  const auto* target = reinterpret_cast<const sockaddr*>(found.front().data());
  const int fd = socket(target->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (reuse_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  if (bind(fd, target, static_cast<socklen_t>(found.front().size())) != 0 ||
      listen(fd, kBacklog) != 0) {
    const std::string error = std::strerror(errno);
    close(fd);
    return absl::UnavailableError(error);
  }
  return fd;
}

void PeerPort::Reject(int fd, const std::string& server_name, const std::string& error) {
  rejections_.Add(loop_->now(), tls::RemoteAddress(fd), server_name, error);
}

void PeerPort::Accept(const Listener& listener) {
  for (;;) {
    const int fd = accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (strangers_ >= kStrangersMax) {
      Reject(fd, {}, "too many connections that have not shown who they are");
      close(fd);
      continue;
    }
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ++strangers_;
    lanes_.push_back(std::make_unique<Lane>(
        this, fd,
        listener.is_tls() ? tls_policy_->Accept(fd, tls::Speaks::kPeerStreams) : nullptr));
    Lane* const lane = lanes_.back().get();
    loop_->At(loop_->now() + kHelloTimeout, [this, alive = alive_, lane] {
      if (!*alive) return;
      const bool there = std::any_of(lanes_.begin(), lanes_.end(),
                                     [&](const auto& entry) { return entry.get() == lane; });
      if (there && lane->is_stranger()) lane->TimeOut();
    });
  }
}

void PeerPort::Forget(Lane* lane) {
  if (lane->is_stranger()) --strangers_;
  const auto found = std::find_if(lanes_.begin(), lanes_.end(),
                                  [&](const auto& entry) { return entry.get() == lane; });
  CONCLAVE_CHECK(found != lanes_.end());
  loop_->Retire(std::move(*found));
  lanes_.erase(found);
}

// The system's resolver blocks, for many seconds if the DNS is silent. So each question has a
// thread of its own, which nobody waits for.
uint64_t PeerPort::AskWhyNot(tls::CertificateAddresses addresses, std::string ip) {
  const uint64_t question = ++last_question_;
  const auto answer = [this, alive = alive_, question](const std::string& why_not) {
    if (!*alive) return;
    const auto lane = std::find_if(lanes_.begin(), lanes_.end(), [&](const auto& entry) {
      return entry->question() == question;
    });
    if (lane != lanes_.end()) (*lane)->OnAddressJudged(why_not);
  };
  std::lock_guard lock(outlet_->mutex);
  if (outlet_->questions >= kQuestionsMax) {
    loop_->Post([answer] { answer("too many certificates with names to look up at a time"); });
    return question;
  }
  ++outlet_->questions;
  std::thread([outlet = outlet_, answer, addresses = std::move(addresses), ip = std::move(ip)] {
    const std::string why_not = tls::WhyNotFrom(addresses, ip);
    std::lock_guard lock(outlet->mutex);
    --outlet->questions;
    if (outlet->loop != nullptr) outlet->loop->Post([answer, why_not] { answer(why_not); });
  }).detach();
  return question;
}

void PeerPort::Replace(Lane* lane) {
  for (const auto& other : lanes_) {
    if (other.get() != lane && other->from() == lane->from() && other->lane() == lane->lane()) {
      return other->Close();  // there is at most one
    }
  }
}

void PeerPort::CloseLanesOf(raft::NodeId from) {
  for (size_t i = lanes_.size(); i-- > 0;) {
    if (lanes_[i]->from() == from) lanes_[i]->Close();
  }
}

bool PeerPort::WasRemoved(raft::NodeId member) const {
  return std::binary_search(directory_.removed.begin(), directory_.removed.end(), member);
}

void PeerPort::SetDirectory(node::PeerDirectory directory) {
  directory_ = std::move(directory);
  // Close takes a lane out of the list.
  for (size_t i = lanes_.size(); i-- > 0;) {
    if (!lanes_[i]->is_stranger() && WasRemoved(lanes_[i]->from())) lanes_[i]->Close();
  }
}

void PeerPort::Close() {
  for (const auto& listener : listeners_) listener->Close();
  while (!listeners_.empty()) {
    loop_->Retire(std::move(listeners_.back()));
    listeners_.pop_back();
  }
  while (!lanes_.empty()) lanes_.back()->Close();
}

void PeerPort::Sweep(uint64_t material) {
  for (size_t i = 0; i < lanes_.size();) {
    Lane* const lane = lanes_[i].get();
    lane->Sweep(material);
    if (i < lanes_.size() && lanes_[i].get() == lane) ++i;
  }
}

uint64_t PeerPort::received_bytes(raft::NodeId from) const {
  const auto found = received_bytes_.find(from);
  return found == received_bytes_.end() ? 0 : found->second;
}

}  // namespace conclave::rpc
