#include "conclave/client/grpc/io_loop.h"

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "conclave/base/check.h"
#include "conclave/base/mailbox.h"
#include "conclave/client/grpc/credentials.h"

namespace conclave {
namespace {

// Of gRPC's own reconnecting; ours decides how often a member is tried at all.
constexpr int kReconnectMinMs = 50;
constexpr int kReconnectMaxMs = 500;
constexpr int kConnectTimeoutMs = 5000;
constexpr Duration kConnectSlice = std::chrono::milliseconds(100);
constexpr Duration kIdleWaitMax = std::chrono::seconds(60);
// A thread that makes its next blocking call within this time after the last one, so many times in
// a row, drives the engine itself; and for so long the loop's thread leaves it the place.
constexpr Duration kGrace = std::chrono::milliseconds(1);
constexpr int kDirectRunMin = 4;
// How often the loop's thread looks whether a caller still drives. What comes for a stream just
// after the last of many calls may wait for so long.
constexpr Duration kLookInterval = std::chrono::milliseconds(5);
// A target with a scheme of its own: ClientContext::peer() shows it until a call reaches a
// connection, and the connection's address ("ipv4:...") afterwards. So we know what was provably
// never sent.
constexpr char kTargetScheme[] = "dns:///";

std::string TargetOf(const std::string& endpoint) {
  if (endpoint.starts_with("unix:")) return endpoint;
  return absl::StrCat(kTargetScheme, absl::StrReplaceAll(endpoint, {{"[", "%5B"}, {"]", "%5D"}}));
}

grpc::ByteBuffer BufferOf(std::string_view bytes) {
  grpc::Slice slice(bytes.data(), bytes.size());
  return grpc::ByteBuffer(&slice, 1);
}

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return {};
  std::string bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

WireStatus WireOf(const grpc::Status& status) {
  return {.code = static_cast<int>(status.error_code()), .message = status.error_message()};
}

gpr_timespec ToGprTimeout(Duration duration) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_nanos(duration.count(), GPR_TIMESPAN));
}

gpr_timespec InWallTime(Duration duration) {
  return gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
                      gpr_time_from_nanos(duration.count(), GPR_TIMESPAN));
}

// What the completion queue hands back.
class Event {
 public:
  virtual ~Event() = default;
  virtual void Complete(bool ok) = 0;
};

Instant BootTime() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return Instant(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

}  // namespace

class IoLoop::Impl : public Transport {
 public:
  explicit Impl(IoLoopOptions options);
  ~Impl() override;

  void Post(absl::AnyInvocable<void(Engine&)> work);
  bool OnThisThread() const { return std::this_thread::get_id() == holder_; }
  bool RunDirectly(absl::FunctionRef<void(Engine&)> work, absl::FunctionRef<bool()> done);
  void WaitEnds() { last_end_ = BootTime(); }

  void StartUnary(const Unary& call) override;
  void CancelUnary(WireId id) override;
  void OpenStream(WireId id, size_t endpoint, std::string_view method) override;
  void OpenDownload(WireId id, size_t endpoint, std::string_view method,
                    std::string_view request) override;
  void SendOnStream(WireId id, std::string_view message) override;
  void CloseStream(WireId id) override;
  void PauseStream(WireId id, bool paused) override;
  void SetToken(std::string_view token) override { token_ = token; }
  void AddEndpoint(size_t endpoint, std::string_view name) override;
  void RemoveEndpoint(size_t endpoint) override { connections_.erase(endpoint); }

 private:
  // Of one endpoint. Who uses it keeps it, also when the endpoint has been removed.
  struct Connection {
    explicit Connection(std::shared_ptr<grpc::Channel> to)
        : channel(std::move(to)), stub(channel) {}
    std::shared_ptr<grpc::Channel> channel;
    grpc::GenericStub stub;
  };
  class UnaryEvent;
  class Stream;
  class WakeEvent;

  // The engine's mutex: who holds it is the engine's thread.
  class Turn {
   public:
    explicit Turn(Impl& loop) : loop_(loop), lock_(loop.engine_mutex_) {
      loop.holder_ = std::this_thread::get_id();
    }
    ~Turn() { loop_.holder_ = std::thread::id(); }

   private:
    Impl& loop_;
    std::lock_guard<std::mutex> lock_;
  };

  void Run();
  void End();
  void Discard(UnaryEvent* event);
  void TakePosted();
  std::pair<Event*, bool> NextEvent();
  void Handle(Event* event, bool ok);
  gpr_timespec WaitUntil() const;
  void AwaitPlace();
  void StandBack(Instant since);
  void Ring();
  std::shared_ptr<grpc::Channel> MakeChannel(const std::string& endpoint) const;

  const IoLoopOptions options_;
  const std::shared_ptr<grpc::ChannelCredentials> credentials_;
  grpc::CompletionQueue queue_;
  std::map<size_t, std::shared_ptr<Connection>> connections_;
  Mailbox<absl::AnyInvocable<void(Engine&)>> mailbox_;
  std::vector<absl::AnyInvocable<void(Engine&)>> taken_;
  std::unique_ptr<Engine> engine_;
  std::map<WireId, UnaryEvent*> calls_;
  std::map<WireId, Stream*> streams_;
  std::string token_;
  int pending_ = 0;  // events that the queue still owes us
  // The queue hands a WakeEvent from another thread to ours; this shows it to ThreadSanitizer,
  // which does not see into gRPC.
  std::atomic<uint64_t> handed_over_ = 0;
  std::atomic<bool> ending_ = false;

  std::mutex engine_mutex_;  // guards the engine and all above that threads do not share otherwise
  std::atomic<std::thread::id> holder_{};
  std::atomic<Instant> asleep_until_ = kNever;  // when the driver looks again by itself
  std::atomic<int> queued_calls_ = 0;           // unary calls under way
  // ---- Who drives: waits on queue_. One at a time.
  enum class Driver { kLoop, kNobody, kCaller };
  std::mutex place_mutex_;
  std::condition_variable place_bell_;  // the loop's thread waits on it while it does not drive
  Driver driver_ = Driver::kLoop;       // guarded by place_mutex_
  bool rung_ = false;                   // guarded by place_mutex_: posted while nobody drove
  Instant nobody_since_{};              // guarded by place_mutex_
  std::atomic<bool> direct_ = false;    // a thread is in RunDirectly
  int direct_run_ = 0;                  // of direct_'s owner: calls in close succession
  std::atomic<bool> place_wanted_ = false;
  std::atomic<Instant> last_end_ = Instant{};  // of any blocking call
  std::thread thread_;
};

// ---- Unary calls
// -----------------------------------------------------------------------------------

// A call is given to gRPC only on a connection that stands. So what fails before is provably never
// sent; gRPC itself does not tell (ClientContext::peer() is set by the answer, not by the sending).
class IoLoop::Impl::UnaryEvent : public Event {
 public:
  UnaryEvent(Impl& loop, const Unary& call)
      : loop_(loop),
        id_(call.id),
        connection_(loop.connections_.at(call.endpoint)),
        method_(call.method),
        request_(BufferOf(call.request)),
        deadline_(InWallTime(call.timeout)) {
    context_.set_deadline(deadline_);
    if (call.require_leader) context_.AddMetadata("hasleader", "true");
    if (!loop.token_.empty()) context_.AddMetadata("token", loop.token_);
    ++loop_.pending_;
    ++loop_.queued_calls_;
    Proceed();
  }

  void Cancel() {
    context_.TryCancel();
    if (!started_) Fail(grpc::StatusCode::CANCELLED, "cancelled before it was sent");
  }

  void Complete(bool ok) override {
    if (!started_ && !failed_) return ok || !Overdue() ? Proceed() : Expire();
    --loop_.pending_;
    --loop_.queued_calls_;
    if (started_) {
      loop_.calls_.erase(id_);
      const WireStatus status = WireOf(status_);
      loop_.engine_->OnUnaryDone(id_, status, status.ok() ? BytesOf(response_) : std::string());
    }
    delete this;
  }

 private:
  void Proceed() {
    grpc::Channel& channel = *connection_->channel;
    const grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) {
      started_ = true;
      reader_ = connection_->stub.PrepareUnaryCall(&context_, method_, request_, &loop_.queue_);
      reader_->StartCall();
      reader_->Finish(&response_, &status_, this);
      return;
    }
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
      Fail(grpc::StatusCode::UNAVAILABLE, "cannot connect");
      return loop_.Discard(this);
    }
    // In slices, so that a loop that ends does not wait for a connection.
    const gpr_timespec slice = InWallTime(kConnectSlice);
    channel.NotifyOnStateChange(state, gpr_time_min(slice, deadline_), &loop_.queue_, this);
  }

  bool Overdue() const { return gpr_time_cmp(gpr_now(GPR_CLOCK_REALTIME), deadline_) >= 0; }

  void Expire() {
    Fail(grpc::StatusCode::DEADLINE_EXCEEDED, "not connected in time");
    loop_.Discard(this);
  }

  // The engine hears it now; the object waits for what gRPC still owes it.
  void Fail(grpc::StatusCode code, const char* why) {
    if (failed_) return;
    failed_ = true;
    loop_.engine_->Defer([engine = loop_.engine_.get(), id = id_, code, why, &loop = loop_] {
      loop.calls_.erase(id);
      engine->OnUnaryDone(id, {.code = static_cast<int>(code), .message = why, .sent = false}, "");
    });
  }

  Impl& loop_;
  const WireId id_;
  const std::shared_ptr<Connection> connection_;
  const std::string method_;
  const grpc::ByteBuffer request_;
  const gpr_timespec deadline_;
  bool started_ = false;
  bool failed_ = false;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
  grpc::ByteBuffer response_;
  grpc::Status status_;
};

void IoLoop::Impl::StartUnary(const Unary& call) {
  auto* event = new UnaryEvent(*this, call);
  calls_[call.id] = event;
}

void IoLoop::Impl::Discard(UnaryEvent* event) {
  engine_->Defer([event] { event->Complete(true); });
}

void IoLoop::Impl::CancelUnary(WireId id) {
  auto found = calls_.find(id);
  if (found != calls_.end()) found->second->Cancel();
}

// ---- Streams
// ---------------------------------------------------------------------------------------

// One stream: at most one read and one write in flight, the rest of the writes queued. It deletes
// itself when gRPC has finished with it.
class IoLoop::Impl::Stream {
 public:
  Stream(Impl& loop, WireId id, size_t endpoint, std::string_view method, bool require_leader)
      : loop_(loop), id_(id), start_(*this), read_(*this), write_(*this), finish_(*this) {
    if (require_leader) context_.AddMetadata("hasleader", "true");
    if (!loop.token_.empty()) context_.AddMetadata("token", loop.token_);
    connection_ = loop.connections_.at(endpoint);
    stream_ = connection_->stub.PrepareCall(&context_, std::string(method), &loop.queue_);
    Pend();
    stream_->StartCall(&start_);
  }

  void Send(std::string_view message) {
    outbox_.push_back(BufferOf(message));
    WriteNext();
  }

  void EndSending() {
    ending_ = true;
    WriteNext();
  }

  void Close() {
    closed_ = true;
    outbox_.clear();
    context_.TryCancel();
    if (paused_) Pause(false);  // a read must be under way to learn of the end
  }

  void Pause(bool paused) {
    paused_ = paused;
    if (!paused) ReadNext();
  }

 private:
  // One kind of completion of a stream.
  template <void (Stream::*handler)(bool)>
  struct Handler : Event {
    explicit Handler(Stream& owner) : stream(owner) {}
    void Complete(bool ok) override { stream.Completed(handler, ok); }
    Stream& stream;
  };

  void Pend() {
    ++pending_;
    ++loop_.pending_;
  }

  void Completed(void (Stream::*handler)(bool), bool ok) {
    --pending_;
    --loop_.pending_;
    (this->*handler)(ok);
    if (finished_ && pending_ == 0) delete this;
  }

  void OnStart(bool ok) {
    started_ = true;
    if (!ok) return Finish();
    ReadNext();
    WriteNext();
  }

  void ReadNext() {
    if (!started_ || reading_ || finishing_ || (paused_ && !closed_)) return;
    reading_ = true;
    Pend();
    stream_->Read(&incoming_, &read_);
  }

  void OnRead(bool ok) {
    reading_ = false;
    if (!ok) return Finish();
    if (!closed_) loop_.engine_->OnStreamMessage(id_, BytesOf(incoming_));
    incoming_.Clear();
    ReadNext();
  }

  void WriteNext() {
    if (!started_ || writing_ || finishing_) return;
    if (outbox_.empty() && !std::exchange(ending_, false)) return;
    writing_ = true;
    Pend();
    if (outbox_.empty()) return stream_->WritesDone(&write_);
    stream_->Write(outbox_.front(), &write_);
    outbox_.pop_front();
  }

  void OnWrite(bool ok) {
    writing_ = false;
    if (ok) WriteNext();  // a failed write shows as a failed read as well
  }

  void Finish() {
    if (finishing_) return;
    finishing_ = true;
    Pend();
    stream_->Finish(&status_, &finish_);
  }

  void OnFinish(bool) {
    finished_ = true;
    loop_.streams_.erase(id_);
    if (!closed_) loop_.engine_->OnStreamClosed(id_, WireOf(status_));
  }

  Impl& loop_;
  const WireId id_;
  Handler<&Stream::OnStart> start_;
  Handler<&Stream::OnRead> read_;
  Handler<&Stream::OnWrite> write_;
  Handler<&Stream::OnFinish> finish_;
  std::shared_ptr<Connection> connection_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer incoming_;
  std::deque<grpc::ByteBuffer> outbox_;  // bounded by watches and leases: a message or two for each
  grpc::Status status_;
  int pending_ = 0;
  bool started_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool ending_ = false;  // when everything has been written, the server is to be told so
  bool paused_ = false;
  bool closed_ = false;
  bool finishing_ = false;
  bool finished_ = false;
};

void IoLoop::Impl::OpenStream(WireId id, size_t endpoint, std::string_view method) {
  streams_[id] = new Stream(*this, id, endpoint, method, /*require_leader=*/true);
}

void IoLoop::Impl::OpenDownload(WireId id, size_t endpoint, std::string_view method,
                                std::string_view request) {
  auto* stream = new Stream(*this, id, endpoint, method, /*require_leader=*/false);
  streams_[id] = stream;
  stream->Send(request);
  stream->EndSending();
}

void IoLoop::Impl::SendOnStream(WireId id, std::string_view message) {
  auto found = streams_.find(id);
  if (found != streams_.end()) found->second->Send(message);
}

void IoLoop::Impl::CloseStream(WireId id) {
  auto found = streams_.find(id);
  if (found != streams_.end()) found->second->Close();
}

void IoLoop::Impl::PauseStream(WireId id, bool paused) {
  auto found = streams_.find(id);
  if (found != streams_.end()) found->second->Pause(paused);
}

// ---- The loop
// --------------------------------------------------------------------------------------

class IoLoop::Impl::WakeEvent : public Event {
 public:
  explicit WakeEvent(Impl& loop) : loop_(loop) {
    loop.handed_over_.fetch_add(1, std::memory_order_acq_rel);
    alarm_.Set(&loop.queue_, gpr_inf_past(GPR_CLOCK_MONOTONIC), this);
  }
  void Complete(bool) override {
    loop_.TakePosted();
    delete this;
  }

 private:
  Impl& loop_;
  grpc::Alarm alarm_;
};

IoLoop::Impl::Impl(IoLoopOptions options)
    : options_(std::move(options)), credentials_(MakeCredentials(options_.tls)) {
  for (size_t i = 0; i < options_.engine.endpoints.size(); ++i) {
    AddEndpoint(i, options_.engine.endpoints[i]);
  }
  engine_ = std::make_unique<Engine>(options_.engine, *this);
  engine_->Advance(BootTime());
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "conclave-io");
}

IoLoop::Impl::~Impl() {
  Post([this](Engine&) { ending_ = true; });
  thread_.join();
}

void IoLoop::Impl::AddEndpoint(size_t endpoint, std::string_view name) {
  connections_[endpoint] = std::make_shared<Connection>(MakeChannel(std::string(name)));
}

std::shared_ptr<grpc::Channel> IoLoop::Impl::MakeChannel(const std::string& endpoint) const {
  const auto milliseconds = [](Duration duration) {
    return static_cast<int>(
        std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
  };
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // clients share no connection by accident
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(options_.keepalive_time));
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(options_.keepalive_timeout));
  args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);  // servers punish idle pings
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);    // a silent stream is pinged as well
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMinMs);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
  args.SetMaxReceiveMessageSize(-1);
  args.SetMaxSendMessageSize(-1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (options_.tls.has_value() && !options_.tls->server_name.empty()) {
    args.SetSslTargetNameOverride(options_.tls->server_name);
  }
  return grpc::CreateCustomChannel(TargetOf(endpoint), credentials_, args);
}

void IoLoop::Impl::Post(absl::AnyInvocable<void(Engine&)> work) {
  if (mailbox_.Put(std::move(work)) && !(ending_ && OnThisThread())) Ring();
}

void IoLoop::Impl::TakePosted() {
  mailbox_.TakeAll(&taken_);
  engine_->Advance(BootTime());
  for (absl::AnyInvocable<void(Engine&)>& work : taken_) work(*engine_);
  taken_.clear();
}

gpr_timespec IoLoop::Impl::WaitUntil() const {
  const Instant until = asleep_until_;
  const Duration wait = until == kNever ? kIdleWaitMax : until - BootTime();
  return ToGprTimeout(std::clamp(wait, Duration(0), kIdleWaitMax));
}

// Waits for an event or the engine's next deadline. Null: it was the deadline.
std::pair<Event*, bool> IoLoop::Impl::NextEvent() {
  void* tag = nullptr;
  bool ok = false;
  const auto next = queue_.AsyncNext(&tag, &ok, WaitUntil());
  handed_over_.fetch_add(0, std::memory_order_acq_rel);
  const bool event = next == grpc::CompletionQueue::GOT_EVENT;
  return {event ? static_cast<Event*>(tag) : nullptr, ok};
}

void IoLoop::Impl::Handle(Event* event, bool ok) {
  Turn turn(*this);
  engine_->Advance(BootTime());
  if (event != nullptr) event->Complete(ok);
  engine_->Advance(BootTime());
  asleep_until_ = engine_->NextDeadline();
}

void IoLoop::Impl::Run() {
  for (;;) {
    AwaitPlace();
    if (ending_) break;
    const auto [event, ok] = NextEvent();
    // Before its answer is handed over: the caller whom it wakes may be back before this thread
    // runs on.
    const bool stands_back = event != nullptr && place_wanted_ && queued_calls_ == 1;
    if (stands_back) StandBack(BootTime());
    Handle(event, ok);
    if (!stands_back) continue;
    if (queued_calls_ == 0) {
      place_wanted_ = false;
    } else {
      StandBack(Instant{});  // it was something else
    }
  }
  End();
}

void IoLoop::Impl::End() {
  void* tag = nullptr;
  bool ok = false;
  Turn turn(*this);
  engine_->Shutdown();
  for (auto& [id, stream] : streams_) stream->Close();
  while (pending_ > 0 && queue_.Next(&tag, &ok)) static_cast<Event*>(tag)->Complete(ok);
  TakePosted();
  engine_->Advance(BootTime());
  queue_.Shutdown();
  while (queue_.Next(&tag, &ok)) static_cast<Event*>(tag)->Complete(ok);
  engine_->Advance(BootTime());
}

// ---- Who drives
// ------------------------------------------------------------------------------------

bool IoLoop::Impl::RunDirectly(absl::FunctionRef<void(Engine&)> work,
                               absl::FunctionRef<bool()> done) {
  if (direct_.exchange(true)) return false;  // another thread does
  const bool alone = queued_calls_ == 0 && BootTime() - last_end_.load() <= kGrace;
  direct_run_ = alone ? direct_run_ + 1 : 0;
  bool drives = false;
  if (direct_run_ >= kDirectRunMin) {
    std::lock_guard lock(place_mutex_);
    drives = driver_ == Driver::kNobody && !ending_;
    if (drives) driver_ = Driver::kCaller;
    place_wanted_ = !drives;  // for the next call
  }
  if (!drives) {
    direct_ = false;
    return false;
  }
  {
    Turn turn(*this);
    TakePosted();
    work(*engine_);
    engine_->Advance(BootTime());
    asleep_until_ = engine_->NextDeadline();
  }
  while (!done()) {
    const auto [event, ok] = NextEvent();
    Handle(event, ok);
  }
  {
    std::lock_guard lock(place_mutex_);
    nobody_since_ = BootTime();
    last_end_ = nobody_since_;
    driver_ = Driver::kNobody;
    if (queued_calls_ > 0) {
      // Others wait for answers: the loop's thread goes on at once.
      direct_run_ = 0;
      driver_ = Driver::kLoop;
      place_bell_.notify_one();
    }
  }
  direct_ = false;
  return true;
}

// The loop's thread comes back when it drives again.
void IoLoop::Impl::AwaitPlace() {
  {
    std::unique_lock lock(place_mutex_);
    if (driver_ == Driver::kLoop) return;
    while (driver_ != Driver::kLoop) {
      const bool rung = std::exchange(rung_, false);
      Duration wait = kLookInterval;
      if (driver_ == Driver::kNobody) {
        const Instant now = BootTime();
        wait = std::min(nobody_since_ + kGrace, asleep_until_.load()) - now;
        if (rung || wait <= Duration(0)) {
          driver_ = Driver::kLoop;
          break;
        }
      }
      place_bell_.wait_for(lock, wait);
    }
  }
  Turn turn(*this);
  TakePosted();
  engine_->Advance(BootTime());
  asleep_until_ = engine_->NextDeadline();
}

// Leaves the place, from `since` on, to a caller who would like to drive its next call.
void IoLoop::Impl::StandBack(Instant since) {
  std::lock_guard lock(place_mutex_);
  if (driver_ == Driver::kCaller) return;  // it came already
  nobody_since_ = since;
  driver_ = Driver::kNobody;
}

void IoLoop::Impl::Ring() {
  std::lock_guard lock(place_mutex_);
  if (driver_ != Driver::kNobody) {
    new WakeEvent(*this);
    return;
  }
  rung_ = true;
  place_bell_.notify_one();
}

IoLoop::IoLoop(IoLoopOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

IoLoop::~IoLoop() { CONCLAVE_CHECK(!impl_->OnThisThread(), "a client's loop cannot end itself"); }

void IoLoop::Post(absl::AnyInvocable<void(Engine&)> work) { impl_->Post(std::move(work)); }

bool IoLoop::OnThisThread() const { return impl_->OnThisThread(); }

Instant IoLoop::Now() const { return BootTime(); }

bool IoLoop::RunDirectly(absl::FunctionRef<void(Engine&)> work, absl::FunctionRef<bool()> done) {
  return impl_->RunDirectly(work, done);
}

void IoLoop::WaitEnds(Wait) { impl_->WaitEnds(); }

}  // namespace conclave
