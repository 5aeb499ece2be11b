// The store below the recipes: put, get, a transaction, a watch, a lease.
//
//   kv_demo --endpoints 127.0.0.1:2379
//
// Works against any server of the etcd v3 protocol. Leaves nothing behind under its prefix.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"
#include "conclave/client/client.h"
#include "conclave/examples/flags.h"

namespace conclave::examples {
namespace {

absl::Status Demonstrate(const std::vector<std::string>& endpoints, const std::string& prefix) {
  CONCLAVE_ASSIGN_OR_RETURN(Client client, Client::Connect({.endpoints = endpoints}));

  // Every write has a revision: one number for the whole store, that grows with every change of it.
  CONCLAVE_ASSIGN_OR_RETURN(PutResult put, client.Put(prefix + "rate", "100"));
  std::printf("put rate=100 at revision %lld\n", static_cast<long long>(put.revision));

  // An absent key is not an error.
  CONCLAVE_ASSIGN_OR_RETURN(std::optional<KeyValue> rate, client.Get(prefix + "rate"));
  CONCLAVE_ASSIGN_OR_RETURN(std::optional<KeyValue> absent, client.Get(prefix + "absent"));
  std::printf("rate is %s, absent is %s\n", rate.has_value() ? rate->value.c_str() : "absent",
              absent.has_value() ? absent->value.c_str() : "absent");

  // A watch delivers every change once and in order, and survives lost connections.
  absl::Notification seen;
  Watch watch = client.Watch(
      Prefix(prefix), {.from_revision = put.revision + 1}, [&seen](const WatchBatch& batch) {
        for (const WatchEvent& event : batch.events) {
          std::printf("watch: %s=%s\n", event.kv.key.c_str(), event.kv.value.c_str());
          if (!seen.HasBeenNotified()) seen.Notify();
        }
      });

  // Change it only if nobody else has since we looked.
  CONCLAVE_ASSIGN_OR_RETURN(TxnResult changed, client.Txn()
                                                   .If(ModRevision(prefix + "rate") == put.revision)
                                                   .Then(Put(prefix + "rate", "200"))
                                                   .Else(Get(prefix + "rate"))
                                                   .Commit());
  std::printf("compare-and-set %s\n", changed.succeeded ? "succeeded" : "lost the race");
  if (!seen.WaitForNotificationWithTimeout(absl::Seconds(10))) {
    return absl::DeadlineExceededError("the watch has not seen the change");
  }
  watch.Cancel();

  // What hangs on a lease goes with it. A Session keeps its lease alive until it is closed.
  CONCLAVE_ASSIGN_OR_RETURN(Session session, client.OpenSession({.ttl = absl::Seconds(5)}));
  CONCLAVE_ASSIGN_OR_RETURN(put,
                            client.Put(prefix + "alive", "yes", {.lease = session.lease_id()}));
  CONCLAVE_RETURN_IF_ERROR(session.Close());
  CONCLAVE_ASSIGN_OR_RETURN(std::optional<KeyValue> alive, client.Get(prefix + "alive"));
  std::printf("after the session alive is %s\n", alive.has_value() ? "still there" : "gone");

  CONCLAVE_ASSIGN_OR_RETURN(DeleteResult gone, client.Delete(Prefix(prefix)));
  std::printf("deleted %lld keys\n", static_cast<long long>(gone.deleted));
  return absl::OkStatus();
}

}  // namespace
}  // namespace conclave::examples

int main(int argc, char** argv) {
  std::vector<std::string> endpoints = {"127.0.0.1:2379"};
  std::string prefix = "kv_demo/";
  conclave::examples::Flags("Shows puts, gets, a transaction, a watch and a lease.")
      .List("endpoints", "members of the cluster, host:port", &endpoints)
      .Text("prefix", "of the keys that it uses", &prefix)
      .Parse(argc, argv);
  const absl::Status status = conclave::examples::Demonstrate(endpoints, prefix);
  if (!status.ok()) std::fprintf(stderr, "kv_demo: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
