#include "conclave/registry/registry_impl.h"

#include "absl/strings/str_cat.h"

namespace conclave {

bool RegistryImpl::Take(const std::string& key) {
  std::lock_guard lock(mutex_);
  return taken_.insert(key).second;
}

void RegistryImpl::Release(const std::string& key) {
  std::lock_guard lock(mutex_);
  taken_.erase(key);
}

std::shared_ptr<Executor> RegistryImpl::checks() {
  std::lock_guard lock(mutex_);
  std::shared_ptr<Executor> checks = checks_.lock();
  if (checks != nullptr) return checks;
  // Its end waits for a check that runs, which may be waiting for the loop: so not on the loop.
  checks = std::shared_ptr<Executor>(new Executor("conclave-checks"),
                                     [client = client_](Executor* executor) {
                                       if (client->loop().OnThisThread()) {
                                         client->callbacks().Run([executor] { delete executor; });
                                       } else {
                                         delete executor;
                                       }
                                     });
  checks_ = checks;
  return checks;
}

std::function<void(const std::string&)> RegistryImpl::Complaints() const {
  // The client outlives its loop's work, which this is called from.
  return [client = client_.get()](const std::string& complaint) {
    client->Log(LogLevel::kWarning, absl::StrCat("registry: ", complaint));
  };
}

std::shared_ptr<SharedLease> RegistryImpl::NewLease(Engine& engine, int64_t ttl_seconds) {
  return std::make_shared<SharedLease>(engine, ttl_seconds, Complaints());
}

std::shared_ptr<SharedLease> RegistryImpl::LeaseOfTtl(Engine& engine, int64_t ttl_seconds) {
  std::weak_ptr<SharedLease>& weak = leases_[ttl_seconds];
  std::shared_ptr<SharedLease> lease = weak.lock();
  if (lease == nullptr) {
    lease = NewLease(engine, ttl_seconds);
    weak = lease;
  }
  return lease;
}

std::shared_ptr<OverrideBook> RegistryImpl::Overrides(Engine& engine) {
  if (options_.override_prefix.empty()) return nullptr;
  std::shared_ptr<OverrideBook> overrides = overrides_.lock();
  if (overrides == nullptr) {
    overrides = std::make_shared<OverrideBook>(engine, options_.override_prefix, Complaints());
    overrides_ = overrides;
  }
  return overrides;
}

}  // namespace conclave
