#include "conclave/server/node/settings.h"

#include <algorithm>

namespace conclave::node {

Duration SuspicionOf(const Options& options) {
  constexpr int kMissedHeartbeats = 4;
  // What a process on a loaded machine may be kept waiting for its turn, and more.
  constexpr Duration kLeast = std::chrono::milliseconds(400);
  return std::min(std::max(kMissedHeartbeats * options.heartbeat_interval, kLeast),
                  options.election_timeout);
}

Duration VerifiedFor(const Options& options) { return SuspicionOf(options) / 2; }

Duration SlowSyncOf(const Options& options) {
  return options.slow_sync > Duration::zero() ? options.slow_sync : options.election_timeout / 2;
}

apply::StateMachineOptions StateSettings(const Options& options) {
  apply::StateMachineOptions settings;
  settings.member_id = options.id.value();
  settings.limits.request_bytes_max = options.request_bytes_max;
  settings.limits.txn_ops_max = options.txn_ops_max;
  settings.quota_bytes = options.quota_bytes == 0 ? apply::kDefaultQuotaBytes : options.quota_bytes;
  // The least TTL is ceil(1.5 * election timeout), as in etcd.
  constexpr Duration kSecond = std::chrono::seconds(1);
  const Duration least = options.election_timeout * 3 / 2;
  settings.lease_ttl_min_s = (least + kSecond - Duration(1)) / kSecond;
  settings.auth_token_ttl = options.auth_token_ttl;
  settings.lessor.checkpoint_lag_min = options.lease_checkpoint_lag;
  return settings;
}

}  // namespace conclave::node
