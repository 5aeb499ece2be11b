#include "conclave/server/node/snapshot_transfer.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/reached.h"

namespace conclave::node {

// ---- Sender -------------------------------------------------------------------------------------

void SnapshotSender::Start(raft::NodeId peer, const raft::SnapshotMeta& meta, raft::Term term,
                           apply::StateMachine* state, Instant now) {
  Stop(peer);
  outcomes_.erase(std::remove_if(outcomes_.begin(), outcomes_.end(),
                                 [&](const Outcome& outcome) { return outcome.peer == peer; }),
                  outcomes_.end());
  Transfer transfer;
  transfer.peer = peer;
  transfer.id = ++last_id_;
  transfer.meta = meta;
  transfer.term = term;
  transfer.task = std::make_unique<apply::SnapshotTask>(state);
  CONCLAVE_CHECK(transfer.task->applied_index() == meta.index.value());
  transfer.ahead = transfer.task->Next(limits_.chunk_bytes);
  transfer.last_news = transfer.last_sent = now;
  transfers_.push_back(std::move(transfer));
}

void SnapshotSender::Fill(Transfer& transfer) {
  while (transfer.task != nullptr && transfer.window.size() < limits_.chunks_in_flight_max) {
    SnapshotChunk chunk;
    chunk.transfer = transfer.id;
    chunk.term = transfer.term;
    chunk.meta = transfer.meta;
    chunk.offset = transfer.offset;
    chunk.data = std::exchange(transfer.ahead, transfer.task->Next(limits_.chunk_bytes));
    chunk.last = transfer.ahead.empty();
    transfer.offset += chunk.data.size();
    if (chunk.last) transfer.task.reset();
    transfer.window.push_back(std::move(chunk));
  }
}

bool SnapshotSender::Work(Instant now, PeerLinks* links) {
  for (size_t i = 0; i < transfers_.size();) {
    Transfer& transfer = transfers_[i];
    if (now - transfer.last_news >= limits_.give_up_after ||
        !links->connected(transfer.peer, PeerLane::kSnapshot)) {
      REACHED("snapshot: a transfer is given up");
      End(i, std::nullopt);
      continue;
    }
    Fill(transfer);
    if (now - std::max(transfer.last_news, transfer.last_sent) >= limits_.resend_after) {
      REACHED("snapshot: chunks are sent again");
      transfer.sent = 0;
    }
    for (; transfer.sent < transfer.window.size(); ++transfer.sent) {
      links->Send(transfer.peer, PeerLane::kSnapshot, transfer.window[transfer.sent]);
      transfer.last_sent = now;
    }
    ++i;
  }
  return false;
}

void SnapshotSender::Acked(raft::NodeId peer, const SnapshotAck& ack, Instant now) {
  for (size_t i = 0; i < transfers_.size(); ++i) {
    Transfer& transfer = transfers_[i];
    if (transfer.peer != peer || transfer.id != ack.transfer) continue;
    if (ack.result == SnapshotAck::Result::kInstalled) {
      End(i, transfer.meta.index);
      return;
    }
    if (ack.result == SnapshotAck::Result::kRefused) {
      End(i, std::nullopt);
      return;
    }
    if (ack.offset > transfer.acked) transfer.last_news = now;
    transfer.acked = std::max(transfer.acked, ack.offset);
    while (!transfer.window.empty()) {
      const SnapshotChunk& front = transfer.window.front();
      // The last chunk stays: what it waits for is the installation.
      if (front.last || front.offset + front.data.size() > transfer.acked) break;
      transfer.window.pop_front();
      if (transfer.sent > 0) --transfer.sent;
    }
    // The receiver has all bytes and is writing them: that is news enough.
    if (transfer.task == nullptr && transfer.acked == transfer.offset) transfer.last_news = now;
    return;
  }
}

void SnapshotSender::End(size_t which, std::optional<raft::Index> index) {
  outcomes_.push_back({transfers_[which].peer, index});
  transfers_.erase(transfers_.begin() + static_cast<std::ptrdiff_t>(which));
}

void SnapshotSender::Stop(raft::NodeId peer) {
  for (size_t i = 0; i < transfers_.size(); ++i) {
    if (transfers_[i].peer == peer) {
      End(i, std::nullopt);
      return;
    }
  }
}

void SnapshotSender::StopAll() {
  while (!transfers_.empty()) End(0, std::nullopt);
}

Instant SnapshotSender::NextDeadline() const {
  Instant next = kNever;
  for (const Transfer& transfer : transfers_) {
    next = std::min(next, std::max(transfer.last_news, transfer.last_sent) + limits_.resend_after);
    next = std::min(next, transfer.last_news + limits_.give_up_after);
  }
  return next;
}

raft::Index SnapshotSender::oldest_index() const {
  raft::Index oldest;
  for (const Transfer& transfer : transfers_) {
    if (!oldest || transfer.meta.index < oldest) oldest = transfer.meta.index;
  }
  return oldest;
}

// ---- Receiver -----------------------------------------------------------------------------------

void SnapshotReceiver::Begin(raft::NodeId from, const SnapshotChunk& chunk, Effects* effects) {
  Abandon(effects);
  from_ = from;
  transfer_ = chunk.transfer;
  term_ = chunk.term;
  meta_ = chunk.meta;
  offset_ = 0;
  task_ = std::make_unique<apply::RestoreTask>(options_);
}

SnapshotAck SnapshotReceiver::Refuse(const SnapshotChunk& chunk, Effects* effects) {
  if (active() && chunk.transfer == transfer_) Abandon(effects);
  return {chunk.transfer, SnapshotAck::Result::kRefused, 0};
}

std::optional<SnapshotAck> SnapshotReceiver::Take(raft::NodeId from, SnapshotChunk chunk,
                                                  bool wanted, Instant now, Effects* effects) {
  const bool ours = active() && from == from_ && chunk.transfer == transfer_ && chunk.meta == meta_;
  if (!wanted) {
    // It has come by way of the log meanwhile, or it is an old leader's.
    if (ours) {
      REACHED("snapshot: what comes is not wanted any more");
      Abandon(effects);
    }
    return SnapshotAck{chunk.transfer, SnapshotAck::Result::kRefused, 0};
  }
  if (!ours) {
    // A newer leader, or the same one anew; chunks of an older transfer that come late change
    // nothing.
    const bool newer = !active() || chunk.term > term_ ||
                       (chunk.term == term_ && from == from_ && chunk.transfer > transfer_);
    if (!newer || chunk.offset != 0) {
      REACHED("snapshot: a chunk of another transfer");
      return std::nullopt;
    }
    Begin(from, chunk, effects);
    last_progress_ = now;
  }
  if (state_ != nullptr || chunk.offset != offset_) {
    REACHED("snapshot: a chunk comes twice, or out of order");
    return SnapshotAck{transfer_, SnapshotAck::Result::kReceived, offset_};
  }
  if (!task_->Feed(chunk.data.view()).ok()) return Refuse(chunk, effects);
  const bool first = offset_ == 0;
  offset_ += chunk.data.size();
  last_progress_ = now;
  if (chunk.last) {
    auto state = task_->Finish();
    task_.reset();
    if (!state.ok() || (*state)->applied_index() != meta_.index.value()) {
      state_.reset();
      effects->snapshot_pieces.push_back({.meta = meta_, .abandon = true});
      return SnapshotAck{chunk.transfer, SnapshotAck::Result::kRefused, 0};
    }
    state_ = *std::move(state);
  }
  effects->snapshot_pieces.push_back(
      {.meta = meta_, .data = std::move(chunk.data), .first = first, .last = chunk.last});
  return SnapshotAck{transfer_, SnapshotAck::Result::kReceived, offset_};
}

std::optional<SnapshotReceiver::Ready> SnapshotReceiver::Saved(const raft::SnapshotMeta& meta) {
  if (state_ == nullptr || !(meta == meta_)) return std::nullopt;
  return Ready{
      from_, {transfer_, SnapshotAck::Result::kInstalled, offset_}, meta_, std::move(state_)};
}

void SnapshotReceiver::Expire(Instant now, Effects* effects) {
  if (!active() || now - last_progress_ < kPatience) return;
  REACHED("snapshot: nothing more comes");
  Abandon(effects);
}

void SnapshotReceiver::Abandon(Effects* effects) {
  // What has come whole is on its way to being a file like any other; nothing is to be dropped
  // then.
  if (task_ != nullptr && offset_ > 0) {
    effects->snapshot_pieces.push_back({.meta = meta_, .abandon = true});
  }
  task_.reset();
  state_.reset();
}

}  // namespace conclave::node
