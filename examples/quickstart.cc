// Everything in one process, in a minute: a server, a service that registers itself, a client that
// calls it by name, a lock, a leader.
//
//   quickstart
//
// The server is the real one, embedded; elsewhere it is `conclave`, or an etcd cluster.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/discovery/channel.h"
#include "conclave/election/election.h"
#include "conclave/examples/flags.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/lock/mutex.h"
#include "conclave/registry/registry.h"
#include "conclave/server/app/embedded.h"

namespace conclave::examples {
namespace {

class GreeterService final : public Greeter::Service {
  grpc::Status Greet(grpc::ServerContext*, const GreetRequest* request,
                     GreetReply* reply) override {
    reply->set_message("hello, " + request->name());
    return grpc::Status::OK;
  }
};

absl::Status Tour() {
  // 1. A server, with its data in a temporary directory.
  CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<EmbeddedServer> server, EmbeddedServer::Start({}));
  CONCLAVE_ASSIGN_OR_RETURN(Client client,
                            Client::Connect({.endpoints = {server->client_endpoint()}}));
  std::printf("a server at %s\n", server->client_endpoint().c_str());

  // 2. A gRPC service registers under a name.
  GreeterService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> greeter = builder.BuildAndStart();
  Registry registry(client);
  CONCLAVE_ASSIGN_OR_RETURN(
      Registration registration,
      registry.Register({.service = "greeter", .address = "127.0.0.1:" + std::to_string(port)}));

  // 3. A client calls that name. The channel follows the registry: whoever comes gets calls.
  CONCLAVE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                            Dial(client, "greeter", grpc::InsecureChannelCredentials()));
  const std::unique_ptr<Greeter::Stub> stub = Greeter::NewStub(channel);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
  GreetRequest request;
  request.set_name("world");
  GreetReply reply;
  if (const grpc::Status status = stub->Greet(&context, request, &reply); !status.ok()) {
    return absl::UnavailableError(status.error_message());
  }
  std::printf("greeter says: %s\n", reply.message().c_str());

  // 4. Locks and leadership live on a session: a lease that is kept alive for as long as we live.
  CONCLAVE_ASSIGN_OR_RETURN(Session session, client.OpenSession({.ttl = absl::Seconds(5)}));
  Mutex mutex(session, "locks/rebuild");
  CONCLAVE_ASSIGN_OR_RETURN(LockGuard guard, mutex.Lock({.timeout = absl::Seconds(10)}));
  std::printf("the lock is ours, fencing token %lld\n", static_cast<long long>(guard.token()));
  CONCLAVE_RETURN_IF_ERROR(guard.Unlock());

  Election election(client, "elections/scheduler");
  CONCLAVE_ASSIGN_OR_RETURN(
      Leadership leadership,
      election.Campaign(session, "quickstart", {.timeout = absl::Seconds(10)}));
  std::printf("we lead, term %lld\n", static_cast<long long>(leadership.term()));
  CONCLAVE_RETURN_IF_ERROR(leadership.Resign());

  // 5. Out of the registry before the server goes.
  CONCLAVE_RETURN_IF_ERROR(registration.Deregister());
  CONCLAVE_RETURN_IF_ERROR(session.Close());
  std::printf("quickstart: ok\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  conclave::examples::Flags("A tour of Conclave in one process.").Parse(argc, argv);
  const absl::Status status = conclave::examples::Tour();
  if (!status.ok()) std::fprintf(stderr, "quickstart: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
