#include "conclave/tests/sim/learner.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {
namespace {

namespace pb = etcdserverpb;
using node::Method;
using std::chrono::milliseconds;

class LearnerOperator : public Client {
 public:
  explicit LearnerOperator(Simulation* simulation) : simulation_(simulation) { Rest(300, 8000); }

  Complaints Check(const TrueHistory&) const override {
    Complaints complaints;
    if (!learner_.has_value()) return complaints;
    for (size_t i = 0; i < simulation_->member_count(); ++i) {
      if (!simulation_->up(i)) continue;
      const apply::Member* member = MembershipOf(i).Find(*learner_);
      if (member == nullptr) {
        complaints.push_back(absl::StrCat("member ", i, " lacks the learner that was added"));
      } else if (member->is_learner) {
        complaints.push_back(absl::StrCat("member ", i, " has a learner that nobody promotes"));
      }
    }
    return complaints;
  }

 private:
  const apply::Membership& MembershipOf(size_t member) const {
    return simulation_->member(member).state().membership();
  }

  void Rest(int64_t low_ms, int64_t high_ms) {
    simulation_->schedule().After(milliseconds(simulation_->prng().Between(low_ms, high_ms)),
                                  [this] {
                                    if (!simulation_->ending() || learner_.has_value()) Work();
                                  });
  }

  // Whoever is up is asked. While only a majority is put right its members stay the same.
  void Work() {
    const size_t asked = simulation_->prng().Below(simulation_->member_count());
    if (simulation_->core_only() || !simulation_->up(asked)) return Rest(50, 500);
    if (!learner_.has_value()) FindLearner(asked);
    if (!learner_.has_value()) {
      // Too late for one that has to catch up.
      if (simulation_->chaos()) Add(asked);
    } else if (const apply::Member* known = MembershipOf(asked).Find(*learner_)) {
      if (!known->is_learner) return;
      if (simulation_->chaos() && simulation_->prng().Chance(1, 3)) CutOff();
      Promote(asked);
    }
    Rest(100, 1500);
  }

  // It was added, and the answer was lost.
  void FindLearner(size_t asked) {
    for (const auto& [id, member] : MembershipOf(asked).members()) {
      if (member.is_learner) Join(id);
    }
  }

  void Join(uint64_t id) {
    if (learner_.has_value()) return;
    learner_ = id;
    const int64_t later_ms = simulation_->chaos() ? 5000 : 100;
    simulation_->Join(id, milliseconds(simulation_->prng().Between(1, later_ms)));
  }

  void Add(size_t asked) {
    pb::MemberAddRequest request;
    request.add_peerurls("http://10.2.0.1:2380");
    request.set_islearner(true);
    simulation_->Call(asked, Method::kMemberAdd, request.SerializeAsString(),
                      [this](const node::Reply* reply) {
                        if (reply == nullptr || reply->error != nullptr) return;
                        pb::MemberAddResponse response;
                        CONCLAVE_CHECK(response.ParseFromString(reply->body.ToString()));
                        Join(response.member().id());
                      });
  }

  void CutOff() {
    const size_t learner = *simulation_->NumberOf(*learner_);
    const Duration time = milliseconds(simulation_->prng().Between(200, 5000));
    simulation_->Tell("the learner is cut off");
    simulation_->faults().Add(Fault::kIsolation);
    for (size_t peer = 0; peer < simulation_->member_count(); ++peer) {
      if (peer == learner) continue;
      simulation_->network().Cut(learner, peer, time);
      simulation_->network().Cut(peer, learner, time);
    }
  }

  void Promote(size_t asked) {
    pb::MemberPromoteRequest request;
    request.set_id(*learner_);
    simulation_->Call(asked, Method::kMemberPromote, request.SerializeAsString(),
                      [](const node::Reply*) {});
  }

  Simulation* const simulation_;
  std::optional<uint64_t> learner_;
};

}  // namespace

std::unique_ptr<Client> MakeLearnerOperator(Simulation* simulation) {
  return std::make_unique<LearnerOperator>(simulation);
}

}  // namespace conclave::sim
