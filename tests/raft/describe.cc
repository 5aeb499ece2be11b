#include "conclave/tests/raft/describe.h"

#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "conclave/base/check.h"

namespace conclave::raft::test {
namespace {

std::string List(const std::vector<NodeId>& ids) {
  return absl::StrCat(
      "(",
      absl::StrJoin(ids, " ",
                    [](std::string* out, NodeId id) { absl::StrAppend(out, id.value()); }),
      ")");
}

std::string At(Index index, Term term) { return absl::StrCat(index.value(), "/t", term.value()); }

std::string Entries(const std::vector<Entry>& entries) {
  return absl::StrCat(
      "[",
      absl::StrJoin(entries, ", ",
                    [](std::string* out, const Entry& entry) { out->append(Describe(entry)); }),
      "]");
}

struct MessageText {
  std::string operator()(const VoteRequest& m) const {
    return absl::StrCat(m.pre_vote ? "PreVoteRequest" : "VoteRequest",
                        m.leadership_transfer ? " transfer" : "", " last ",
                        At(m.last_index, m.last_term));
  }
  std::string operator()(const VoteResponse& m) const {
    return absl::StrCat(m.pre_vote ? "PreVoteResponse " : "VoteResponse ",
                        m.granted ? "granted" : "rejected");
  }
  std::string operator()(const AppendEntries& m) const {
    return absl::StrCat("AppendEntries after ", At(m.prev_index, m.prev_term), " commit ",
                        m.commit.value(), " ", Entries(m.entries));
  }
  std::string operator()(const AppendResponse& m) const {
    if (!m.rejected) return absl::StrCat("AppendResponse ", m.index.value());
    return absl::StrCat("AppendResponse rejects ", m.index.value(), " hint ",
                        At(m.hint_index, m.hint_term));
  }
  std::string operator()(const Heartbeat& m) const {
    return absl::StrCat("Heartbeat commit ", m.commit.value(), " round ", m.round.value());
  }
  std::string operator()(const HeartbeatResponse& m) const {
    return absl::StrCat("HeartbeatResponse round ", m.round.value());
  }
  // A follower's rounds start at random: they are not printed.
  std::string operator()(const ReadRequest&) const { return "ReadRequest"; }
  std::string operator()(const ReadResponse& m) const {
    return absl::StrCat("ReadResponse ", m.index.value());
  }
  std::string operator()(const ForwardedProposals& m) const {
    return absl::StrCat("ForwardedProposals ", m.payloads.size());
  }
  std::string operator()(const ProposalsRefused& m) const {
    return absl::StrCat("ProposalsRefused ", Name(m.reason));
  }
  std::string operator()(const TimeoutNow&) const { return "TimeoutNow"; }
};

}  // namespace

std::string Describe(const ConfState& conf) {
  std::string text = absl::StrCat("voters ", List(conf.voters));
  if (!conf.voters_outgoing.empty())
    absl::StrAppend(&text, " outgoing ", List(conf.voters_outgoing));
  if (!conf.learners.empty()) absl::StrAppend(&text, " learners ", List(conf.learners));
  if (!conf.learners_next.empty()) {
    absl::StrAppend(&text, " learners-next ", List(conf.learners_next));
  }
  if (conf.auto_leave) absl::StrAppend(&text, " auto-leave");
  return text;
}

std::string Describe(const Entry& entry) {
  std::string what = entry.payload.empty() ? "-" : entry.payload.ToString();
  if (entry.type == EntryType::kConfChange) {
    what = "conf";
    const std::optional<ConfChange> change = DecodeConfChange(entry.payload);
    CONCLAVE_CHECK(change.has_value());
    constexpr char kLetters[] = {'v', 'l', 'r'};
    for (const ConfChangeStep& step : change->steps) {
      absl::StrAppend(&what, " ", std::string(1, kLetters[static_cast<size_t>(step.type)]),
                      step.node.value());
    }
    if (change->kind == ConfChangeKind::kLeaveJoint) what = "conf leave-joint";
  }
  return absl::StrCat(At(entry.index, entry.term), " ", what);
}

std::string Describe(const Message& message) { return std::visit(MessageText(), message); }

std::string Describe(const Envelope& envelope) {
  return absl::StrCat(envelope.from.value(), "->", envelope.to.value(), " t", envelope.term.value(),
                      " ", Describe(envelope.message));
}

std::string Describe(const Ready& ready) {
  std::string text;
  if (ready.soft_state.has_value()) {
    absl::StrAppend(&text, Name(ready.soft_state->role), ", leader ",
                    ready.soft_state->leader.value(), "\n");
  }
  for (const Envelope& envelope : ready.messages) {
    absl::StrAppend(&text, "at once: ", Describe(envelope), "\n");
  }
  if (ready.append.has_value()) {
    absl::StrAppend(&text, "append ", ready.append->id.value(), ":");
    if (const auto& hard_state = ready.append->hard_state) {
      absl::StrAppend(&text, " term ", hard_state->term.value(), " vote ", hard_state->vote.value(),
                      " commit ", hard_state->commit.value());
    }
    absl::StrAppend(&text, " ", Entries(ready.append->entries), "\n");
    for (const Envelope& envelope : ready.append->messages) {
      absl::StrAppend(&text, "when durable: ", Describe(envelope), "\n");
    }
  }
  for (const Entry& entry : ready.committed)
    absl::StrAppend(&text, "apply ", Describe(entry), "\n");
  for (const ReadState& read : ready.reads) {
    absl::StrAppend(&text, "read ", read.id.value(), " at ", read.index.value(), "\n");
  }
  for (ReadId id : ready.failed_reads) absl::StrAppend(&text, "read ", id.value(), " failed\n");
  for (NodeId peer : ready.snapshots_needed) {
    absl::StrAppend(&text, "snapshot for ", peer.value(), "\n");
  }
  for (const DroppedProposals& dropped : ready.dropped_proposals) {
    absl::StrAppend(&text, "dropped: ", Name(dropped.reason), "\n");
  }
  return text.empty() ? "nothing\n" : text;
}

std::string Name(Role role) {
  constexpr const char* kNames[] = {"follower", "pre-candidate", "candidate", "leader"};
  return kNames[static_cast<size_t>(role)];
}

std::string Name(PeerState state) {
  constexpr const char* kNames[] = {"probe", "replicate", "snapshot"};
  return kNames[static_cast<size_t>(state)];
}

std::string Name(ProposeStatus status) {
  constexpr const char* kNames[] = {"accepted",
                                    "forwarded",
                                    "not leader",
                                    "transferring",
                                    "too many uncommitted",
                                    "conf change pending",
                                    "conf change invalid"};
  return kNames[static_cast<size_t>(status)];
}

ConfChangeStep ParseStep(const std::string& word) {
  ConfChangeStep step;
  switch (word.at(0)) {
    case 'v':
      step.type = ConfChangeType::kAddVoter;
      break;
    case 'l':
      step.type = ConfChangeType::kAddLearner;
      break;
    case 'r':
      step.type = ConfChangeType::kRemove;
      break;
    default:
      CONCLAVE_CHECK(false, "a step is v, l or r and an id: ", word);
  }
  step.node = NodeId(std::stoull(word.substr(1)));
  return step;
}

}  // namespace conclave::raft::test
