// An application that knows Conclave only as an installed package: a service that registers itself,
// a caller that finds it by name, a lock, and an election, all against a server in this very
// process.
#include <conclave/client/client.h>
#include <conclave/discovery/channel.h>
#include <conclave/election/election.h>
#include <conclave/lock/mutex.h>
#include <conclave/registry/registry.h>
#include <conclave/server/app/embedded.h>
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <memory>
#include <string>

#include "inventory.grpc.pb.h"

namespace {

class Warehouse final : public inventory::Inventory::Service {
  grpc::Status Count(grpc::ServerContext*, const inventory::Item* item,
                     inventory::Stock* stock) override {
    stock->set_count(static_cast<int64_t>(item->name().size()));
    return grpc::Status::OK;
  }
};

absl::Status CallByName(const conclave::Client& client) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
      conclave::Dial(client, "inventory", grpc::InsecureChannelCredentials());
  if (!channel.ok()) return channel.status();
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
  inventory::Item item;
  item.set_name("bolts");
  inventory::Stock stock;
  const grpc::Status status =
      inventory::Inventory::NewStub(*channel)->Count(&context, item, &stock);
  if (!status.ok()) return absl::UnavailableError(status.error_message());
  std::printf("called inventory by its name: %lld bolts\n", static_cast<long long>(stock.count()));
  return absl::OkStatus();
}

absl::Status LockAndLead(const conclave::Client& client) {
  absl::StatusOr<conclave::Session> session = client.OpenSession({.ttl = absl::Seconds(10)});
  if (!session.ok()) return session.status();
  conclave::Mutex mutex(*session, "locks/stocktaking");
  absl::StatusOr<conclave::LockGuard> guard = mutex.Lock({.timeout = absl::Seconds(10)});
  if (!guard.ok()) return guard.status();
  std::printf("holds locks/stocktaking, token %lld\n", static_cast<long long>(guard->token()));
  conclave::Election election(client, "elections/stocktaker");
  absl::StatusOr<conclave::Leadership> leadership =
      election.Campaign(*session, "me", {.timeout = absl::Seconds(10)});
  if (!leadership.ok()) return leadership.status();
  std::printf("leads elections/stocktaker, term %lld\n",
              static_cast<long long>(leadership->term()));
  if (absl::Status status = leadership->Resign(); !status.ok()) return status;
  return guard->Unlock();
}

absl::Status Run() {
  absl::StatusOr<std::unique_ptr<conclave::EmbeddedServer>> server =
      conclave::EmbeddedServer::Start({});
  if (!server.ok()) return server.status();
  absl::StatusOr<conclave::Client> client =
      conclave::Client::Connect({.endpoints = {(*server)->client_endpoint()}});
  if (!client.ok()) return client.status();

  Warehouse warehouse;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&warehouse);
  const std::unique_ptr<grpc::Server> listening = builder.BuildAndStart();
  conclave::Registry registry(*client);
  absl::StatusOr<conclave::Registration> registration =
      registry.Register({.service = "inventory", .address = "127.0.0.1:" + std::to_string(port)});
  if (!registration.ok()) return registration.status();

  if (absl::Status status = CallByName(*client); !status.ok()) return status;
  if (absl::Status status = LockAndLead(*client); !status.ok()) return status;
  return registration->Deregister();
}

}  // namespace

int main() {
  const absl::Status status = Run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
