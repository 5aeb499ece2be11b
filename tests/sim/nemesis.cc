#include "conclave/tests/sim/nemesis.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/server/wal/log.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {

using std::chrono::milliseconds;

namespace {

// One class in so many does not happen in a run.
constexpr uint64_t kLeftOut = 10;
constexpr uint64_t kErrorWithin = 20;  // operations on the disk
// Of a disk that is full: some segments.
constexpr uint64_t kRoomMax = 3 * 4 * wal::kSegmentBytesMin;
constexpr int64_t kGapsMaxMs[] = {250, 400, 500, 600, 1200, 3000};

}  // namespace

const std::vector<Nemesis::Deed>& Nemesis::Deeds() {
  static const auto* const kDeeds = new std::vector<Deed>{
      {Fault::kPowerLoss, 4, &Nemesis::PowerLoss},
      {Fault::kLazyPowerLoss, 2, &Nemesis::LazyPowerLoss},
      {Fault::kKill, 2, &Nemesis::Kill},
      {Fault::kBlackout, 2, &Nemesis::Blackout},
      {Fault::kDeathInStart, 2, &Nemesis::DeathInStart},
      {Fault::kMajorityDies, 1, &Nemesis::MajorityDies},
      {Fault::kRollingRestart, 1, &Nemesis::RollingRestart},
      {Fault::kPause, 4, &Nemesis::Pause},
      {Fault::kSlowMember, 2, &Nemesis::SlowMember},
      {Fault::kDrift, 2, &Nemesis::Drift},
      {Fault::kLeaderMoved, 4, &Nemesis::LeaderMoved},
      {Fault::kLeaderStopped, 2, &Nemesis::LeaderStopped},
      {Fault::kVoterDies, 3, &Nemesis::VoterDies},
      {Fault::kSaverDies, 3, &Nemesis::SaverDies},
      {Fault::kSlowDisk, 2, &Nemesis::SlowDisk},
      {Fault::kStalledDisk, 2, &Nemesis::StalledDisk},
      {Fault::kStalledDisks, 1, &Nemesis::StalledDisks},
      {Fault::kDiskError, 2, &Nemesis::DiskError},
      {Fault::kFullDisk, 1, &Nemesis::FullDisk},
      {Fault::kFullDisks, 1, &Nemesis::FullDisks},
      {Fault::kLogRot, 3, &Nemesis::LogRot},
      {Fault::kSnapshotRot, 2, &Nemesis::SnapshotRot},
      {Fault::kVoteRot, 2, &Nemesis::VoteRot},
      {Fault::kMisplacedWrite, 1, &Nemesis::MisplacedWrite},
      {Fault::kOneWayCut, 4, &Nemesis::OneWayCut},
      {Fault::kLinkCut, 3, &Nemesis::LinkCut},
      {Fault::kIsolation, 3, &Nemesis::Isolation},
      {Fault::kPartition, 3, &Nemesis::Partition},
      {Fault::kLeaderDeaf, 2, &Nemesis::LeaderDeaf},
      {Fault::kLeaderMute, 2, &Nemesis::LeaderMute},
      {Fault::kLeaderHasOne, 2, &Nemesis::LeaderHasOne},
      {Fault::kLessorAlone, 3, &Nemesis::LessorAlone},
      {Fault::kBadNetwork, 3, &Nemesis::BadNetwork},
      {Fault::kClog, 3, &Nemesis::Clog},
      {Fault::kEcho, 2, &Nemesis::Echo},
      {Fault::kReset, 3, &Nemesis::Reset},
      {Fault::kClientsCutOff, 3, &Nemesis::ClientsCutOff},
  };
  return *kDeeds;
}

Nemesis::Nemesis(Simulation* simulation, const Plan& plan, uint64_t seed)
    : simulation_(simulation), plan_(plan), prng_(seed) {
  gap_max_ = milliseconds(kGapsMaxMs[prng_.Below(std::size(kGapsMaxMs))]);
  for (const Deed& deed : Deeds()) {
    if (prng_.Chance(1, kLeftOut)) continue;
    deeds_.push_back(deed);
    weights_ += deed.weight;
  }
}

void Nemesis::Start() {
  active_ = true;
  Act();
}

void Nemesis::Later() {
  const Duration gap(prng_.Between(gap_max_.count() / 10, gap_max_.count()));
  simulation_->schedule().After(gap, [this] {
    if (active_) Act();
  });
}

void Nemesis::Act() {
  Later();
  if (weights_ == 0) return;
  uint64_t drawn = prng_.Below(weights_);
  auto deed = deeds_.begin();
  for (; drawn >= deed->weight; ++deed) drawn -= deed->weight;
  if (!plan_.Has(deed->fault)) return;
  if ((this->*deed->act)()) counts_.Add(deed->fault);
}

size_t Nemesis::Any() { return prng_.Below(simulation_->member_count()); }

Duration Nemesis::Between(int64_t low_ms, int64_t high_ms) {
  return milliseconds(prng_.Between(low_ms, high_ms));
}

// ---- Members ------------------------------------------------------------------------------------

void Nemesis::Restart(size_t member, Duration after) {
  simulation_->schedule().After(after, [this, member] {
    // What is still down when all is put right is started then, or stays down.
    if (active_ && !simulation_->up(member) && !simulation_->left(member)) {
      simulation_->Boot(member);
    }
  });
}

bool Nemesis::Crash(size_t member, SimMember::Crash crash, const char* how, Duration down_max) {
  if (!simulation_->up(member)) return false;
  simulation_->Tell(absl::StrCat("member ", member, how));
  simulation_->Kill(member, crash);
  Restart(member, Duration(prng_.Between(down_max.count() / 100, down_max.count())));
  return true;
}

bool Nemesis::PowerLoss() {
  return Crash(Any(), SimMember::Crash::kPower, " loses power", milliseconds(6000));
}
bool Nemesis::LazyPowerLoss() {
  return Crash(Any(), SimMember::Crash::kLazyPower, " loses power, and all that was not synced",
               milliseconds(4000));
}
bool Nemesis::Kill() {
  return Crash(Any(), SimMember::Crash::kProcess, " is killed", milliseconds(3000));
}

bool Nemesis::Blackout() {
  bool any = false;
  for (size_t i = 0; i < simulation_->member_count(); ++i) {
    any |= Crash(i, SimMember::Crash::kPower, " loses power with all others", milliseconds(3000));
  }
  return any;
}

bool Nemesis::DeathInStart() {
  const size_t member = Any();
  if (!simulation_->up(member)) return false;
  simulation_->Tell(absl::StrCat("member ", member, " dies, and again while it starts"));
  simulation_->Kill(member, SimMember::Crash::kPower);
  for (int deaths = static_cast<int>(prng_.Between(1, 3)); deaths > 0; --deaths) {
    if (simulation_->left(member)) return true;
    simulation_->Boot(member);
    if (!simulation_->up(member)) return true;
    simulation_->Kill(member, SimMember::Crash::kPower);
  }
  Restart(member, Between(1, 500));
  return true;
}

bool Nemesis::MajorityDies() {
  const size_t count = simulation_->member_count();
  const size_t first = Any();
  for (size_t i = 0; i <= count / 2; ++i) {
    simulation_->schedule().After(Between(0, 400), [this, member = (first + i) % count] {
      if (active_)
        (void)Crash(member, SimMember::Crash::kPower, " dies among many", milliseconds(3000));
    });
  }
  return true;
}

bool Nemesis::RollingRestart() {
  const size_t count = simulation_->member_count();
  Duration at{};
  for (size_t i = 0; i < count; ++i) {
    simulation_->schedule().After(at, [this, i] {
      if (active_) (void)Crash(i, SimMember::Crash::kProcess, " is restarted", milliseconds(300));
    });
    at += Between(300, 1500);
  }
  return true;
}

bool Nemesis::Pause() {
  const size_t member = Any();
  SimMember& server = simulation_->server(member);
  if (!server.up() || server.paused()) return false;
  simulation_->Tell(absl::StrCat("member ", member, " pauses"));
  server.Pause();
  simulation_->schedule().After(Between(50, 4000), [this, &server] {
    if (active_) server.Resume();
  });
  return true;
}

bool Nemesis::SlowMember() {
  SimMember& server = simulation_->server(Any());
  simulation_->Tell(absl::StrCat(server.options().name, " is slow"));
  server.set_turn_delay(Between(1, 60));
  simulation_->schedule().After(Between(200, 4000), [this, &server] {
    if (active_) server.set_turn_delay({});
  });
  return true;
}

bool Nemesis::Drift() {
  SimMember& server = simulation_->server(Any());
  const int64_t ppm = prng_.Between(-kClockDriftPpmMax, kClockDriftPpmMax);
  simulation_->Tell(absl::StrCat("the clock of ", server.options().name, " drifts by ", ppm));
  server.set_drift_ppm(ppm);
  return true;
}

// By a call, as an operator does; whoever is asked, or the leader. Whoever is to take over may have
// gone by then.
bool Nemesis::LeaderMoved() {
  const size_t member = prng_.Chance(1, 2) ? Any() : simulation_->Leader().value_or(Any());
  const size_t heir = Any();
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(simulation_->server(heir).options().id.value());
  simulation_->Tell(
      absl::StrCat("member ", member, " is to hand the leadership over to member ", heir));
  simulation_->Call(member, node::Method::kMoveLeader, request.SerializeAsString(),
                    [](const node::Reply*) {});
  if (heir == member || !prng_.Chance(1, 3)) return true;
  simulation_->schedule().After(std::chrono::microseconds(prng_.Between(0, 3000)), [this, heir] {
    if (!active_) return;
    if (prng_.Chance(1, 2)) return Isolate(heir, Between(500, 6000));
    (void)Crash(heir, SimMember::Crash::kPower, " dies as the next leader", milliseconds(6000));
  });
  return true;
}

bool Nemesis::LeaderStopped() {
  const auto leader = simulation_->Leader();
  if (!leader.has_value()) return false;
  SimMember& server = simulation_->server(*leader);
  simulation_->Tell(absl::StrCat("member ", *leader, " is to stop"));
  server.Put(node::StopRequest{});
  // It dies when it says so; or hangs, and is killed.
  simulation_->schedule().After(Between(1500, 5000),
                                [this, member = *leader, life = server.life(), &server] {
                                  if (!active_) return;  // what is put right is started anew
                                  if (server.up() && server.life() == life) {
                                    simulation_->Kill(member, SimMember::Crash::kProcess);
                                  }
                                  if (!server.up() && !simulation_->left(member))
                                    simulation_->Boot(member);
                                });
  return true;
}

// The next election. Some disks are slow; a member votes, dies before its vote is durable, and is
// back at once; those who know of that vote may be cut off meanwhile, so that there is another
// election of which they hear nothing.
bool Nemesis::VoterDies() {
  if (simulation_->member_count() == 1 || voters_die_) return false;
  simulation_->Tell("whoever votes next dies");
  voters_die_ = true;
  voted_.clear();
  for (size_t i = 0; i < simulation_->member_count(); ++i) {
    if (prng_.Chance(1, 3)) continue;
    simulation_->server(i).set_latency(
        {.sync_min = milliseconds(10), .sync_max = milliseconds(20)});
  }
  simulation_->schedule().After(Between(1000, 3000), [this] { SpareVoters(); });
  if (const auto leader = simulation_->Leader(); leader.has_value() && prng_.Chance(2, 3)) {
    (void)Crash(*leader, SimMember::Crash::kPower, " dies, so that the others vote",
                milliseconds(4000));
  }
  return true;
}

void Nemesis::OnVote(size_t voter, std::optional<size_t> candidate) {
  if (!voters_die_) return;
  voted_.insert(voter);
  if (candidate.has_value()) voted_.insert(*candidate);
  if (prng_.Chance(1, 2)) return;
  const uint64_t life = simulation_->server(voter).life();
  simulation_->schedule().After(Between(1, 8), [this, voter, life] {
    if (!active_ || !voters_die_ || simulation_->server(voter).life() != life) return;
    SpareVoters();
    (void)Crash(voter, SimMember::Crash::kLazyPower, " has voted, and dies", milliseconds(50));
    if (prng_.Chance(1, 3)) return;
    const Duration time = Between(500, 6000);
    for (const size_t knows : voted_) {
      if (knows != voter) Isolate(knows, time);
    }
  });
}

void Nemesis::SpareVoters() {
  if (active_ && voters_die_) SetLatencies({});
  voters_die_ = false;
}

// Disks are slow; a member dies between the end of a snapshot and its file, or not long after: the
// log must fit to the snapshots that there are at any time.
bool Nemesis::SaverDies() {
  if (savers_die_) return false;
  simulation_->Tell("whoever saves a snapshot next dies");
  savers_die_ = true;
  SetLatencies({.sync_min = milliseconds(2), .sync_max = Between(5, 20)});
  simulation_->schedule().After(Between(1000, 4000), [this] { SpareSavers(); });
  return true;
}

// One that it was sent replaces all that it had; of its own there are many.
void Nemesis::OnSave(size_t saver, bool received) {
  if (!savers_die_ || (!received && prng_.Chance(2, 3))) return;
  const uint64_t life = simulation_->server(saver).life();
  const Duration after = prng_.Chance(1, 2) ? Between(0, 60) : Between(60, 1500);
  simulation_->schedule().After(after, [this, saver, life] {
    if (!active_ || simulation_->server(saver).life() != life) return;
    SpareSavers();
    const auto crash = prng_.Chance(1, 2) ? SimMember::Crash::kPower : SimMember::Crash::kLazyPower;
    (void)Crash(saver, crash, " has a snapshot to save, and dies", milliseconds(2000));
  });
}

void Nemesis::SpareSavers() {
  if (active_ && savers_die_) SetLatencies({});
  savers_die_ = false;
}

void Nemesis::SetLatencies(const DiskLatency& latency) {
  for (size_t i = 0; i < simulation_->member_count(); ++i) {
    simulation_->server(i).set_latency(latency);
  }
}

// ---- Disks --------------------------------------------------------------------------------------

bool Nemesis::SlowDisk() {
  SimMember& server = simulation_->server(Any());
  simulation_->Tell(absl::StrCat("the disk of ", server.options().name, " is slow"));
  server.set_latency({.sync_min = milliseconds(1), .sync_max = Between(5, 80)});
  simulation_->schedule().After(Between(500, 5000), [this, &server] {
    if (active_) server.set_latency({});
  });
  return true;
}

bool Nemesis::StalledDisk() {
  SimMember& server = simulation_->server(Any());
  simulation_->Tell(absl::StrCat("the disk of ", server.options().name, " stalls"));
  server.set_latency({.sync_min = milliseconds(500), .sync_max = milliseconds(2500)});
  simulation_->schedule().After(Between(100, 3000), [this, &server] {
    if (active_) server.set_latency({});
  });
  return true;
}

// Nobody has a reason to elect, and what the leader proposes, renewals of leases and their ends, is
// on its way for as long as a lease lasts.
bool Nemesis::StalledDisks() {
  simulation_->Tell("all disks stall");
  const Duration sync_max = Between(1000, 4000);
  SetLatencies({.sync_min = sync_max / 2, .sync_max = sync_max});
  simulation_->schedule().After(Between(3000, 10000), [this] {
    if (active_) SetLatencies({});
  });
  return true;
}

// An error of a write or a sync ends the process. What it was to remember may be lost, and the page
// cache shows it all the same.
bool Nemesis::DiskError() {
  const size_t member = Any();
  SimMember& server = simulation_->server(member);
  const bool for_good = prng_.Chance(1, 3);
  simulation_->Tell(absl::StrCat("the disk of member ", member, for_good ? " breaks" : " errs"));
  server.FailDisk(prng_.Below(kErrorWithin), for_good);
  simulation_->schedule().After(Between(200, 4000), [this, &server] {
    if (active_) server.RepairDisk();
  });
  return true;
}

bool Nemesis::FillDisk(size_t member, Duration time) {
  SimMember& server = simulation_->server(member);
  if (!server.up() || server.disk_is_full()) return false;
  simulation_->Tell(absl::StrCat("the disk of member ", member, " is full"));
  server.FillDisk(prng_.Below(kRoomMax));
  filled_.insert(member);
  simulation_->schedule().After(time, [this, member, &server] {
    if (!active_) return;
    simulation_->Tell(absl::StrCat("the disk of member ", member, " has room"));
    server.MakeRoom();
  });
  return true;
}

bool Nemesis::FullDisk() { return FillDisk(Any(), Between(500, 6000)); }

bool Nemesis::FullDisks() {
  const size_t count = simulation_->member_count();
  const size_t first = Any();
  const Duration time = Between(500, 4000);
  bool any = false;
  for (size_t i = 0; i <= count / 2; ++i) any |= FillDisk((first + i) % count, time);
  return any;
}

void Nemesis::LookForRepaired() {
  std::erase_if(rotten_, [this](const auto& rotten) {
    const SimMember& server = simulation_->member(rotten.first);
    if (!server.up() || server.awaits_repair()) return false;
    return std::none_of(rotten.second.begin(), rotten.second.end(),
                        [&](const RottenSpot& spot) { return IsStillThere(server.disk(), spot); });
  });
}

// Of a minority at a time: the others must have what these have lost.
bool Nemesis::RotSomething(RotKind kind) {
  // Where the membership changes all the time nobody knows what is a minority.
  if (plan_.guests == Guests::kStorm) return false;
  const size_t founders = simulation_->founder_count();
  const size_t member = prng_.Below(founders);
  LookForRepaired();
  if (rotten(member) || rotten_.size() >= (founders - 1) / 2) return false;
  std::vector<RottenSpot> spots = Rot(&simulation_->server(member).disk(), kind, &prng_);
  if (spots.empty()) return false;
  for (const RottenSpot& spot : spots) {
    simulation_->Tell(absl::StrCat("member ", member, ": ", spot.file, " rots at byte ",
                                   spot.offset, ", ", spot.bytes.size(), " bytes"));
  }
  rotten_[member] = std::move(spots);
  // It is found when the member starts; at once, or whenever that is.
  if (prng_.Chance(1, 2)) {
    const auto crash = prng_.Chance(1, 2) ? SimMember::Crash::kPower : SimMember::Crash::kProcess;
    (void)Crash(member, crash, " dies with a rotten disk", milliseconds(2000));
  }
  return true;
}

bool Nemesis::LogRot() { return RotSomething(RotKind::kLog); }
bool Nemesis::SnapshotRot() { return RotSomething(RotKind::kSnapshot); }
bool Nemesis::VoteRot() { return RotSomething(RotKind::kVotes); }
bool Nemesis::MisplacedWrite() { return RotSomething(RotKind::kMisplaced); }

// ---- The network --------------------------------------------------------------------------------

bool Nemesis::OneWayCut() {
  const size_t from = Any();
  const size_t to = Any();
  if (from == to) return false;
  simulation_->Tell(absl::StrCat("nothing reaches ", to, " from ", from));
  simulation_->network().Cut(from, to, Between(100, 5000));
  return true;
}

bool Nemesis::LinkCut() {
  const size_t a = Any();
  const size_t b = Any();
  if (a == b) return false;
  simulation_->Tell(absl::StrCat("members ", a, " and ", b, " do not reach each other"));
  CutBoth(a, b, Between(100, 6000));
  return true;
}

void Nemesis::CutBoth(size_t a, size_t b, Duration time) {
  simulation_->network().Cut(a, b, time);
  simulation_->network().Cut(b, a, time);
}

bool Nemesis::Isolation() {
  Isolate(Any(), Between(100, 5000));
  return simulation_->member_count() > 1;
}

void Nemesis::Isolate(size_t member, Duration time) {
  simulation_->Tell(absl::StrCat("member ", member, " is cut off"));
  for (size_t peer = 0; peer < simulation_->member_count(); ++peer) {
    if (peer != member) CutBoth(member, peer, time);
  }
}

bool Nemesis::Partition() {
  const size_t count = simulation_->member_count();
  const Duration time = Between(100, 5000);
  const uint64_t sides = prng_.Next();
  simulation_->Tell(absl::StrCat("the network parts, sides ", absl::Hex(sides & 0xffff)));
  bool any = false;
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = 0; b < count; ++b) {
      if (((sides >> a) & 1) == ((sides >> b) & 1)) continue;
      simulation_->network().Cut(a, b, time);
      any = true;
    }
  }
  return any;
}

bool Nemesis::LeaderDeaf() {
  const auto leader = simulation_->Leader();
  const Duration time = Between(200, 5000);
  if (!leader.has_value() || simulation_->member_count() == 1) return false;
  simulation_->Tell(absl::StrCat("leader ", *leader, " is deaf"));
  for (size_t peer = 0; peer < simulation_->member_count(); ++peer) {
    if (peer != *leader) simulation_->network().Cut(peer, *leader, time);
  }
  return true;
}

bool Nemesis::LeaderMute() {
  const auto leader = simulation_->Leader();
  const Duration time = Between(200, 5000);
  if (!leader.has_value() || simulation_->member_count() == 1) return false;
  simulation_->Tell(absl::StrCat("leader ", *leader, " is mute"));
  for (size_t peer = 0; peer < simulation_->member_count(); ++peer) {
    if (peer != *leader) simulation_->network().Cut(*leader, peer, time);
  }
  return true;
}

// A switch that fails in part: whoever still hears the leader must not keep the others from
// choosing another one.
bool Nemesis::LeaderHasOne() {
  const auto leader = simulation_->Leader();
  const size_t friendly = Any();
  if (!leader.has_value() || friendly == *leader) return false;
  simulation_->Tell(absl::StrCat("leader ", *leader, " reaches member ", friendly, " only"));
  const Duration time = Between(1000, 6000);
  for (size_t peer = 0; peer < simulation_->member_count(); ++peer) {
    if (peer != *leader && peer != friendly) CutBoth(*leader, peer, time);
  }
  return true;
}

// Leases end under the next leader while this one goes on to hear its clients: the renewal that
// comes just then waits, and those that come later find one who does not know that it leads no
// more, or stood still when it could have heard so.
bool Nemesis::LessorAlone() {
  if (simulation_->member_count() == 1 || lessor_alone_) return false;
  simulation_->Tell("the leader that renews a lease next is cut off");
  lessor_alone_ = true;
  simulation_->schedule().After(Between(3000, 8000), [this] { lessor_alone_ = false; });
  return true;
}

void Nemesis::OnRenewal(size_t member) {
  SimMember& server = simulation_->server(member);
  if (!active_ || !lessor_alone_ || !server.node().raft_status().is_leader) return;
  lessor_alone_ = false;
  if (prng_.Chance(2, 3)) return Isolate(member, Between(2500, 5000));
  const Duration until = Between(1500, 4500);
  Isolate(member, until + Between(100, 1500));
  simulation_->schedule().After(Between(0, 300), [this, member, life = server.life(), &server] {
    if (!active_ || server.life() != life || server.paused()) return;
    simulation_->Tell(absl::StrCat("member ", member, " pauses, cut off"));
    server.Pause();
  });
  simulation_->schedule().After(until, [this, &server] {
    if (active_) server.Resume();
  });
}

bool Nemesis::BadNetwork() {
  NetworkQuality quality;
  quality.loss_permille = static_cast<uint32_t>(prng_.Below(200));
  quality.repeat_permille = static_cast<uint32_t>(prng_.Below(100));
  quality.reorder_permille = static_cast<uint32_t>(prng_.Below(100));
  quality.garble_permille = static_cast<uint32_t>(prng_.Below(20));
  quality.delay_max = Between(1, 60);
  if (!plan_.Has(Fault::kFrameLost)) quality.loss_permille = 0;
  if (!plan_.Has(Fault::kFrameRepeated)) quality.repeat_permille = 0;
  if (!plan_.Has(Fault::kFrameLate)) quality.reorder_permille = 0;
  if (!plan_.Has(Fault::kFrameGarbled)) quality.garble_permille = 0;
  simulation_->Tell("the network is bad");
  simulation_->network().set_quality(quality);
  simulation_->schedule().After(Between(300, 5000), [this] {
    if (!active_) return;
    simulation_->Tell("the network is good");
    simulation_->network().set_quality({});
  });
  return simulation_->member_count() > 1;
}

bool Nemesis::Clog() {
  const size_t from = Any();
  const size_t to = Any();
  if (from == to) return false;
  simulation_->Tell(absl::StrCat("what ", from, " sends to ", to, " waits"));
  simulation_->network().Clog(from, to, Between(50, 4000));
  return true;
}

bool Nemesis::Echo() {
  if (prng_.Chance(1, 3)) return EchoSnapshots();
  const size_t from = Any();
  const size_t to = Any();
  if (from == to) return false;
  simulation_->Tell(absl::StrCat("what ", from, " sends to ", to, " comes twice"));
  const Duration time = Between(200, 5000);
  const Duration later = Between(1, 3000);
  for (const auto lane : {node::PeerLane::kMessages, node::PeerLane::kSnapshot}) {
    simulation_->network().Echo(from, to, lane, time, later);
  }
  return true;
}

// Few are sent, so this lasts until one is, and long enough for its receiver to have gone on.
bool Nemesis::EchoSnapshots() {
  const size_t count = simulation_->member_count();
  const Duration time = Between(2000, 20000);
  const Duration later = Between(500, 8000);
  for (size_t from = 0; from < count; ++from) {
    for (size_t to = 0; to < count; ++to) {
      if (from != to) {
        simulation_->network().Echo(from, to, node::PeerLane::kSnapshot, time, later);
      }
    }
  }
  simulation_->Tell("snapshots come twice");
  return count > 1;
}

bool Nemesis::Reset() {
  const size_t a = Any();
  const size_t b = Any();
  if (a == b) return false;
  simulation_->Tell(absl::StrCat("the connections of ", a, " and ", b, " break"));
  simulation_->network().Reset(a, b);
  return true;
}

bool Nemesis::ClientsCutOff() {
  // Guests have networks of their own.
  if (plan_.guests == Guests::kRecipes) return false;
  const size_t member = Any();
  simulation_->Tell(absl::StrCat("clients do not reach ", member));
  simulation_->CutClients(member, Between(50, 4000));
  return true;
}

}  // namespace conclave::sim
