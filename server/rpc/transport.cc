#include "conclave/server/rpc/transport.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "conclave/base/check.h"
#include "conclave/server/node/own_call.h"
#include "conclave/server/rpc/event_loop.h"
#include "conclave/server/rpc/http2_connection.h"
#include "conclave/server/rpc/http2_host.h"
#include "conclave/server/rpc/peer_link.h"
#include "conclave/server/rpc/peer_port.h"

namespace conclave::rpc {
namespace {

static_assert(kLocalCallBit == node::kOwnCallBit);

constexpr Duration kHousekeeping = std::chrono::seconds(1);
constexpr Duration kStopPoll = std::chrono::milliseconds(5);

// Blocks until `count` parties have said that they are done.
class Gate {
 public:
  explicit Gate(int count) : count_(count) {}
  void Done() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) condition_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    condition_.wait(lock, [this] { return count_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  int count_;
};

}  // namespace

class Transport::Impl {
 public:
  Impl(TransportOptions options, BurstHandler* handler)
      : options_(std::move(options)), handler_(handler) {}
  ~Impl() { Stop(Duration::zero()); }

  absl::Status Start();
  void HandOver(Accepted accepted);
  void CarryOut(node::Effects* effects);
  void TellOfPause();
  void Wake(int queue) { workers_[static_cast<size_t>(queue)]->loop.Wake(); }
  void Stop(Duration grace);
  std::vector<PeerCounters> peer_counters() const;

  std::vector<const QueueCounters*> counter_pointers_;

 private:
  // One thread: its loop and its clients.
  struct Worker {
    Worker(int index, BurstHandler* handler, const TransportOptions& options)
        : loop(index, handler), host(&loop, options) {}
    EventLoop loop;
    Http2Host host;
  };
  // What one turn has for the calls of another thread.
  struct Outbox {
    std::vector<node::Reply> replies;
    std::vector<node::StreamEffect> streams;
  };

  Worker& first() { return *workers_.front(); }
  void HouseKeep(Worker* worker);
  void SendToPeers(std::vector<node::PeerSend>* sends);
  void SetPeers(const std::vector<node::PeerAddress>& peers);
  void SweepPeers();
  void SetDirectory(node::PeerDirectory directory);
  void PublishPeerCounters();
  void StopWorker(Worker* worker, Instant until, Gate* gate);

  const TransportOptions options_;
  BurstHandler* const handler_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<Outbox> outboxes_;  // by worker; of the CarryOut under way
  std::atomic<uint32_t> handed_over_{0};

  // On the first worker's thread.
  std::unique_ptr<PeerPort> peer_port_;
  std::vector<std::unique_ptr<PeerLink>> links_;
  bool peers_closed_ = false;

  mutable std::mutex peer_counters_mutex_;
  std::vector<PeerCounters> peer_counters_;
  bool stopped_ = false;
};

absl::Status Transport::Impl::Start() {
  for (int i = 0; i < options_.queue_threads; ++i) {
    workers_.push_back(std::make_unique<Worker>(i, handler_, options_));
    counter_pointers_.push_back(&workers_.back()->loop.counters());
  }
  outboxes_.resize(workers_.size());
  if (!options_.peer_listen.empty()) {
    peer_port_ = std::make_unique<PeerPort>(&first().loop,
                                            PeerIdentity{options_.member, options_.cluster_id},
                                            options_.peer_tls, &options_.log);
    peer_port_->on_peer = [this](raft::NodeId from) {
      for (const auto& link : links_) {
        if (link->address().id == from) link->ConnectNow();
      }
    };
    if (absl::Status status = peer_port_->Listen(options_.peer_listen, options_.peer_reuse_port);
        !status.ok()) {
      peer_port_->Close();
      workers_.clear();
      return status;
    }
  }
  for (const auto& worker : workers_) {
    worker->loop.At(Now() + kHousekeeping, [this, worker = worker.get()] { HouseKeep(worker); });
    worker->loop.StartThread();
  }
  return absl::OkStatus();
}

void Transport::Impl::HouseKeep(Worker* worker) {
  worker->host.Sweep();
  if (worker == &first()) {
    SweepPeers();
    PublishPeerCounters();
  }
  worker->loop.At(worker->loop.now() + kHousekeeping, [this, worker] { HouseKeep(worker); });
}

void Transport::Impl::HandOver(Accepted accepted) {
  const int fd = accepted.fd;
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  const size_t index = handed_over_.fetch_add(1, std::memory_order_relaxed) % workers_.size();
  Worker* worker = workers_[index].get();
  // A task can be copied, what it carries cannot.
  auto carried = std::make_shared<Accepted>(std::move(accepted));
  worker->loop.Post([worker, carried] { worker->host.Adopt(std::move(*carried)); });
}

void Transport::Impl::CarryOut(node::Effects* effects) {
  for (node::Reply& reply : effects->replies) {
    if ((reply.id.value() & kLocalCallBit) != 0) {
      options_.local_reply(std::move(reply));
      continue;
    }
    Http2Call* const call = Http2Call::Find(reply.id);
    EventLoop& loop = call->host()->loop();
    if (loop.IsCurrent()) {
      call->Answer(std::move(reply));
    } else {
      outboxes_[static_cast<size_t>(loop.index())].replies.push_back(std::move(reply));
    }
  }
  effects->replies.clear();
  for (node::StreamEffect& effect : effects->streams) {
    Http2Call* const call = Http2Call::Find(effect.id);
    EventLoop& loop = call->host()->loop();
    if (loop.IsCurrent()) {
      call->Add(std::move(effect));
    } else {
      outboxes_[static_cast<size_t>(loop.index())].streams.push_back(std::move(effect));
    }
  }
  effects->streams.clear();
  for (size_t i = 0; i < workers_.size(); ++i) {
    Outbox& outbox = outboxes_[i];
    if (outbox.replies.empty() && outbox.streams.empty()) continue;
    workers_[i]->loop.Post([work = std::make_shared<Outbox>(std::exchange(outbox, {}))] {
      for (node::Reply& reply : work->replies) Http2Call::Find(reply.id)->Answer(std::move(reply));
      for (node::StreamEffect& effect : work->streams) {
        Http2Call::Find(effect.id)->Add(std::move(effect));
      }
    });
  }
  if (effects->peers.has_value()) {
    if (first().loop.IsCurrent()) {
      SetPeers(*effects->peers);
    } else {
      first().loop.Post([this, peers = *std::move(effects->peers)] { SetPeers(peers); });
    }
    effects->peers.reset();
  }
  for (const raft::NodeId peer : effects->distrusted) {
    first().loop.Post([this, peer] {
      if (peer_port_) peer_port_->CloseLanesOf(peer);
    });
  }
  effects->distrusted.clear();
  if (effects->directory.has_value()) {
    if (first().loop.IsCurrent()) {
      SetDirectory(*std::move(effects->directory));
    } else {
      first().loop.Post(
          [this, directory = *std::move(effects->directory)] { SetDirectory(directory); });
    }
    effects->directory.reset();
  }
  if (effects->peer_sends.empty()) return;
  if (first().loop.IsCurrent()) {
    SendToPeers(&effects->peer_sends);
    effects->peer_sends.clear();
  } else {
    first().loop.Post([this, sends = std::make_shared<std::vector<node::PeerSend>>(std::exchange(
                                 effects->peer_sends, {}))] { SendToPeers(sends.get()); });
  }
}

void Transport::Impl::TellOfPause() {
  for (const auto& worker : workers_) {
    worker->loop.Post([host = &worker->host] { host->TellOfPause(); });
  }
}

void Transport::Impl::SendToPeers(std::vector<node::PeerSend>* sends) {
  for (node::PeerSend& send : *sends) {
    for (const auto& link : links_) {
      if (link->address().id == send.to && link->lane() == send.lane) {
        link->Send(std::move(send.frame));
        break;
      }
    }
  }
}

void Transport::Impl::SetPeers(const std::vector<node::PeerAddress>& peers) {
  if (peers_closed_) return;
  std::erase_if(links_, [&](auto& link) {
    const bool stays = std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
      return peer.id == link->address().id && peer.peer_urls == link->address().peer_urls;
    });
    if (stays) return false;
    link->Close();
    first().loop.Retire(std::move(link));
    return true;
  });
  for (const node::PeerAddress& peer : peers) {
    if (peer.id == options_.member) continue;
    const bool known = std::any_of(links_.begin(), links_.end(),
                                   [&](const auto& link) { return link->address().id == peer.id; });
    if (known) continue;
    for (const node::PeerLane lane : {node::PeerLane::kMessages, node::PeerLane::kSnapshot}) {
      links_.push_back(std::make_unique<PeerLink>(
          &first().loop, PeerIdentity{options_.member, options_.cluster_id}, peer, lane,
          options_.peer_tls, &options_.log));
      links_.back()->Start();
    }
  }
}

void Transport::Impl::SweepPeers() {
  if (options_.peer_tls == nullptr) return;
  const uint64_t material = options_.peer_tls->Refresh();
  if (peer_port_) peer_port_->Sweep(material);
  for (const auto& link : links_) link->Sweep(material);
}

void Transport::Impl::SetDirectory(node::PeerDirectory directory) {
  if (peer_port_ && !peers_closed_) peer_port_->SetDirectory(std::move(directory));
}

void Transport::Impl::PublishPeerCounters() {
  std::vector<PeerCounters> counters;
  for (const auto& link : links_) {
    auto found = std::find_if(counters.begin(), counters.end(), [&](const PeerCounters& entry) {
      return entry.peer == link->address().id;
    });
    if (found == counters.end()) {
      found = counters.insert(counters.end(), PeerCounters{.peer = link->address().id});
      if (peer_port_) found->received_bytes = peer_port_->received_bytes(link->address().id);
    }
    found->sent_bytes += link->sent_bytes();
    found->dropped_frames += link->dropped_frames();
    if (link->lane() == node::PeerLane::kMessages) found->connected = link->connected();
  }
  std::lock_guard lock(peer_counters_mutex_);
  peer_counters_ = std::move(counters);
}

std::vector<PeerCounters> Transport::Impl::peer_counters() const {
  std::lock_guard lock(peer_counters_mutex_);
  return peer_counters_;
}

// Answers first; then each connection may take what is on its way to it, until `until`.
void Transport::Impl::StopWorker(Worker* worker, Instant until, Gate* gate) {
  if (worker->loop.now() < until && !worker->host.idle()) {
    worker->loop.At(worker->loop.now() + kStopPoll,
                    [this, worker, until, gate] { StopWorker(worker, until, gate); });
    return;
  }
  worker->host.CloseAll();
  gate->Done();
}

void Transport::Impl::Stop(Duration grace) {
  if (std::exchange(stopped_, true) || workers_.empty()) return;
  const Instant until = Now() + grace;
  Gate gate(static_cast<int>(workers_.size()));
  for (const auto& entry : workers_) {
    entry->loop.Post([this, worker = entry.get(), until, &gate] {
      worker->host.BeginStop();
      if (worker == &first()) {
        peers_closed_ = true;
        for (const auto& link : links_) link->Close();
        if (peer_port_) peer_port_->Close();
      }
      StopWorker(worker, until, &gate);
    });
  }
  gate.Wait();
  for (const auto& worker : workers_) worker->loop.StopAndJoin();
  links_.clear();
  peer_port_.reset();
}

Transport::Transport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Transport::~Transport() = default;

absl::StatusOr<std::unique_ptr<Transport>> Transport::Start(TransportOptions options,
                                                            BurstHandler* handler) {
  // Debian builds absl with its search for lock cycles on: each Mutex that gRPC takes costs a look
  // into one graph of the whole process. Measured: 6 % of a call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto impl = std::make_unique<Impl>(std::move(options), handler);
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<Transport>(new Transport(std::move(impl)));
}

void Transport::HandOver(Accepted accepted) { impl_->HandOver(std::move(accepted)); }
void Transport::Answer(node::Reply reply) {
  Http2Call* const call = Http2Call::Find(reply.id);
  call->host()->loop().Post([call, reply = std::make_shared<node::Reply>(std::move(reply))] {
    call->Answer(std::move(*reply));
  });
}
void Transport::Answer(node::StreamEffect effect) {
  Http2Call* const call = Http2Call::Find(effect.id);
  call->host()->loop().Post([call, effect = std::make_shared<node::StreamEffect>(
                                       std::move(effect))] { call->Add(std::move(*effect)); });
}
void Transport::Answer(HttpHead head) {
  Http2Call* const call = Http2Call::Find(head.id);
  call->host()->loop().Post([call, head = std::move(head)] { call->Answer(head); });
}
void Transport::CarryOut(node::Effects* effects) { impl_->CarryOut(effects); }
void Transport::TellOfPause() { impl_->TellOfPause(); }
void Transport::Wake(int queue) { impl_->Wake(queue); }
void Transport::Stop(Duration grace) { impl_->Stop(grace); }

std::span<const QueueCounters* const> Transport::counters() const {
  return impl_->counter_pointers_;
}
std::vector<PeerCounters> Transport::peer_counters() const { return impl_->peer_counters(); }

}  // namespace conclave::rpc
