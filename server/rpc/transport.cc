#include "conclave/server/rpc/transport.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "conclave/base/check.h"
#include "conclave/server/rpc/client_port.h"
#include "conclave/server/rpc/peer_link.h"
#include "conclave/server/rpc/peer_port.h"
#include "conclave/server/rpc/queue.h"

namespace conclave::rpc {
namespace {

constexpr Duration kHousekeeping = std::chrono::milliseconds(100);

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

  absl::Status Start();
  void HandOver(int fd) { client_port_->HandOver(fd); }
  void CarryOut(node::Effects* effects);
  void Wake(int queue) { queues_[static_cast<size_t>(queue)]->Wake(); }
  void Stop(Duration grace);
  std::vector<PeerCounters> peer_counters() const;

  std::vector<const QueueCounters*> counter_pointers_;

 private:
  // Work for the thread that owns it.
  struct Outbox {
    std::vector<node::Reply> replies;
    std::vector<node::StreamEffect> streams;
  };

  void HouseKeep(size_t queue);
  void CarryOutReplies(node::Effects* effects);
  void CarryOutStreams(std::vector<node::StreamEffect>* streams);
  void SendToPeers(std::vector<node::PeerSend>* sends);
  void SetPeers(const std::vector<node::PeerAddress>& peers);
  void SweepLinks();
  void ClosePeers(Gate* gate);
  void PublishPeerCounters();

  const TransportOptions options_;
  BurstHandler* const handler_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::unique_ptr<ClientPort> client_port_;
  std::vector<Outbox> outboxes_;  // by queue; of the CarryOut under way
  std::vector<StreamCall*> touched_;

  // On queue 0's thread.
  std::unique_ptr<PeerPort> peer_port_;
  std::vector<std::unique_ptr<PeerLink>> links_;
  bool peers_closing_ = false;
  Gate* peers_closed_ = nullptr;

  mutable std::mutex peer_counters_mutex_;
  std::vector<PeerCounters> peer_counters_;
  bool stopped_ = false;
};

absl::Status Transport::Impl::Start() {
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> completion_queues;
  client_port_ = std::make_unique<ClientPort>(options_, &completion_queues);
  for (size_t i = 0; i < completion_queues.size(); ++i) {
    queues_.push_back(
        std::make_unique<Queue>(static_cast<int>(i), std::move(completion_queues[i]), handler_));
    counter_pointers_.push_back(&queues_.back()->counters());
  }
  outboxes_.resize(queues_.size());
  absl::Status status;
  if (!options_.peer_listen.empty()) {
    peer_port_ = std::make_unique<PeerPort>(
        queues_[0].get(), PeerIdentity{options_.member, options_.cluster_id}, &options_.log);
    status = peer_port_->Listen(options_.peer_listen);
    peer_port_->on_peer = [this](raft::NodeId from) {
      for (const auto& link : links_) {
        if (link->address().id == from) link->ConnectNow();
      }
    };
  }
  client_port_->PostFirst(queues_);
  for (size_t i = 0; i < queues_.size(); ++i) {
    HouseKeep(i);
    queues_[i]->StartThread();
  }
  if (!status.ok()) Stop(Duration::zero());
  return status;
}

void Transport::Impl::HouseKeep(size_t queue) {
  const Instant now = Now();
  if (!client_port_) return;
  client_port_->WatchOldCalls(static_cast<int>(queue), now);
  if (queue == 0) {
    SweepLinks();
    PublishPeerCounters();
  }
  queues_[queue]->At(now + kHousekeeping, [this, queue] { HouseKeep(queue); });
}

void Transport::Impl::CarryOut(node::Effects* effects) {
  CarryOutReplies(effects);
  for (node::StreamEffect& effect : effects->streams) {
    const auto queue = CallSlot::Find(effect.id)->queue()->index();
    outboxes_[static_cast<size_t>(queue)].streams.push_back(std::move(effect));
  }
  effects->streams.clear();
  for (size_t i = 0; i < queues_.size(); ++i) {
    Outbox& outbox = outboxes_[i];
    if (outbox.replies.empty() && outbox.streams.empty()) continue;
    if (queues_[i]->IsCurrent()) {
      for (const node::Reply& reply : outbox.replies) {
        static_cast<UnaryCall*>(CallSlot::Find(reply.id))->Answer(reply);
      }
      outbox.replies.clear();
      CarryOutStreams(&outbox.streams);
      continue;
    }
    queues_[i]->Post([this, work = std::make_shared<Outbox>(std::exchange(outbox, {}))] {
      for (const node::Reply& reply : work->replies) {
        static_cast<UnaryCall*>(CallSlot::Find(reply.id))->Answer(reply);
      }
      CarryOutStreams(&work->streams);
    });
  }
  if (effects->peers.has_value()) {
    if (queues_[0]->IsCurrent()) {
      SetPeers(*effects->peers);
    } else {
      queues_[0]->Post([this, peers = *std::move(effects->peers)] { SetPeers(peers); });
    }
    effects->peers.reset();
  }
  if (!effects->peer_sends.empty()) {
    if (queues_[0]->IsCurrent()) {
      SendToPeers(&effects->peer_sends);
      effects->peer_sends.clear();
    } else {
      queues_[0]->Post([this, sends = std::make_shared<std::vector<node::PeerSend>>(
                                  std::exchange(effects->peer_sends, {}))] {
        SendToPeers(sends.get());
      });
    }
  }
}

void Transport::Impl::CarryOutReplies(node::Effects* effects) {
  for (node::Reply& reply : effects->replies) {
    if ((reply.id.value() & kLocalCallBit) != 0) {
      options_.local_reply(std::move(reply));
      continue;
    }
    auto* call = static_cast<UnaryCall*>(CallSlot::Find(reply.id));
    if (options_.replies == ReplyMode::kDirect || call->queue()->IsCurrent()) {
      call->Answer(reply);
    } else {
      outboxes_[static_cast<size_t>(call->queue()->index())].replies.push_back(std::move(reply));
    }
  }
  effects->replies.clear();
}

void Transport::Impl::CarryOutStreams(std::vector<node::StreamEffect>* streams) {
  // Each thread has its own list; it is empty between calls.
  thread_local std::vector<StreamCall*> touched;
  touched.clear();
  for (node::StreamEffect& effect : *streams) {
    auto* call = static_cast<StreamCall*>(CallSlot::Find(effect.id));
    if (touched.empty() || touched.back() != call) touched.push_back(call);
    call->Add(std::move(effect));
  }
  streams->clear();
  // A stream may stand here twice; the second Flush finds nothing to do.
  for (StreamCall* call : touched) call->Flush();
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
  if (peers_closing_) return;
  for (const auto& link : links_) {
    const bool stays = std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
      return peer.id == link->address().id && peer.peer_urls == link->address().peer_urls;
    });
    if (!stays) link->Close();
  }
  for (const node::PeerAddress& peer : peers) {
    if (peer.id == options_.member) continue;
    const bool known = std::any_of(links_.begin(), links_.end(), [&](const auto& link) {
      return !link->closing() && link->address().id == peer.id &&
             link->address().peer_urls == peer.peer_urls;
    });
    if (known) continue;
    for (const node::PeerLane lane : {node::PeerLane::kMessages, node::PeerLane::kSnapshot}) {
      links_.push_back(std::make_unique<PeerLink>(
          queues_[0].get(), PeerIdentity{options_.member, options_.cluster_id}, peer, lane,
          &options_.log));
      links_.back()->Start();
    }
  }
}

void Transport::Impl::SweepLinks() {
  std::erase_if(links_, [](const auto& link) { return link->idle(); });
  if (peers_closing_ && links_.empty() && peers_closed_ != nullptr) {
    std::exchange(peers_closed_, nullptr)->Done();
  }
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

void Transport::Impl::ClosePeers(Gate* gate) {
  peers_closing_ = true;
  peers_closed_ = gate;
  for (const auto& link : links_) {
    link->on_idle = [this] { queues_[0]->Post([this] { SweepLinks(); }); };
    link->Close();
  }
  if (peer_port_) {
    peer_port_->Close([gate] { gate->Done(); });
  } else {
    gate->Done();
  }
  queues_[0]->Post([this] { SweepLinks(); });
}

void Transport::Impl::Stop(Duration grace) {
  if (std::exchange(stopped_, true)) return;
  Gate stopping(static_cast<int>(queues_.size()));
  for (size_t i = 0; i < queues_.size(); ++i) {
    queues_[i]->Post([this, i, &stopping] {
      client_port_->EndAllStopped(static_cast<int>(i));
      stopping.Done();
    });
  }
  stopping.Wait();
  Gate peers(2);
  queues_[0]->Post([this, &peers] { ClosePeers(&peers); });
  client_port_->ShutDown(grace);
  peers.Wait();
  for (const auto& queue : queues_) queue->ShutDownAndJoin();
  peer_port_.reset();
}

Transport::Transport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Transport::~Transport() { impl_->Stop(Duration::zero()); }

absl::StatusOr<std::unique_ptr<Transport>> Transport::Start(TransportOptions options,
                                                            BurstHandler* handler) {
  // Debian builds absl with its search for lock cycles on: each Mutex that gRPC takes costs a look into one graph of the
  // whole process. Measured: 6 % of a call.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  auto impl = std::make_unique<Impl>(std::move(options), handler);
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<Transport>(new Transport(std::move(impl)));
}

void Transport::HandOver(int fd) { impl_->HandOver(fd); }
void Transport::CarryOut(node::Effects* effects) { impl_->CarryOut(effects); }
void Transport::Wake(int queue) { impl_->Wake(queue); }
void Transport::Stop(Duration grace) { impl_->Stop(grace); }

std::span<const QueueCounters* const> Transport::counters() const {
  return impl_->counter_pointers_;
}
std::vector<PeerCounters> Transport::peer_counters() const { return impl_->peer_counters(); }

}  // namespace conclave::rpc
