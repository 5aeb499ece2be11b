// Simulation: a cluster of production nodes, their world and their clients, in one process and one
// thread. All of it follows from a seed.
//
//   chaos    clients work while members, disks and the network do what they should not (nemesis.h)
//   core     a majority and what is between it are put right, and the rest stays as broken as it
//            is: writes must get through within ten election timeouts
//   healing  everything is put right: every voter must serve clients within ten more
//   calm     clients finish, members catch up, abandoned leases end
//   verdict  the checkers look at the whole history
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
#include "conclave/tests/sim/nemesis.h"
#include "conclave/tests/sim/network.h"
#include "conclave/tests/sim/observer.h"
#include "conclave/tests/sim/plan.h"
#include "conclave/tests/sim/schedule.h"

namespace conclave::sim {

struct Verdict {
  uint64_t seed = 0;
  uint64_t trace_hash = 0;
  size_t members = 0;
  FaultCounts faults;
  uint64_t operations = 0;
  uint64_t acknowledged = 0;
  uint64_t revisions = 0;
  uint64_t events = 0;  // of the simulator
  uint64_t elections = 0;
  uint64_t snapshots_installed = 0;
  RecipeCounts recipes;
  StormCounts storm;
  AuthCounts auth;
  Duration simulated{};
  Complaints complaints;  // empty: all is well

  bool ok() const { return complaints.empty(); }
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed, const Plan& plan = {}, bool verbose = false);
  ~Simulation();

  Verdict Run();

  // ---- For clients

  uint64_t seed() const { return seed_; }
  const Plan& plan() const { return plan_; }
  Schedule& schedule() { return schedule_; }
  Prng& prng() { return prng_; }
  size_t member_count() const { return members_.size(); }
  // The first of them; all of these have votes.
  size_t founder_count() const { return cluster_.members.size(); }

  // Null: no answer will come.
  using Answer = std::function<void(const node::Reply* reply)>;
  void Call(size_t member, node::Method method, const std::string& request, Answer answer,
            node::CredentialsRef shown = nullptr);

  struct StreamHandler {
    std::function<void(const std::string& message)> message;
    std::function<void()> end;  // also when the member dies
  };
  uint64_t OpenStream(size_t member, node::StreamKind kind, StreamHandler handler,
                      Duration read_delay, node::CredentialsRef shown = nullptr);
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

  Duration progress_interval() const { return members_[0]->options().watch_progress_interval; }
  bool chaos() const { return chaos_; }
  // A majority is put right, and the rest is not.
  bool core_only() const { return core_only_; }
  bool ending() const { return ending_; }
  bool up(size_t member) const { return members_[member]->up(); }
  // Of members, so far.
  uint64_t starts() const { return starts_; }
  // Since when nothing goes wrong any more.
  Instant healed_at() const { return healed_at_; }
  FaultCounts& faults() { return nemesis_->counts(); }
  const AuthHistory& auth_history() const { return observer_.auth_history(); }
  // When the first member had applied a revision; now, if nobody has.
  Instant AppliedAt(int64_t revision) const;

  // ---- For the nemesis

  SimMember& server(size_t member) { return *members_[member]; }
  Network& network() { return *network_; }
  std::optional<size_t> Leader() const;
  void Boot(size_t member);
  void Kill(size_t member, SimMember::Crash crash);
  // For a while, what clients and this member say to each other waits, or is lost.
  void CutClients(size_t member, Duration time);
  void Tell(const std::string& what);

  // ---- For all

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
  std::vector<node::PeerAddress> OthersThan(size_t member) const;
  void FollowMembers(size_t member, node::Effects& effects);
  void TellConnection(size_t to, size_t peer, bool connected);
  void TellRemoved(size_t removed, size_t by);
  void OnEffects(size_t member, node::Effects& effects);
  void OnStream(size_t member, node::StreamEffect& effect);
  void OnStopped(size_t member);
  void OnDiskFailed(size_t member, const absl::Status& status);
  void DoesNotStart(size_t member, const absl::Status& status);
  void InviteGuests();
  std::set<size_t> ChooseCore();
  void PutRight(size_t member);
  void HealCore();
  void CutOffAllBut(const std::set<size_t>& core);
  void Heal();
  void AwaitWrite(const std::set<size_t>& through, const char* when);
  void AwaitReads();
  void CheckLiveness();
  void WaitForCalm();
  void CheckPromptness();
  void CheckAgreement();
  void FinishClients();
  Duration ClientDelay();
  // When what is said now arrives: after a cut of this member's clients, if there is one.
  Instant Arrival(size_t member);

  const uint64_t seed_;
  const Plan plan_;
  const bool verbose_;
  Prng prng_;
  Schedule schedule_;
  Trace trace_;
  node::InitialCluster cluster_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Nemesis> nemesis_;
  std::map<size_t, Instant> clients_cut_;  // members, until when
  std::vector<std::unique_ptr<SimMember>> members_;
  std::vector<std::vector<node::PeerAddress>> peers_;  // of each, as last announced
  std::vector<node::PeerDirectory> directories_;       // likewise
  std::set<size_t> left_;                              // were removed, and have stopped
  bool small_ = false;                                 // limits
  bool has_learner_ = false;                           // at some time
  bool strict_ = true;                                 // about changes of membership
  Observer observer_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::map<uint64_t, PendingCall> calls_;
  std::map<uint64_t, Stream> streams_;
  uint64_t last_call_ = 0;
  std::vector<KvOperation> operations_;
  bool chaos_ = false;
  std::set<size_t> core_;   // what is put right first
  bool core_only_ = false;  // and nothing else yet
  bool ending_ = false;
  Instant healed_at_ = kNever;
  Instant calm_from_ = kNever;  // every voter serves
  Instant newest_member_from_;  // it starts
  uint64_t starts_ = 0;
  uint64_t elections_ = 0;
  uint64_t installed_ = 0;
  Complaints complaints_;
};

}  // namespace conclave::sim
