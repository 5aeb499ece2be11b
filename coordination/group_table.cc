#include "conclave/coordination/group_table.h"

#include <algorithm>
#include <set>

namespace conclave {
namespace {

// The last word about one member within a batch counts.
void Note(std::vector<GroupMember>& list, const GroupMember& member) {
  std::erase_if(list, [&member](const GroupMember& each) { return each.id == member.id; });
  list.push_back(member);
}

bool Drop(std::vector<GroupMember>& list, const std::string& id) {
  return std::erase_if(list, [&id](const GroupMember& each) { return each.id == id; }) != 0;
}

}  // namespace

GroupMember GroupTable::MemberOf(const KeyValue& kv) const {
  return {.id = kv.key.substr(std::min(prefix_.size(), kv.key.size())),
          .data = kv.value,
          .lease = kv.lease,
          .revision = kv.create_revision};
}

void GroupTable::Put(const KeyValue& kv, GroupChange& change) {
  GroupMember member = MemberOf(kv);
  auto known = members_.find(member.id);
  if (known != members_.end() && known->second == member) return;
  if (known != members_.end() && known->second.revision == member.revision) {
    known->second = member;
    if (Drop(change.joined, member.id)) {
      change.joined.push_back(member);  // new to those who listen
    } else {
      Note(change.updated, member);
    }
    return;
  }
  if (known != members_.end()) Remove(member.id, change);
  Note(change.joined, member);
  members_[member.id] = std::move(member);
}

void GroupTable::Remove(const std::string& id, GroupChange& change) {
  auto known = members_.find(id);
  if (known == members_.end()) return;
  Drop(change.updated, id);
  // Who came and went within the batch was never there, for those who listen.
  if (!Drop(change.joined, id)) Note(change.left, known->second);
  members_.erase(known);
}

GroupChange GroupTable::Apply(const WatchBatch& batch) {
  GroupChange change{.revision = batch.revision, .status = batch.status};
  if (batch.resynced) {
    std::set<std::string> there;
    for (const KeyValue& kv : batch.state) there.insert(MemberOf(kv).id);
    std::vector<std::string> gone;
    for (const auto& [id, member] : members_) {
      if (there.count(id) == 0) gone.push_back(id);
    }
    for (const std::string& id : gone) Remove(id, change);
    for (const KeyValue& kv : batch.state) Put(kv, change);
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kPut) {
      Put(event.kv, change);
    } else {
      Remove(MemberOf(event.kv).id, change);
    }
  }
  for (const auto& [id, member] : members_) change.members.push_back(member);
  return change;
}

}  // namespace conclave
