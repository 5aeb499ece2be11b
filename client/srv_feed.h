// SrvFeed: asks the DNS for a cluster's endpoints, now and at every interval.
//
// The resolver blocks, so each round of questions has a thread of its own, which ends with the
// answer; there is never more than one. An answer that fails is asked for again with growing pauses
// (full jitter), and what was known stays.
#pragma once

#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/engine_loop.h"
#include "conclave/client/dns/srv_lookup.h"

namespace conclave {

class SrvFeed {
 public:
  // `on_answer` runs on the loop's thread, with at least one endpoint.
  using OnAnswer = absl::AnyInvocable<void(std::vector<std::string>)>;

  SrvFeed(EngineLoop& loop, std::vector<SrvTarget> targets, Duration interval, OnAnswer on_answer);
  ~SrvFeed() { Stop(); }
  SrvFeed(const SrvFeed&) = delete;
  SrvFeed& operator=(const SrvFeed&) = delete;

  void Start(Engine& engine);  // on the loop's thread
  // Waits for a question that is under way (LookupSrv says how long that may take). Before the loop
  // ends, and not on its thread.
  void Stop();

 private:
  struct Answer {
    std::vector<std::string> endpoints{};
    absl::Status status{};  // the first failure
  };

  Answer Ask() const;
  void OnAsked(Engine& engine, Answer answer);

  EngineLoop& loop_;
  const std::vector<SrvTarget> targets_;
  const Duration interval_;
  OnAnswer on_answer_;
  int failures_ = 0;  // in a row
  bool known_ = false;
  std::mutex mutex_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;     // guarded by mutex_
};

}  // namespace conclave
