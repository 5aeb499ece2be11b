#include "conclave/server/raft/pending_writes.h"

#include <algorithm>

#include "conclave/base/check.h"

namespace conclave::raft {

AppendId PendingWrites::Begin(Index last, Term term) {
  ++newest_;
  pending_.push_back({newest_, last, term});
  return newest_;
}

void PendingWrites::TruncateFrom(Index index) {
  for (Write& write : pending_) write.last = std::min(write.last, index - 1);
}

PendingWrites::Completed PendingWrites::Complete(AppendId id) {
  CONCLAVE_CHECK(id <= newest_, "the disk acknowledges what it was not asked for");
  Completed completed;
  while (!pending_.empty() && pending_.front().id <= id) {
    completed = {pending_.front().last, pending_.front().term};
    pending_.pop_front();
  }
  return completed;
}

}  // namespace conclave::raft
