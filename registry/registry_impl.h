// RegistryImpl: what the registrations of one Registry share: leases, overrides, the thread of
// their health checks, and the knowledge of which keys are taken.
//
// Thread: any, but for what is marked as of the loop. It lives as long as a handle or a
// registration.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "conclave/client/client_impl.h"
#include "conclave/registry/override_book.h"
#include "conclave/registry/registry.h"
#include "conclave/registry/shared_lease.h"

namespace conclave {

class RegistryImpl {
 public:
  RegistryImpl(std::shared_ptr<ClientImpl> client, RegistryOptions options)
      : client_(std::move(client)), options_(std::move(options)) {}

  const std::shared_ptr<ClientImpl>& client() const { return client_; }
  const RegistryOptions& options() const { return options_; }

  // False: somebody has it. The key is one's own until Release.
  bool Take(const std::string& key);
  void Release(const std::string& key);

  // The thread of the health checks, from the first one on.
  std::shared_ptr<Executor> checks();

  // On the loop.
  std::shared_ptr<SharedLease> NewLease(Engine& engine, int64_t ttl_seconds);
  std::shared_ptr<SharedLease> LeaseOfTtl(Engine& engine, int64_t ttl_seconds);
  std::shared_ptr<OverrideBook> Overrides(Engine& engine);

 private:
  // For what the loop's thread has to complain of.
  std::function<void(const std::string&)> Complaints() const;

  const std::shared_ptr<ClientImpl> client_;
  const RegistryOptions options_;
  std::mutex mutex_;
  std::set<std::string> taken_;                           // guarded by mutex_
  std::weak_ptr<Executor> checks_;                        // guarded by mutex_
  std::map<int64_t, std::weak_ptr<SharedLease>> leases_;  // on the loop
  std::weak_ptr<OverrideBook> overrides_;                 // on the loop
};

}  // namespace conclave
