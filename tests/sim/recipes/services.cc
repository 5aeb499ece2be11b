// The workloads of registration, discovery and observing.
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/discovery/service_state.h"
#include "conclave/election/leader_tracker.h"
#include "conclave/registry/codec.h"
#include "conclave/registry/registrar.h"
#include "conclave/registry/shared_lease.h"
#include "conclave/tests/sim/recipes/workloads.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kService[] = "svc";
constexpr char kElection[] = "election/0/";

class Provider : public Workload {
 public:
  Provider(const WorkloadWorld& world, Process* process, int number, bool left_alone)
      : world_(world), process_(process), number_(number), left_alone_(left_alone) {
    process_->RunAfter(milliseconds(prng().Between(0, 1000)), [this](Engine&) { Register(); });
  }

  void Finish() override {
    process_->Run([this](Engine&) { Deregister(); });
    finishing_ = true;
  }
  void Died() override {
    if (registrar_ == nullptr) return;
    trace().stopped = world_.simulation->schedule().now();
  }

 private:
  Prng& prng() { return world_.simulation->prng(); }
  InstanceTrace& trace() { return world_.history->instances[trace_]; }

  void Register() {
    if (finishing_) return;
    Instance instance;
    instance.service = kService;
    instance.address = absl::StrCat("10.0.0.", number_, ":80");
    instance.version = absl::StrCat("v", ++versions_);
    const int64_t ttl = left_alone_ ? prng().Between(3, 4) : prng().Between(8, 12);
    trace_ = world_.history->instances.size();
    world_.history->instances.push_back({.key = absl::StrCat(kService, "/", instance.address),
                                         .ttl = seconds(ttl),
                                         .started = world_.simulation->schedule().now(),
                                         .disturbed = !left_alone_});
    lease_ = std::make_shared<SharedLease>(process_->engine(), ttl);
    registrar_ = std::make_shared<Registrar>(process_->engine(), lease_, nullptr,
                                             CodecFor(Format::kEtcdNaming), instance,
                                             [](const Registrar::Event&) {});
    registrar_->Start();
    if (prng().Chance(1, 2)) return;  // it stays
    process_->RunAfter(milliseconds(prng().Between(2000, 15000)), [this](Engine&) {
      Deregister();
      process_->RunAfter(milliseconds(prng().Between(100, 3000)), [this](Engine&) { Register(); });
    });
  }

  void Deregister() {
    if (registrar_ == nullptr) return;
    trace().stopped = world_.simulation->schedule().now();
    std::shared_ptr<Registrar> registrar = std::exchange(registrar_, nullptr);
    registrar->Stop(process_->engine().now() + seconds(10),
                    [registrar, lease = std::exchange(lease_, nullptr)](const absl::Status&) {});
  }

  const WorkloadWorld world_;
  Process* const process_;
  const int number_;
  const bool left_alone_;
  std::shared_ptr<SharedLease> lease_;
  std::shared_ptr<Registrar> registrar_;
  size_t trace_ = 0;
  int versions_ = 0;
  bool finishing_ = false;
};

class Watcher : public Workload {
 public:
  Watcher(const WorkloadWorld& world, Process* process)
      : world_(world), process_(process), state_({.service = kService}) {
    observer_ = world_.history->observers.size();
    world_.history->observers.push_back({.prefix = kElection});
    view_ = world_.history->views.size();
    world_.history->views.push_back({.prefix = absl::StrCat(kService, "/")});
    process_->Run([this](Engine& engine) {
      engine.watches().Add(Prefix(kElection), {.list_first = true},
                           [this](WatchBatch batch) { Observe(batch); });
      WatchOptions options;
      options.list_first = true;
      options.serializable_list = true;
      options.report_connection = true;
      engine.watches().Add(Prefix(absl::StrCat(kService, "/")), options,
                           [this](WatchBatch batch) { Resolve(batch); });
    });
  }

  void Finish() override {
    // Alive in the end: it has had the time to hear everything.
    world_.history->observers[observer_].must_be_complete = true;
    world_.history->views[view_].must_be_complete = true;
    world_.history->views[view_].attentive_from = world_.history->calm + seconds(3);
  }
  void Died() override {}

 private:
  void Observe(const WatchBatch& batch) {
    ObserverTrace::Batch seen{.revision = batch.revision, .resynced = batch.resynced};
    for (const std::optional<LeaderInfo>& leader : tracker_.Apply(batch)) {
      if (!leader.has_value()) {
        seen.changes.emplace_back();
      } else {
        seen.changes.push_back(
            LeaderSeen{leader->key, leader->proposal, leader->lease, leader->term});
      }
    }
    if (seen.resynced || !seen.changes.empty() || !batch.events.empty()) {
      world_.history->observers[observer_].batches.push_back(std::move(seen));
    }
  }

  void Resolve(const WatchBatch& batch) {
    const Instant now = world_.simulation->schedule().now();
    const absl::Time time = absl::UnixEpoch() + absl::FromChrono(now.time_since_epoch());
    const ServiceState::Change change = state_.Apply(batch, time);
    if (change.snapshot == nullptr || !change.snapshot->known()) return;
    ViewTrace::View view{.at = now, .revision = change.snapshot->revision()};
    const InstanceList& instances = change.snapshot->instances();
    for (size_t i = 0; i < instances.size(); ++i) view.keys.push_back(instances.key(i));
    world_.history->views[view_].views.push_back(std::move(view));
  }

  const WorkloadWorld world_;
  Process* const process_;
  LeaderTracker tracker_;
  ServiceState state_;
  size_t observer_ = 0;
  size_t view_ = 0;
};

}  // namespace

std::unique_ptr<Workload> MakeProvider(const WorkloadWorld& world, Process* process, int number,
                                       bool left_alone) {
  return std::make_unique<Provider>(world, process, number, left_alone);
}

std::unique_ptr<Workload> MakeWatcher(const WorkloadWorld& world, Process* process) {
  return std::make_unique<Watcher>(world, process);
}

}  // namespace conclave::sim
