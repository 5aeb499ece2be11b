#include "conclave/client/pages.h"

#include "conclave/client/client.h"

namespace conclave {

absl::StatusOr<std::optional<Page>> Pages::Next() {
  while (!cursor_.done()) {
    absl::StatusOr<RangeRequest> request = cursor_.Request();
    if (!request.ok()) return request.status();
    absl::StatusOr<std::optional<Page>> page =
        cursor_.Accept(Client(impl_).Range(request->range, request->options, call_));
    if (!page.ok() || page->has_value()) return page;
  }
  return std::optional<Page>();
}

Pages::Iterator& Pages::Iterator::operator++() {
  // Behind an error there is nothing: a loop does not go over a gap.
  if (page_.has_value() && !page_->ok()) {
    page_.reset();
    return *this;
  }
  absl::StatusOr<std::optional<Page>> next = pages_->Next();
  if (!next.ok()) {
    page_ = next.status();
  } else if (next->has_value()) {
    page_ = **std::move(next);
  } else {
    page_.reset();
  }
  return *this;
}

Pages Client::Pages(const KeyRange& range, const PagesOptions& options,
                    const CallOptions& call) const {
  return conclave::Pages(impl_, range, options, call);
}

}  // namespace conclave
