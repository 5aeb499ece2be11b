// A watcher that opens a stream and does not read from it.
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/client/client.h"
#include "conclave/tests/gates/gates.h"

namespace conclave::gates {
namespace {

using testing::ServerKind;
using testing::TestCluster;

constexpr int64_t kValueBytes = 64 << 10;
// What may be on the way to it: windows of the stream and the kernel's buffers.
constexpr int64_t kSlackBytes = 24 << 20;

int64_t ResidentBytes(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/statm"));
  int64_t total = 0;
  int64_t resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// Writes so many bytes on a fresh server, with or without a watcher that does not read; gives by
// how much the server has grown. With one, it then reads all and counts.
absl::StatusOr<int64_t> Growth(ServerKind kind, int64_t puts, bool watched, int64_t* events) {
  absl::StatusOr<std::unique_ptr<TestCluster>> cluster =
      TestCluster::Start(TestCluster::Options{.kind = kind, .members = 1});
  if (!cluster.ok()) return cluster.status();
  absl::StatusOr<Client> client = Client::Connect({.endpoints = (*cluster)->endpoints()});
  if (!client.ok()) return client.status();
  const pid_t pid = (*cluster)->pid(0);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const auto stub = etcdserverpb::Watch::NewStub(grpc::CreateCustomChannel(
      (*cluster)->endpoint(0), grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>>
      stream;
  if (watched) {
    stream = stub->Watch(&context);
    etcdserverpb::WatchRequest create;
    create.mutable_create_request()->set_key("big");
    etcdserverpb::WatchResponse created;
    if (!stream->Write(create) || !stream->Read(&created) || !created.created()) {
      return absl::UnavailableError("the watch is not created");
    }
  }
  const int64_t before = ResidentBytes(pid);
  const std::string value(static_cast<size_t>(kValueBytes), 'x');
  for (int64_t i = 0; i < puts; ++i) {
    if (auto put = client->Put("big", value); !put.ok()) return put.status();
  }
  const int64_t grown = ResidentBytes(pid) - before;
  etcdserverpb::WatchResponse response;
  int64_t version = 1;
  while (watched && *events < puts && stream->Read(&response)) {
    for (const mvccpb::Event& event : response.events()) {
      if (event.kv().version() != version++) return absl::DataLossError("an event is missing");
      ++*events;
    }
  }
  return grown;
}

}  // namespace

absl::StatusOr<Result> SlowWatcher(ServerKind kind, const Scale& scale) {
  const int64_t puts = scale.watched_bytes / kValueBytes;
  int64_t events = 0;
  const absl::StatusOr<int64_t> alone = Growth(kind, puts, false, &events);
  if (!alone.ok()) return alone.status();
  const absl::StatusOr<int64_t> watched = Growth(kind, puts, true, &events);
  if (!watched.ok()) return watched.status();
  const int64_t more = *watched - *alone;
  return Result{.kept = more <= kSlackBytes && events == puts,
                .measured = absl::StrCat(more >> 20, " MiB more than without it behind ",
                                         scale.watched_bytes >> 20, " MiB of events; then it read ",
                                         events, " of ", puts)};
}

}  // namespace conclave::gates
