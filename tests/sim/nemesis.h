// Nemesis: does what goes wrong, at times and in ways that follow from a seed of its own.
//
// Each run has its own character (swarm testing): the classes of faults that happen in it, and how
// dense they are, are drawn first. Leaving out one more class does not move the others.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/tests/sim/faults.h"
#include "conclave/tests/sim/member.h"
#include "conclave/tests/sim/plan.h"
#include "conclave/tests/sim/rot.h"

namespace conclave::sim {

class Simulation;

class Nemesis {
 public:
  Nemesis(Simulation* simulation, const Plan& plan, uint64_t seed);

  // From now on, until Stop.
  void Start();
  void Stop() { active_ = false; }
  FaultCounts& counts() { return counts_; }
  // A member gives its disk a vote to write.
  void OnVote(size_t voter, std::optional<size_t> candidate);
  // A member gives its disk the end of a snapshot to write.
  void OnSave(size_t saver, bool received);
  // A member gives its disk a renewal of a lease to write, and has told nobody of it.
  void OnRenewal(size_t member);

  // Starts a member again, unless all is being put right by then.
  void Restart(size_t member, Duration after);
  // Something on its disk has rotted, and is not repaired yet: it may have to wait for others.
  bool rotten(size_t member) const { return rotten_.contains(member); }
  // To be asked before: who has been repaired since is rotten no more.
  void LookForRepaired();
  // Whose disk was full at some time: all may wait for them to say that there is room again.
  const std::set<size_t>& filled() const { return filled_; }

 private:
  struct Deed {
    Fault fault;
    uint32_t weight;
    bool (Nemesis::*act)();  // false: there was nothing to do it to
  };
  static const std::vector<Deed>& Deeds();

  void Later();
  void Act();
  size_t Any();
  Duration Between(int64_t low_ms, int64_t high_ms);
  bool Crash(size_t member, SimMember::Crash crash, const char* how, Duration down_max);
  void Isolate(size_t member, Duration time);
  void CutBoth(size_t a, size_t b, Duration time);
  void SpareVoters();
  void SpareSavers();
  void SetLatencies(const DiskLatency& latency);
  bool FillDisk(size_t member, Duration time);
  bool RotSomething(RotKind kind);

  bool PowerLoss();
  bool LazyPowerLoss();
  bool Kill();
  bool Blackout();
  bool DeathInStart();
  bool MajorityDies();
  bool RollingRestart();
  bool Pause();
  bool SlowMember();
  bool Drift();
  bool LeaderMoved();
  bool LeaderStopped();
  bool VoterDies();
  bool SaverDies();
  bool SlowDisk();
  bool StalledDisk();
  bool StalledDisks();
  bool DiskError();
  bool FullDisk();
  bool FullDisks();
  bool LogRot();
  bool SnapshotRot();
  bool VoteRot();
  bool MisplacedWrite();
  bool OneWayCut();
  bool LinkCut();
  bool Isolation();
  bool Partition();
  bool LeaderDeaf();
  bool LeaderMute();
  bool LeaderHasOne();
  bool LessorAlone();
  bool BadNetwork();
  bool Clog();
  bool Echo();
  bool EchoSnapshots();
  bool Reset();
  bool ClientsCutOff();

  Simulation* const simulation_;
  const Plan plan_;
  Prng prng_;
  bool active_ = false;
  bool voters_die_ = false;
  std::set<size_t> voted_;  // since then
  bool savers_die_ = false;
  bool lessor_alone_ = false;
  std::vector<Deed> deeds_;  // of this run
  uint32_t weights_ = 0;
  Duration gap_max_{};
  FaultCounts counts_;
  std::map<size_t, std::vector<RottenSpot>> rotten_;
  std::set<size_t> filled_;
};

}  // namespace conclave::sim
