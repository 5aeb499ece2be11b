#include "conclave/tests/raft/scripted_cluster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/tests/raft/describe.h"

namespace conclave::raft::test {

using datadriven::Command;

std::string ScriptedCluster::Run(const Command& command) {
  if (command.name == "cluster" || command.name == "joiner") return Create(command);
  if (command.name == "deliver") return Deliver(command, /*lose=*/false);
  if (command.name == "drop") return Deliver(command, /*lose=*/true);
  if (command.name == "stabilize") return Stabilize();
  if (command.name == "heal") return isolated_.clear(), "";
  if (command.name == "status" && command.words.empty()) return DescribeAll();
  if (command.name == "network") {
    std::string text;
    for (const Envelope& envelope : network_) absl::StrAppend(&text, Describe(envelope), "\n");
    return text.empty() ? "nothing\n" : text;
  }
  const uint64_t id = command.WordNumber(0);
  const auto found = members_.find(id);
  if (found == members_.end()) return absl::StrCat("error: no member ", id);
  Member& member = *found->second;
  if (command.name == "isolate") return isolated_.insert(id), "";
  if (command.name == "start") return member.Start(id), "";
  if (command.name == "status") return DescribeMember(member, id);
  if (!member.running()) return "error: not running";
  return Input(command, member);
}

std::string ScriptedCluster::Input(const Command& command, Member& member) {
  const uint64_t second = command.WordNumber(1);
  if (command.name == "campaign") return member.node().Campaign(), "";
  if (command.name == "unreachable") return member.node().ReportUnreachable(NodeId(second)), "";
  if (command.name == "propose" || command.name == "forward") return Propose(command, member);
  if (command.name == "conf-change" || command.name == "leave-joint") {
    return ChangeConf(command, member);
  }
  if (command.name == "ready") return TakeReady(member);
  if (command.name == "write") {
    return Write(member, command.words.size() > 1 ? second : member.writes_in_flight());
  }
  if (command.name == "send-snapshot") return SendSnapshot(command, member, true);
  if (command.name == "fail-snapshot") return SendSnapshot(command, member, false);
  if (command.name == "crash") return member.Crash(command.Number("completed", 0)), "";
  if (command.name == "tick") {
    for (uint64_t i = 0; i < std::max<uint64_t>(1, second); ++i) member.node().Tick();
    return "";
  }
  if (command.name == "read") {
    constexpr const char* kNames[] = {"", "no leader\n", "too many\n"};
    return kNames[static_cast<size_t>(member.node().ReadIndex(ReadId(second)))];
  }
  if (command.name == "transfer") {
    constexpr const char* kNames[] = {"", "not leader\n", "not a voter\n", "already leader\n"};
    return kNames[static_cast<size_t>(member.node().TransferLeader(NodeId(second)))];
  }
  if (command.name == "log") {
    std::string text;
    for (Index at = member.node().first_index(); at <= member.node().last_index(); ++at) {
      absl::StrAppend(&text, Describe(member.node().EntryAt(at)), "\n");
    }
    return text.empty() ? "empty\n" : text;
  }
  if (command.name == "snapshot") {
    const Index at = member.state();
    member.SaveSnapshot(at, Index(command.Number("compact", at.value())));
    return "";
  }
  return "error: unknown command";
}

std::string ScriptedCluster::Create(const Command& command) {
  const bool joins = command.name == "joiner";
  const uint64_t first = joins ? command.WordNumber(0) : 1;
  const uint64_t last = joins ? first : command.Number("members", 3);
  if (!joins) {
    members_.clear();
    network_.clear();
  }
  std::vector<NodeId> founders;
  for (uint64_t id = first; id <= last; ++id) founders.push_back(NodeId(id));
  for (uint64_t id = first; id <= last; ++id) {
    Config config;
    config.id = NodeId(id);
    config.max_inflight_messages = static_cast<uint32_t>(command.Number("inflight", 256));
    config.max_append_bytes = command.Number("append-bytes", 1 << 20);
    config.max_uncommitted_bytes = command.Number("uncommitted", 1 << 20);
    auto member =
        std::make_unique<Member>(config, joins ? SnapshotMeta() : FoundingSnapshot(founders));
    member->Start(id);
    members_[id] = std::move(member);
  }
  return "";
}

// ---- The way of messages ----

void ScriptedCluster::Post(std::vector<Envelope> envelopes) {
  for (Envelope& envelope : envelopes) {
    if (isolated_.contains(envelope.from.value()) || isolated_.contains(envelope.to.value())) {
      continue;
    }
    network_.push_back(std::move(envelope));
  }
}

std::string ScriptedCluster::TakeReady(Member& member) {
  Ready ready = member.TakeReady();
  const std::string text = Describe(ready);
  Post(std::move(ready.messages));
  return text;
}

std::string ScriptedCluster::Write(Member& member, size_t count) {
  std::vector<Envelope> released = member.CompleteWrites(count);
  std::string text;
  for (const Envelope& envelope : released) absl::StrAppend(&text, Describe(envelope), "\n");
  Post(std::move(released));
  return text;
}

std::string ScriptedCluster::Deliver(const Command& command, bool lose) {
  const uint64_t from = command.Number("from", 0);
  const uint64_t to = command.Number("to", 0);
  uint64_t count = command.Number("count", network_.size());
  std::vector<Envelope> rest;
  std::string text;
  for (Envelope& envelope : std::exchange(network_, {})) {
    const bool chosen = count > 0 && (from == 0 || envelope.from.value() == from) &&
                        (to == 0 || envelope.to.value() == to);
    if (!chosen) {
      rest.push_back(std::move(envelope));
      continue;
    }
    --count;
    absl::StrAppend(&text, Describe(envelope), "\n");
    Member& member = *members_.at(envelope.to.value());
    if (!lose && member.running()) member.node().Step(std::move(envelope));
  }
  network_ = std::move(rest);
  return text.empty() ? "nothing\n" : text;
}

std::string ScriptedCluster::Stabilize() {
  std::string text;
  constexpr int kRoundsMax = 1000;
  for (int round = 0; round < kRoundsMax; ++round) {
    bool done = network_.empty();
    for (auto& [id, member] : members_) {
      if (!member->running()) continue;
      if (member->node().HasReady()) {
        done = false;
        Ready ready = member->TakeReady();
        Ready told;
        told.reads = ready.reads;
        told.failed_reads = ready.failed_reads;
        told.dropped_proposals = ready.dropped_proposals;
        told.snapshots_needed = ready.snapshots_needed;
        const std::string what = Describe(told);
        if (what != "nothing\n") absl::StrAppend(&text, id, ": ", what);
        Post(std::move(ready.messages));
      }
      if (member->writes_in_flight() > 0) {
        done = false;
        Post(member->CompleteWrites(member->writes_in_flight()));
      }
    }
    for (Envelope& envelope : std::exchange(network_, {})) {
      Member& member = *members_.at(envelope.to.value());
      if (member.running()) member.node().Step(std::move(envelope));
    }
    if (done) return text + DescribeAll();
  }
  return text + "error: does not come to rest\n";
}

// ---- Wishes ----

std::string ScriptedCluster::Propose(const Command& command, Member& member) {
  std::vector<Bytes> payloads;
  for (size_t i = 1; i < command.words.size(); ++i) {
    payloads.push_back(Bytes::Copy(command.words[i]));
  }
  const ProposeResult result = command.name == "propose"
                                   ? member.node().Propose(payloads)
                                   : member.node().Forward(EntryType::kCommand, payloads);
  if (result.status != ProposeStatus::kAccepted) return Name(result.status) + "\n";
  return absl::StrCat("accepted from ", result.first_index.value(), "/t", result.term.value(),
                      "\n");
}

std::string ScriptedCluster::ChangeConf(const Command& command, Member& member) {
  ConfChange change;
  if (command.name == "leave-joint") change.kind = ConfChangeKind::kLeaveJoint;
  for (size_t i = 1; i < command.words.size(); ++i) {
    if (command.words[i] == "explicit") {
      change.kind = ConfChangeKind::kJointExplicit;
    } else {
      change.steps.push_back(ParseStep(command.words[i]));
    }
  }
  const ProposeResult result = member.node().ProposeConfChange(change);
  if (result.status != ProposeStatus::kAccepted) return Name(result.status) + "\n";
  return absl::StrCat("accepted as ", result.first_index.value(), "/t", result.term.value(), "\n");
}

std::string ScriptedCluster::SendSnapshot(const Command& command, Member& from, bool succeeds) {
  const uint64_t to = command.WordNumber(1);
  const SnapshotMeta& snapshot = from.disk().snapshot();
  std::string text;
  if (succeeds) {
    const bool installed = members_.at(to)->InstallSnapshot(snapshot);
    text = absl::StrCat(installed ? "installed " : "not needed ", snapshot.index.value(), "/t",
                        snapshot.term.value(), "\n");
  }
  from.node().SnapshotStatus(NodeId(to),
                             succeeds ? std::optional<Index>(snapshot.index) : std::nullopt);
  return text;
}

// ---- State as text ----

std::string ScriptedCluster::DescribeMember(const Member& member, uint64_t id) const {
  if (!member.running()) return absl::StrCat(id, ": down\n");
  const Status status = member.node().status();
  std::string text = absl::StrCat(
      id, ": ", Name(status.role), " t", status.term.value(), " leader ", status.leader.value(),
      " log ", status.first_index.value(), "..", status.last_index.value(), " stable ",
      status.stable.value(), " commit ", status.commit.value(), " applied ", status.applied.value(),
      " ", Describe(status.conf));
  if (status.transferee) absl::StrAppend(&text, " transfer to ", status.transferee.value());
  absl::StrAppend(&text, "\n");
  for (const PeerStatus& peer : status.peers) {
    if (peer.id.value() == id) continue;
    absl::StrAppend(&text, "   ", peer.id.value(), " ", Name(peer.state), " match ",
                    peer.match.value(), " next ", peer.next.value());
    if (peer.inflight_messages > 0) {
      absl::StrAppend(&text, " inflight ", peer.inflight_messages);
    }
    if (peer.is_learner) absl::StrAppend(&text, " learner");
    absl::StrAppend(&text, "\n");
  }
  return text;
}

std::string ScriptedCluster::DescribeAll() const {
  std::string text;
  for (const auto& [id, member] : members_) absl::StrAppend(&text, DescribeMember(*member, id));
  return text;
}

}  // namespace conclave::raft::test
