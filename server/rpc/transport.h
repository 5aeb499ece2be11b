// Transport: the network of a server. Bytes from clients and members become inputs of the node, and
// the node's replies, stream messages and peer frames become bytes.
//
// Clients speak gRPC, which is HTTP/2 with five bytes before each message: nghttp2 does the HTTP/2,
// and the little that is gRPC stands in Http2Call. gRPC's own server was measured first: a call
// that does nothing cost it 1.5 times the CPU, and a message to one of a thousand watchers several
// times as much, because each call and message passes a completion queue of its own; here all that
// a burst of reads brought is one turn of the core, and all that the turn says to one connection is
// one write.
//
// Threads: one event loop each. A loop handles all sockets that are ready (a burst), and then calls
// the BurstHandler once with the inputs that the burst brought. That call is the one place where
// the network and the core meet, and what it does decides the threads of a server:
//   - it runs the core's turns there and then: the first loop's thread is also the core. No thread
//     switch at all between a request and its reply: the best there is on one core; or
//   - it puts the inputs into the mailbox of a core thread, and rings it.
// CarryOut brings the effects back; what belongs to another loop's calls goes there in one batch
// with one wake-up.
//
// The transport keeps no state of calls beyond their slots: limits, time-outs and flow control are
// the node's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/rpc/call_counters.h"
#include "conclave/server/tls/policy.h"
#include "conclave/server/tls/stream.h"

namespace conclave::rpc {

// The process's monotonic clock, in the core's unit.
Instant Now();

class BurstHandler {
 public:
  virtual ~BurstHandler() = default;
  // On the thread of queue `queue`, which has nothing else to do now. Takes the inputs and leaves
  // *inputs empty. Called also without inputs after Wake. Returns until when the thread may sleep:
  // kNever, or a time.
  virtual Instant OnBurst(int queue, std::vector<node::Input>* inputs) = 0;
};

// Who answers calls instead of the core. Called on a queue's thread, which must not be blocked. The
// answers go to Transport::Answer, by the node's contract: one reply to a unary call, and stream
// effects that end with a `finish` to one that streams, also after its Cancel.
class Answerer {
 public:
  virtual ~Answerer() = default;
  virtual void Cancel(node::CallId id) = 0;
  // Messages whose charges sum up to `bytes` have left.
  virtual void Sent(node::CallId id, uint64_t bytes) = 0;
};

// Of the methods that are Served::kDoor.
class Door : public Answerer {
 public:
  struct Call {
    node::CallId id;
    std::string_view method;  // "/package.Service/Method"; lives as long as the process
    Bytes request;
    node::CredentialsRef credentials{};
    bool require_leader = false;
  };
  virtual void Begin(Call call) = 0;
};

using HttpFields = std::vector<std::pair<std::string, std::string>>;  // names in lower case

// Of requests that are no calls of gRPC, on connections that allow them. An answer is a HttpHead,
// then stream effects: their messages are the body, and an error with `finish` breaks it off.
class HttpDoor : public Answerer {
 public:
  struct Request {
    node::CallId id;
    std::string method = "POST";
    std::string target;     // "/health?serializable=true"
    std::string authority;  // what HTTP/1.1 calls the host
    HttpFields fields;
    bool is_tls = false;
    int port = 0;  // Accepted::http_port
  };
  virtual void Begin(Request request) = 0;
  // A piece of a request's body. False: it is not taken, and the request is broken off.
  [[nodiscard]] virtual bool Body(node::CallId id, Bytes piece, bool is_last) = 0;
};

struct HttpHead {
  node::CallId id;
  int status = 200;
  HttpFields fields;
};

inline constexpr int kNoHttp = -1;  // of connections that are for gRPC alone

// A client's connection, from whoever accepted it.
struct Accepted {
  int fd = -1;                         // goes to the transport
  std::unique_ptr<tls::Stream> tls{};  // after the handshake; null: plain text
  std::shared_ptr<void> slot{};        // let go when the connection has ended; any thread
  bool is_server_itself = false;       // a part of this process, which may do everything
  bool takes_grpc = true;
  int http_port = kNoHttp;  // whatever the HttpDoor tells ports by
};

struct TransportOptions {
  int queue_threads = 1;

  // Of the client port.
  uint64_t receive_bytes_max = 1536 * 1024 + 512 * 1024;
  uint32_t concurrent_streams_max = UINT32_MAX;
  Duration keepalive_min_time =
      std::chrono::seconds(5);  // clients that ping more often are sent away
  Duration keepalive_interval = std::chrono::hours(2);
  Duration keepalive_timeout = std::chrono::seconds(20);
  bool handling_histograms = false;  // --metrics=extensive

  // Judges clients' certificates again when its files change; null: there is no TLS for clients.
  tls::Policy* client_tls = nullptr;

  // Of the peer port; empty: this member has no peers and no port for them. URLs of the schemes
  // http, https, unix and unixs.
  std::vector<std::string> peer_listen;
  bool peer_reuse_port = false;     // further processes may listen there (SO_REUSEPORT)
  tls::Policy* peer_tls = nullptr;  // for https and unixs, in both directions
  raft::NodeId member;
  uint64_t cluster_id = 0;

  // Replies to calls whose id has this bit did not come through gRPC: they go to `local_reply`, on
  // the thread that calls CarryOut.
  std::function<void(node::Reply)> local_reply;
  std::function<void(node::LogLine)> log;
  // They outlive the transport.
  Door* door = nullptr;
  HttpDoor* http = nullptr;  // there if a connection has an http_port
};

inline constexpr uint64_t kLocalCallBit = uint64_t{1} << 63;

// Bytes that went through a link to a peer; the node knows the frames, this is what the network
// saw.
struct PeerCounters {
  raft::NodeId peer;
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t dropped_frames = 0;
  bool connected = false;
};

class Transport {
 public:
  // Binds the peer port and starts the threads; the handler is called from now on.
  static absl::StatusOr<std::unique_ptr<Transport>> Start(TransportOptions options,
                                                          BurstHandler* handler);
  ~Transport();

  // An accepted connection whose client speaks HTTP/2. Any thread.
  void HandOver(Accepted accepted);
  void HandOver(int fd) { HandOver(Accepted{.fd = fd}); }

  // Carries out replies, streams, peer_sends, peers and distrusted of one turn, and takes them out
  // of *effects. One thread at a time: the core's.
  void CarryOut(node::Effects* effects);

  // From the doors. Any thread, but not after Stop was called.
  void Answer(node::Reply reply);
  void Answer(node::StreamEffect effect);
  void Answer(HttpHead head);

  // Those who watch the server's health hear that it does not serve, and that it does again. Any
  // thread.
  void TellOfPause();

  // The handler of this queue will be called. Any thread; cheap when it is already on its way.
  void Wake(int queue);

  // No reply will come any more: answers open calls with `etcdserver: server stopped`, closes all
  // connections within about `grace`, and ends the threads. Not from a queue thread.
  void Stop(Duration grace);

  std::span<const QueueCounters* const> counters() const;
  std::vector<PeerCounters> peer_counters() const;

 private:
  class Impl;
  explicit Transport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::rpc
