#include "conclave/tests/sim/observer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/tests/sim/schedule.h"

namespace conclave::sim {
namespace {

uint64_t HashOf(const raft::ConfState& conf) {
  Trace hash;
  for (const auto* ids :
       {&conf.voters, &conf.voters_outgoing, &conf.learners, &conf.learners_next}) {
    hash.Mix(ids->size());
    for (const raft::NodeId id : *ids) hash.Mix(id.value());
  }
  hash.Mix(uint64_t{conf.auto_leave});
  return hash.hash();
}

}  // namespace

void Observer::Complain(size_t member, std::string what) {
  if (complaints_.size() < 20) {
    complaints_.push_back(absl::StrCat("member ", member, ": ", std::move(what)));
  }
}

void Observer::Take(size_t member, int64_t revision, std::vector<Write> writes, Instant now) {
  const auto next = static_cast<int64_t>(truth_.size()) + 2;
  if (revision > next) {
    Complain(member, absl::StrCat("is at revision ", revision, " though nobody was at ", next));
  } else if (revision == next) {
    truth_.push_back({revision, std::move(writes), now});
  } else if (truth_[static_cast<size_t>(revision - 2)].writes != writes) {
    Complain(member, absl::StrCat("makes something else of revision ", revision));
  }
}

// Of whoever is ahead of all others.
void Observer::TakeUsers(const auth::AuthStore& store, uint64_t applied, Instant now) {
  const std::pair seen(store.revision(), store.enabled());
  if (applied <= auth_applied_) return;
  auth_applied_ = applied;
  if (seen == auth_seen_) return;
  auth_seen_ = seen;
  AuthMoment moment{.from = now, .enabled = store.enabled()};
  for (const auto& [name, user] : store.users()) {
    moment.roles_of[name] = {user.roles.begin(), user.roles.end()};
  }
  for (const auto& [name, role] : store.roles()) {
    std::vector<KeyPermission>& permissions = moment.permissions_of[name];
    for (const auth::Permission& permission : role.permissions) {
      permissions.push_back({.reads = permission.type != auth::PermissionType::kWrite,
                             .writes = permission.type != auth::PermissionType::kRead,
                             .key = permission.key,
                             .range_end = permission.range_end});
    }
  }
  auth_.push_back(std::move(moment));
}

void Observer::CheckLeader(size_t member, const node::Node& node) {
  const node::RaftStatus status = node.raft_status();
  const std::string wrong = seen_[member].rules.Take({.term = status.term.value(),
                                                      .commit = status.commit.value(),
                                                      .first_own = status.first_own.value(),
                                                      .conf_entry = status.conf_entry.value()});
  if (!wrong.empty()) Complain(member, wrong);
  if (!status.is_leader) return;
  const std::string twice = elections_.Take(status.term.value(), member, seen_[member].life);
  if (!twice.empty()) Complain(member, twice);
}

void Observer::Look(size_t member, const node::Node& node, Instant now) {
  CheckLeader(member, node);
  const apply::StateMachine& state = node.state();
  Seen& seen = seen_[member];
  const uint64_t applied = state.applied_index();
  if (applied == states_.applied(member)) return;
  const std::string wrong = states_.Take(
      member, {.applied = applied, .state = state.digest(), .conf = HashOf(node.conf())});
  if (!wrong.empty()) Complain(member, wrong);
  const int64_t current = state.store().current_revision();
  TakeUsers(state.auth(), applied, now);
  if (current < seen.revision) Complain(member, "its revision goes back");
  if (current == seen.revision) return;
  // What compaction may have removed cannot be compared; who was there first has told it.
  const int64_t from =
      std::max({seen.revision + 1, state.store().compact_revision() + 1, int64_t{2}});
  seen.revision = current;
  int64_t revision = 0;
  std::vector<Write> writes;
  state.store().ForEachSince(from, [&](const mvcc::Record& record) {
    if (record.mod_revision() != revision && revision != 0) {
      Take(member, revision, std::exchange(writes, {}), now);
    }
    revision = record.mod_revision();
    writes.push_back({std::string(record.key()), std::string(record.value()),
                      record.create_revision(), record.version(), record.lease(),
                      record.tombstone()});
    return true;
  });
  if (revision != 0) Take(member, revision, std::move(writes), now);
  if (static_cast<int64_t>(truth_.size()) + 1 < current) {
    Complain(member, absl::StrCat("its revision ", current, " is one that never was"));
  }
}

}  // namespace conclave::sim
