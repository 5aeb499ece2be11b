#include "conclave/client/core/page_cursor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/validate.h"

namespace conclave {

PageCursor::PageCursor(const KeyRange& range, const PagesOptions& options)
    : range_(range), options_(options), revision_(options.revision) {}

absl::StatusOr<RangeRequest> PageCursor::Request() const {
  CONCLAVE_CHECK(!done_);
  if (options_.page_size <= 0) return InvalidRequest("a page holds at least one key");
  if (options_.limit < 0) return InvalidRequest("the limit is negative; 0 is no limit");
  const int64_t left = options_.limit == 0 ? options_.page_size : options_.limit - taken_;
  return RangeRequest{.range = range_,
                      .options = {.limit = std::min(options_.page_size, left),
                                  .revision = revision_,
                                  .serializable = options_.serializable && !linearizable_,
                                  .keys_only = options_.keys_only,
                                  .min_mod_revision = options_.min_mod_revision,
                                  .max_mod_revision = options_.max_mod_revision,
                                  .min_create_revision = options_.min_create_revision,
                                  .max_create_revision = options_.max_create_revision}};
}

absl::StatusOr<std::optional<Page>> PageCursor::Accept(absl::StatusOr<RangeResult> result) {
  if (!result.ok()) {
    if (IsFutureRevision(result.status()) && options_.serializable && !linearizable_) {
      linearizable_ = true;
      return std::optional<Page>();
    }
    return IsCompacted(result.status()) ? Compacted(result.status()) : result.status();
  }
  linearizable_ = false;
  if (!started_) {
    started_ = true;
    if (revision_ == 0) revision_ = result->revision;
    count_ = result->count;
  }
  if (result->kvs.empty()) {
    done_ = true;
    return std::optional<Page>();
  }
  // A server that does not go forward would have us read for ever.
  if (result->kvs.front().key < range_.key && !range_.single()) {
    return absl::InternalError("the answer is not of the protocol: a page before the one before");
  }
  taken_ += static_cast<int64_t>(result->kvs.size());
  done_ = !result->more || range_.single() || (options_.limit != 0 && taken_ >= options_.limit);
  range_.key = result->kvs.back().key;
  if (!range_.single()) range_.key.push_back('\0');
  return Page{.revision = revision_, .count = count_, .kvs = std::move(result->kvs)};
}

absl::Status PageCursor::Compacted(const absl::Status& cause) const {
  absl::Status status = absl::OutOfRangeError(
      absl::StrCat("the pages' revision ", revision_, " was compacted after ", taken_,
                   " keys had been read; begin anew for a newer state"));
  SetErrorDetail(status, GetErrorDetail(cause).value_or(ErrorDetail{}));
  return status;
}

}  // namespace conclave
