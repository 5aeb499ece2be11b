// ScriptedCluster: members whose every step is a command of a script. Nothing happens by itself: a
// Ready is taken, a write completed, a message delivered when the script says so, or all of it
// until nothing is left
// ("stabilize"). The commands are listed at Run.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "conclave/tests/datadriven/datadriven.h"
#include "conclave/tests/raft/member.h"

namespace conclave::raft::test {

class ScriptedCluster {
 public:
  //   cluster members=3          founders 1..3, in the limits inflight=, append-bytes=,
  //   uncommitted= joiner 4                   a member that knows nothing campaign 1 | tick 1 5 |
  //   unreachable 1 2 propose 1 a b | forward 2 a | conf-change 1 v4 r1 [explicit] | leave-joint 1
  //   read 1 7 | transfer 1 2
  //   ready 1                    takes and prints the Ready; its messages go to the network
  //   write 1 [count]            completes writes, prints the messages that waited for them
  //   network                    prints what is on the way
  //   deliver [from=] [to=] [count=]
  //   drop [from=] [to=]         loses what is on the way now
  //   isolate 1 | heal           loses everything from and to 1
  //   stabilize                  until nothing is left to do; prints reads, refusals, and the
  //   status status [1] | log 1 crash 1 [completed=1] | start 1 snapshot 1 [compact=5]     of
  //   member 1's state, at what it has applied send-snapshot 1 4          streams member 1's last
  //   snapshot to 4 | fail-snapshot 1 4
  std::string Run(const datadriven::Command& command);

 private:
  std::string Input(const datadriven::Command& command, Member& member);
  std::string Create(const datadriven::Command& command);
  std::string TakeReady(Member& member);
  std::string Write(Member& member, size_t count);
  std::string Deliver(const datadriven::Command& command, bool lose);
  std::string Stabilize();
  std::string Propose(const datadriven::Command& command, Member& member);
  std::string ChangeConf(const datadriven::Command& command, Member& member);
  std::string SendSnapshot(const datadriven::Command& command, Member& from, bool succeeds);
  std::string DescribeMember(const Member& member, uint64_t id) const;
  std::string DescribeAll() const;
  void Post(std::vector<Envelope> envelopes);

  std::map<uint64_t, std::unique_ptr<Member>> members_;
  std::vector<Envelope> network_;
  std::set<uint64_t> isolated_;
};

}  // namespace conclave::raft::test
