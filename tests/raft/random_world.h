// RandomWorld: some members, a network that loses, repeats and reorders, disks of any slowness,
// crashes, partitions, changes of membership, snapshots and transfers, all from one seed; and what
// must hold all the time.
//
//   election safety       one leader per term
//   log matching          equal (index, term) means equal logs up to there
//   leader completeness   a new leader has all that anybody was told to be committed
//   state machine safety  all apply the same entries, each once, in order, under the same
//   configuration linearizable reads    a read index covers all that was committed when the read
//   came in reads are answered    each exactly once, while its member lives proposals what was
//   refused is nowhere; nothing takes effect twice
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/tests/raft/member.h"

namespace conclave::raft::test {

class RandomWorld {
 public:
  explicit RandomWorld(uint64_t seed);

  // Safety under all faults.
  void RunFaults(int steps);
  // Then all is healed, and everybody must agree, and answer, within a bounded number of steps.
  void HealAndConverge();

  // What it saw, to prove that the faults did something. Keys are names of events.
  const std::map<std::string, uint64_t>& events() const { return events_; }
  uint64_t committed() const { return committed_.size(); }
  // The state of all members that run, one line each.
  std::string Describe() const;

 private:
  struct Read {
    uint64_t member = 0;
    Index floor;  // committed somewhere when it came in
  };
  struct Stream {
    NodeId from;
    NodeId to;
    SnapshotMeta meta;
  };

  // What may happen in a step, and how often.
  using Temper = std::vector<std::pair<void (RandomWorld::*)(), uint64_t>>;
  Temper DrawTemper();
  void OneStep();
  void ReportUnreachable();
  void Deliver();
  void TickSome();
  void CompleteSomeWrites();
  void ProposeSomewhere();
  void ReadSomewhere();
  void ChangeMembership();
  void TransferSomewhere();
  void CrashOrStart();
  void Partition();
  void SnapshotSomewhere();
  void EndStream();

  Member& Pick() { return *members_[prng_.Below(members_.size())]; }
  Member* PickRunning();
  Member* FindLeader();
  Member& Of(NodeId id) { return *members_[id.value() - 1]; }
  void Start(Member& member);
  void Crash(Member& member);
  void Drain(Member& member);
  void Post(Envelope envelope);
  void AnswerRead(const Member& member, ReadId id, std::optional<Index> index);
  // True if the leader has it.
  bool Propose(Member& member);

  void CheckCommitted(Member& member, const Entry& entry);
  void CheckLeader(Member& member);
  void CheckLogsMatch();
  bool Converged();

  Prng prng_;
  Temper temper_;
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<Envelope> network_;
  std::set<std::pair<uint64_t, uint64_t>> cut_;  // from, to
  std::vector<Stream> streams_;
  bool faults_ = true;

  std::vector<Entry> committed_;  // by index - 2: the founding snapshot stands at 1
  std::vector<ConfState> confs_;  // beside committed_
  std::map<uint64_t, uint64_t> leader_of_term_;
  std::map<uint64_t, Read> reads_;
  std::set<std::string> applied_payloads_;
  std::set<std::string> refused_payloads_;
  std::map<std::pair<uint64_t, uint64_t>, std::vector<std::string>> forwarded_;
  uint64_t next_read_ = 0;
  uint64_t next_payload_ = 0;
  std::map<std::string, uint64_t> events_;
};

}  // namespace conclave::raft::test
