// Stm: software transactions. A function reads and writes as if it were alone; what it did is
// committed at once, or done anew if somebody interfered.
//
//   absl::Status status = client.Atomically([](conclave::Stm& tx) -> absl::Status {
//     const int64_t balance = tx.GetInt("accounts/alice").value_or(0);
//     if (balance < 10) return absl::FailedPreconditionError("not enough");
//     tx.PutInt("accounts/alice", balance - 10);
//     tx.PutInt("accounts/bob", tx.GetInt("accounts/bob").value_or(0) + 10);
//     return absl::OkStatus();
//   });
//
// The function runs on the caller's thread, once for each attempt, so it must do nothing that an
// attempt too many would harm. What it returns but OK ends the transaction without any effect.
// What is read, compared and committed stands in core/stm_core.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "conclave/client/core/stm_core.h"
#include "conclave/client/core/types.h"

namespace conclave {

class StmRun;

struct AtomicallyOptions {
  Isolation isolation = Isolation::kSerializableSnapshot;
  // A key that no other thread and no other process uses ("stm/worker-7"); every commit writes it,
  // too. With it a commit whose answer was lost is settled, not reported as of unknown outcome: it
  // is then found out whether it happened, or made sure that it never will.
  std::string marker{};
};

// The view of one attempt. A read that fails ends the attempt: from then on nothing is there, the
// function's work is thrown away, and Atomically returns why. So an absent key and a failed read
// may look the same to the function without harm.
class Stm {
 public:
  Stm(const Stm&) = delete;
  Stm& operator=(const Stm&) = delete;

  // Absent: nullopt. Own writes are seen.
  std::optional<std::string> Get(std::string_view key);
  // Of a key that this attempt has written: without revisions.
  std::optional<KeyValue> GetKeyValue(std::string_view key);
  // A decimal number. Anything else there ends the transaction with InvalidArgument.
  std::optional<int64_t> GetInt(std::string_view key);
  // In the order of the keys; at most 1000 (kStmRangeKeysMax). Keys that appear in the range until
  // the commit are conflicts, as are changed and deleted ones.
  std::vector<KeyValue> Range(const KeyRange& range);

  void Put(std::string_view key, std::string_view value, LeaseId lease = 0);
  void PutInt(std::string_view key, int64_t value);
  void Delete(std::string_view key);

  // OK as long as every read gave what is there.
  const absl::Status& status() const;

 private:
  friend class StmRun;
  explicit Stm(StmRun& run) : run_(run) {}
  StmRun& run_;
};

}  // namespace conclave
