#include "conclave/registry/grpc/health.h"

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>

#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace conclave {
namespace {

constexpr char kWatch[] = "/grpc.health.v1.Health/Watch";
constexpr char kCheck[] = "/grpc.health.v1.Health/Check";

// The protocol's two messages by hand: the generated classes would collide with those that the
// program may have of the same proto.
// HealthCheckRequest { string service = 1; }
grpc::ByteBuffer EncodeRequest(const std::string& service) {
  std::string text;
  if (!service.empty()) {
    text += '\x0a';
    for (size_t left = service.size();; left >>= 7) {
      text += static_cast<char>((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
      if (left <= 0x7f) break;
    }
    text += service;
  }
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

// HealthCheckResponse { ServingStatus status = 1; }; UNKNOWN 0, SERVING 1, NOT_SERVING 2,
// SERVICE_UNKNOWN 3.
absl::Status HealthIn(const grpc::ByteBuffer& response) {
  grpc::Slice slice;
  if (!response.DumpToSingleSlice(&slice).ok() || slice.size() < 2 || slice.begin()[0] != 0x08) {
    return absl::UnavailableError("the server's health is UNKNOWN");
  }
  switch (slice.begin()[1]) {
    case 1:
      return absl::OkStatus();
    case 2:
      return absl::UnavailableError("the server says NOT_SERVING");
    case 3:
      return absl::UnavailableError(
          "the server does not know the service whose health it is asked");
    default:
      return absl::UnavailableError("the server's health is UNKNOWN");
  }
}

absl::Status CannotAsk(const grpc::Status& status) {
  return absl::UnavailableError(
      absl::StrCat("the server cannot be asked for its health: ", status.error_message()));
}

// Watches, or polls, until it is stopped. Callbacks come on gRPC's threads, one at a time; each
// call and each alarm keeps the object alive.
class Watcher : public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(std::shared_ptr<grpc::Channel> channel, GrpcHealthOptions options,
          HealthCheck::Report report)
      : channel_(std::move(channel)),
        stub_(channel_),
        options_(std::move(options)),
        report_(std::move(report)) {}

  void Watch();
  void Stop();

 private:
  class Call;

  void OnWatchEnded(const grpc::Status& status);
  void Check();
  void OnChecked(const grpc::Status& status);
  void Say(const absl::Status& health);
  void Later(void (Watcher::*next)());

  const std::shared_ptr<grpc::Channel> channel_;
  grpc::GenericStub stub_;
  const GrpcHealthOptions options_;

  std::mutex mutex_;
  HealthCheck::Report report_;                    // guarded by mutex_; null: stopped
  std::shared_ptr<grpc::ClientContext> context_;  // guarded by mutex_; of the call under way
  std::unique_ptr<grpc::Alarm> alarm_;            // guarded by mutex_
  grpc::ByteBuffer request_;                      // of Check
  grpc::ByteBuffer response_;                     // of Check
};

class Watcher::Call : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Call(std::shared_ptr<Watcher> watcher, grpc::ClientContext* context)
      : watcher_(std::move(watcher)), request_(EncodeRequest(watcher_->options_.service)) {
    watcher_->stub_.PrepareBidiStreamingCall(context, kWatch, {}, this);
    StartWriteLast(&request_, grpc::WriteOptions());
    StartRead(&response_);
    StartCall();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    watcher_->Say(HealthIn(response_));
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    watcher_->OnWatchEnded(status);
    delete this;
  }

  const std::shared_ptr<Watcher> watcher_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

void Watcher::Say(const absl::Status& health) {
  std::lock_guard lock(mutex_);
  if (report_ != nullptr) report_(health);
}

void Watcher::Watch() {
  grpc::ClientContext* context = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (report_ == nullptr) return;
    context_ = std::make_shared<grpc::ClientContext>();
    context = context_.get();
  }
  new Call(shared_from_this(), context);  // deletes itself when the call is over
}

void Watcher::OnWatchEnded(const grpc::Status& status) {
  {
    // Nothing of the call may be touched once it is over.
    std::lock_guard lock(mutex_);
    context_ = nullptr;
  }
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) return Check();
  Say(CannotAsk(status));
  Later(&Watcher::Watch);
}

void Watcher::Check() {
  grpc::ClientContext* context = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (report_ == nullptr) return;
    context_ = std::make_shared<grpc::ClientContext>();
    context = context_.get();
  }
  context->set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout));
  request_ = EncodeRequest(options_.service);
  stub_.UnaryCall(
      context, kCheck, {}, &request_, &response_,
      [self = shared_from_this()](const grpc::Status& status) { self->OnChecked(status); });
}

void Watcher::OnChecked(const grpc::Status& status) {
  {
    std::lock_guard lock(mutex_);
    context_ = nullptr;
  }
  if (status.ok()) {
    Say(HealthIn(response_));
  } else if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    Say(absl::OkStatus());  // it has no health service at all
  } else {
    Say(CannotAsk(status));
  }
  Later(&Watcher::Check);
}

void Watcher::Later(void (Watcher::*next)()) {
  std::lock_guard lock(mutex_);
  if (report_ == nullptr) return;
  alarm_ = std::make_unique<grpc::Alarm>();
  // Weak: an alarm keeps what it calls until it goes itself, and it is ours.
  alarm_->Set(absl::ToChronoTime(absl::Now() + options_.poll_interval),
              [weak = weak_from_this(), next](bool fired) {
                std::shared_ptr<Watcher> self = weak.lock();
                if (fired && self != nullptr) (self.get()->*next)();
              });
}

void Watcher::Stop() {
  std::shared_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::Alarm> alarm;
  {
    std::lock_guard lock(mutex_);
    report_ = nullptr;
    context = context_;
    alarm = std::move(alarm_);
  }
  // Not under the lock: gRPC may run a call's last callback on this very thread.
  if (context != nullptr) context->TryCancel();
}

class GrpcHealthSource final : public HealthSource {
 public:
  explicit GrpcHealthSource(std::shared_ptr<Watcher> watcher) : watcher_(std::move(watcher)) {
    watcher_->Watch();
  }
  ~GrpcHealthSource() override { watcher_->Stop(); }

 private:
  const std::shared_ptr<Watcher> watcher_;
};

}  // namespace

HealthCheck GrpcHealth(std::shared_ptr<grpc::Channel> channel, GrpcHealthOptions options) {
  HealthCheck health;
  health.fall = options.fall;
  health.rise = options.rise;
  health.hold = options.hold;
  health.source = [channel = std::move(channel),
                   options = std::move(options)](HealthCheck::Report report) {
    return std::make_unique<GrpcHealthSource>(
        std::make_shared<Watcher>(channel, options, std::move(report)));
  };
  return health;
}

HealthCheck GrpcHealth(grpc::Server& server, GrpcHealthOptions options) {
  return GrpcHealth(server.InProcessChannel(grpc::ChannelArguments()), std::move(options));
}

HealthCheck GrpcHealth(const std::string& address, GrpcHealthOptions options) {
  return GrpcHealth(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()),
                    std::move(options));
}

}  // namespace conclave
