// PasswordWorker: runs a node's password jobs on a thread of its own, one after the other. The
// thread is there from the first job on: most servers never have one.
//
// Threads: Take from one thread at a time; `done` runs on the worker. The destructor drops what has
// not begun.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "conclave/server/auth/jwt.h"
#include "conclave/server/auth/password.h"
#include "conclave/server/posix/worker.h"

namespace conclave::app {

class PasswordWorker {
 public:
  using Done = std::function<void(std::unique_ptr<auth::PasswordOutcome>)>;

  // `signer` may be null.
  PasswordWorker(std::shared_ptr<const auth::TokenSigner> signer, Done done);
  ~PasswordWorker();

  void Take(auth::PasswordJob job);

 private:
  const std::shared_ptr<const auth::TokenSigner> signer_;
  const Done done_;
  std::atomic<bool> stopping_{false};
  std::unique_ptr<posix::Worker> worker_;
};

}  // namespace conclave::app
