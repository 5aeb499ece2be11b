#include "conclave/server/raft/confchange/changer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"

namespace conclave::raft {
namespace {

using Ids = std::vector<NodeId>;

bool Has(const Ids& ids, NodeId id) { return std::binary_search(ids.begin(), ids.end(), id); }

void Insert(Ids* ids, NodeId id) {
  const auto at = std::lower_bound(ids->begin(), ids->end(), id);
  if (at == ids->end() || *at != id) ids->insert(at, id);
}

void Erase(Ids* ids, NodeId id) {
  const auto at = std::lower_bound(ids->begin(), ids->end(), id);
  if (at != ids->end() && *at == id) ids->erase(at);
}

bool Disjoint(const Ids& a, const Ids& b) {
  return std::none_of(a.begin(), a.end(), [&](NodeId id) { return Has(b, id); });
}

bool IsSet(const Ids& ids) {
  return std::is_sorted(ids.begin(), ids.end()) &&
         std::adjacent_find(ids.begin(), ids.end()) == ids.end() && !Has(ids, NodeId(0));
}

size_t VotersChanged(const Ids& before, const Ids& after) {
  Ids changed;
  std::set_symmetric_difference(before.begin(), before.end(), after.begin(), after.end(),
                                std::back_inserter(changed));
  return changed.size();
}

void ApplyStep(ConfState* conf, const ConfChangeStep& step) {
  switch (step.type) {
    case ConfChangeType::kAddVoter:
      Erase(&conf->learners, step.node);
      Erase(&conf->learners_next, step.node);
      Insert(&conf->voters, step.node);
      return;
    case ConfChangeType::kAddLearner:
      Erase(&conf->voters, step.node);
      Insert(Has(conf->voters_outgoing, step.node) ? &conf->learners_next : &conf->learners,
             step.node);
      return;
    case ConfChangeType::kRemove:
      Erase(&conf->voters, step.node);
      Erase(&conf->learners, step.node);
      Erase(&conf->learners_next, step.node);
      return;
  }
}

absl::StatusOr<ConfState> ApplySteps(ConfState conf, std::span<const ConfChangeStep> steps) {
  if (steps.empty()) return absl::InvalidArgumentError("a change of nothing");
  for (const ConfChangeStep& step : steps) {
    if (!step.node) return absl::InvalidArgumentError("node 0 is nobody");
    ApplyStep(&conf, step);
  }
  if (conf.voters.empty()) return absl::FailedPreconditionError("no voter would be left");
  CONCLAVE_CHECK(IsConsistent(conf));
  return conf;
}

}  // namespace

absl::StatusOr<ConfState> ApplyConfChange(const ConfState& conf, const ConfChange& change) {
  switch (change.kind) {
    case ConfChangeKind::kAuto: {
      if (!conf.voters_outgoing.empty()) {
        return absl::FailedPreconditionError("the configuration is joint");
      }
      CONCLAVE_ASSIGN_OR_RETURN(const ConfState changed, ApplySteps(conf, change.steps));
      if (VotersChanged(conf.voters, changed.voters) <= 1) return changed;
      return EnterJoint(conf, /*auto_leave=*/true, change.steps);
    }
    case ConfChangeKind::kJointAutoLeave:
      return EnterJoint(conf, /*auto_leave=*/true, change.steps);
    case ConfChangeKind::kJointExplicit:
      return EnterJoint(conf, /*auto_leave=*/false, change.steps);
    case ConfChangeKind::kLeaveJoint:
      return LeaveJoint(conf);
  }
  return absl::InvalidArgumentError("no such kind of change");
}

absl::StatusOr<ConfState> SimpleChange(const ConfState& conf,
                                       std::span<const ConfChangeStep> steps) {
  if (!conf.voters_outgoing.empty()) {
    return absl::FailedPreconditionError("the configuration is joint");
  }
  CONCLAVE_ASSIGN_OR_RETURN(ConfState changed, ApplySteps(conf, steps));
  if (VotersChanged(conf.voters, changed.voters) > 1) {
    return absl::FailedPreconditionError(
        "more than one voter changes without a joint configuration");
  }
  return changed;
}

absl::StatusOr<ConfState> EnterJoint(const ConfState& conf, bool auto_leave,
                                     std::span<const ConfChangeStep> steps) {
  if (!conf.voters_outgoing.empty()) {
    return absl::FailedPreconditionError("the configuration is joint");
  }
  if (conf.voters.empty()) {
    return absl::FailedPreconditionError("an empty configuration cannot become joint");
  }
  ConfState joint = conf;
  joint.voters_outgoing = conf.voters;
  joint.auto_leave = auto_leave;
  return ApplySteps(std::move(joint), steps);
}

absl::StatusOr<ConfState> LeaveJoint(const ConfState& conf) {
  if (conf.voters_outgoing.empty()) {
    return absl::FailedPreconditionError("the configuration is not joint");
  }
  ConfState left = conf;
  for (NodeId id : conf.learners_next) Insert(&left.learners, id);
  left.learners_next.clear();
  left.voters_outgoing.clear();
  left.auto_leave = false;
  CONCLAVE_CHECK(IsConsistent(left));
  return left;
}

bool IsConsistent(const ConfState& conf) {
  if (!IsSet(conf.voters) || !IsSet(conf.voters_outgoing) || !IsSet(conf.learners) ||
      !IsSet(conf.learners_next)) {
    return false;
  }
  if (!Disjoint(conf.learners, conf.voters) || !Disjoint(conf.learners, conf.voters_outgoing) ||
      !Disjoint(conf.learners_next, conf.voters)) {
    return false;
  }
  if (conf.voters_outgoing.empty()) return conf.learners_next.empty() && !conf.auto_leave;
  return std::all_of(conf.learners_next.begin(), conf.learners_next.end(),
                     [&](NodeId id) { return Has(conf.voters_outgoing, id); });
}

}  // namespace conclave::raft
