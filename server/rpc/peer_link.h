// PeerLink: one lane to one other member, dialled by us. Frames go out; nothing comes back but the end.
//
// It is always trying: gRPC's channel connects with a short backoff, the stream waits for it (wait for ready), and when it
// breaks, the next one is opened. The node hears of every up and down. Frames that are sent while the lane is down are
// dropped, as Raft allows.
#pragma once

#include <grpc/grpc.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conclave/server/node/io.h"
#include "conclave/server/rpc/completion.h"
#include "conclave/server/rpc/queue.h"

namespace conclave::rpc {

inline constexpr Duration kLinkRetry = std::chrono::milliseconds(20);
// After the other side has refused us: a wrong address or cluster does not mend itself quickly.
inline constexpr Duration kLinkRetryRefused = std::chrono::seconds(1);

struct PeerIdentity {
  raft::NodeId member;
  uint64_t cluster_id = 0;
};

// On its queue's thread.
class PeerLink {
 public:
  PeerLink(Queue* queue, PeerIdentity self, node::PeerAddress address, node::PeerLane lane,
           const std::function<void(node::LogLine)>* log);
  ~PeerLink();
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;

  void Start();
  void Send(Bytes frame);
  // The other member has called us, so it is there: do not wait for the backoff.
  void ConnectNow();
  // No further attempt. The link may be destroyed when idle().
  void Close();
  bool idle() const { return closing_ && operations_ == 0; }

  bool closing() const { return closing_; }
  const node::PeerAddress& address() const { return address_; }
  node::PeerLane lane() const { return lane_; }
  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t dropped_frames() const { return dropped_frames_; }
  bool connected() const { return connected_; }
  // Called when the link may have become idle.
  std::function<void()> on_idle;

 private:
  void OpenChannel();
  void OpenStream();
  void Write();
  void OnHeaders(bool ok);
  void OnWritten(bool ok);
  void OnEnded(bool ok);
  void SetConnected(bool connected);
  void OperationOver();
  void LogRefusal(int status, const std::string& details);

  Queue* const queue_;
  const PeerIdentity self_;
  const node::PeerAddress address_;
  const node::PeerLane lane_;
  const std::function<void(node::LogLine)>* const log_;

  size_t url_ = 0;  // of address_.peer_urls
  grpc_channel* channel_ = nullptr;
  grpc_call* call_ = nullptr;
  grpc_metadata_array headers_;
  grpc_metadata_array trailers_;
  grpc_status_code status_ = GRPC_STATUS_OK;
  grpc_slice details_;
  std::string last_refusal_;

  bool connected_ = false;
  bool writing_ = false;
  bool ended_ = false;
  bool closing_ = false;
  int operations_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for the retry's timer
  std::deque<Bytes> outbox_;
  size_t outbox_bytes_ = 0;
  uint64_t sent_bytes_ = 0;
  uint64_t dropped_frames_ = 0;

  MemberCompletion<PeerLink, &PeerLink::OnHeaders> on_headers_{this};
  MemberCompletion<PeerLink, &PeerLink::OnWritten> on_written_{this};
  MemberCompletion<PeerLink, &PeerLink::OnEnded> on_ended_{this};
};

}  // namespace conclave::rpc
