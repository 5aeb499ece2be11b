#include "conclave/server/app/password_worker.h"

#include <openssl/rand.h>

#include <chrono>
#include <utility>

#include "conclave/base/check.h"

namespace conclave::app {

PasswordWorker::PasswordWorker(std::shared_ptr<const auth::TokenSigner> signer, Done done)
    : signer_(std::move(signer)), done_(std::move(done)) {}

PasswordWorker::~PasswordWorker() {
  stopping_.store(true, std::memory_order_relaxed);
  worker_.reset();
}

void PasswordWorker::Take(auth::PasswordJob job) {
  if (worker_ == nullptr) worker_ = std::make_unique<posix::Worker>();
  worker_->Run([this, job = std::move(job)] {
    if (stopping_.load(std::memory_order_relaxed)) return;
    auth::RandomBytes random;
    CONCLAVE_CHECK(RAND_priv_bytes(random.data(), static_cast<int>(random.size())) == 1,
                   "no random numbers");
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    const int64_t unix_seconds = std::chrono::duration_cast<std::chrono::seconds>(wall).count();
    done_(std::make_unique<auth::PasswordOutcome>(
        auth::RunPasswordJob(job, signer_.get(), unix_seconds, random)));
    auth::Wipe(reinterpret_cast<char*>(random.data()), random.size());
  });
}

}  // namespace conclave::app
