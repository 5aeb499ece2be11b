#include "conclave/server/local/local_channel.h"

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>

namespace conclave::local {
namespace {

// What gRPC takes off the connection before a message is asked for.
constexpr int kLookaheadBytes = 256 * 1024;
constexpr int kUnavailable = 14;

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

// A call that cannot even begin.
class DeadCall final : public Call {
 public:
  explicit DeadCall(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}
  void Send(std::string_view) override {}
  void HalfClose() override {}
  void Read() override { End(); }
  void Cancel() override { End(); }

 private:
  void End() {
    if (auto listener = std::exchange(listener_, nullptr)) {
      listener->OnDone(kUnavailable, "etcdserver: server stopped");
    }
  }
  std::shared_ptr<Listener> listener_;
};

// One call. Whatever gRPC owes it holds a reference.
class LiveCall final : public Call, public std::enable_shared_from_this<LiveCall> {
 public:
  enum class Step : uint8_t { kStart, kRead, kWrite, kHalfClose, kFinish };
  struct Tag {
    std::shared_ptr<LiveCall> call;
    Step step;
  };

  LiveCall(const CallOptions& options, std::shared_ptr<Listener> listener,
           std::atomic<uint64_t>* handed_over)
      : handed_over_(handed_over), listener_(std::move(listener)) {
    for (const auto& [name, value] : options.metadata) context_.AddMetadata(name, value);
    if (options.timeout.has_value()) {
      context_.set_deadline(
          gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
                       gpr_time_from_nanos(options.timeout->count(), GPR_TIMESPAN)));
    }
  }

  void Begin(std::shared_ptr<grpc::Channel> channel, grpc::GenericStub* stub,
             const std::string& method, grpc::CompletionQueue* queue) {
    std::lock_guard lock(mutex_);
    channel_ = std::move(channel);
    stream_ = stub->PrepareCall(&context_, method, queue);
    stream_->StartCall(NewTag(Step::kStart));
  }

  void Send(std::string_view message) override {
    std::lock_guard lock(mutex_);
    if (finishing_) return;
    grpc::Slice slice(message.data(), message.size());
    outgoing_ = grpc::ByteBuffer(&slice, 1);
    write_wanted_ = true;
    Proceed();
  }

  void HalfClose() override {
    std::lock_guard lock(mutex_);
    half_close_wanted_ = true;
    Proceed();
  }

  void Read() override {
    std::lock_guard lock(mutex_);
    read_wanted_ = true;
    Proceed();
  }

  void Cancel() override {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    context_.TryCancel();
    read_wanted_ = true;  // to learn of the end
    Proceed();
  }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  // On the channel's thread, when it has ended.
  bool ended_unavailable() const { return status_.error_code() == grpc::StatusCode::UNAVAILABLE; }

  // On the channel's thread.
  void Completed(Step step, bool ok) {
    switch (step) {
      case Step::kStart:
        return OnStarted(ok);
      case Step::kRead:
        return OnRead(ok);
      case Step::kWrite:
        return OnWritten(ok);
      case Step::kHalfClose:
        return;
      case Step::kFinish:
        // The listener holds the call, so this ends a circle.
        return std::exchange(listener_, nullptr)
            ->OnDone(static_cast<int>(status_.error_code()), status_.error_message());
    }
  }

 private:
  Tag* NewTag(Step step) {
    Tag* const tag = new Tag{shared_from_this(), step};
    handed_over_->fetch_add(1, std::memory_order_release);
    return tag;
  }

  // With the mutex held: begins what is wanted and possible.
  void Proceed() {
    if (!started_ || finishing_) return;
    if (read_wanted_ && !reading_) {
      read_wanted_ = false;
      reading_ = true;
      stream_->Read(&incoming_, NewTag(Step::kRead));
    }
    if (writing_ || cancelled_) return;
    if (write_wanted_) {
      write_wanted_ = false;
      writing_ = true;
      stream_->Write(outgoing_, NewTag(Step::kWrite));
    } else if (half_close_wanted_) {
      half_close_wanted_ = false;
      writing_ = true;  // nothing may follow
      stream_->WritesDone(NewTag(Step::kHalfClose));
    }
  }

  void Finish() {
    if (std::exchange(finishing_, true)) return;
    stream_->Finish(&status_, NewTag(Step::kFinish));
  }

  void OnStarted(bool ok) {
    std::lock_guard lock(mutex_);
    started_ = true;
    if (!ok) return Finish();
    Proceed();
  }

  void OnRead(bool ok) {
    std::string message;
    {
      std::lock_guard lock(mutex_);
      reading_ = false;
      if (!ok) return Finish();
      message = BytesOf(incoming_);
      incoming_.Clear();
      if (cancelled_) {
        read_wanted_ = true;
        return Proceed();
      }
    }
    listener_->OnMessage(std::move(message));
  }

  void OnWritten(bool ok) {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      outgoing_.Clear();
      Proceed();
    }
    if (ok && listener_ != nullptr)
      listener_->OnSent();  // what fails shows as the end of the reading
  }

  std::atomic<uint64_t>* const handed_over_;  // the channel's, which outlives every step
  std::shared_ptr<Listener> listener_;        // of the channel's thread
  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  std::mutex mutex_;  // guards all below
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer outgoing_;
  grpc::Status status_;
  bool started_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool read_wanted_ = false;
  bool write_wanted_ = false;
  bool half_close_wanted_ = false;
  bool cancelled_ = false;
  bool finishing_ = false;
};

}  // namespace

class LocalChannel::Impl {
 public:
  explicit Impl(std::function<void(int)> hand_over) : hand_over_(std::move(hand_over)) {}

  ~Impl() {
    std::vector<std::shared_ptr<LiveCall>> open;
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
      for (const auto& [id, call] : calls_) open.push_back(call);
      if (calls_.empty()) queue_.Shutdown();
      queue_down_ = calls_.empty();
    }
    for (const auto& call : open) call->Cancel();
    if (thread_.joinable()) thread_.join();
  }

  std::shared_ptr<Call> Start(const CallOptions& options, std::shared_ptr<Listener> listener) {
    std::lock_guard lock(mutex_);
    if (stopped_ || !Connect()) return std::make_shared<DeadCall>(std::move(listener));
    auto call = std::make_shared<LiveCall>(options, std::move(listener), &handed_over_);
    calls_.emplace(call.get(), call);
    call->Begin(channel_, stub_.get(), options.method, &queue_);
    if (!thread_.joinable()) {
      thread_ = std::thread([this] { Run(); });
      pthread_setname_np(thread_.native_handle(), "conclave-local");
    }
    return call;
  }

 private:
  // The connection ends only with the server, or by a defect; then the next call makes a new one.
  // A channel over a descriptor does not tell its state, so its calls do: see Forget.
  bool Connect() {
    if (channel_ != nullptr) return true;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return false;
    grpc::ChannelArguments args;
    args.SetMaxReceiveMessageSize(kAnswerBytesMax);
    args.SetMaxSendMessageSize(-1);
    args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // its pings are for networks
    args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
    hand_over_(ends[0]);
    channel_ = grpc::CreateCustomInsecureChannelFromFd("local", ends[1], args);
    stub_ = std::make_unique<grpc::GenericStub>(channel_);
    return true;
  }

  void Run() {
    void* next = nullptr;
    bool ok = false;
    while (queue_.Next(&next, &ok)) {
      static_cast<void>(handed_over_.load(std::memory_order_acquire));
      const std::unique_ptr<LiveCall::Tag> tag(static_cast<LiveCall::Tag*>(next));
      tag->call->Completed(tag->step, ok);
      if (tag->step == LiveCall::Step::kFinish) Forget(tag->call.get());
    }
  }

  // Nothing begins on the queue once it is shut down: a call has its last word after all its steps.
  void Forget(LiveCall* call) {
    std::lock_guard lock(mutex_);
    // Unavailable may be the server's own word, too; then the new connection costs little.
    if (call->ended_unavailable() && call->channel() == channel_) {
      stub_.reset();
      channel_.reset();
    }
    calls_.erase(call);
    if (stopped_ && calls_.empty() && !std::exchange(queue_down_, true)) queue_.Shutdown();
  }

  const std::function<void(int)> hand_over_;
  grpc::CompletionQueue queue_;
  // The queue hands tags from other threads to ours; this shows it to ThreadSanitizer, which does
  // not see into gRPC.
  std::atomic<uint64_t> handed_over_ = 0;
  std::mutex mutex_;  // guards all below
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::GenericStub> stub_;
  std::map<LiveCall*, std::shared_ptr<LiveCall>> calls_;
  std::thread thread_;
  bool stopped_ = false;
  bool queue_down_ = false;
};

LocalChannel::LocalChannel(std::function<void(int)> hand_over)
    : impl_(std::make_unique<Impl>(std::move(hand_over))) {}
LocalChannel::~LocalChannel() = default;

std::shared_ptr<Call> LocalChannel::Start(CallOptions options, std::shared_ptr<Listener> listener) {
  return impl_->Start(options, std::move(listener));
}

}  // namespace conclave::local
