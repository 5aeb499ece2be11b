#include "conclave/server/node/append_queue.h"

#include <iterator>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"

namespace conclave::node {

void AppendQueue::Recovered(const std::vector<raft::Entry>& entries) { Count(entries); }

void AppendQueue::Count(const std::vector<raft::Entry>& entries) {
  for (const raft::Entry& entry : entries) {
    bytes_end_ += entry.payload.size() + kEntryOverhead;
    // A tail that is replaced counts until the window has passed it: the bound is one of memory,
    // not a ledger.
    if (groups_.empty() || bytes_end_ - groups_.back().bytes_end >= kGroupBytes ||
        groups_.back().last >= entry.index) {
      groups_.push_back({entry.index, bytes_end_});
    }
  }
}

std::optional<LogAppend> AppendQueue::Push(raft::AppendRequest request) {
  const bool writes = request.hard_state.has_value() || !request.entries.empty();
  waiting_.push_back({request.id, writes, std::move(request.messages)});
  if (!writes) return std::nullopt;
  LogAppend append;
  append.batch = request.id.value();
  append.hard_state = request.hard_state;
  append.entries = std::move(request.entries);
  if (reset_.has_value()) {
    CONCLAVE_CHECK(!append.entries.empty() && append.entries.front().index == reset_->index);
    append.entries.erase(append.entries.begin());
    append.reset = std::exchange(reset_, std::nullopt);
  }
  Count(append.entries);
  return append;
}

void AppendQueue::Synced(uint64_t batch, std::vector<raft::Envelope>* messages) {
  while (!waiting_.empty() && waiting_.front().id.value() <= batch) {
    Waiting& front = waiting_.front();
    std::move(front.messages.begin(), front.messages.end(), std::back_inserter(*messages));
    durable_ = front.id;
    durable_is_news_ = true;
    waiting_.pop_front();
  }
  ReleaseUnwritten(messages);
}

void AppendQueue::ReleaseUnwritten(std::vector<raft::Envelope>* messages) {
  while (!waiting_.empty() && (!waiting_.front().written || MUTANT("messages-before-the-fsync"))) {
    Waiting& front = waiting_.front();
    std::move(front.messages.begin(), front.messages.end(), std::back_inserter(*messages));
    durable_ = front.id;
    durable_is_news_ = true;
    waiting_.pop_front();
  }
}

std::optional<raft::AppendId> AppendQueue::TakeDurable() {
  if (!std::exchange(durable_is_news_, false)) return std::nullopt;
  return durable_;
}

raft::Index AppendQueue::WindowBegin(uint64_t window_bytes) const {
  raft::Index begin;
  for (const Group& group : groups_) {
    if (bytes_end_ - group.bytes_end < window_bytes) break;
    begin = group.last;
  }
  return begin;
}

void AppendQueue::Dropped(raft::Index up_to) {
  while (!groups_.empty() && groups_.front().last <= up_to) {
    bytes_begin_ = groups_.front().bytes_end;
    groups_.pop_front();
  }
}

}  // namespace conclave::node
