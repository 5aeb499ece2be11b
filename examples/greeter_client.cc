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
#include <set>
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
  int64_t warm_up = 0;
};

grpc::Status Greet(Greeter::Stub& stub, absl::Duration timeout, bool wait_for_ready,
                   std::string* backend) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  context.set_wait_for_ready(wait_for_ready);
  GreetRequest request;
  request.set_name("world");
  GreetReply reply;
  grpc::Status status = stub.Greet(&context, request, &reply);
  *backend = reply.backend();
  return status;
}

// Calls until so many backends have answered: the channel connects to them one after another, and
// the first calls go to those that are connected.
bool WarmUp(Greeter::Stub& stub, const Settings& settings) {
  std::set<std::string> answered;
  const absl::Time deadline = absl::Now() + settings.timeout;
  while (static_cast<int64_t>(answered.size()) < settings.warm_up && absl::Now() < deadline) {
    std::string backend;
    if (Greet(stub, settings.timeout, /*wait_for_ready=*/true, &backend).ok()) {
      answered.insert(backend);
    }
  }
  if (static_cast<int64_t>(answered.size()) >= settings.warm_up) return true;
  std::fprintf(stderr, "greeter_client: only %zu backends answered\n", answered.size());
  return false;
}

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

  if (!WarmUp(*stub, settings)) return 1;

  std::map<std::string, int64_t> answers;  // by backend
  int64_t failed = 0;
  int64_t made = 0;
  const absl::Time end = absl::Now() + settings.duration;
  const bool timed = settings.duration > absl::ZeroDuration();
  while (timed ? absl::Now() < end : made < settings.calls) {
    std::string backend;
    // The first call waits for somebody to be there. Later ones fail at once if nobody is.
    const grpc::Status status = Greet(*stub, settings.timeout, made == 0, &backend);
    ++made;
    if (status.ok()) {
      ++answers[backend];
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
      .Number("warm-up", "first call until so many servers have answered; not counted", 0,
              &settings.warm_up)
      .Parse(argc, argv);
  return conclave::examples::Run(settings);
}
