// PeerLink: one lane to one other member, dialled by us. Frames go out; nothing comes back but the
// end.
//
// It is always trying: when the connection breaks or does not come about, it dials again after
// kLinkRetry, and at once when the other member has called us. The node hears of every up and down.
// Frames that are sent while the lane is down are dropped, as Raft allows.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conclave/server/node/io.h"
#include "conclave/server/rpc/addresses.h"
#include "conclave/server/rpc/event_loop.h"
#include "conclave/server/rpc/out_buffer.h"
#include "conclave/server/rpc/peer_wire.h"
#include "conclave/server/tls/stream.h"

namespace conclave::rpc {

inline constexpr Duration kLinkRetry = std::chrono::milliseconds(50);
// After the other side has refused us: a wrong address or cluster does not mend itself quickly.
inline constexpr Duration kLinkRetryRefused = std::chrono::seconds(1);
// A connection that has not come up by then is tried anew.
inline constexpr Duration kConnectTimeout = std::chrono::seconds(2);
// Unacknowledged by the other machine for so long: the connection is broken.
inline constexpr Duration kDeadLinkTimeout = std::chrono::seconds(5);
// Frames that wait for the socket; the oldest go first when they are more.
inline constexpr size_t kPeerOutboxBytesMax = 64u << 20;
// Frames are handed to the socket in portions of about this size.
inline constexpr size_t kPeerPortionBytes = 1u << 20;

// On its loop's thread.
class PeerLink final : public EventLoop::Socket {
 public:
  PeerLink(EventLoop* loop, PeerIdentity self, node::PeerAddress address, node::PeerLane lane,
           tls::Policy* tls_policy, const std::function<void(node::LogLine)>* log);
  ~PeerLink() override;

  void Start();
  void Send(Bytes frame);
  // Breaks the connection if the other member's certificate counts no more. `material` is the
  // number of the certificates that do.
  void Sweep(uint64_t material);
  // The other member has called us, so it is there: do not wait for the next attempt.
  void ConnectNow();
  // No further attempt; the link may be retired.
  void Close();

  void OnReady(uint32_t events) override;
  void OnFlush() override;

  const node::PeerAddress& address() const { return address_; }
  node::PeerLane lane() const { return lane_; }
  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t dropped_frames() const { return dropped_frames_; }
  bool connected() const { return state_ == State::kUp; }

 private:
  enum class State { kDown, kResolving, kConnecting, kHandshaking, kGreeting, kUp, kClosed };

  void Dial();
  void Connect(const std::vector<char>& address);
  void OnConnected();
  void Handshake();
  void Greet();
  OutBuffer::Result Write();
  void WantWritable(bool wanted);
  void ReadAnswer();
  void Broken(Duration retry);
  void LogRefusal(const std::string& reason);

  EventLoop* const loop_;
  const PeerIdentity self_;
  const node::PeerAddress address_;
  const node::PeerLane lane_;
  tls::Policy* const tls_policy_;  // null: only plain URLs can be called
  const std::function<void(node::LogLine)>* const log_;

  State state_ = State::kDown;
  uint64_t attempt_ = 0;  // timers and resolutions of an older attempt are void
  size_t url_ = 0;        // of address_.peer_urls
  PeerUrl target_;
  int fd_ = -1;
  std::unique_ptr<tls::Stream> tls_;  // of this connection; null: plain text
  uint64_t judged_by_ = 0;            // the certificates by which the other's was judged last
  bool writable_wanted_ = false;
  std::string answer_;
  std::string last_refusal_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what comes back later

  std::deque<Bytes> outbox_;
  size_t outbox_bytes_ = 0;
  OutBuffer out_;
  uint64_t sent_bytes_ = 0;
  uint64_t dropped_frames_ = 0;
};

}  // namespace conclave::rpc
