// What a range request asks for, and how its answer is put together: from records straight into the
// encoded response, in one pass if keys are wanted in their own order, through sorted runs
// otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/responses.h"
#include "conclave/api/wire/writer.h"
#include "conclave/server/apply/read_task.h"
#include "conclave/server/mvcc/record.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::apply {

// The revision that a request reads at: mvcc::kLatest for "now". kErrFutureRevision, kErrCompacted.
[[nodiscard]] const wire::Error* ResolveRevision(const mvcc::Store& store, int64_t requested,
                                                 int64_t* revision);

// A record as the wire has it.
inline wire::KeyValue View(const mvcc::Record& record) {
  return {record.key(),     record.create_revision(), record.mod_revision(),
          record.version(), record.value(),           record.lease()};
}

// Order, filters, limit and projection of a range request: everything but the keys.
class RangeShape {
 public:
  explicit RangeShape(const wire::RangeRequest& request);

  bool count_only() const { return count_only_; }
  // True if the answer is not simply in the order of keys.
  bool sorted() const { return sorted_; }
  // Most keys in the answer.
  int64_t limit() const { return limit_; }
  // Most keys to look at.
  int64_t fetch_max() const { return fetch_max_; }

  bool Keeps(const mvcc::Record& record) const {
    return !filtered_ ||
           (record.mod_revision() >= min_mod_ && record.mod_revision() <= max_mod_ &&
            record.create_revision() >= min_create_ && record.create_revision() <= max_create_);
  }
  // The order of a sorted answer; equal ones in the order of their keys.
  bool Before(const mvcc::Record& a, const mvcc::Record& b) const;

  wire::KeyValue Project(const mvcc::Record& record) const {
    wire::KeyValue kv = View(record);
    if (keys_only_) {
      kv.value = {};
      if (keys_only_drops_lease_) kv.lease = 0;
    }
    return kv;
  }

 private:
  int Compare(const mvcc::Record& a, const mvcc::Record& b) const;

  wire::SortTarget target_;
  bool sorted_;
  bool descend_;
  bool filtered_;
  bool keys_only_;
  bool keys_only_drops_lease_;
  bool count_only_;
  int64_t limit_;
  int64_t fetch_max_;
  int64_t min_mod_;
  int64_t max_mod_;
  int64_t min_create_;
  int64_t max_create_;
};

// Takes the records of a range in the order of their keys and appends kvs, more and count to a
// response.
class RangeCollector {
 public:
  // `count` is the number of keys in the range, if that is known already; else all of them have to
  // be added. `builder` stands behind the header, and must outlive the collector.
  RangeCollector(const RangeShape& shape, std::optional<int64_t> count, wire::Builder* builder)
      : shape_(shape), count_(count), builder_(builder) {}

  // False if no more records are needed.
  bool wants_more() const { return !count_.has_value() || !enough_; }
  void Add(const mvcc::Record& record);
  // Between Adds: what came since the last call becomes one sorted run. Bounds the work of one
  // slice.
  void CloseRun();

  // After the last Add: writes at most `budget` kvs; true when the response is complete.
  [[nodiscard]] bool Emit(size_t budget);

 private:
  struct Run {
    size_t next;
    size_t end;
  };

  void PrepareMerge();

  RangeShape shape_;
  std::optional<int64_t> count_;
  wire::Builder* builder_;
  int64_t seen_ = 0;   // records added
  int64_t taken_ = 0;  // of them, in the answer
  bool enough_ = false;
  bool more_ = false;
  // Sorted answers only.
  std::vector<mvcc::RecordRef> kept_;
  size_t run_begin_ = 0;
  int64_t kept_count_ = 0;  // before runs were cut to the limit
  std::vector<Run> runs_;   // a heap once merging has begun
  bool merging_ = false;
};

// Appends a whole RangeResponse to `builder`, with this header, at once. `revision` is a resolved
// one.
void AppendRange(const mvcc::Store& store, const wire::RangeRequest& request, int64_t revision,
                 const wire::ResponseHeader& header, wire::Builder* builder);

// The same in slices. `count` as for RangeCollector; the request's views need not outlive the call.
[[nodiscard]] std::unique_ptr<ReadTask> MakeRangeTask(mvcc::Store* store,
                                                      const wire::RangeRequest& request,
                                                      int64_t revision,
                                                      std::optional<int64_t> count,
                                                      const wire::ResponseHeader& header);

}  // namespace conclave::apply
