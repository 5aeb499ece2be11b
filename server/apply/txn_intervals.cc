#include "conclave/server/apply/txn_intervals.h"

#include <algorithm>
#include <compare>
#include <iterator>
#include <string_view>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/inlined_vector.h"
#include "conclave/base/check.h"

namespace conclave::apply {
namespace {

struct Interval {
  std::string_view key;
  std::string_view range_end;  // empty: only the key

  bool Contains(std::string_view other) const {
    return range_end.empty() ? other == key : other >= key && other < range_end;
  }
};

// A union of intervals, kept as disjoint ones: what a hostile request with very many deletes needs.
class IntervalSet {
 public:
  void Add(const Interval& interval) {
    const bool point = interval.range_end.empty();
    if (!point && interval.range_end <= interval.key) return;
    Add(interval.key, {point ? interval.key : interval.range_end, point});
  }
  void Add(const IntervalSet& other) {
    for (const auto& [begin, end] : other.ends_) Add(begin, end);
  }
  bool Contains(std::string_view key) const {
    auto after = ends_.upper_bound(key);
    if (after == ends_.begin()) return false;
    const End end = std::prev(after)->second;
    return key < end.text || (end.inclusive && key == end.text);
  }

 private:
  struct End {
    std::string_view text;
    bool inclusive;  // a single key ends with itself

    friend auto operator<=>(const End&, const End&) = default;
  };

  void Add(std::string_view begin, End end) {
    auto at = ends_.upper_bound(begin);
    if (at != ends_.begin() && std::prev(at)->second.text >= begin) {
      --at;
      begin = at->first;
    }
    while (at != ends_.end() && at->first <= end.text) {
      end = std::max(end, at->second);
      at = ends_.erase(at);
    }
    ends_.emplace(begin, end);
  }

  absl::btree_map<std::string_view, End> ends_;  // begin -> end
};

// What one branch may write.
struct Writes {
  absl::btree_set<std::string_view> puts;
  IntervalSet deletes;
};

wire::RequestOp Operation(std::string_view message) {
  wire::RequestOp op;
  CONCLAVE_CHECK(op.Merge(message), "ValidTxn was not asked");
  return op;
}

bool CollectBranch(const wire::TxnRequest& txn, bool branch, Writes* writes);

// Adds what a nested transaction may write, of which only one branch will happen; false if it
// overlaps.
bool CollectNested(const wire::TxnRequest& nested, Writes* writes) {
  Writes success;
  Writes failure;
  if (!CollectBranch(nested, true, &success) || !CollectBranch(nested, false, &failure)) {
    return false;
  }
  for (const std::string_view key : success.puts) {
    if (writes->puts.contains(key) || writes->deletes.Contains(key)) return false;
  }
  for (const std::string_view key : failure.puts) {
    if (writes->puts.contains(key) || writes->deletes.Contains(key)) return false;
  }
  for (Writes* branch : {&success, &failure}) {
    writes->puts.insert(branch->puts.begin(), branch->puts.end());
    writes->deletes.Add(branch->deletes);
  }
  return true;
}

// False if the branch writes a key twice. Its own deletes come first, then what is nested, then its
// own puts.
bool CollectBranch(const wire::TxnRequest& txn, bool branch, Writes* writes) {
  std::string_view message;
  for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
    wire::DeleteRangeRequest request;
    const wire::RequestOp op = Operation(message);
    if (op.kind() == wire::RequestOp::Kind::kDeleteRange && op.GetDeleteRange(&request)) {
      writes->deletes.Add(Interval{request.key, request.range_end});
    }
  }
  for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
    const wire::RequestOp op = Operation(message);
    if (op.kind() == wire::RequestOp::Kind::kTxn && !CollectNested(op.txn(), writes)) return false;
  }
  for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
    wire::PutRequest request;
    const wire::RequestOp op = Operation(message);
    if (op.kind() == wire::RequestOp::Kind::kPut && op.GetPut(&request)) {
      if (writes->deletes.Contains(request.key) || !writes->puts.insert(request.key).second)
        return false;
    }
  }
  return true;
}

// The common case, without allocation: few operations, none of them nested.
enum class Simple { kOverlap, kNoOverlap, kNotSimple };

Simple SimpleBranch(const wire::TxnRequest& txn, bool branch) {
  constexpr size_t kFew = 16;
  absl::InlinedVector<std::string_view, kFew> puts;
  absl::InlinedVector<Interval, 4> deletes;
  std::string_view message;
  for (wire::MessageCursor cursor = txn.branch(branch); cursor.Next(&message);) {
    const wire::RequestOp op = Operation(message);
    wire::PutRequest put;
    wire::DeleteRangeRequest range;
    if (op.kind() == wire::RequestOp::Kind::kTxn) return Simple::kNotSimple;
    if (op.kind() == wire::RequestOp::Kind::kPut && op.GetPut(&put)) puts.push_back(put.key);
    if (op.kind() == wire::RequestOp::Kind::kDeleteRange && op.GetDeleteRange(&range)) {
      deletes.push_back({range.key, range.range_end});
    }
    if (puts.size() > kFew || deletes.size() > kFew) return Simple::kNotSimple;
  }
  for (size_t i = 0; i < puts.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (puts[i] == puts[j]) return Simple::kOverlap;
    }
    for (const Interval& interval : deletes) {
      if (interval.Contains(puts[i])) return Simple::kOverlap;
    }
  }
  return Simple::kNoOverlap;
}

}  // namespace

bool WritesOverlap(const wire::TxnRequest& txn) {
  for (const bool branch : {true, false}) {
    switch (SimpleBranch(txn, branch)) {
      case Simple::kOverlap:
        return true;
      case Simple::kNoOverlap:
        break;
      case Simple::kNotSimple: {
        Writes writes;
        if (!CollectBranch(txn, branch, &writes)) return true;
      }
    }
  }
  return false;
}

}  // namespace conclave::apply
