// What a leader knows of its followers, and what their quorum has: tests/raft/scripts/tracker.
#include "conclave/server/raft/tracker/tracker.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conclave/base/concat.h"
#include "conclave/tests/datadriven/datadriven.h"
#include "conclave/tests/raft/describe.h"

namespace conclave::raft::test {
namespace {

constexpr uint64_t kDepartureTicks = 2;

std::vector<NodeId> Ids(const std::vector<std::string>& words) {
  std::vector<NodeId> ids;
  for (const std::string& word : words) ids.push_back(NodeId(std::stoull(word)));
  return ids;
}

// Member 1 leads; two appends and 100 bytes may be in flight.
//   conf voters=(1,2) [outgoing=(1,3)] [learners=(4)] entry=5 next=6   the configuration
//   local 7                      its own log is durable up to there
//   sent 2 last=6 [bytes=10]     an append, or a probe
//   ack 2 6 | reject 2 7 agree=4
//   snapshot 2 | probe 2 next=5  a stream has begun, or ended
//   alive 2                      any sign of life
//   round 2 3                    a read round
//   told 2 commit=5
//   stalled 2 | tick             once per heartbeat interval | once per tick
//   committed | read-round newest=4 | active
//   show
class ScriptedTracker {
 public:
  std::string Run(const datadriven::Command& command) {
    if (command.name == "show") return Show();
    if (command.name == "conf") return SetConf(command);
    if (command.name == "committed") {
      const Index index = tracker_.CommittedIndex();
      return index == Index(UINT64_MAX) ? "everything" : Concat(index.value());
    }
    if (command.name == "read-round") {
      const ReadRound newest(command.Number("newest", 0));
      return Concat(tracker_.AcknowledgedRound(newest).value());
    }
    if (command.name == "active") {
      return tracker_.TakeQuorumActive() ? "a quorum" : "no quorum";
    }
    if (command.name == "tick") {
      tracker_.TickDepartures();
      return Show();
    }
    return OfMember(command);
  }

 private:
  std::string SetConf(const datadriven::Command& command) {
    ConfState conf;
    conf.voters = Ids(command.List("voters"));
    conf.voters_outgoing = Ids(command.List("outgoing"));
    conf.learners = Ids(command.List("learners"));
    tracker_.SetConf(conf, Index(command.Number("entry", 0)), Index(command.Number("next", 1)));
    return Show();
  }

  std::string OfMember(const datadriven::Command& command) {
    if (command.name == "local") {
      const Index stable(command.WordNumber(0));
      tracker_.Find(NodeId(1))->SetLocal(stable, stable);
      return Show(NodeId(1));
    }
    const NodeId id(command.WordNumber(0));
    Progress* const member = tracker_.Find(id);
    if (member == nullptr) return "error: no such member";
    const Index index(command.WordNumber(1));
    std::string said;
    if (command.name == "sent") {
      member->Sent(Index(command.Number("last", 0)), command.Number("bytes", 1));
    } else if (command.name == "ack") {
      // As the leader does: what was asked is answered.
      if (!member->Acknowledge(index)) said = "nothing new\n";
      if (member->state() == PeerState::kProbe) member->BecomeReplicate();
    } else if (command.name == "reject") {
      if (!member->Reject(index, Index(command.Number("agree", 0)))) said = "an old answer\n";
    } else if (command.name == "snapshot") {
      member->BecomeSnapshot();
    } else if (command.name == "probe") {
      member->BecomeProbe(Index(command.Number("next", 0)));
    } else if (command.name == "alive") {
      member->recent_active = true;
      member->Resume();
    } else if (command.name == "round") {
      member->acked_round = ReadRound(command.WordNumber(1));
    } else if (command.name == "told") {
      member->sent_commit = Index(command.Number("commit", 0));
      tracker_.DropDeparted();
      return Show();
    } else if (command.name == "stalled") {
      return member->StalledSinceLastCheck() ? "stalled" : "no";
    } else {
      return "error: unknown command";
    }
    return said + Show(id);
  }

  std::string Show(NodeId id) const {
    const Progress& member = *tracker_.Find(id);
    std::string text = Concat(id.value(), ": ");
    if (id != NodeId(1))
      text += Concat(Name(member.state()), member.Paused() ? " paused" : "", " ");
    text += Concat("match ", member.match().value(), " next ", member.next().value());
    if (member.inflights().count() > 0) {
      text += Concat(" in flight ", member.inflights().count(), ", ", member.inflights().bytes(),
                     " bytes");
    }
    if (member.is_learner) text += " learner";
    if (member.departure.has_value()) {
      text += Concat(" leaves by ", member.departure->entry.value(), ", ",
                     member.departure->ticks_left, " ticks");
    }
    return text;
  }
  std::string Show() const {
    std::string text;
    for (const auto& [id, member] : tracker_.all()) text += Show(id) + "\n";
    return text;
  }

  ProgressTracker tracker_{
      NodeId(1),
      {.max_inflight_messages = 2, .max_inflight_bytes = 100, .departure_ticks = kDepartureTicks}};
};

TEST(Tracker, Scripts) {
  for (const std::string& path : datadriven::ScriptsIn("tests/raft/scripts/tracker")) {
    ScriptedTracker tracker;
    datadriven::RunScript(path,
                          [&](const datadriven::Command& command) { return tracker.Run(command); });
  }
}

}  // namespace
}  // namespace conclave::raft::test
