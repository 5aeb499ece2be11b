#include "conclave/tests/support/probe.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/time/clock.h"
#include "conclave/api/rpc.grpc.pb.h"

namespace conclave::testing {
namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

void SetDeadline(grpc::ClientContext& context, absl::Duration timeout) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace

absl::Status ProbeLinearizableRead(const std::string& endpoint, absl::Duration timeout) {
  auto stub = etcdserverpb::KV::NewStub(Connect(endpoint));
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  etcdserverpb::RangeRequest request;
  request.set_key("health");
  etcdserverpb::RangeResponse response;
  return ToStatus(stub->Range(&context, request, &response));
}

absl::StatusOr<bool> ProbeLeads(const std::string& endpoint, absl::Duration timeout) {
  auto stub = etcdserverpb::Maintenance::NewStub(Connect(endpoint));
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  etcdserverpb::StatusResponse response;
  absl::Status status = ToStatus(stub->Status(&context, {}, &response));
  if (!status.ok()) return status;
  return response.leader() != 0 && response.leader() == response.header().member_id();
}

}  // namespace conclave::testing
