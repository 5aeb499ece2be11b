#include "conclave/discovery/picking/picking_channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/impl/call_op_set_interface.h>

#include <array>
#include <random>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/prng.h"
#include "conclave/discovery/picking/channel_access.h"

namespace conclave::picking {
namespace {

// A backend whose connection has broken is picked until the hub hears of it; picks that meet such a
// one go on to another, so often.
constexpr size_t kPicksMax = 4;

// A channel all of whose calls fail.
std::shared_ptr<grpc::Channel> FailingChannel(const std::string& message) {
  return grpc::CreateChannelInternal(
      "", grpc_lame_client_channel_create("", GRPC_STATUS_UNAVAILABLE, message.c_str()), {});
}

// A call by name, as the handles in `method` are not those of that channel.
grpc::internal::Call CallByName(grpc::Channel& channel, const grpc::internal::RpcMethod& method,
                                grpc::ClientContext* context, grpc::CompletionQueue* queue) {
  const grpc::internal::RpcMethod by_name(method.name(), method.suffix_for_stats(),
                                          method.method_type());
  return ChannelAccess::CreateCall(channel, by_name, context, queue);
}

uint64_t Random() {
  thread_local Prng prng(std::random_device{}());
  return prng.Next();
}

}  // namespace

PickingChannel::PickingChannel(Core::Options options, Service service,
                               std::shared_ptr<grpc::Channel> waiting_channel)
    : waiting_channel_(std::move(waiting_channel)),
      empty_channel_(
          FailingChannel(absl::StrCat("service ", service.name(), " has no instances that serve"))),
      refusing_channel_(FailingChannel(
          absl::StrCat("service ", service.name(), ": the picker chose none of the backends"))),
      core_(std::move(options), std::move(service), Hub::Shared()) {}

Connection* PickingChannel::Pick(const Routes& routes, const grpc::internal::RpcMethod& method,
                                 const grpc::ClientContext& context, bool* refused) {
  PickArgs args{
      .method = method.name(), .random = Random(), .metadata = &ChannelAccess::Metadata(context)};
  std::array<uint32_t, kPicksMax> broken{};
  for (size_t n = 0; n < kPicksMax; ++n) {
    const uint32_t index = routes.table.Pick(args, std::span(broken.data(), n));
    if (index == PickTable::kNone) {
      *refused = n == 0;
      return nullptr;
    }
    Connection* connection = routes.ready[index].get();
    if (!routes.table.may_pass_over() || connection->Ready()) return connection;
    broken[n] = index;
    args.random = Random();
  }
  return nullptr;
}

grpc::internal::Call PickingChannel::CreateCall(const grpc::internal::RpcMethod& method,
                                                grpc::ClientContext* context,
                                                grpc::CompletionQueue* queue) {
  const auto routes = core_.routes().Read();
  if (!routes->ready.empty()) {
    bool refused = false;
    Connection* connection = Pick(*routes, method, *context, &refused);
    if (connection != nullptr) return connection->CreateCall(method, context, queue);
    if (refused) {
      core_.refused.fetch_add(1, std::memory_order_relaxed);
      return CallByName(*refusing_channel_, method, context, queue);
    }
  } else if (routes->any) {
    // The waiting channel knows nothing of health; so where that counts, a call waits for one of
    // the backends.
    const bool waits = ChannelAccess::WaitForReady(*context);
    if (waits ? core_.health_check() : routes->failing) {
      Connection& any = *routes->unready[Random() % routes->unready.size()];
      return any.CreateCall(method, context, queue);
    }
  } else if (routes->known && !ChannelAccess::WaitForReady(*context)) {
    core_.refused.fetch_add(1, std::memory_order_relaxed);
    return CallByName(*empty_channel_, method, context, queue);
  }
  core_.waited.fetch_add(1, std::memory_order_relaxed);
  return CallByName(*waiting_channel_, method, context, queue);
}

grpc::internal::Call PickingChannel::CreateCallInternal(const grpc::internal::RpcMethod& method,
                                                        grpc::ClientContext* context,
                                                        grpc::CompletionQueue* queue,
                                                        size_t /*interceptor_pos*/) {
  return CreateCall(method, context, queue);
}

void PickingChannel::PerformOpsOnCall(grpc::internal::CallOpSetInterface* ops,
                                      grpc::internal::Call* call) {
  ops->FillOps(call);
}

void* PickingChannel::RegisterMethod(const char* method) {
  return const_cast<MethodTable::Entry*>(core_.methods()->Register(method));
}

grpc_connectivity_state PickingChannel::GetState(bool /*try_to_connect*/) {
  return core_.bell().state();
}

void PickingChannel::NotifyOnStateChangeImpl(grpc_connectivity_state last_observed,
                                             gpr_timespec deadline, grpc::CompletionQueue* queue,
                                             void* tag) {
  core_.bell().Notify(last_observed, deadline, queue, tag);
}

bool PickingChannel::WaitForStateChangeImpl(grpc_connectivity_state last_observed,
                                            gpr_timespec deadline) {
  return core_.bell().Wait(last_observed, deadline);
}

// All calls of the callback API run on a queue of gRPC's own, which lives as long as a channel that
// has asked for it. Here that is one of the process, for ever: a queue that ends joins its threads,
// and the last to let a channel go may well be a callback, on such a thread.
grpc::CompletionQueue* PickingChannel::CallbackCQ() {
  static auto* const keeper = new std::shared_ptr<grpc::Channel>(
      grpc::CreateChannel("ipv4:127.0.0.1:1", grpc::InsecureChannelCredentials()));
  return ChannelAccess::CallbackCQ(**keeper);
}

}  // namespace conclave::picking
