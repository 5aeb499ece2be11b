// Pages: a range of any size, read page by page at one revision.
//
//   for (const absl::StatusOr<conclave::Page>& page : client.Pages(conclave::Prefix("cfg/"))) {
//     if (!page.ok()) return page.status();
//     for (const conclave::KeyValue& kv : *page) Use(kv);
//   }
//
// A page that fails is the last one; to take it for a good one ends the process, so an incomplete
// read is never mistaken for a complete one. OutOfRange: the revision was compacted meanwhile.
#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "conclave/client/core/page_cursor.h"
#include "conclave/client/core/types.h"

namespace conclave {

class ClientImpl;

// Thread: one at a time. The timeout of the call options counts for every page, their deadline for
// all of them.
class [[nodiscard]] Pages {
 public:
  // The next page, or nullopt behind the last one. After an error the same page is asked for again.
  absl::StatusOr<std::optional<Page>> Next();
  // Of all pages; 0 before the first one was read. Known also if the range is empty.
  int64_t revision() const { return cursor_.revision(); }

  class Iterator {
   public:
    using value_type = absl::StatusOr<Page>;
    using difference_type = std::ptrdiff_t;

    absl::StatusOr<Page>& operator*() { return *page_; }
    absl::StatusOr<Page>* operator->() { return &*page_; }
    Iterator& operator++();
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& iterator, std::default_sentinel_t) {
      return !iterator.page_.has_value();
    }

   private:
    friend class Pages;
    explicit Iterator(Pages* pages) : pages_(pages) { ++*this; }

    Pages* pages_;
    std::optional<absl::StatusOr<Page>> page_;
  };
  // Reads the next page. One loop at a time: the pages go by once.
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() { return {}; }

 private:
  friend class Client;
  Pages(std::shared_ptr<ClientImpl> impl, const KeyRange& range, const PagesOptions& options,
        CallOptions call)
      : impl_(std::move(impl)), cursor_(range, options), call_(std::move(call)) {}

  std::shared_ptr<ClientImpl> impl_;
  PageCursor cursor_;
  CallOptions call_;
};

}  // namespace conclave
