// What no correct member can have said. Losing, repeating and delaying are the network's right and
// are dealt with where they matter; this is about messages that contradict what this member knows
// for certain, and would break its invariants: the work of a bug, of damaged memory, or of
// somebody who has no business here. None of it is taken, and the term of such a message is not
// believed either.
#include <optional>

#include "absl/status/statusor.h"
#include "conclave/server/raft/confchange/changer.h"
#include "conclave/server/raft/raw_node.h"

namespace conclave::raft {
namespace {

// Terms and indices grow one by one: no cluster comes near these, and below them sums do not wrap.
constexpr Term kTermMax{uint64_t{1} << 62};
constexpr Index kIndexMax{uint64_t{1} << 62};

bool IsEntryType(EntryType type) {
  return type == EntryType::kCommand || type == EntryType::kConfChange;
}

}  // namespace

const char* RawNode::Impossible(const Envelope& envelope) const {
  if (envelope.term > kTermMax) return "its term is beyond all counting";
  return std::visit([&](const auto& message) { return Impossible(envelope, message); },
                    envelope.message);
}

bool RawNode::IsPossible(const SnapshotMeta& snapshot) {
  return snapshot.index <= kIndexMax && snapshot.term <= kTermMax && IsConsistent(snapshot.conf);
}

const char* RawNode::ImpossibleLeader(const Envelope& envelope) const {
  if (envelope.term != term_) return nullptr;
  if (is_leader()) return "it leads the term that this member leads";
  if (leader() && leader() != envelope.from) return "another member leads its term";
  return nullptr;
}

const char* RawNode::Impossible(const Envelope& envelope, const AppendEntries& append) const {
  if (const char* reason = ImpossibleLeader(envelope)) return reason;
  if (append.prev_index > kIndexMax || append.commit > kIndexMax) {
    return "its indices are beyond all counting";
  }
  Index index = append.prev_index;
  Term term = append.prev_term;
  bool changes_conf = false;
  for (const Entry& entry : append.entries) {
    if (entry.index != ++index) return "its entries have a gap";
    if (entry.term < term || entry.term > envelope.term) return "the terms of its entries fall";
    if (!IsEntryType(entry.type)) return "it has an entry of no known kind";
    changes_conf |= entry.type == EntryType::kConfChange;
    term = entry.term;
  }
  // What does not continue this log is answered without a look at its entries.
  if (!changes_conf || append.prev_index < log_.commit() ||
      !log_.Contains({append.prev_index, append.prev_term})) {
    return nullptr;
  }
  return ImpossibleChange(append);
}

// Follows the entries that are news, as AppendFromLeader will.
const char* RawNode::ImpossibleChange(const AppendEntries& append) const {
  std::optional<ConfState> conf;
  for (const Entry& entry : append.entries) {
    if (!conf.has_value()) {
      if (log_.TermAt(entry.index) == entry.term) continue;
      conf = confs_.At(entry.index - 1);
    }
    if (entry.type != EntryType::kConfChange) continue;
    const std::optional<ConfChange> change = DecodeConfChange(entry.payload);
    if (!change.has_value()) return "it has a change of membership that cannot be read";
    absl::StatusOr<ConfState> changed = ApplyConfChange(*conf, *change);
    if (!changed.ok()) return "it has a change of membership that makes no sense here";
    conf = *std::move(changed);
  }
  return nullptr;
}

const char* RawNode::Impossible(const Envelope& envelope, const Heartbeat& heartbeat) const {
  if (const char* reason = ImpossibleLeader(envelope)) return reason;
  // A leader never names more than this member has acknowledged, and what was acknowledged is only
  // replaced by a leader of a later term.
  return heartbeat.commit > log_.last_index() ? "it commits entries that this member never had"
                                              : nullptr;
}

const char* RawNode::Impossible(const Envelope& envelope, const AppendResponse& response) const {
  if (envelope.term != term_ || !is_leader() || response.rejected) return nullptr;
  return response.index > log_.last_index() ? "it acknowledges entries that were never sent"
                                            : nullptr;
}

const char* RawNode::Impossible(const Envelope& envelope, const HeartbeatResponse& response) const {
  const auto* leader = std::get_if<Leader>(&role_);
  if (envelope.term != term_ || leader == nullptr) return nullptr;
  return response.round > leader->reads.newest() ? "it answers a round that was never opened"
                                                 : nullptr;
}

const char* RawNode::Impossible(const Envelope&, const ReadResponse& response) const {
  return response.index > kIndexMax ? "its index is beyond all counting" : nullptr;
}

const char* RawNode::Impossible(const Envelope&, const ForwardedProposals& forwarded) const {
  if (!IsEntryType(forwarded.type)) return "it proposes entries of no known kind";
  for (const Bytes& payload : forwarded.payloads) {
    // An empty command is a leader's own first entry.
    if (payload.empty()) return "it proposes an empty command";
  }
  return nullptr;
}

}  // namespace conclave::raft
