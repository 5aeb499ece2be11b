// Quorum arithmetic: by scripts, and against models that follow the definition word by word.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/server/raft/quorum/joint.h"
#include "conclave/tests/datadriven/datadriven.h"

namespace conclave::raft {
namespace {

std::vector<NodeId> Ids(const std::vector<std::string>& words) {
  std::vector<NodeId> ids;
  for (const std::string& word : words) ids.push_back(NodeId(std::stoull(word)));
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::string Name(VoteResult result) {
  switch (result) {
    case VoteResult::kPending:
      return "pending";
    case VoteResult::kLost:
      return "lost";
    case VoteResult::kWon:
      return "won";
  }
  return "?";
}

// Answers are given in the order of all voters' ids; "_" is none.
std::string RunQuorumCommand(const datadriven::Command& command) {
  const JointConfig config(MajorityConfig(Ids(command.List("voters"))),
                           MajorityConfig(Ids(command.List("outgoing"))));
  std::vector<std::string> answers = command.List("answers");
  std::map<NodeId, std::string> by_id;
  size_t next = 0;
  config.ForEach([&](NodeId id) {
    if (next < answers.size() && answers[next] != "_") by_id[id] = answers[next];
    ++next;
  });
  if (next != answers.size()) return "error: one answer per voter is needed";
  if (command.name == "committed") {
    const Index index = config.Committed<Index>([&](NodeId id) {
      const auto found = by_id.find(id);
      return found == by_id.end() ? Index(0) : Index(std::stoull(found->second));
    });
    return index == Index(UINT64_MAX) ? "everything" : absl::StrCat(index.value());
  }
  if (command.name == "vote") {
    return Name(config.Result([&](NodeId id) -> std::optional<bool> {
      const auto found = by_id.find(id);
      if (found == by_id.end()) return std::nullopt;
      return found->second == "y";
    }));
  }
  return "error: unknown command";
}

TEST(Quorum, Scripts) {
  for (const std::string& path : datadriven::ScriptsIn("tests/raft/scripts/quorum")) {
    datadriven::RunScript(path, RunQuorumCommand);
  }
}

// By definition: the largest number such that more than half of the voters have acknowledged at
// least it.
Index CommittedByDefinition(const std::vector<NodeId>& voters,
                            const std::map<NodeId, Index>& acked) {
  Index best;
  for (uint64_t candidate = 0; candidate <= 8; ++candidate) {
    size_t reached = 0;
    for (NodeId id : voters) reached += acked.at(id).value() >= candidate ? 1 : 0;
    if (2 * reached > voters.size()) best = Index(candidate);
  }
  return voters.empty() ? Index(UINT64_MAX) : best;
}

// By definition: won if more than half said yes; lost if no answers still to come can make it so.
VoteResult ResultByDefinition(const std::vector<NodeId>& voters,
                              const std::map<NodeId, std::optional<bool>>& votes) {
  size_t yes = 0;
  size_t no = 0;
  for (NodeId id : voters) {
    yes += votes.at(id) == true ? 1 : 0;
    no += votes.at(id) == false ? 1 : 0;
  }
  if (voters.empty() || 2 * yes > voters.size()) return VoteResult::kWon;
  return 2 * (voters.size() - no) > voters.size() ? VoteResult::kPending : VoteResult::kLost;
}

std::vector<NodeId> Subset(unsigned mask) {
  std::vector<NodeId> ids;
  for (uint64_t bit = 0; bit < 5; ++bit) {
    if ((mask >> bit) & 1u) ids.push_back(NodeId(bit + 1));
  }
  return ids;
}

TEST(Quorum, CommittedEqualsItsDefinitionInAllConfigurationsOfFive) {
  for (unsigned in = 0; in < 32; ++in) {
    for (unsigned out = 0; out < 32; ++out) {
      const JointConfig config(MajorityConfig(Subset(in)), MajorityConfig(Subset(out)));
      for (unsigned numbers = 0; numbers < 4 * 4 * 4 * 4 * 4; ++numbers) {
        std::map<NodeId, Index> acked;
        unsigned rest = numbers;
        for (uint64_t id = 1; id <= 5; ++id, rest /= 4) acked[NodeId(id)] = Index(rest % 4);
        const Index expected = std::min(CommittedByDefinition(Subset(in), acked),
                                        CommittedByDefinition(Subset(out), acked));
        ASSERT_EQ(config.Committed<Index>([&](NodeId id) { return acked[id]; }), expected)
            << in << " " << out << " " << numbers;
      }
    }
  }
}

TEST(Quorum, ResultEqualsItsDefinitionInAllConfigurationsOfFive) {
  for (unsigned in = 0; in < 32; ++in) {
    for (unsigned out = 0; out < 32; ++out) {
      const JointConfig config(MajorityConfig(Subset(in)), MajorityConfig(Subset(out)));
      for (unsigned numbers = 0; numbers < 3 * 3 * 3 * 3 * 3; ++numbers) {
        std::map<NodeId, std::optional<bool>> votes;
        unsigned rest = numbers;
        for (uint64_t id = 1; id <= 5; ++id, rest /= 3) {
          votes[NodeId(id)] = rest % 3 == 0 ? std::nullopt : std::optional<bool>(rest % 3 == 1);
        }
        const VoteResult a = ResultByDefinition(Subset(in), votes);
        const VoteResult b = ResultByDefinition(Subset(out), votes);
        VoteResult expected = VoteResult::kPending;
        if (a == VoteResult::kLost || b == VoteResult::kLost) expected = VoteResult::kLost;
        if (a == VoteResult::kWon && b == VoteResult::kWon) expected = VoteResult::kWon;
        ASSERT_EQ(config.Result([&](NodeId id) { return votes[id]; }), expected)
            << in << " " << out << " " << numbers;
      }
    }
  }
}

}  // namespace
}  // namespace conclave::raft
