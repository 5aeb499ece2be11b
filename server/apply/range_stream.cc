#include "conclave/server/apply/range_stream.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "conclave/server/apply/range.h"
#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/range_cursor.h"

namespace conclave::apply {
namespace {

constexpr int64_t kFirstChunkKeys = 10;
constexpr uint32_t kResponseField = 1;  // of RangeStreamResponse
constexpr uint32_t kKvsField = 2;
constexpr uint32_t kMoreField = 3;
constexpr uint32_t kCountField = 4;

constexpr wire::Error kErrSorted{wire::Code::kUnimplemented,
                                 "RangeStream does not support custom sort orders"};
constexpr wire::Error kErrFiltered{wire::Code::kUnimplemented,
                                   "RangeStream does not support revision filters"};

class RangeStreamTask : public StreamTask {
 public:
  RangeStreamTask(mvcc::Store* store, const wire::RangeRequest& request, int64_t revision,
                  const wire::ResponseHeader& header, size_t chunk_bytes_target)
      : shape_(request),
        header_(header),
        chunk_bytes_target_(chunk_bytes_target),
        cursor_(store->OpenRange(mvcc::KeyRange::FromRequest(request.key, request.range_end),
                                 revision)) {
    if (revision == mvcc::kLatest) {
      count_ = store->Count(mvcc::KeyRange::FromRequest(request.key, request.range_end), revision);
    }
  }

  Step Run(size_t* budget) override {
    if (ended_) return Step::kEnd;
    while (true) {
      if (shape_.count_only() && count_.has_value()) return Last();
      if (!ahead_) {
        if (*budget == 0) return Step::kMore;
        --*budget;
        ahead_ = cursor_.Next();
        if (!ahead_) return Last();
      }
      if (shape_.count_only() || taken_ == shape_.limit()) {
        more_ = more_ || !shape_.count_only();
        if (count_.has_value()) return Last();
        ++seen_;
        ahead_ = mvcc::RecordRef();
        continue;
      }
      if (chunk_keys_ == chunk_keys_max_ || chunk_.size() > 2 * chunk_bytes_target_) {
        return Chunk();
      }
      wire::AppendKeyValue(&chunk_, kKvsField, shape_.Project(*ahead_));
      ++chunk_keys_;
      ++taken_;
      ++seen_;
      ahead_ = mvcc::RecordRef();
    }
  }

  Message TakeMessage() override { return std::move(message_); }

 private:
  Step Chunk() {
    if (chunk_.size() < chunk_bytes_target_ / 2) {
      chunk_keys_max_ *= 2;
    } else if (chunk_.size() > chunk_bytes_target_ * 2) {
      chunk_keys_max_ = std::max<int64_t>(chunk_keys_max_ / 2, 1);
    }
    chunk_keys_ = 0;
    Wrap(wire::Builder());
    return Step::kMessage;
  }

  Step Last() {
    chunk_.AppendNumber(kMoreField, uint64_t{more_});
    chunk_.AppendNumber(kCountField, count_.value_or(seen_));
    wire::Builder head;
    wire::AppendHeader(&head, header_);
    Wrap(std::move(head));
    ended_ = true;
    return Step::kMessage;
  }

  // The chunk, with `head` in front of it, as the one field of a RangeStreamResponse.
  void Wrap(wire::Builder head) {
    const size_t size = head.size() + chunk_.size();
    wire::Builder prefix;
    wire::WriteMessageStart(prefix.Extend(wire::MessageSize(size) - size), kResponseField, size);
    prefix.AppendRaw(head.view());
    message_ = {prefix.Take(), chunk_.Take()};
  }

  const RangeShape shape_;
  const wire::ResponseHeader header_;
  const size_t chunk_bytes_target_;
  mvcc::RangeCursor cursor_;
  mvcc::RecordRef ahead_;         // read, not written: says whether there is more
  std::optional<int64_t> count_;  // of keys in the range, if that is known beforehand
  int64_t seen_ = 0;
  int64_t taken_ = 0;
  int64_t chunk_keys_ = 0;
  int64_t chunk_keys_max_ = kFirstChunkKeys;
  bool more_ = false;
  bool ended_ = false;
  wire::Builder chunk_;
  Message message_;
};

}  // namespace

const wire::Error* CheckRangeStream(const wire::RangeRequest& request) {
  const auto order = static_cast<wire::SortOrder>(request.sort_order);
  const auto target = static_cast<wire::SortTarget>(request.sort_target);
  if (order != wire::SortOrder::kNone &&
      (order != wire::SortOrder::kAscend || target != wire::SortTarget::kKey)) {
    return &kErrSorted;
  }
  const bool filtered = request.min_mod_revision != 0 || request.max_mod_revision != 0 ||
                        request.min_create_revision != 0 || request.max_create_revision != 0;
  return filtered ? &kErrFiltered : nullptr;
}

std::unique_ptr<StreamTask> MakeRangeStream(mvcc::Store* store, const wire::RangeRequest& request,
                                            int64_t revision, const wire::ResponseHeader& header,
                                            size_t chunk_bytes_target) {
  return std::make_unique<RangeStreamTask>(store, request, revision, header, chunk_bytes_target);
}

}  // namespace conclave::apply
