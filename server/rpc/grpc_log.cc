#include "conclave/server/rpc/grpc_log.h"

#include <grpc/support/log.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::rpc {
namespace {

// Never destroyed: gRPC may log until the process ends.
std::function<void(const node::LogLine&)>* route = nullptr;

void Take(gpr_log_func_args* args) {
  (*route)({node::Severity::kDebug,
            args->message,
            {{"grpc-severity", gpr_log_severity_string(args->severity)},
             {"file", absl::StrCat(args->file, ":", args->line)}}});
}

}  // namespace

void RouteGrpcLog(std::function<void(const node::LogLine&)> log) {
  route = new std::function<void(const node::LogLine&)>(std::move(log));
  gpr_set_log_function(&Take);
}

}  // namespace conclave::rpc
