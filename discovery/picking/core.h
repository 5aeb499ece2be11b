// Core: what a picking channel does behind its calls.
//
//   snapshots of the service -> Roster -> connections -> their states -> Roster -> Routes
//
// All of it runs on the hub's thread; calls only read the Routes that were published last, and put
// the ids of backends whose calls keep failing into the inbox.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "conclave/client/client_impl.h"
#include "conclave/discovery/discovery.h"
#include "conclave/discovery/picking/connection.h"
#include "conclave/discovery/picking/hub.h"
#include "conclave/discovery/picking/metrics.h"
#include "conclave/discovery/picking/pick_table.h"
#include "conclave/discovery/picking/published.h"
#include "conclave/discovery/picking/roster.h"
#include "conclave/discovery/picking/state_bell.h"
#include "conclave/discovery/picking/stats.h"

namespace conclave::picking {

// What a call needs to find its backend. Immutable.
struct Routes {
  PickTable table;
  std::vector<std::shared_ptr<Connection>> ready{};  // of table.backends()
  // If none is ready: all there are.
  std::vector<std::shared_ptr<Connection>> unready{};
  bool failing = false;  // none is ready, and none on the way to it: a call fails with the reason
  bool known = false;    // whether the service has been heard of
  bool any = false;      // whether it has a backend, ready or not
};

class Core final : public Hub::Member {
 public:
  struct Options {
    Policy policy{};
    Roster::Options roster{};
    bool health_check = false;  // args have it
    std::shared_ptr<grpc::ChannelCredentials> credentials{};
    grpc::ChannelArguments args{};
    std::shared_ptr<ClientImpl> client{};  // for logs and metrics
  };

  Core(Options options, Service service, std::shared_ptr<Hub> hub);
  // After this nothing of it runs but calls that are under way.
  ~Core() override;

  const std::string& service() const { return service_.name(); }
  bool health_check() const { return options_.health_check; }
  const Published<Routes>& routes() const { return routes_; }
  TurnCounter& turns() { return turns_; }
  StateBell& bell() { return bell_; }
  const std::shared_ptr<MethodTable>& methods() const { return methods_; }
  PickingStats Stats() const;

  // Calls that no backend of the table got. By the threads that make calls.
  std::atomic<uint64_t> waited = 0;
  std::atomic<uint64_t> refused = 0;

 private:
  // Backends whose calls keep failing, from the threads of calls to the hub's. May outlive the
  // core.
  struct Inbox {
    std::mutex mutex;
    std::vector<uint64_t> failing;  // guarded by mutex
    std::function<void()> wake;     // set before the first connection
  };

  void OnState(uint64_t connection, grpc_connectivity_state state) override;
  Instant OnTurn(Instant now) override;
  bool TakeSnapshot();
  bool TakeInbox(Instant now);
  void Connect(uint64_t id);
  void Publish(Instant now);
  std::unique_ptr<const Routes> MakeRoutes(Instant now);
  grpc_connectivity_state StateOf(const Routes& routes) const;

  const Options options_;
  const Service service_;
  const std::shared_ptr<Hub> hub_;
  const std::shared_ptr<MethodTable> methods_ = std::make_shared<MethodTable>();
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  TurnCounter turns_;
  StateBell bell_;
  Published<Routes> routes_;

  // Written on the hub's thread only, under the lock for the sake of Stats.
  mutable std::mutex mutex_;
  Roster roster_;
  std::map<uint64_t, std::shared_ptr<Connection>> connections_;
  bool panic_ = false;

  // Of the hub's thread.
  std::shared_ptr<const Snapshot> snapshot_;
  bool changed_ = false;  // since the last Publish
  Metrics metrics_;
  Instant metrics_due_{};

  uint64_t number_ = 0;  // at the hub
  Subscription subscription_;
};

}  // namespace conclave::picking
