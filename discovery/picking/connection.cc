#include "conclave/discovery/picking/connection.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/client_interceptor.h>

#include <utility>
#include <vector>

#include "conclave/discovery/picking/channel_access.h"

namespace conclave::picking {
namespace {

// Whether a call that ended so speaks against its backend.
bool IsFailure(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DATA_LOSS:
      return true;
    default:
      return false;
  }
}

// The connection's, owned by its grpc::Channel.
class TrackerFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TrackerFactory(const Connection::Options& options)
      : load_(options.load),
        methods_(options.methods),
        failures_limit_(options.failures_limit),
        on_failures_(options.on_failures) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo* info) override;

  void Begin() {
    load_->in_flight.fetch_add(1, std::memory_order_relaxed);
    load_->picks.fetch_add(1, std::memory_order_relaxed);
  }
  void End() { load_->in_flight.fetch_sub(1, std::memory_order_relaxed); }
  void Judge(grpc::StatusCode code) {
    if (code == grpc::StatusCode::CANCELLED) return;
    std::atomic<int>& row = load_->consecutive_failures;
    if (!IsFailure(code)) {
      // Read first: the line stays shared while all goes well.
      if (row.load(std::memory_order_relaxed) != 0) row.store(0, std::memory_order_relaxed);
      return;
    }
    load_->failures.fetch_add(1, std::memory_order_relaxed);
    const int failures = row.fetch_add(1, std::memory_order_relaxed) + 1;
    if (failures_limit_ > 0 && failures % failures_limit_ == 0) on_failures_();
  }

 private:
  const std::shared_ptr<BackendLoad> load_;
  const std::shared_ptr<MethodTable> methods_;  // keeps the methods' names
  const int failures_limit_;
  const std::function<void()> on_failures_;
};

// One call's. Its ClientContext owns it and, until after it, the grpc::Channel with the factory.
class CallTracker final : public grpc::experimental::Interceptor {
 public:
  explicit CallTracker(TrackerFactory* factory) : factory_(factory) { factory_->Begin(); }
  ~CallTracker() override {
    if (!ended_) factory_->End();
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (!ended_ && methods->QueryInterceptionHookPoint(
                       grpc::experimental::InterceptionHookPoints::POST_RECV_STATUS)) {
      ended_ = true;
      factory_->End();
      if (const grpc::Status* status = methods->GetRecvStatus(); status != nullptr) {
        factory_->Judge(status->error_code());
      }
    }
    methods->Proceed();
  }

 private:
  TrackerFactory* const factory_;
  bool ended_ = false;
};

grpc::experimental::Interceptor* TrackerFactory::CreateClientInterceptor(
    grpc::experimental::ClientRpcInfo* /*info*/) {
  return new CallTracker(this);
}

}  // namespace

Connection::Connection(const Options& options) {
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<TrackerFactory>(options));
  channel_ = grpc::experimental::CreateCustomChannelWithInterceptors(
      options.target, options.credentials, options.args, std::move(interceptors));
}

Connection::~Connection() {
  for (const auto& method : methods_) delete method.load();
}

grpc::internal::Call Connection::CreateCall(const grpc::internal::RpcMethod& method,
                                            grpc::ClientContext* context,
                                            grpc::CompletionQueue* queue) {
  const auto* entry = static_cast<const MethodTable::Entry*>(method.channel_tag());
  if (entry == nullptr) return ChannelAccess::CreateCall(*channel_, method, context, queue);
  if (method.suffix_for_stats() == nullptr) {
    const grpc::internal::RpcMethod* known = methods_[entry->index].load(std::memory_order_acquire);
    if (known == nullptr) known = Register(*entry, method);
    if (known->method_type() == method.method_type()) {
      return ChannelAccess::CreateCall(*channel_, *known, context, queue);
    }
  }
  // Two stubs that differ about the method: by its name, then.
  const grpc::internal::RpcMethod by_name(method.name(), method.suffix_for_stats(),
                                          method.method_type());
  return ChannelAccess::CreateCall(*channel_, by_name, context, queue);
}

const grpc::internal::RpcMethod* Connection::Register(const MethodTable::Entry& entry,
                                                      const grpc::internal::RpcMethod& method) {
  const std::lock_guard lock(registering_);
  const grpc::internal::RpcMethod* known = methods_[entry.index].load(std::memory_order_acquire);
  if (known == nullptr) {
    known = new grpc::internal::RpcMethod(entry.name.c_str(), method.method_type(), channel_);
    methods_[entry.index].store(known, std::memory_order_release);
  }
  return known;
}

}  // namespace conclave::picking
