// Membership: who belongs to the cluster, as the clients see it. Which of the members vote is
// Raft's business; here stand names and addresses.
//
// Part of the replicated state: changed only by committed entries, and by Bootstrap before the
// first one. The id of a member that was removed never comes back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/responses.h"
#include "conclave/base/bytes.h"
#include "conclave/server/apply/member_change.h"
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

// An encoded etcdserverpb.Member; false if it is none.
[[nodiscard]] bool DecodeMember(std::string_view encoded, Member* member);

class Membership {
 public:
  // The members of a new cluster: the same on all of them, before any entry is applied.
  void Bootstrap(uint64_t cluster_id, std::vector<Member> members,
                 absl::btree_set<uint64_t> removed = {});

  uint64_t cluster_id() const { return cluster_id_; }
  // By id.
  const absl::btree_map<uint64_t, Member>& members() const { return members_; }
  const Member* Find(uint64_t id) const;
  const absl::btree_set<uint64_t>& removed() const { return removed_; }

  // ---- Changes by clients

  // Why this change cannot be made, with etcd's error; null: it can.
  [[nodiscard]] const wire::Error* Check(const MemberChange& change, size_t learners_max) const;
  // A change that Check has let through, on every member in the same way. One that has become
  // impossible changes nothing.
  void Apply(const MemberChange& change);
  // Everybody else was lost: only this member is left, with a vote. False if it is none.
  [[nodiscard]] bool RetainOnly(uint64_t id);

  // ---- Rules of etcd's --strict-reconfig-check. Voters here are those that clients see.

  size_t voters() const;
  // Whether a quorum of those who would vote has started, if one more voter joins them, ...
  bool QuorumStartedWithOneMore() const;
  // ... if this one leaves, ...
  bool QuorumStartedWithout(uint64_t id) const;
  // ... if a learner that has started joins them.
  bool QuorumStartedWithLearner() const;

  // ---- The rest

  // A member has started, or has other client URLs now. False if there is no such member.
  bool SetAttributes(uint64_t id, std::string name, std::vector<std::string> client_urls);

  // MemberListResponse, and the answer to a change; header.revision is left out, as in all answers
  // of the Cluster service.
  [[nodiscard]] Bytes EncodeList(wire::ResponseHeader header) const;
  [[nodiscard]] Bytes EncodeChanged(wire::ResponseHeader header, const MemberChange& change) const;

  // Over everything above; O(members).
  mvcc::Digest digest() const;

 private:
  size_t Started(uint64_t but) const;
  bool UrlsTaken(const std::vector<std::string>& urls, uint64_t but) const;

  uint64_t cluster_id_ = 0;
  absl::btree_map<uint64_t, Member> members_;
  absl::btree_set<uint64_t> removed_;
};

}  // namespace conclave::apply
