// A gRPC client that knows its servers by name only.
//
//   greeter_client --endpoints 127.0.0.1:2379 --service my-service --calls 300
//
// Dial() gives a real grpc::Channel; any generated stub works on it. The calls go round robin over
// the instances that are registered at the moment. Prints how many calls each of them answered; the
// exit code is 1 if any call failed. SIGINT and SIGTERM end it early, with the same account.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/client/client.h"
#include "conclave/discovery/channel.h"
#include "conclave/examples/flags.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/examples/pause.h"

namespace conclave::examples {
namespace {

struct Settings {
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  std::string service = "my-service";
  int64_t calls = 100;
  absl::Duration interval = absl::ZeroDuration();
  absl::Duration duration = absl::ZeroDuration();
  absl::Duration timeout = absl::Seconds(10);
  int64_t retries = 0;
};

int Run(const Settings& settings) {
  absl::StatusOr<Client> client = Client::Connect({.endpoints = settings.endpoints});
  if (!client.ok()) {
    std::fprintf(stderr, "greeter_client: %s\n", client.status().ToString().c_str());
    return 1;
  }

  // The whole of service discovery, for a user of gRPC:
  DialOptions options;
  options.retries_max = static_cast<uint32_t>(settings.retries);
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
      Dial(*client, settings.service, grpc::InsecureChannelCredentials(), options);
  if (!channel.ok()) {
    std::fprintf(stderr, "greeter_client: %s\n", channel.status().ToString().c_str());
    return 1;
  }
  const std::unique_ptr<Greeter::Stub> stub = Greeter::NewStub(*channel);

  std::map<std::string, int64_t> answers;  // by backend
  int64_t failed = 0;
  int64_t made = 0;
  const absl::Time end = absl::Now() + settings.duration;
  const bool timed = settings.duration > absl::ZeroDuration();
  while (timed ? absl::Now() < end : made < settings.calls) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + settings.timeout));
    // The first call waits for somebody to be there. Later ones fail at once if nobody is.
    context.set_wait_for_ready(made == 0);
    GreetRequest request;
    request.set_name("world");
    GreetReply reply;
    const grpc::Status status = stub->Greet(&context, request, &reply);
    ++made;
    if (status.ok()) {
      ++answers[reply.backend()];
    } else {
      ++failed;
      std::fprintf(stderr, "call %lld failed: %s\n", static_cast<long long>(made),
                   status.error_message().c_str());
    }
    if (WaitForSignal(settings.interval)) break;
  }

  for (const auto& [backend, count] : answers) {
    std::printf("%s answered %lld calls\n", backend.c_str(), static_cast<long long>(count));
  }
  std::printf("%lld calls, %lld failed\n", static_cast<long long>(made),
              static_cast<long long>(failed));
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  conclave::examples::BlockSignals();
  conclave::examples::Settings settings;
  conclave::examples::Flags("Calls a registered gRPC service by its name.")
      .List("endpoints", "members of the cluster, host:port", &settings.endpoints)
      .Text("service", "the name to call", &settings.service)
      .Number("calls", "how many calls to make", 1, &settings.calls)
      .Time("interval", "pause between calls", &settings.interval)
      .Time("duration", "call for so long, instead of --calls", &settings.duration)
      .Time("timeout", "of each call", &settings.timeout)
      .Number("retries", "how often to repeat a call that found its server gone", 0,
              &settings.retries)
      .Parse(argc, argv);
  return conclave::examples::Run(settings);
}
