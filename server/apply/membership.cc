#include "conclave/server/apply/membership.h"

#include <utility>

#include "conclave/base/check.h"

namespace conclave::apply {

void Membership::Bootstrap(uint64_t cluster_id, std::vector<Member> members) {
  CONCLAVE_CHECK(members_.empty() && cluster_id_ == 0, "a cluster is bootstrapped once");
  cluster_id_ = cluster_id;
  for (Member& member : members) {
    const uint64_t id = member.id;
    const bool inserted = members_.try_emplace(id, std::move(member)).second;
    CONCLAVE_CHECK(inserted, "two members with id ", id);
  }
}

const Member* Membership::Find(uint64_t id) const {
  const auto found = members_.find(id);
  return found == members_.end() ? nullptr : &found->second;
}

bool Membership::SetAttributes(uint64_t id, std::string name,
                               std::vector<std::string> client_urls) {
  const auto found = members_.find(id);
  if (found == members_.end()) return false;
  found->second.name = std::move(name);
  found->second.client_urls = std::move(client_urls);
  return true;
}

Bytes Membership::EncodeList(wire::ResponseHeader header) const {
  header.revision = 0;
  std::vector<wire::Member> views;
  views.reserve(members_.size());
  for (const auto& [id, member] : members_) {
    views.push_back({id, member.name, member.peer_urls, member.client_urls, member.is_learner});
  }
  return wire::EncodeMemberList(header, views);
}

mvcc::Digest Membership::digest() const {
  wire::ResponseHeader header;
  header.cluster_id = cluster_id_;
  return mvcc::HashBytes(EncodeList(header).view());
}

}  // namespace conclave::apply
