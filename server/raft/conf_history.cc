#include "conclave/server/raft/conf_history.h"

#include <utility>

#include "absl/status/statusor.h"
#include "conclave/base/check.h"
#include "conclave/server/raft/confchange/changer.h"

namespace conclave::raft {

ConfHistory::ConfHistory(Index base, ConfState conf) { ResetTo(base, std::move(conf)); }

const ConfState& ConfHistory::At(Index index) const {
  CONCLAVE_CHECK(index >= history_.front().entry, "the configuration at ", index.value(),
                 " is compacted away");
  auto item = history_.end() - 1;
  while (item->entry > index) --item;
  return item->conf;
}

bool ConfHistory::IsVoterSince(Index index, NodeId id) const {
  for (auto item = history_.rbegin(); item != history_.rend(); ++item) {
    if (item->quorum.Contains(id)) return true;
    if (item->entry <= index) return false;
  }
  return false;
}

void ConfHistory::Append(const Entry& entry) {
  const std::optional<ConfChange> change = DecodeConfChange(entry.payload);
  CONCLAVE_CHECK(change.has_value(), "a broken change of membership in the log at ",
                 entry.index.value());
  absl::StatusOr<ConfState> changed = ApplyConfChange(conf(), *change);
  CONCLAVE_CHECK(changed.ok(), "an impossible change of membership in the log at ",
                 entry.index.value(), ": ", changed.status().message());
  JointConfig quorum(*changed);
  history_.push_back({entry.index, *std::move(changed), std::move(quorum)});
}

void ConfHistory::TruncateFrom(Index index) {
  while (history_.back().entry >= index) {
    CONCLAVE_CHECK(history_.size() > 1, "the base of the log is never dropped");
    history_.pop_back();
  }
}

void ConfHistory::CompactTo(Index index) {
  size_t keep = 0;
  while (keep + 1 < history_.size() && history_[keep + 1].entry <= index) ++keep;
  history_.erase(history_.begin(), history_.begin() + static_cast<ptrdiff_t>(keep));
}

void ConfHistory::ResetTo(Index base, ConfState conf) {
  CONCLAVE_CHECK(IsConsistent(conf), "a restored configuration that cannot be");
  JointConfig quorum(conf);
  history_.clear();
  history_.push_back({base, std::move(conf), std::move(quorum)});
}

}  // namespace conclave::raft
