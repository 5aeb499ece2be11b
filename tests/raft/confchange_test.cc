// Changes of membership: by scripts, and that random sequences of them keep what must hold.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/base/prng.h"
#include "conclave/server/raft/confchange/changer.h"
#include "conclave/tests/datadriven/datadriven.h"
#include "conclave/tests/raft/describe.h"

namespace conclave::raft::test {
namespace {

// The words: v1 adds voter 1, l1 adds learner 1, r1 removes 1.
std::vector<ConfChangeStep> Steps(const std::vector<std::string>& words) {
  std::vector<ConfChangeStep> steps;
  for (const std::string& word : words) steps.push_back(ParseStep(word));
  return steps;
}

TEST(ConfChange, Scripts) {
  for (const std::string& path : datadriven::ScriptsIn("tests/raft/scripts/confchange")) {
    ConfState conf;
    datadriven::RunScript(path, [&](const datadriven::Command& command) -> std::string {
      absl::StatusOr<ConfState> changed = ConfState();
      if (command.name == "founded") {
        for (const std::string& id : command.List("voters")) {
          changed->voters.push_back(NodeId(std::stoull(id)));
        }
      } else if (command.name == "simple") {
        changed = SimpleChange(conf, Steps(command.words));
      } else if (command.name == "enter-joint") {
        changed = EnterJoint(conf, command.Number("auto", 0) == 1, Steps(command.words));
      } else if (command.name == "leave-joint") {
        changed = LeaveJoint(conf);
      } else if (command.name == "change") {
        changed = ApplyConfChange(conf, {.steps = Steps(command.words)});
      } else {
        return "error: unknown command";
      }
      if (!changed.ok()) return absl::StrCat("refused: ", std::string(changed.status().message()));
      conf = *changed;
      return Describe(conf);
    });
  }
}

// The reason why changes are safe (thesis 4.1 and 4.3): any quorum of one configuration meets any
// quorum of the next. Checked by trying all pairs.
bool QuorumsMeet(const ConfState& before, const ConfState& after) {
  constexpr uint64_t kIds = 6;
  const auto is_quorum = [](const ConfState& conf, uint64_t set) {
    return JointConfig(conf).Result([&](NodeId id) -> std::optional<bool> {
      return ((set >> id.value()) & 1) != 0;
    }) == VoteResult::kWon;
  };
  for (uint64_t a = 0; a < uint64_t{2} << kIds; a += 2) {
    if (!is_quorum(before, a)) continue;
    const uint64_t others = ((uint64_t{2} << kIds) - 2) & ~a;
    if (is_quorum(after, others)) return false;  // then a quorum avoids all of a
  }
  return true;
}

TEST(ConfChange, QuorumsOfSuccessiveConfigurationsMeet) {
  Prng prng(1);
  for (int run = 0; run < 200; ++run) {
    ConfState conf{.voters = {NodeId(1), NodeId(2), NodeId(3)}};
    for (int i = 0; i < 30; ++i) {
      ConfChange change;
      change.kind = static_cast<ConfChangeKind>(prng.Below(4));
      const uint64_t steps = change.kind == ConfChangeKind::kLeaveJoint ? 0 : 1 + prng.Below(4);
      for (uint64_t step = 0; step < steps; ++step) {
        change.steps.push_back(
            {static_cast<ConfChangeType>(prng.Below(3)), NodeId(1 + prng.Below(6))});
      }
      const absl::StatusOr<ConfState> changed = ApplyConfChange(conf, change);
      if (!changed.ok()) continue;
      ASSERT_TRUE(IsConsistent(*changed)) << Describe(conf) << " -> " << Describe(*changed);
      ASSERT_FALSE(changed->voters.empty());
      ASSERT_TRUE(QuorumsMeet(conf, *changed)) << Describe(conf) << " -> " << Describe(*changed);
      conf = *changed;
    }
  }
}

TEST(ConfChange, JointThenLeaveEqualsTheStepsAtOnce) {
  Prng prng(2);
  for (int run = 0; run < 2000; ++run) {
    const ConfState conf{.voters = {NodeId(1), NodeId(2), NodeId(3)}, .learners = {NodeId(4)}};
    const ConfChangeStep step{static_cast<ConfChangeType>(prng.Below(3)),
                              NodeId(1 + prng.Below(6))};
    const absl::StatusOr<ConfState> simple = SimpleChange(conf, {&step, 1});
    ASSERT_TRUE(simple.ok());
    const absl::StatusOr<ConfState> joint = EnterJoint(conf, false, {&step, 1});
    ASSERT_TRUE(joint.ok());
    EXPECT_EQ(Describe(*LeaveJoint(*joint)), Describe(*simple));
  }
}

TEST(ConfChange, EncodingIsReadBack) {
  ConfChange change;
  change.kind = ConfChangeKind::kJointExplicit;
  change.steps = {{ConfChangeType::kAddLearner, NodeId(0x8e9e05c52164694d)},
                  {ConfChangeType::kRemove, NodeId(2)}};
  change.context = Bytes::Copy("name and address");
  EXPECT_EQ(DecodeConfChange(EncodeConfChange(change)), change);
  ConfChange leave;
  leave.kind = ConfChangeKind::kLeaveJoint;
  EXPECT_EQ(DecodeConfChange(EncodeConfChange(leave)), leave);
}

TEST(ConfChange, BrokenEncodingsAreRefused) {
  const Bytes good = EncodeConfChange({.steps = {{ConfChangeType::kAddVoter, NodeId(1)}}});
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(DecodeConfChange(good.Slice(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(DecodeConfChange(Bytes::Copy(std::string("\x04\x00", 2))).has_value());
  EXPECT_FALSE(DecodeConfChange(Bytes::Copy(std::string("\x00\x00", 2))).has_value());
  EXPECT_FALSE(
      DecodeConfChange(Bytes::Copy(std::string("\x00\x01\x03\x01\0\0\0\0\0\0\0", 11))).has_value());
}

}  // namespace
}  // namespace conclave::raft::test
