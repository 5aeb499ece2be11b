// Barrier: many wait until one opens the way.
//
//   conclave::Barrier barrier(client, "barriers/migration");
//   absl::Status held = barrier.Hold();          // the one
//   absl::Status open = barrier.Wait();          // the others: until Release
//
// The barrier is one key of that name; who waits, waits for it to go. Where there is no key there
// is no barrier: Wait returns at once. (Go's recipe of the same key waits until somebody holds it
// and releases it again.)
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"

namespace conclave {

// Thread: any. Waiting blocks the caller and nobody else.
class Barrier {
 public:
  // The name is not empty; every call says InvalidArgument else.
  Barrier(const Client& client, std::string_view name);

  // AlreadyExists: somebody holds it. It stays until Release.
  absl::Status Hold(const CallOptions& call = {});
  // The same, and it goes with the session: who dies holding it opens the way.
  absl::Status Hold(const Session& session, const CallOptions& call = {});
  // Whoever holds it. OK also if nobody does.
  absl::Status Release(const CallOptions& call = {});
  // Until nobody holds it; without a timeout for ever. DeadlineExceeded, Cancelled as asked.
  absl::Status Wait(const CallOptions& call = {}) const;
  absl::StatusOr<bool> Held(const CallOptions& call = {}) const;

 private:
  absl::Status Hold(LeaseId lease, const CallOptions& call);

  Client client_;
  std::string name_;
};

}  // namespace conclave
