// HealthMonitor: runs a HealthCheck for one registration and gives the registrar its verdict.
//
// Threads: the loop's, but for the check itself, which runs on `checks`, and for reports of a
// source, which come from anywhere. Cancel may be called from any thread, also from within the
// check: after it has returned the check does not run and the source is gone.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "conclave/client/client_impl.h"
#include "conclave/registry/health.h"
#include "conclave/registry/health_damper.h"

namespace conclave {

class HealthMonitor : public std::enable_shared_from_this<HealthMonitor> {
 public:
  // `checks` is only used if there is a check. `publish` runs on the loop.
  HealthMonitor(std::shared_ptr<ClientImpl> client, HealthCheck health,
                std::shared_ptr<Executor> checks, std::function<void(const absl::Status&)> publish);

  void Start(Engine& engine);
  void Cancel();

 private:
  void Tick(Engine& engine);
  void OnStarted(Engine& engine, uint64_t run);
  void OnHanging(Engine& engine, uint64_t run);
  void OnFinished(Engine& engine, uint64_t run, const absl::Status& answer);
  void RunCheck(uint64_t run);

  const std::shared_ptr<ClientImpl> client_;
  const HealthCheck health_;
  const std::shared_ptr<Executor> checks_;
  GuardedCallback<absl::Status*> check_;

  // On the loop.
  std::function<void(const absl::Status&)> publish_;
  std::shared_ptr<HealthDamper> damper_;
  bool stopped_ = false;
  uint64_t run_ = 0;
  bool late_ = false;  // this run has been counted as bad already
  Instant due_{};      // the next one
  TimerId timer_{};
  TimerId patience_{};

  std::mutex mutex_;
  bool cancelled_ = false;                // guarded by mutex_
  std::unique_ptr<HealthSource> source_;  // guarded by mutex_
};

}  // namespace conclave
