// A plain gRPC client with a bootstrap, as any program may be one: nothing of this library in it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/examples/greeter.grpc.pb.h"

namespace conclave::testing {

// `server_uri`: "127.0.0.1:2400", or "ipv4:127.0.0.1:1,127.0.0.1:2".
inline std::string XdsBootstrap(const std::string& server_uri) {
  return absl::StrCat(R"({"xds_servers":[{"server_uri":")", server_uri,
                      R"(","channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],)",
                      R"("node":{"id":"t","locality":{"region":"","zone":"","sub_zone":""}}})");
}

class XdsClient {
 public:
  XdsClient(const std::string& server_uri, const std::string& service) {
    grpc::ChannelArguments args;
    args.SetString(GRPC_ARG_TEST_ONLY_DO_NOT_USE_IN_PROD_XDS_BOOTSTRAP_CONFIG,
                   XdsBootstrap(server_uri));
    stub_ = examples::Greeter::NewStub(
        grpc::CreateCustomChannel("xds:///" + service, grpc::InsecureChannelCredentials(), args));
  }

  // Who answered, or the error's message.
  std::string Call(absl::Duration timeout = absl::Seconds(10)) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    examples::GreetReply reply;
    const grpc::Status status = stub_->Greet(&context, {}, &reply);
    if (status.ok()) return reply.backend();
    return absl::StrCat("failed (", static_cast<int>(status.error_code()),
                        "): ", status.error_message());
  }

  std::set<std::string> Answers(int calls = 60) {
    std::set<std::string> answers;
    for (int i = 0; i < calls; ++i) answers.insert(Call());
    return answers;
  }

 private:
  std::unique_ptr<examples::Greeter::Stub> stub_;
};

}  // namespace conclave::testing
