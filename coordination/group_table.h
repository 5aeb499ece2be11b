// GroupTable: from the keys under a group's prefix to who joined, left and changed. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "conclave/client/core/types.h"

namespace conclave {

struct GroupMember {
  std::string id{};
  std::string data{};
  LeaseId lease = 0;
  int64_t revision = 0;  // at which it joined

  friend bool operator==(const GroupMember&, const GroupMember&) = default;
};

struct GroupChange {
  std::vector<GroupMember> joined{};
  std::vector<GroupMember> left{};     // as they were last
  std::vector<GroupMember> updated{};  // as they are now
  std::vector<GroupMember> members{};  // all of them, after this change, in the order of their ids
  int64_t revision = 0;
  absl::Status status{};  // not OK: this is the last one

  bool empty() const { return joined.empty() && left.empty() && updated.empty(); }
};

class GroupTable {
 public:
  explicit GroupTable(std::string_view prefix) : prefix_(prefix) {}

  // What a batch of a watch (with list_first) over the prefix changes. A member that left and came
  // again within the batch is in `left` and in `joined`.
  GroupChange Apply(const WatchBatch& batch);

 private:
  GroupMember MemberOf(const KeyValue& kv) const;
  void Put(const KeyValue& kv, GroupChange& change);
  void Remove(const std::string& id, GroupChange& change);

  const std::string prefix_;
  std::map<std::string, GroupMember> members_;
};

}  // namespace conclave
