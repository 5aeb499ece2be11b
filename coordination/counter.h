// Counter: one number for the whole cluster. IdRanges: unique numbers, in blocks.
//
//   conclave::Counter hits(client, "counters/hits");
//   absl::StatusOr<int64_t> now = hits.Add(1);
//
//   conclave::IdRanges orders(client, "ids/orders", {.block = 1000});
//   absl::StatusOr<int64_t> id = orders.Next();
//
// A counter is one key with the number in decimal; an absent key is 0. IdRanges keeps how many
// ids have been given away in a counter of that name.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"

namespace conclave {

// Thread: any.
//
// Changes compare the revision they read, and try again with full jitter when another was faster. A
// write whose answer was lost is not repeated, for it may have counted: the status then says
// Outcome::kUnknown (IsOutcomeUnknown).
class Counter {
 public:
  Counter(const Client& client, std::string_view name);

  absl::StatusOr<int64_t> Get(const CallOptions& call = {}) const;
  absl::Status Set(int64_t value, const CallOptions& call = {});
  // The new value. OutOfRange: it does not fit, and nothing was changed. Without a timeout it tries
  // for the client's request_timeout.
  absl::StatusOr<int64_t> Add(int64_t delta, const CallOptions& call = {});
  // Sets `desired` if the value is `expected`: whether it was.
  absl::StatusOr<bool> CompareAndSet(int64_t expected, int64_t desired,
                                     const CallOptions& call = {});

 private:
  struct Reading {
    int64_t value = 0;
    int64_t mod_revision = 0;
  };
  absl::StatusOr<Reading> Read(const CallOptions& call) const;

  Client client_;
  std::string name_;
};

struct IdRangesOptions {
  int64_t block = 1000;  // how many are taken at a time, 1 to kBlockMax
  int64_t first = 1;     // the very first id, the same for everybody; not negative
};

struct IdRange {
  int64_t begin = 0;
  int64_t end = 0;  // not in it

  friend bool operator==(const IdRange&, const IdRange&) = default;
};

// Ids are unique in the cluster, and grow in one IdRanges. A process that ends takes what is left
// of its block with it: at most a block is lost, none comes twice. Thread: any; one call goes to
// the cluster at a time, the others wait for its block.
class IdRanges {
 public:
  static constexpr int64_t kBlockMax = int64_t{1} << 40;

  IdRanges(const Client& client, std::string_view name, const IdRangesOptions& options = {});

  absl::StatusOr<int64_t> Next(const CallOptions& call = {});
  // A range of its own, past the local block. A lost answer loses the range, nothing else, so it is
  // taken again until `call` is over.
  absl::StatusOr<IdRange> Allocate(int64_t count, const CallOptions& call = {});

 private:
  Client client_;
  Counter counter_;
  const std::string name_;
  const IdRangesOptions options_;
  std::mutex mutex_;
  IdRange left_;  // guarded by mutex_
};

namespace counter_internal {
// The number in a counter's value; FailedPrecondition for anything else.
absl::StatusOr<int64_t> ParseNumber(std::string_view text);
// OutOfRange when the sum does not fit.
absl::StatusOr<int64_t> Sum(int64_t value, int64_t delta);
}  // namespace counter_internal

}  // namespace conclave
