// How it works: every operation that is under way has a Tag with its stream and what it does; the
// thread takes one tag after another from the completion queue, and only this thread starts
// operations. A stream is deleted when gRPC says that it is done and its last operation has come
// back.
#include "conclave/discovery/xds/ads_server.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/impl/codegen/rpc_service_method.h>
#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/support/async_stream.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/mailbox.h"
#include "conclave/discovery/xds/ads_stream.h"
#include "conclave/discovery/xds/xds.pb.h"

namespace conclave::xds {
namespace {

using ReaderWriter = grpc::ServerAsyncReaderWriter<DiscoveryResponse, DiscoveryRequest>;

// What the generated code of the public service would be. Written by hand, because the method's
// name must be the public one while our messages live in a package of our own.
class AggregatedDiscoveryService final : public grpc::Service {
 public:
  AggregatedDiscoveryService() {
    AddMethod(new grpc::internal::RpcServiceMethod(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        grpc::internal::RpcMethod::BIDI_STREAMING, nullptr));
    MarkMethodAsync(0);
  }
  void RequestStream(grpc::ServerContext* context, ReaderWriter* stream,
                     grpc::ServerCompletionQueue* queue, void* tag) {
    RequestAsyncBidiStreaming(0, context, stream, queue, queue, tag);
  }
};

enum class Operation { kAccept, kRead, kWrite, kFinish, kDone, kWake };

struct Stream;
struct Tag {
  Stream* stream;
  Operation operation;
};

struct Stream {
  using Sees =
      std::function<std::optional<bool>(const std::string& user, const std::string& cluster)>;

  // `sees` may be null.
  Stream(const Catalog* catalog, Duration coalesce, Sees sees)
      : machine(catalog, coalesce, OfUser(std::move(sees))) {}
  AdsStream::Sees OfUser(Sees sees) {
    if (sees == nullptr) return nullptr;
    return
        [this, sees = std::move(sees)](const std::string& cluster) { return sees(user, cluster); };
  }

  AdsStream machine;
  grpc::ServerContext context;
  ReaderWriter wire{&context};
  DiscoveryRequest request;
  DiscoveryResponse response;
  std::set<std::string> clusters;   // as last counted for on_interest
  std::set<std::string> listeners;  // as last counted
  int under_way = 0;                // operations whose tags have not come back, kDone included
  bool accepted = false;
  bool writing = false;
  bool finishing = false;
  bool done = false;
  std::string client;
  std::string user;  // by its certificate

  Tag accept{this, Operation::kAccept};
  Tag read{this, Operation::kRead};
  Tag write{this, Operation::kWrite};
  Tag finish{this, Operation::kFinish};
  Tag finished{this, Operation::kDone};
};

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

Instant Now() {
  return Instant(
      std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

// Of the certificate that was verified in the handshake.
std::string UserOf(const grpc::ServerContext& context) {
  const auto shown = context.auth_context();
  if (shown == nullptr || !shown->IsPeerAuthenticated()) return "";
  const auto names = shown->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  return names.empty() ? "" : std::string(names.front().data(), names.front().size());
}

}  // namespace

class AdsServer::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)), catalog_(options_.catalog) {
    outlet_->server = this;
  }

  absl::Status Start() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(
        options_.address,
        options_.credentials != nullptr ? options_.credentials : grpc::InsecureServerCredentials(),
        &port_);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.RegisterService(&service_);
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      queue_->Shutdown();
      void* tag;
      bool ok;
      while (queue_->Next(&tag, &ok)) {
      }
      return absl::UnavailableError(
          absl::StrCat("the xDS server cannot listen on ", options_.address,
                       "; is it in use, or not an address of this machine?"));
    }
    Accept();
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  void Stop() {
    if (!thread_.joinable()) return;
    CONCLAVE_CHECK(std::this_thread::get_id() != thread_.get_id(),
                   "an AdsServer must not be destroyed by its own callback");
    stopping_ = true;
    {
      std::lock_guard lock(outlet_->mutex);
      outlet_->server = nullptr;
    }
    server_->Shutdown(std::chrono::system_clock::now());
    Post({.kind = Note::Kind::kStop});
    thread_.join();
  }

  struct Note {
    enum class Kind { kDeclare, kWithdraw, kSetEndpoints, kForgetEndpoints, kJudged, kStop };
    Kind kind;
    std::string listener = {};
    std::string cluster = {};
    CallPolicy policy = {};
    EndpointSet endpoints = {};
    std::string user = {};
    std::optional<bool> sees = {};
  };

  void Post(Note note) {
    // Whoever made the mailbox non-empty rings. The thread empties it only after the ring has come
    // back, so no second Set() meets a pending one.
    if (notes_.Put(std::move(note)))
      bell_.Set(queue_.get(), std::chrono::system_clock::now(), &wake_);
  }

  ListenerStats StatsOf(const std::string& listener) const {
    std::lock_guard lock(stats_mutex_);
    const auto found = by_listener_.find(listener);
    return found == by_listener_.end() ? ListenerStats{} : found->second;
  }

  int port() const { return std::max(port_, 0); }
  Stats stats() const {
    return {.streams = streams_open_, .responses = responses_, .acks = acks_, .nacks = nacks_};
  }

 private:
  struct Sight {
    int streams = 0;           // that look
    std::optional<bool> sees;  // nullopt: not known yet
    bool judging = false;
  };

  void Run() {
    void* tag = nullptr;
    bool ok = false;
    while (true) {
      const auto status = queue_->AsyncNext(&tag, &ok, Deadline());
      if (status == grpc::CompletionQueue::SHUTDOWN) break;
      if (status == grpc::CompletionQueue::GOT_EVENT) Handle(static_cast<Tag*>(tag), ok);
      const Instant now = Now();
      if (judge_at_ <= now) JudgeAll(now);
      if (deadline_ <= now) PumpAll();
    }
    CONCLAVE_CHECK(streams_.empty(), "streams outlive their completion queue");
  }

  std::chrono::system_clock::time_point Deadline() const {
    const Instant next = std::min(deadline_, judge_at_);
    if (next == kNever) return std::chrono::system_clock::time_point::max();
    return std::chrono::system_clock::now() +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(next - Now());
  }

  void Handle(Tag* tag, bool ok) {
    if (tag->operation == Operation::kWake) {
      TakeNotes();
      return;
    }
    Stream* stream = tag->stream;
    --stream->under_way;
    switch (tag->operation) {
      case Operation::kAccept:
        if (ok) OnAccepted(stream);
        break;
      case Operation::kRead:
        if (ok) {
          OnRequest(stream);
        } else {
          Finish(stream, grpc::Status::OK);  // the client has closed its side, or is gone
        }
        break;
      case Operation::kWrite:
        stream->writing = false;
        if (ok) Pump(stream);
        break;
      case Operation::kDone:
        stream->done = true;
        break;
      case Operation::kFinish:
      case Operation::kWake:
        break;
    }
    if (stream->under_way == 0) Remove(stream);
  }

  // Has one stream waiting for the next client.
  void Accept() {
    Stream::Sees sees;
    if (options_.may_see)
      sees = [this](const auto& user, const auto& cluster) { return Sees(user, cluster); };
    auto stream = std::make_unique<Stream>(&catalog_, options_.coalesce, std::move(sees));
    stream->under_way = 1;
    stream->context.AsyncNotifyWhenDone(&stream->finished);
    service_.RequestStream(&stream->context, &stream->wire, queue_.get(), &stream->accept);
    Stream* const key = stream.get();
    streams_.emplace(key, std::move(stream));
  }

  void OnAccepted(Stream* stream) {
    stream->accepted = true;
    ++stream->under_way;  // kDone: it comes only for a stream that has begun
    stream->client = stream->context.peer();
    stream->user = UserOf(stream->context);
    ++streams_open_;
    if (!stopping_ && !closed_) Accept();
    if (streams_open_ > kStreamsMax) {
      Trouble(
          absl::StrCat("turned away the xDS client ", stream->client, ": more than ", kStreamsMax));
      Finish(stream, grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many xDS streams"));
      return;
    }
    Read(stream);
  }

  void Read(Stream* stream) {
    if (closed_ || stream->finishing) return;
    ++stream->under_way;
    stream->wire.Read(&stream->request, &stream->read);
  }

  void OnRequest(Stream* stream) {
    if (stream->finishing) return;
    const absl::StatusOr<AdsStream::Heard> heard = stream->machine.OnRequest(stream->request);
    if (!heard.ok()) {
      Trouble(absl::StrCat("ended the stream of xDS client ", stream->client, ": ",
                           std::string(heard.status().message())));
      Finish(stream, ToGrpc(heard.status()));
      return;
    }
    if (stream->machine.listeners() != stream->listeners) {
      CountStreams(stream, stream->machine.listeners());
    }
    if (*heard == AdsStream::Heard::kAck) {
      ++acks_;
      CountFor(stream, [](ListenerStats& stats) { ++stats.acks; });
    }
    if (*heard == AdsStream::Heard::kNack) {
      ++nacks_;
      CountFor(stream, [stream](ListenerStats& stats) {
        ++stats.nacks;
        stats.last_error = stream->machine.nack_detail();
      });
      Trouble(absl::StrCat("the xDS client ", stream->client, " refused version ",
                           stream->request.version_info(), " of ", stream->request.type_url(), ": ",
                           stream->machine.nack_detail()));
    }
    if (stream->machine.clusters() != stream->clusters)
      CountInterest(stream, stream->machine.clusters());
    Read(stream);
    Pump(stream);
  }

  // Sends the next response, if there is one and the last one has left.
  void Pump(Stream* stream) {
    if (closed_ || !stream->accepted || stream->finishing || stream->done || stream->writing)
      return;
    if (!stream->machine.Next(Now(), &stream->response)) {
      deadline_ = std::min(deadline_, stream->machine.NextDeadline());
      return;
    }
    stream->writing = true;
    ++stream->under_way;
    ++responses_;
    CountFor(stream, [](ListenerStats& stats) { ++stats.responses; });
    stream->wire.Write(stream->response, &stream->write);
  }

  void PumpAll() {
    deadline_ = kNever;
    for (auto& [stream, owner] : streams_) Pump(stream);
  }

  // gRPC allows Finish beside a write under way: it goes out behind it.
  void Finish(Stream* stream, const grpc::Status& status) {
    if (closed_ || stream->finishing) return;
    stream->finishing = true;
    ++stream->under_way;
    stream->wire.Finish(status, &stream->finish);
  }

  void Remove(Stream* stream) {
    CountInterest(stream, {});
    CountStreams(stream, {});
    if (stream->accepted) --streams_open_;
    streams_.erase(stream);
  }

  void CountInterest(Stream* stream, const std::set<std::string>& clusters) {
    for (const std::string& cluster : clusters) {
      if (stream->clusters.contains(cluster)) continue;
      Look(stream->user, cluster);
      if (interest_[cluster]++ == 0) Interest(cluster, true);
    }
    for (const std::string& cluster : stream->clusters) {
      if (clusters.contains(cluster)) continue;
      LookAway(stream->user, cluster);
      if (--interest_[cluster] > 0) continue;
      interest_.erase(cluster);
      Interest(cluster, false);
    }
    stream->clusters = clusters;
  }

  // ---- Who may see what

  std::optional<bool> Sees(const std::string& user, const std::string& cluster) const {
    const auto sight = sights_.find({user, cluster});
    return sight == sights_.end() ? std::nullopt : sight->second.sees;
  }

  void Look(const std::string& user, const std::string& cluster) {
    if (!options_.may_see) return;
    const auto found = sights_.find({user, cluster});
    if (found != sights_.end()) {
      ++found->second.streams;
      return;
    }
    if (sights_.size() >= kSightsMax) {
      return Trouble(absl::StrCat("too many services are asked for by too many users; ", user,
                                  " does not see ", cluster));
    }
    Sight& sight = sights_[{user, cluster}];
    sight.streams = 1;
    Judge(user, cluster, &sight);
    judge_at_ = std::min(judge_at_, Now() + options_.judge_again);
  }

  void LookAway(const std::string& user, const std::string& cluster) {
    const auto found = sights_.find({user, cluster});
    if (found != sights_.end() && --found->second.streams == 0) sights_.erase(found);
  }

  void Judge(const std::string& user, const std::string& cluster, Sight* sight) {
    sight->judging = true;
    options_.may_see(user, cluster, [outlet = outlet_, user, cluster](std::optional<bool> sees) {
      std::lock_guard lock(outlet->mutex);
      if (outlet->server == nullptr) return;
      outlet->server->Post(
          {.kind = Note::Kind::kJudged, .cluster = cluster, .user = user, .sees = sees});
    });
  }

  void JudgeAll(Instant now) {
    judge_at_ = sights_.empty() ? kNever : now + options_.judge_again;
    for (auto& [whose, sight] : sights_) {
      if (!sight.judging) Judge(whose.first, whose.second, &sight);
    }
  }

  void Judged(const Note& note) {
    const auto found = sights_.find({note.user, note.cluster});
    if (found == sights_.end()) return;  // nobody looks any more
    found->second.judging = false;
    if (!note.sees.has_value()) return;
    if (note.sees == false && found->second.sees != false) {
      Trouble(absl::StrCat("the user \"", note.user, "\" may not see ", note.cluster));
    }
    found->second.sees = note.sees;
  }

  // Only declared listeners are counted, so that no client can make this grow.
  template <typename Count>
  void CountFor(const Stream* stream, Count&& count) {
    std::lock_guard lock(stats_mutex_);
    for (const std::string& listener : stream->listeners) {
      const auto found = by_listener_.find(listener);
      if (found != by_listener_.end()) count(found->second);
    }
  }

  void CountStreams(Stream* stream, const std::set<std::string>& listeners) {
    CountFor(stream, [](ListenerStats& stats) { stats.streams -= stats.streams > 0; });
    stream->listeners = listeners;
    CountFor(stream, [](ListenerStats& stats) { ++stats.streams; });
  }

  void Interest(const std::string& cluster, bool wanted) {
    if (options_.on_interest) options_.on_interest(cluster, wanted);
  }

  void Trouble(const std::string& line) {
    if (options_.on_trouble) options_.on_trouble(line);
  }

  void TakeNotes() {
    notes_.TakeAll(&batch_);
    for (Note& note : batch_) {
      switch (note.kind) {
        case Note::Kind::kDeclare:
          catalog_.Declare(note.listener, note.cluster, note.policy);
          {
            std::lock_guard lock(stats_mutex_);
            by_listener_.try_emplace(note.listener);
          }
          break;
        case Note::Kind::kWithdraw:
          catalog_.Withdraw(note.listener);
          {
            std::lock_guard lock(stats_mutex_);
            by_listener_.erase(note.listener);
          }
          break;
        case Note::Kind::kSetEndpoints:
          catalog_.SetEndpoints(note.cluster, std::move(note.endpoints));
          break;
        case Note::Kind::kForgetEndpoints:
          catalog_.ForgetEndpoints(note.cluster);
          break;
        case Note::Kind::kJudged:
          Judged(note);
          break;
        case Note::Kind::kStop:
          // From here on nothing is started; what is under way comes back, and Next says SHUTDOWN.
          closed_ = true;
          queue_->Shutdown();
          break;
      }
    }
    PumpAll();
  }

  // For answers that come when the server may be gone.
  struct Outlet {
    std::mutex mutex;
    Impl* server;  // guarded by mutex
  };
  const std::shared_ptr<Outlet> outlet_ = std::make_shared<Outlet>();

  Options options_;
  AggregatedDiscoveryService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;

  Mailbox<Note> notes_;
  grpc::Alarm bell_;
  Tag wake_{nullptr, Operation::kWake};

  // Of the thread only.
  Catalog catalog_;
  bool closed_ = false;
  Instant deadline_ = kNever;
  std::vector<Note> batch_;
  std::unordered_map<Stream*, std::unique_ptr<Stream>> streams_;
  std::map<std::string, int> interest_;
  std::map<std::pair<std::string, std::string>, Sight> sights_;  // by user and service
  Instant judge_at_ = kNever;

  mutable std::mutex stats_mutex_;
  std::map<std::string, ListenerStats> by_listener_;  // guarded by stats_mutex_

  std::atomic<uint64_t> streams_open_ = 0;
  std::atomic<uint64_t> responses_ = 0;
  std::atomic<uint64_t> acks_ = 0;
  std::atomic<uint64_t> nacks_ = 0;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<AdsServer>> AdsServer::Start(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<AdsServer>(new AdsServer(std::move(impl)));
}

AdsServer::AdsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AdsServer::~AdsServer() { impl_->Stop(); }

void AdsServer::Declare(std::string listener, std::string cluster, CallPolicy policy) {
  impl_->Post({.kind = Impl::Note::Kind::kDeclare,
               .listener = std::move(listener),
               .cluster = std::move(cluster),
               .policy = std::move(policy)});
}

void AdsServer::Withdraw(std::string listener) {
  impl_->Post({.kind = Impl::Note::Kind::kWithdraw, .listener = std::move(listener)});
}

void AdsServer::SetEndpoints(std::string cluster, EndpointSet endpoints) {
  impl_->Post({.kind = Impl::Note::Kind::kSetEndpoints,
               .cluster = std::move(cluster),
               .endpoints = std::move(endpoints)});
}

void AdsServer::ForgetEndpoints(std::string cluster) {
  impl_->Post({.kind = Impl::Note::Kind::kForgetEndpoints, .cluster = std::move(cluster)});
}

int AdsServer::port() const { return impl_->port(); }
AdsServer::Stats AdsServer::stats() const { return impl_->stats(); }
AdsServer::ListenerStats AdsServer::StatsOf(const std::string& listener) const {
  return impl_->StatsOf(listener);
}

}  // namespace conclave::xds
