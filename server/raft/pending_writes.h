// PendingWrites: the AppendRequests that the disk has not acknowledged yet, and what an
// acknowledgement of each still means.
//
// The trap is an acknowledgement for entries that were replaced while it was under way, and then
// put back:
//
//     request  entries          log afterwards        on disk when 1 is acknowledged
//       1      (5, term 2)      .. 4  5(term 2)       .. 4  5(term 2)
//       2      (5, term 3)      .. 4  5(term 3)       request 2 follows at any time
//       3      (5, term 2)      .. 4  5(term 2)
//
// When 1 is acknowledged, (5, term 2) is in the log and on the disk, and yet it is not stable: a
// crash between 2 and 3 loses it. So an acknowledgement is by the request's number, and dropping
// the tail from index i on lowers what every request before counts for, to i - 1. Request 1 then
// means "stable up to 4", and only 3 "stable up to 5".
#pragma once

#include <deque>

#include "conclave/server/raft/types.h"

namespace conclave::raft {

class PendingWrites {
 public:
  struct Completed {
    Index stable;  // the log is durable up to here, if that is news
    Term term;     // the hard state of this term is durable
  };

  // A request after which the log is written up to `last`, while the member is in `term`.
  AppendId Begin(Index last, Term term);
  // The log's tail from `index` on was dropped.
  void TruncateFrom(Index index);
  // All requests up to `id` are durable.
  Completed Complete(AppendId id);

  bool empty() const { return pending_.empty(); }

 private:
  struct Write {
    AppendId id;
    Index last;
    Term term;
  };

  std::deque<Write> pending_;
  AppendId newest_;
};

}  // namespace conclave::raft
