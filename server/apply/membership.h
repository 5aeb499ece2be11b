// Membership: who belongs to the cluster, as the clients see it. Which of the members vote is
// Raft's business; here stand names and addresses.
//
// Part of the replicated state: changed only by committed entries, and by Bootstrap before the
// first one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "conclave/api/wire/responses.h"
#include "conclave/base/bytes.h"
#include "conclave/server/mvcc/digest.h"

namespace conclave::apply {

struct Member {
  uint64_t id = 0;
  std::string name;  // empty: has not started yet
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  bool is_learner = false;

  friend bool operator==(const Member&, const Member&) = default;
};

class Membership {
 public:
  // The members of a new cluster: the same on all of them, before any entry is applied.
  void Bootstrap(uint64_t cluster_id, std::vector<Member> members);

  uint64_t cluster_id() const { return cluster_id_; }
  // By id.
  const absl::btree_map<uint64_t, Member>& members() const { return members_; }
  const Member* Find(uint64_t id) const;

  // A member has started, or has other client URLs now. False if there is no such member.
  bool SetAttributes(uint64_t id, std::string name, std::vector<std::string> client_urls);

  // MemberListResponse; header.revision is left out, as in all answers of the Cluster service.
  [[nodiscard]] Bytes EncodeList(wire::ResponseHeader header) const;

  // Over everything above; O(members).
  mvcc::Digest digest() const;

 private:
  uint64_t cluster_id_ = 0;
  absl::btree_map<uint64_t, Member> members_;
};

}  // namespace conclave::apply
