#include "conclave/server/auth/key_set.h"

#include <algorithm>
#include <utility>

namespace conclave::auth {
namespace {

constexpr std::string_view kOpenEnd("\0", 1);

bool SingleKey(std::string_view key, std::string_view range_end) {
  return range_end != kOpenEnd && range_end <= key;
}

}  // namespace

void KeySet::Add(std::string_view key, std::string_view range_end) {
  Interval added{
      .begin = std::string(key), .end = std::string(range_end), .open = range_end == kOpenEnd};
  // The first key behind `key` is `key` with a zero byte.
  if (SingleKey(key, range_end)) added.end = std::string(key).append(1, '\0');
  // All that it overlaps or touches becomes part of it.
  const auto first = std::find_if(
      intervals_.begin(), intervals_.end(),
      [&](const Interval& interval) { return interval.open || interval.end >= added.begin; });
  auto last = first;
  for (; last != intervals_.end() && (added.open || last->begin <= added.end); ++last) {
    added.begin = std::min(added.begin, last->begin);
    if (last->open) added.open = true;
    if (!added.open) added.end = std::max(added.end, last->end);
  }
  if (added.open) added.end.clear();
  intervals_.insert(intervals_.erase(first, last), std::move(added));
}

bool KeySet::Contains(std::string_view key, std::string_view range_end) const {
  const auto after = std::upper_bound(
      intervals_.begin(), intervals_.end(), key,
      [](std::string_view wanted, const Interval& interval) { return wanted < interval.begin; });
  if (after == intervals_.begin()) return false;
  const Interval& interval = *(after - 1);
  if (interval.open) return true;
  if (range_end == kOpenEnd) return false;
  return SingleKey(key, range_end) ? key < interval.end : range_end <= interval.end;
}

}  // namespace conclave::auth
