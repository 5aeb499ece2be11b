// KeySet: a set of keys as a union of intervals; what somebody may read, or write.
//
// Key and range_end mean what they mean in a request: "" is the single key, "\0" every key from
// `key` on, anything else key <= k < range_end. Intervals that touch are merged, so a range that
// two grants cover together is covered.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace conclave::auth {

class KeySet {
 public:
  void Add(std::string_view key, std::string_view range_end);

  // True if every key of the range is inside. A range that holds no key at all (its end is not
  // behind its beginning) counts as its first key: whoever may not touch that gets no answer.
  bool Contains(std::string_view key, std::string_view range_end) const;

  bool empty() const { return intervals_.empty(); }

 private:
  // [begin, end), or everything from `begin` on.
  struct Interval {
    std::string begin;
    std::string end;
    bool open = false;
  };

  std::vector<Interval> intervals_;  // ascending; neither overlapping nor touching
};

}  // namespace conclave::auth
