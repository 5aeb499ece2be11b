// How members act on each other, step by step: tests/raft/scripts/interaction. Read the scripts.
#include <gtest/gtest.h>

#include "conclave/tests/raft/scripted_cluster.h"

namespace conclave::raft::test {
namespace {

TEST(Interaction, Scripts) {
  for (const std::string& path : datadriven::ScriptsIn("tests/raft/scripts/interaction")) {
    ScriptedCluster cluster;
    datadriven::RunScript(path,
                          [&](const datadriven::Command& command) { return cluster.Run(command); });
  }
}

}  // namespace
}  // namespace conclave::raft::test
