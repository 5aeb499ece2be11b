// PageCursor: a range read page by page, all of it at one revision. Pure: it says what to ask and
// takes the answers.
//
// The first page's revision is that of all others, so the pages together are one state of the
// store. A page goes on right behind the last key of the one before. A serializable page that a
// lagging member cannot serve yet is asked again linearizably.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/client/core/types.h"

namespace conclave {

struct PagesOptions {
  int64_t page_size = 1000;  // keys; the last page may be shorter
  int64_t limit = 0;         // of all pages together; 0: all
  int64_t revision = 0;      // 0: the latest when the first page is read
  bool serializable = false;
  bool keys_only = false;
  int64_t min_mod_revision = 0;
  int64_t max_mod_revision = 0;
  int64_t min_create_revision = 0;
  int64_t max_create_revision = 0;
};

// Some keys of the range, in their order; never empty.
struct Page {
  int64_t revision = 0;  // of all pages
  int64_t count = 0;     // of all keys in the range, as the first page's answer had it
  std::vector<KeyValue> kvs{};

  auto begin() const { return kvs.begin(); }
  auto end() const { return kvs.end(); }
  size_t size() const { return kvs.size(); }
};

class PageCursor {
 public:
  PageCursor(const KeyRange& range, const PagesOptions& options);

  bool done() const { return done_; }
  int64_t revision() const { return revision_; }  // 0: not known before the first page
  // What to ask; not once done.
  absl::StatusOr<RangeRequest> Request() const;
  // The answer to it. Without a page: ask again, or it is done. After an error the same page may be
  // asked for again; OutOfRange means that the revision is compacted and will not come back.
  absl::StatusOr<std::optional<Page>> Accept(absl::StatusOr<RangeResult> result);

 private:
  absl::Status Compacted(const absl::Status& cause) const;

  KeyRange range_;  // what is left of it
  const PagesOptions options_;
  int64_t revision_;
  int64_t count_ = 0;
  int64_t taken_ = 0;
  bool started_ = false;
  bool linearizable_ = false;  // the next request, although serializable was asked for
  bool done_ = false;
};

}  // namespace conclave
