// PeerPort: the gRPC server on the peer port. Other members open their lanes to us here and send frames.
//
// A caller of another cluster, or one that means another member, is refused in the handshake, with a log line on both
// sides. Bytes that are not gRPC cost their connection only.
#pragma once

#include <grpc/grpc.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "conclave/server/node/io.h"
#include "conclave/server/rpc/completion.h"
#include "conclave/server/rpc/peer_link.h"
#include "conclave/server/rpc/queue.h"

namespace conclave::rpc {

inline constexpr int kPostedPeerStreams = 4;

class PeerStream;

// On its queue's thread, but for the constructor and Listen.
class PeerPort {
 public:
  PeerPort(Queue* queue, PeerIdentity self, const std::function<void(node::LogLine)>* log);
  ~PeerPort();
  PeerPort(const PeerPort&) = delete;
  PeerPort& operator=(const PeerPort&) = delete;

  // Binds and serves; before the queue's thread runs.
  [[nodiscard]] absl::Status Listen(const std::vector<std::string>& addresses);

  // Cancels everything; `done` is called when all is over.
  void Close(std::function<void()> done);

  // Called when a member has opened a lane to us.
  std::function<void(raft::NodeId)> on_peer;

  uint64_t received_bytes(raft::NodeId from) const;

 private:
  friend class PeerStream;

  void PostOne(node::PeerLane lane);
  void OnShutDown(bool ok);
  // Empty: welcome.
  std::string CheckHandshake(const grpc_metadata_array& metadata, raft::NodeId* from) const;

  Queue* const queue_;
  const PeerIdentity self_;
  const std::function<void(node::LogLine)>* const log_;
  grpc_server* server_ = nullptr;
  void* registered_[2] = {};  // by lane
  std::vector<std::unique_ptr<PeerStream>> streams_;
  std::map<raft::NodeId, uint64_t> received_bytes_;
  std::function<void()> closed_;
  MemberCompletion<PeerPort, &PeerPort::OnShutDown> on_shut_down_{this};
};

}  // namespace conclave::rpc
