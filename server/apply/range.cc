#include "conclave/server/apply/range.h"

#include <algorithm>
#include <climits>

#include "conclave/base/check.h"
#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/range_cursor.h"

namespace conclave::apply {
namespace {

constexpr int64_t kUnlimited = INT64_MAX;

constexpr uint32_t kKvsField = 2;
constexpr uint32_t kMoreField = 3;
constexpr uint32_t kCountField = 4;

// What a record takes in a response beside key and value, generously.
constexpr size_t kEncodingOverhead = 40;
// Bytes that a range task reserves at most before it knows better.
constexpr size_t kReserveMax = 64 << 20;

// A message of gRPC has at most so many bytes.
constexpr size_t kResponseBytesMax = INT_MAX;
constexpr wire::Error kErrResponseTooLarge{
    wire::Code::kResourceExhausted,
    "trying to send message larger than max (response over 2147483647 bytes)"};

int CompareNumbers(int64_t a, int64_t b) { return a < b ? -1 : a > b; }

}  // namespace

const wire::Error* ResolveRevision(const mvcc::Store& store, int64_t requested, int64_t* revision) {
  if (requested <= 0) {
    *revision = mvcc::kLatest;
    return nullptr;
  }
  if (requested > store.current_revision()) return &wire::kErrFutureRevision;
  if (requested < store.compact_revision()) return &wire::kErrCompacted;
  *revision = requested;
  return nullptr;
}

RangeShape::RangeShape(const wire::RangeRequest& request)
    : target_(static_cast<wire::SortTarget>(request.sort_target)),
      keys_only_(request.keys_only),
      // As etcd does from 3.7 on, whose index alone answers keys_only where values need not be
      // compared.
      keys_only_drops_lease_(target_ != wire::SortTarget::kValue),
      count_only_(request.count_only),
      min_mod_(request.min_mod_revision == 0 ? INT64_MIN : request.min_mod_revision),
      max_mod_(request.max_mod_revision == 0 ? INT64_MAX : request.max_mod_revision),
      min_create_(request.min_create_revision == 0 ? INT64_MIN : request.min_create_revision),
      max_create_(request.max_create_revision == 0 ? INT64_MAX : request.max_create_revision) {
  const auto order = static_cast<wire::SortOrder>(request.sort_order);
  descend_ = order == wire::SortOrder::kDescend;
  sorted_ = target_ != wire::SortTarget::kKey || descend_;
  filtered_ = request.min_mod_revision != 0 || request.max_mod_revision != 0 ||
              request.min_create_revision != 0 || request.max_create_revision != 0;
  limit_ = request.limit > 0 ? request.limit : kUnlimited;
  fetch_max_ = kUnlimited;
  // The limit cuts before the sort if no order is asked for: clients of etcd know it so.
  const bool cuts_early = order == wire::SortOrder::kNone || !sorted_;
  if (cuts_early && !filtered_ && limit_ < kUnlimited) fetch_max_ = limit_ + 1;
}

int RangeShape::Compare(const mvcc::Record& a, const mvcc::Record& b) const {
  switch (target_) {
    case wire::SortTarget::kKey:
      return a.key().compare(b.key());
    case wire::SortTarget::kVersion:
      return CompareNumbers(a.version(), b.version());
    case wire::SortTarget::kCreate:
      return CompareNumbers(a.create_revision(), b.create_revision());
    case wire::SortTarget::kMod:
      return CompareNumbers(a.mod_revision(), b.mod_revision());
    case wire::SortTarget::kValue:
      return a.value().compare(b.value());
  }
  return 0;
}

bool RangeShape::Before(const mvcc::Record& a, const mvcc::Record& b) const {
  const int order = descend_ ? Compare(b, a) : Compare(a, b);
  return order != 0 ? order < 0 : a.key() < b.key();
}

void RangeCollector::Add(const mvcc::Record& record) {
  ++seen_;
  if (enough_) return;
  if (shape_.count_only()) return;
  if (shape_.Keeps(record)) {
    if (shape_.sorted()) {
      kept_.emplace_back(&record);
      ++kept_count_;
    } else if (taken_ == shape_.limit()) {
      more_ = true;
      enough_ = true;
    } else {
      wire::AppendKeyValue(builder_, kKvsField, shape_.Project(record));
      ++taken_;
    }
  }
  if (seen_ >= shape_.fetch_max()) enough_ = true;
}

void RangeCollector::CloseRun() {
  if (run_begin_ == kept_.size()) return;
  const auto before = [this](const mvcc::RecordRef& a, const mvcc::RecordRef& b) {
    return shape_.Before(*a, *b);
  };
  const auto begin = kept_.begin() + static_cast<ptrdiff_t>(run_begin_);
  const auto size = static_cast<int64_t>(kept_.end() - begin);
  if (size > shape_.limit()) {
    std::partial_sort(begin, begin + shape_.limit(), kept_.end(), before);
    kept_.resize(run_begin_ + static_cast<size_t>(shape_.limit()));
  } else {
    std::sort(begin, kept_.end(), before);
  }
  runs_.push_back({run_begin_, kept_.size()});
  run_begin_ = kept_.size();
}

void RangeCollector::PrepareMerge() {
  CloseRun();
  merging_ = true;
  more_ = more_ || kept_count_ > shape_.limit();
}

bool RangeCollector::Emit(size_t budget) {
  if (shape_.sorted() && !merging_) PrepareMerge();
  // A heap of runs by their next record; the earliest at the front.
  const auto later = [this](const Run& a, const Run& b) {
    return shape_.Before(*kept_[b.next], *kept_[a.next]);
  };
  if (merging_ && taken_ == 0) std::make_heap(runs_.begin(), runs_.end(), later);
  while (!runs_.empty() && taken_ < shape_.limit()) {
    if (budget-- == 0) return false;
    std::pop_heap(runs_.begin(), runs_.end(), later);
    Run& run = runs_.back();
    wire::AppendKeyValue(builder_, kKvsField, shape_.Project(*kept_[run.next]));
    kept_[run.next] = mvcc::RecordRef();
    ++taken_;
    if (++run.next == run.end) {
      runs_.pop_back();
    } else {
      std::push_heap(runs_.begin(), runs_.end(), later);
    }
  }
  builder_->AppendNumber(kMoreField, uint64_t{more_});
  builder_->AppendNumber(kCountField, count_.value_or(seen_));
  return true;
}

void AppendRange(const mvcc::Store& store, const wire::RangeRequest& request, int64_t revision,
                 const wire::ResponseHeader& header, wire::Builder* builder) {
  wire::AppendHeader(builder, header);
  const mvcc::KeyRange range = mvcc::KeyRange::FromRequest(request.key, request.range_end);
  const RangeShape shape(request);
  std::optional<int64_t> count;
  if (revision == mvcc::kLatest) count = store.Count(range, revision);
  RangeCollector collector(shape, count, builder);
  if (!(shape.count_only() && count.has_value())) {
    store.ForEach(range, revision, [&collector](const mvcc::Record& record) {
      collector.Add(record);
      return collector.wants_more();
    });
  }
  CONCLAVE_CHECK(collector.Emit(SIZE_MAX));
}

namespace {

class RangeTask : public ReadTask {
 public:
  RangeTask(mvcc::Store* store, const wire::RangeRequest& request, int64_t revision,
            std::optional<int64_t> count, const wire::ResponseHeader& header)
      : cursor_(store->OpenRange(mvcc::KeyRange::FromRequest(request.key, request.range_end),
                                 revision)),
        collector_(RangeShape(request), count, &builder_) {
    if (count.has_value() && !request.count_only) Reserve(*store, request, *count);
    wire::AppendHeader(&builder_, header);
  }

  bool Run(size_t budget) override {
    while (!read_) {
      if (budget-- == 0) {
        collector_.CloseRun();
        return TooLarge();
      }
      const mvcc::RecordRef record = cursor_.Next();
      if (record) collector_.Add(*record);
      read_ = !record || !collector_.wants_more();
    }
    return collector_.Emit(budget) || TooLarge();
  }

  const wire::Error* error() const override { return error_; }
  Bytes TakeResponse() override { return builder_.Take(); }

 private:
  void Reserve(const mvcc::Store& store, const wire::RangeRequest& request, int64_t count) {
    const mvcc::StoreSizes sizes = store.sizes();
    if (sizes.live_keys == 0) return;
    const auto keys =
        static_cast<size_t>(request.limit > 0 ? std::min(request.limit, count) : count);
    const auto average =
        static_cast<size_t>(sizes.live_bytes / sizes.live_keys) + kEncodingOverhead;
    builder_.Reserve(std::min(keys * average, kReserveMax));
  }
  // Looked at once a slice: a slice adds little to what is there.
  bool TooLarge() {
    if (builder_.size() <= kResponseBytesMax) return false;
    error_ = &kErrResponseTooLarge;
    return true;
  }

  wire::Builder builder_;
  mvcc::RangeCursor cursor_;
  RangeCollector collector_;
  bool read_ = false;
  const wire::Error* error_ = nullptr;
};

}  // namespace

std::unique_ptr<ReadTask> MakeRangeTask(mvcc::Store* store, const wire::RangeRequest& request,
                                        int64_t revision, std::optional<int64_t> count,
                                        const wire::ResponseHeader& header) {
  return std::make_unique<RangeTask>(store, request, revision, count, header);
}

}  // namespace conclave::apply
