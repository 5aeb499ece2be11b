#include "conclave/tests/faults/acknowledged_writes.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::testing {
namespace {

constexpr int kWriters = 3;
constexpr absl::Duration kReadPatience = absl::Seconds(60);
constexpr char kPrefix[] = "written/";

absl::StatusOr<Client> ClientOf(const std::vector<std::string>& endpoints) {
  return Client::Connect({.endpoints = endpoints, .log_sink = [](LogLevel, std::string_view) {}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<AcknowledgedWrites>> AcknowledgedWrites::Start(
    const TestCluster& cluster) {
  auto writes = std::make_unique<AcknowledgedWrites>();
  for (int i = 0; i < kWriters; ++i) {
    absl::StatusOr<Client> client = ClientOf(cluster.endpoints());
    if (!client.ok()) return client.status();
    writes->threads_.emplace_back(
        [writes = writes.get(), client = *std::move(client), i] { writes->Run(client, i); });
  }
  return writes;
}

void AcknowledgedWrites::Run(const Client& client, int id) {
  for (int n = 0; !ending_; ++n) {
    const std::string key = absl::StrCat(kPrefix, id, "/", n);
    if (!client.Put(key, "value", {}, {.timeout = absl::Seconds(2)}).ok()) continue;
    std::lock_guard lock(mutex_);
    keys_.insert(key);
  }
}

void AcknowledgedWrites::End() {
  ending_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

size_t AcknowledgedWrites::count() const {
  std::lock_guard lock(mutex_);
  return keys_.size();
}

absl::StatusOr<int> AcknowledgedWrites::CountLost(const TestCluster& cluster) const {
  int lost = 0;
  for (int i = 0; i < cluster.size(); ++i) {
    const absl::StatusOr<Client> client = ClientOf({cluster.endpoint(i)});
    if (!client.ok()) return client.status();
    const auto there =
        client->Range(Prefix(kPrefix), {.keys_only = true}, {.timeout = kReadPatience});
    if (!there.ok()) return there.status();
    std::set<std::string> left = keys_;
    for (const KeyValue& kv : there->kvs) left.erase(kv.key);
    lost += static_cast<int>(left.size());
  }
  return lost;
}

}  // namespace conclave::testing
