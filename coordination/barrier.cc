#include "conclave/coordination/barrier.h"

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/names.h"

namespace conclave {

Barrier::Barrier(const Client& client, std::string_view name) : client_(client), name_(name) {}

absl::Status Barrier::Hold(const CallOptions& call) { return Hold(LeaseId{0}, call); }

absl::Status Barrier::Hold(const Session& session, const CallOptions& call) {
  if (!session.alive()) return absl::AbortedError("the session is lost");
  return Hold(session.lease_id(), call);
}

absl::Status Barrier::Hold(LeaseId lease, const CallOptions& call) {
  if (absl::Status valid = CheckName("a barrier", name_); !valid.ok()) return valid;
  absl::StatusOr<TxnResult> held =
      client_.Txn().If(Absent(name_)).Then(Put(name_, "", {.lease = lease})).Commit(call);
  if (!held.ok()) return held.status();
  if (!held->succeeded) return absl::AlreadyExistsError(absl::StrCat(name_, " is held already"));
  return absl::OkStatus();
}

absl::Status Barrier::Release(const CallOptions& call) {
  if (absl::Status valid = CheckName("a barrier", name_); !valid.ok()) return valid;
  return client_.Delete(name_, {}, call).status();
}

absl::StatusOr<bool> Barrier::Held(const CallOptions& call) const {
  if (absl::Status valid = CheckName("a barrier", name_); !valid.ok()) return valid;
  absl::StatusOr<std::optional<KeyValue>> key = client_.Get(name_, {}, call);
  if (!key.ok()) return key.status();
  return key->has_value();
}

absl::Status Barrier::Wait(const CallOptions& call) const {
  if (absl::Status valid = CheckName("a barrier", name_); !valid.ok()) return valid;
  Patience patience(client_.impl(), nullptr, call);
  for (;;) {
    absl::StatusOr<TxnResult> look = patience.Read({.success = {Get(name_)}});
    if (!look.ok()) return look.status();
    if (look->get(0) == nullptr) return absl::OkStatus();
    if (MUTANT("barrier-passed-without-a-look")) {
      return patience.WaitForChange(
          {.range = name_, .after_revision = look->get(0)->mod_revision - 1});
    }
    absl::Status changed =
        patience.WaitForChange({.range = name_, .after_revision = look->revision, .no_puts = true});
    if (!changed.ok()) return changed;
  }
}

}  // namespace conclave
