// Simulation: a cluster of production nodes, their world and their clients, in one process and one
// thread. All of it follows from a seed.
//
//   chaos    clients work while members crash, pause and stall, and the network loses, delays, cuts
//   and repeats healing  everything is put right: a write must get through within ten election
//   timeouts calm     clients finish, members catch up, abandoned leases end verdict  the checkers
//   look at the whole history
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/tests/sim/checkers.h"
#include "conclave/tests/sim/clients.h"
#include "conclave/tests/sim/history.h"
#include "conclave/tests/sim/member.h"
#include "conclave/tests/sim/network.h"
#include "conclave/tests/sim/observer.h"
#include "conclave/tests/sim/schedule.h"

namespace conclave::sim {

// Who uses the cluster besides a few plain clients.
enum class Guests : uint8_t {
  kPlain,    // more of them: keys, watches, leases, compactions
  kRecipes,  // processes with the production client and the recipes on it
  kStorm,    // operators who change the membership all the time
};

struct Verdict {
  uint64_t seed = 0;
  uint64_t trace_hash = 0;
  size_t members = 0;
  uint64_t faults = 0;
  uint64_t operations = 0;
  uint64_t acknowledged = 0;
  uint64_t revisions = 0;
  uint64_t events = 0;  // of the simulator
  uint64_t elections = 0;
  uint64_t snapshots_installed = 0;
  RecipeCounts recipes;
  StormCounts storm;
  Duration simulated{};
  Complaints complaints;  // empty: all is well

  bool ok() const { return complaints.empty(); }
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed, bool verbose = false, Guests guests = Guests::kPlain);
  ~Simulation();

  Verdict Run();

  // ---- For clients

  uint64_t seed() const { return seed_; }
  Schedule& schedule() { return schedule_; }
  Prng& prng() { return prng_; }
  size_t member_count() const { return members_.size(); }

  // Null: no answer will come.
  using Answer = std::function<void(const node::Reply* reply)>;
  void Call(size_t member, node::Method method, const std::string& request, Answer answer);

  struct StreamHandler {
    std::function<void(const std::string& message)> message;
    std::function<void()> end;  // also when the member dies
  };
  uint64_t OpenStream(size_t member, node::StreamKind kind, StreamHandler handler,
                      Duration read_delay);
  void Say(uint64_t stream, const std::string& message);
  void CloseStream(uint64_t stream);

  // ---- For operators

  // The number of the server that is member `id`, or was; nothing: there is none yet.
  std::optional<size_t> NumberOf(uint64_t id) const;
  // A new server, as a member that was added. It starts `after` a while.
  void Join(uint64_t id, Duration after);
  // Whether it has stopped because it was removed.
  bool left(size_t member) const { return left_.contains(member); }
  const SimMember& member(size_t member) const { return *members_[member]; }

  bool chaos() const { return chaos_; }
  bool ending() const { return ending_; }
  bool up(size_t member) const { return members_[member]->up(); }
  // Of members, so far.
  uint64_t starts() const { return starts_; }
  // Since when nothing goes wrong any more.
  Instant healed_at() const { return healed_at_; }
  std::vector<KvOperation>& operations() { return operations_; }
  void Complain(std::string what);

 private:
  struct PendingCall {
    size_t member = 0;
    Answer answer;
  };
  struct Stream {
    size_t member = 0;
    StreamHandler handler;
    Duration read_delay{};
    Instant last_down;  // messages keep their order
    Instant last_up;
    bool closed = false;
  };

  void Configure();
  node::Options OptionsOf(size_t number, raft::NodeId id);
  void AddServer(node::Options options, bool founder);
  std::vector<node::PeerAddress> Others() const;
  void FollowMembers(size_t member, node::Effects& effects);
  void TellConnection(size_t to, size_t peer, bool connected);
  void TellRemoved(size_t removed, size_t by);
  void OnEffects(size_t member, node::Effects& effects);
  void OnStream(size_t member, node::StreamEffect& effect);
  void Boot(size_t member);
  void Kill(size_t member, SimMember::Crash crash);
  void OnStopped(size_t member);
  void Nemesis();
  void Disturb();
  void DisturbNetwork(size_t member);
  void CrashMember(size_t member, SimMember::Crash crash);
  void PauseMember(size_t member);
  void SlowDisk(size_t member);
  void MoveLeadership(size_t member);
  void StopLeader();
  void InviteGuests();
  void Heal();
  void CheckLiveness();
  void WaitForCalm();
  void CheckAgreement();
  void FinishClients();
  Duration ClientDelay();
  void Tell(const std::string& what);

  const uint64_t seed_;
  const bool verbose_;
  const Guests guests_;
  Prng prng_;
  Schedule schedule_;
  Trace trace_;
  node::InitialCluster cluster_;
  std::unique_ptr<Network> network_;
  std::vector<std::unique_ptr<SimMember>> members_;
  std::vector<std::vector<node::PeerAddress>> peers_;  // of each, as last announced
  std::vector<node::PeerDirectory> directories_;       // likewise
  std::set<size_t> left_;                              // were removed, and have stopped
  bool small_ = false;                                 // limits
  bool strict_ = true;                                 // about changes of membership
  Observer observer_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::map<uint64_t, PendingCall> calls_;
  std::map<uint64_t, Stream> streams_;
  uint64_t last_call_ = 0;
  std::vector<KvOperation> operations_;
  bool chaos_ = false;
  bool ending_ = false;
  Instant healed_at_ = kNever;
  uint64_t faults_ = 0;
  uint64_t starts_ = 0;
  uint64_t elections_ = 0;
  uint64_t installed_ = 0;
  Complaints complaints_;
};

}  // namespace conclave::sim
