#include "conclave/tests/sim/storm.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

namespace pb = etcdserverpb;
using node::Method;
using std::chrono::milliseconds;

// Servers in all, with those that are gone: the world stays small.
constexpr size_t kServersMax = 14;
constexpr size_t kMembersMax = 6;

class Storm : public Client {
 public:
  explicit Storm(Simulation* simulation) : simulation_(simulation) { Rest(); }

  void Finish() override { finished_ = true; }
  void Count(StormCounts* counts) const override {
    *counts = counts_;
    for (size_t i = 0; i < simulation_->member_count(); ++i) {
      if (simulation_->left(i)) ++counts->left;
    }
  }

  Complaints Check(const TrueHistory&) const override {
    Complaints complaints = complaints_;
    for (size_t i = 0; i < simulation_->member_count(); ++i) {
      if (!simulation_->up(i)) continue;
      const apply::Membership& members = MembershipOf(i);
      const uint64_t self = simulation_->member(i).options().id.value();
      // Nobody lives on who was removed; it was healed for long enough.
      if (members.Find(self) == nullptr) {
        complaints.push_back(absl::StrCat("member ", i, " runs, and is none"));
      }
      for (const uint64_t id : removed_) {
        if (members.Find(id) != nullptr || !members.removed().contains(id)) {
          complaints.push_back(absl::StrCat("member ", i, " has a removed member ", absl::Hex(id)));
        }
      }
      for (const uint64_t id : added_) {
        if (members.Find(id) == nullptr && !members.removed().contains(id)) {
          complaints.push_back(absl::StrCat("member ", i, " lacks an added one ", absl::Hex(id)));
        }
      }
      for (const auto& [id, member] : members.members()) {
        if (learners_.contains(id) && !to_be_promoted_.contains(id) && !member.is_learner) {
          complaints.push_back(
              absl::StrCat("member ", i, " has a vote of ", absl::Hex(id), ", who is a learner"));
        }
        if (promoted_.contains(id) && member.is_learner) {
          complaints.push_back(absl::StrCat("member ", i, " forgets a vote of ", absl::Hex(id)));
        }
        if (simulation_->NumberOf(id).has_value() && member.name.empty()) {
          complaints.push_back(absl::StrCat("member ", absl::Hex(id), " never published itself"));
        }
      }
    }
    return complaints;
  }

 private:
  const apply::Membership& MembershipOf(size_t member) const {
    return simulation_->member(member).state().membership();
  }

  void Rest() {
    simulation_->schedule().After(milliseconds(simulation_->prng().Between(50, 1500)), [this] {
      if (!finished_ && !simulation_->ending()) Work();
    });
  }

  // A member that is up and knows a cluster; whoever is asked, the leader decides.
  void Work() {
    Rest();
    if (!simulation_->chaos()) return;
    std::vector<size_t> up;
    for (size_t i = 0; i < simulation_->member_count(); ++i) {
      if (simulation_->up(i) && MembershipOf(i).members().size() > 0) up.push_back(i);
    }
    if (up.empty()) return;
    const size_t asked = up[simulation_->prng().Below(up.size())];
    std::vector<apply::Member> members;
    for (const auto& [id, member] : MembershipOf(asked).members()) members.push_back(member);
    const apply::Member& one = members[simulation_->prng().Below(members.size())];
    // Somebody was added by a call whose answer was lost: it gets a server too.
    if (!simulation_->NumberOf(one.id).has_value()) return Start(one.id);
    switch (simulation_->prng().Below(6)) {
      case 0:
      case 1:
        if (members.size() < kMembersMax) Add(asked);
        return;
      case 2:
      case 3:
        return Remove(asked, one.id);
      case 4:
        return Promote(asked, members);
      default:
        return Update(asked, one.id);
    }
  }

  std::string NewUrl() { return absl::StrCat("http://10.1.0.", ++urls_, ":2380"); }

  void Start(uint64_t id) {
    if (simulation_->member_count() >= kServersMax || simulation_->NumberOf(id).has_value()) return;
    ++counts_.joined;
    simulation_->Join(id, milliseconds(simulation_->prng().Between(1, 3000)));
  }

  template <typename Done>
  void Change(size_t member, Method method, const std::string& request, Done done) {
    simulation_->Call(member, method, request, [this, done](const node::Reply* reply) {
      if (reply == nullptr || reply->error != nullptr) return;
      ++counts_.changes;
      done(*reply);
    });
  }

  void Add(size_t asked) {
    if (simulation_->member_count() >= kServersMax) return;
    pb::MemberAddRequest request;
    request.add_peerurls(NewUrl());
    const bool is_learner = simulation_->prng().Chance(1, 3);
    request.set_islearner(is_learner);
    Change(asked, Method::kMemberAdd, request.SerializeAsString(),
           [this, is_learner](const node::Reply& reply) {
             pb::MemberAddResponse response;
             CONCLAVE_CHECK(response.ParseFromString(reply.body.ToString()));
             added_.insert(response.member().id());
             if (is_learner) learners_.insert(response.member().id());
             Start(response.member().id());
           });
  }

  void Remove(size_t asked, uint64_t id) {
    pb::MemberRemoveRequest request;
    request.set_id(id);
    Change(asked, Method::kMemberRemove, request.SerializeAsString(),
           [this, id](const node::Reply&) { removed_.insert(id); });
  }

  void Promote(size_t asked, const std::vector<apply::Member>& members) {
    for (const apply::Member& member : members) {
      if (!member.is_learner) continue;
      pb::MemberPromoteRequest request;
      request.set_id(member.id);
      to_be_promoted_.insert(member.id);
      Change(asked, Method::kMemberPromote, request.SerializeAsString(),
             [this, id = member.id](const node::Reply&) { Promoted(id); });
      return;
    }
  }

  void Promoted(uint64_t id) {
    promoted_.insert(id);
    // Its server has to have started, and caught up, before it may.
    const auto number = simulation_->NumberOf(id);
    const bool started = number.has_value() && simulation_->member(*number).life() > 0;
    if (!started) {
      complaints_.push_back(absl::StrCat("member ", absl::Hex(id), " votes, and never started"));
    }
  }

  void Update(size_t asked, uint64_t id) {
    pb::MemberUpdateRequest request;
    request.set_id(id);
    request.add_peerurls(NewUrl());
    Change(asked, Method::kMemberUpdate, request.SerializeAsString(), [](const node::Reply&) {});
  }

  Simulation* const simulation_;
  bool finished_ = false;
  int urls_ = 0;
  StormCounts counts_;
  // What was acknowledged.
  std::set<uint64_t> added_;
  std::set<uint64_t> removed_;
  std::set<uint64_t> promoted_;
  std::set<uint64_t> learners_;
  // And what was asked for, acknowledged or not.
  std::set<uint64_t> to_be_promoted_;
  Complaints complaints_;
};

}  // namespace

std::unique_ptr<Client> MakeStorm(Simulation* simulation) {
  return std::make_unique<Storm>(simulation);
}

}  // namespace conclave::sim
