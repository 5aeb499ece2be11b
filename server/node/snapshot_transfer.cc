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
  transfer.next_read = transfer.last_news = transfer.last_sent = now;
  transfers_.push_back(std::move(transfer));
}

// While the receiver has not told what it has, nothing behind the opening is read.
bool SnapshotSender::MayRead(const Transfer& transfer) const {
  if (transfer.all_read() || transfer.window.size() >= limits_.chunks_in_flight_max) return false;
  return !transfer.opening_read || !transfer.opening || transfer.acked == transfer.offset;
}

void SnapshotSender::Read(Transfer& transfer, Instant now) {
  // After a pause, no more is made up for than this.
  constexpr Duration kBurst = std::chrono::milliseconds(10);
  apply::SnapshotTask& task = *transfer.task;
  while (MayRead(transfer) && transfer.next_read <= now) {
    const uint64_t covered = task.covered_bytes();
    SnapshotChunk chunk;
    if (!transfer.opening_read) {
      chunk.data = task.NextOfOpening(limits_.chunk_bytes);
      transfer.opening_read = chunk.data.empty();
      if (transfer.opening_read) continue;
    } else {
      if (std::exchange(transfer.opening, false)) task.ReaderHas(transfer.has);
      chunk.data = task.Next(limits_.chunk_bytes);
    }
    chunk.transfer = transfer.id;
    chunk.term = transfer.term;
    chunk.meta = transfer.meta;
    chunk.offset = transfer.offset;
    chunk.last = task.done();
    transfer.offset += chunk.data.size();
    // Until now there was nothing that news could have come of.
    if (transfer.window.empty()) transfer.last_news = now;
    transfer.window.push_back(std::move(chunk));
    const auto bytes = static_cast<int64_t>(task.covered_bytes() - covered);
    transfer.next_read =
        std::max(transfer.next_read, now - kBurst) +
        Duration(std::chrono::seconds(1)) * bytes / static_cast<int64_t>(limits_.bytes_per_second);
  }
}

void SnapshotSender::Work(Instant now, PeerLinks* links) {
  for (size_t i = 0; i < transfers_.size();) {
    Transfer& transfer = transfers_[i];
    const bool connected = links->connected(transfer.peer, PeerLane::kSnapshot);
    if (!connected && !transfer.down_since.has_value()) LaneDown(transfer.peer, now);
    if (connected && transfer.down_since.has_value()) {
      REACHED("snapshot: a transfer goes on over a new connection");
      transfer.down_since.reset();
      transfer.last_news = now;
    }
    const bool waits = !transfer.window.empty();
    if (connected ? waits && now - transfer.last_news >= limits_.give_up_after
                  : now - *transfer.down_since >= limits_.reconnect_within) {
      REACHED("snapshot: a transfer is given up");
      End(i, std::nullopt);
      continue;
    }
    ++i;
    if (!connected) continue;
    Read(transfer, now);
    if (now - std::max(transfer.last_news, transfer.last_sent) >= limits_.resend_after) {
      REACHED("snapshot: chunks are sent again");
      transfer.sent = 0;
    }
    for (; transfer.sent < transfer.window.size(); ++transfer.sent) {
      links->Send(transfer.peer, PeerLane::kSnapshot, transfer.window[transfer.sent]);
      transfer.last_sent = now;
    }
  }
}

void SnapshotSender::LaneDown(raft::NodeId peer, Instant now) {
  for (Transfer& transfer : transfers_) {
    if (transfer.peer != peer || transfer.down_since.has_value()) continue;
    transfer.down_since = now;
    transfer.sent = 0;
  }
}

void SnapshotSender::Acked(raft::NodeId peer, const SnapshotAck& ack, Instant now) {
  for (size_t i = 0; i < transfers_.size(); ++i) {
    Transfer& transfer = transfers_[i];
    if (transfer.peer != peer || transfer.id != ack.transfer) continue;
    if (ack.result == SnapshotAck::Result::kInstalled) {
      End(i, transfer.meta.index);
      return;
    }
    // An unknown transfer may be one whose beginning is still to come. If that had come, it is gone
    // with the receiver's process.
    const bool unheard_of = transfer.opening && transfer.acked == 0;
    if (ack.result == SnapshotAck::Result::kUnknown && unheard_of) return;
    if (ack.result != SnapshotAck::Result::kReceived || ack.offset > transfer.offset) {
      End(i, std::nullopt);
      return;
    }
    if (transfer.opening) transfer.has = {.main = ack.has_revision, .sub = ack.has_sub};
    // It is there: if it takes nothing, its disk is what holds it up. It does not wait for ever.
    transfer.last_news = now;
    transfer.acked = std::max(transfer.acked, ack.offset);
    while (!transfer.window.empty()) {
      const SnapshotChunk& front = transfer.window.front();
      // The last chunk stays: what it waits for is the installation.
      if (front.last || front.offset + front.data.size() > transfer.acked) break;
      transfer.window.pop_front();
      if (transfer.sent > 0) --transfer.sent;
    }
    return;
  }
}

void SnapshotSender::End(size_t which, std::optional<raft::Index> index) {
  const Transfer& transfer = transfers_[which];
  outcomes_.push_back({transfer.peer, index, transfer.offset, transfer.task->covered_bytes()});
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
    if (transfer.down_since.has_value()) {
      next = std::min(next, *transfer.down_since + limits_.reconnect_within);
      continue;
    }
    if (!transfer.window.empty()) {
      next =
          std::min(next, std::max(transfer.last_news, transfer.last_sent) + limits_.resend_after);
      next = std::min(next, transfer.last_news + limits_.give_up_after);
    }
    if (MayRead(transfer)) next = std::min(next, transfer.next_read);
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

void SnapshotReceiver::Begin(raft::NodeId from, const SnapshotChunk& chunk, const mvcc::Store* own,
                             Effects* effects) {
  auto task = std::make_unique<apply::RestoreTask>(options_);
  if (!from_nothing_) {
    if (own != nullptr) task->Reuse(own);
    if (task_ != nullptr) {
      REACHED("snapshot: a transfer begins with what another one had brought");
      task->Reuse(std::exchange(task_, nullptr));
    }
    if (unfinished_ != nullptr) {
      REACHED("snapshot: a transfer begins with what had come before a restart");
      task->Reuse(std::exchange(unfinished_, nullptr));
    }
  }
  unfinished_.reset();
  Abandon(effects);
  from_ = from;
  transfer_ = chunk.transfer;
  term_ = chunk.term;
  meta_ = chunk.meta;
  offset_ = 0;
  task_ = std::move(task);
}

SnapshotAck SnapshotReceiver::Received() const {
  SnapshotAck ack{transfer_, SnapshotAck::Result::kReceived, offset_};
  if (task_ != nullptr) {
    const mvcc::Revision has = task_->reusable();
    ack.has_revision = has.main;
    ack.has_sub = has.sub;
  }
  return ack;
}

// What is wrong may be what it was built upon.
SnapshotAck SnapshotReceiver::Refuse(const SnapshotChunk& chunk, Effects* effects) {
  if (task_ != nullptr && task_->reused()) {
    REACHED("snapshot: what was made of old and new is not right");
    from_nothing_ = true;
  }
  Abandon(effects);
  return {chunk.transfer, SnapshotAck::Result::kRefused, 0};
}

std::optional<SnapshotAck> SnapshotReceiver::Take(raft::NodeId from, SnapshotChunk chunk, Use use,
                                                  const mvcc::Store* own, Instant now,
                                                  Effects* effects) {
  // A leader that has started again counts its transfers from one again, in a later term.
  const bool ours = active() && from == from_ && chunk.term == term_ &&
                    chunk.transfer == transfer_ && chunk.meta == meta_;
  if (use != Use::kWanted) {
    if (ours) {
      REACHED("snapshot: what comes is not wanted any more");
      Abandon(effects);
    }
    if (use == Use::kNone) return SnapshotAck{chunk.transfer, SnapshotAck::Result::kRefused, 0};
    // It has come by way of the log, or the word that it was installed got lost. A sender that
    // heard of a refusal would send it again for ever: its log no longer has what would tell it
    // where this member stands.
    REACHED("snapshot: what comes is here already");
    return SnapshotAck{chunk.transfer, SnapshotAck::Result::kInstalled, chunk.offset};
  }
  if (!ours) {
    // A newer leader, or the same one anew; chunks of an older transfer that come late change
    // nothing.
    const bool newer = !active() || chunk.term > term_ ||
                       (chunk.term == term_ && from == from_ && chunk.transfer > transfer_);
    if (!newer) {
      REACHED("snapshot: a chunk of another transfer");
      return std::nullopt;
    }
    if (chunk.offset != 0) {
      REACHED("snapshot: a chunk of a transfer whose beginning is not here");
      return SnapshotAck{chunk.transfer, SnapshotAck::Result::kUnknown, 0};
    }
    Begin(from, chunk, own, effects);
    last_progress_ = now;
  }
  if (state_ != nullptr || chunk.offset != offset_) {
    REACHED("snapshot: a chunk comes twice, or out of order");
    return Received();
  }
  if (unwritten_->full()) {
    REACHED("snapshot: the disk is slower than chunks come");
    return Received();
  }
  std::string whole;
  if (!task_->Feed(chunk.data.view(), &whole).ok()) return Refuse(chunk, effects);
  offset_ += chunk.data.size();
  last_progress_ = now;
  if (chunk.last) {
    auto state = task_->Finish();
    if (!state.ok() || (*state)->applied_index() != meta_.index.value()) {
      return Refuse(chunk, effects);
    }
    task_.reset();
    state_ = *std::move(state);
  }
  if (!whole.empty()) {
    unwritten_->Put({.meta = meta_,
                     .data = Bytes::Copy(whole),
                     .first = !std::exchange(pieces_begun_, !chunk.last),
                     .last = chunk.last},
                    effects);
  }
  return Received();
}

std::optional<SnapshotReceiver::Ready> SnapshotReceiver::Saved(const raft::SnapshotMeta& meta) {
  if (state_ == nullptr || !(meta == meta_)) return std::nullopt;
  from_nothing_ = false;
  return Ready{
      from_, {transfer_, SnapshotAck::Result::kInstalled, offset_}, meta_, std::move(state_)};
}

std::optional<std::pair<raft::NodeId, SnapshotAck>> SnapshotReceiver::NotSaved(
    const raft::SnapshotMeta& meta) {
  if (!active() || !(meta == meta_)) return std::nullopt;
  REACHED("snapshot: the disk does not take what has come");
  task_.reset();
  state_.reset();
  return std::pair(from_, SnapshotAck{transfer_, SnapshotAck::Result::kRefused, 0});
}

void SnapshotReceiver::Expire(Instant now, Effects* effects) {
  if (!(active() || unfinished_ != nullptr) || now - last_progress_ < kPatience) return;
  unfinished_.reset();
  if (!active()) return;
  REACHED("snapshot: nothing more comes");
  Abandon(effects);
}

void SnapshotReceiver::Abandon(Effects* effects) {
  // What has come whole is on its way to being a file like any other; nothing is to be dropped
  // then.
  if (std::exchange(pieces_begun_, false)) {
    effects->snapshot_pieces.push_back({.meta = meta_, .abandon = true});
  }
  task_.reset();
  state_.reset();
}

}  // namespace conclave::node
