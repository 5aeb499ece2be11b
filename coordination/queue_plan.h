// The keys of a queue, and which item comes next. Pure: no calls, no time.
//
// Keys of a queue `name`:
//   <name>/item/<rank>/<ticket>         an item; its value is what was pushed
//   <name>/item-taken/<rank>/<ticket>   somebody works on it; on his lease, so that it is free
//   again
//                                       when he dies; value: a number of his own
//   <name>/tail                         put by each push: its revision is the push's ticket
//   <name>/turn/<lease hex>             who waits for an item; the oldest watches, the others wait
//                                       for him (as for a lock)
// Rank: four digits, 9999 less the priority. Ticket: sixteen hex digits. So the order of keys is
// the order of service: the higher priority first, then first come, first served.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "conclave/client/core/types.h"

namespace conclave {

class QueuePlan {
 public:
  static constexpr int kPriorityMax = 9999;
  static constexpr int64_t kWindow = 64;  // items that one look reads

  explicit QueuePlan(std::string_view name);

  // ---- Push: a ticket, then the item.
  TxnRequest Ticket() const;
  // How many items there were when the ticket was drawn.
  static int64_t LengthAt(const TxnResult& ticket) { return ticket.range(1).count; }
  std::string ItemKey(int priority, int64_t ticket) const;

  // ---- Pop and Take.
  // Items behind `after_key` (empty: from the first) and everything that is taken.
  TxnRequest Look(std::string_view after_key, int64_t in_flight_max) const;
  struct Next {
    bool found = false;
    KeyValue item{};           // the first one that is free, if found
    std::string look_after{};  // not empty: none yet, but there are more behind this key
    int64_t in_flight = 0;
    int64_t revision = 0;
  };
  Next NextOf(const TxnResult& look) const;
  TxnRequest Pop(const KeyValue& item) const;
  TxnRequest Take(const KeyValue& item, LeaseId lease, std::string_view mark) const;
  // Of a Take: it is ours. Also when an earlier attempt had done it.
  static bool TookIt(const TxnResult& result, LeaseId lease, std::string_view mark);

  // Takes a Take back, if it is the one with this mark.
  TxnRequest Untake(std::string_view item_key, std::string_view mark) const;

  std::string TakenKey(std::string_view item_key) const;
  // The id that users see, "<rank>/<ticket>".
  std::string IdOf(std::string_view item_key) const;
  std::optional<int> PriorityOf(std::string_view item_key) const;
  KeyRange Items() const { return Prefix(items_); }
  // Items and marks: what may change which item is next.
  KeyRange ItemsAndMarks() const { return {taken_, Prefix(items_).end}; }
  const std::string& turn() const { return turn_; }

 private:
  const std::string items_;
  const std::string taken_;
  const std::string tail_;
  const std::string turn_;
};

}  // namespace conclave
