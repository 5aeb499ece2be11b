// PeerPort: the listening sockets of the peer port, and the lanes that other members have opened to
// us.
//
// Whoever asks is told who the members are; whoever was removed is told that, and turned away.
//
// Garbage costs the connection that sent it and nothing else: a Hello must be whole and right
// within kHelloTimeout, and only then are frames read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/rpc/addresses.h"
#include "conclave/server/rpc/event_loop.h"
#include "conclave/server/rpc/peer_wire.h"
#include "conclave/server/tls/policy.h"
#include "conclave/server/tls/rejections.h"

namespace conclave::rpc {

inline constexpr Duration kHelloTimeout = std::chrono::seconds(5);
// Connections that have not shown who they are.
inline constexpr size_t kStrangersMax = 64;

// On its loop's thread, but for Listen, which comes before the thread.
class PeerPort {
 public:
  // `tls_policy` for the addresses that want TLS; null if none does.
  PeerPort(EventLoop* loop, PeerIdentity self, tls::Policy* tls_policy,
           const std::function<void(node::LogLine)>* log);
  ~PeerPort();
  PeerPort(const PeerPort&) = delete;
  PeerPort& operator=(const PeerPort&) = delete;

  // URLs of the schemes http, https, unix and unixs.
  //   Unavailable  an address is in use, or not of this machine
  absl::Status Listen(const std::vector<std::string>& urls, bool reuse_port);
  void Close();
  // What this member sends is not to be believed. It may open new lanes.
  void CloseLanesOf(raft::NodeId from);
  // Closes the lanes of members whose certificates count no more. `material` is the number of the
  // certificates that do.
  void Sweep(uint64_t material);
  // From now on. Lanes of members that were removed end.
  void SetDirectory(node::PeerDirectory directory);
  uint64_t received_bytes(raft::NodeId from) const;

  // A member has opened a lane.
  std::function<void(raft::NodeId)> on_peer;

 private:
  class Listener;
  class Lane;
  absl::StatusOr<int> Bind(const PeerUrl& url, bool reuse_port);
  void Accept(const Listener& listener);
  void Reject(int fd, const std::string& server_name, const std::string& error);
  void Forget(Lane* lane);
  // Takes the place of an older lane of the same kind from the same member.
  void Replace(Lane* lane);
  bool WasRemoved(raft::NodeId member) const;
  // Has a thread compare them (tls::WhyNotFrom); the lane with that question hears the answer.
  uint64_t AskWhyNot(tls::CertificateAddresses addresses, std::string ip);

  EventLoop* const loop_;
  const PeerIdentity self_;
  tls::Policy* const tls_policy_;
  const std::function<void(node::LogLine)>* const log_;
  tls::Rejections rejections_;
  node::PeerDirectory directory_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  size_t strangers_ = 0;
  std::map<raft::NodeId, uint64_t> received_bytes_;
  uint64_t last_question_ = 0;
  // Where such a thread leaves its answer; the port may be gone by then.
  struct Outlet;
  std::shared_ptr<Outlet> outlet_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace conclave::rpc
