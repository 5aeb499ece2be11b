// A gRPC server that makes itself known under a service's name.
//
//   greeter_server --endpoints 127.0.0.1:2379 --service my-service --listen 127.0.0.1:0
//
// It stays registered as long as it runs: the registration comes back by itself after an outage, a
// lost lease or a deleted key. If it is killed, its lease runs out and it is gone from the registry
// after --ttl. At SIGINT or SIGTERM it leaves without a failed call: out of the registry first,
// then it goes on answering until every client has heard of that, then it finishes the calls under
// way.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/examples/flags.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/registry/graceful_stop.h"
#include "conclave/registry/registry.h"

namespace conclave::examples {
namespace {

struct Settings {
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  std::string service = "my-service";
  std::string listen = "127.0.0.1:0";
  absl::Duration ttl = absl::Seconds(10);
  absl::Duration notice = absl::Seconds(2);
};

// The service itself knows nothing of any of this.
class GreeterService final : public Greeter::Service {
 public:
  void set_backend(std::string address) { backend_ = std::move(address); }

 private:
  grpc::Status Greet(grpc::ServerContext*, const GreetRequest* request,
                     GreetReply* reply) override {
    *reply = Reply(request->name());
    return grpc::Status::OK;
  }

  grpc::Status GreetMany(grpc::ServerContext* context, const GreetManyRequest* request,
                         grpc::ServerWriter<GreetReply>* writer) override {
    const GreetReply reply = Reply(request->name());
    absl::Notification never;  // what there is to wait for between two replies: nothing
    for (int i = 0; i < request->count() && !context->IsCancelled(); ++i) {
      if (i > 0) never.WaitForNotificationWithTimeout(absl::Milliseconds(request->interval_ms()));
      if (!writer->Write(reply)) break;
    }
    return grpc::Status::OK;
  }

  GreetReply Reply(const std::string& name) const {
    GreetReply reply;
    reply.set_message("hello, " + name);
    reply.set_backend(backend_);
    return reply;
  }

  std::string backend_;
};

absl::Status Serve(const Settings& settings) {
  // An ordinary gRPC server.
  GreeterService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(settings.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError("cannot listen on " + settings.listen);
  }
  const std::string address =
      settings.listen.substr(0, settings.listen.rfind(':') + 1) + std::to_string(port);
  service.set_backend(address);
  std::printf("listening on %s\n", address.c_str());
  std::fflush(stdout);

  // Its registration.
  CONCLAVE_ASSIGN_OR_RETURN(Client client, Client::Connect({.endpoints = settings.endpoints}));
  Registry registry(client);
  RegistrationOptions options;
  options.ttl = settings.ttl;
  options.on_state = [&settings](RegState state, const absl::Status& why) {
    std::printf("%s as %s%s\n", std::string(RegStateName(state)).c_str(), settings.service.c_str(),
                why.ok() ? "" : (": " + why.ToString()).c_str());
    std::fflush(stdout);
  };
  CONCLAVE_ASSIGN_OR_RETURN(
      Registration registration,
      registry.Register({.service = settings.service, .address = address}, std::move(options)));

  // Until SIGINT or SIGTERM; then everything in the right order.
  GracefulStopOptions stop;
  stop.notice = settings.notice / 2;
  stop.settle = settings.notice / 2;
  stop.grace = absl::Seconds(10);
  stop.shutdown = [&server](absl::Duration grace) {
    server->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  };
  RunUntilSignal({&registration}, stop);
  std::printf("stopped\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  conclave::examples::Settings settings;
  conclave::examples::Flags("Serves the Greeter, and registers itself.")
      .List("endpoints", "members of the cluster, host:port", &settings.endpoints)
      .Text("service", "the name to register as", &settings.service)
      .Text("listen", "where to listen, host:port; port 0 takes a free one", &settings.listen)
      .Time("ttl", "how long it stays registered after it has died", &settings.ttl)
      .Time("notice", "how long it goes on answering after it has left", &settings.notice)
      .Parse(argc, argv);
  const absl::Status status = conclave::examples::Serve(settings);
  if (!status.ok()) std::fprintf(stderr, "greeter_server: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
