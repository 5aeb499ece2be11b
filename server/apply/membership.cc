#include "conclave/server/apply/membership.h"

#include <algorithm>
#include <utility>

#include "conclave/api/wire/reader.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave::apply {

bool DecodeMember(std::string_view encoded, Member* member) {
  wire::Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        member->id = reader.Varint();
        break;
      case wire::LengthTag(2):
        member->name = reader.String();
        break;
      case wire::LengthTag(3):
        member->peer_urls.emplace_back(reader.String());
        break;
      case wire::LengthTag(4):
        member->client_urls.emplace_back(reader.String());
        break;
      case wire::VarintTag(5):
        member->is_learner = reader.Bool();
        break;
      default:
        reader.Skip(5);
    }
  }
  return reader.ok();
}

void Membership::Bootstrap(uint64_t cluster_id, std::vector<Member> members,
                           absl::btree_set<uint64_t> removed) {
  CONCLAVE_CHECK(members_.empty() && cluster_id_ == 0, "a cluster is bootstrapped once");
  cluster_id_ = cluster_id;
  removed_ = std::move(removed);
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

// ---- Changes ------------------------------------------------------------------------------------

bool Membership::UrlsTaken(const std::vector<std::string>& urls, uint64_t but) const {
  return std::any_of(members_.begin(), members_.end(), [&](const auto& entry) {
    if (entry.first == but) return false;
    const std::vector<std::string>& theirs = entry.second.peer_urls;
    return std::any_of(urls.begin(), urls.end(), [&](const std::string& url) {
      return std::find(theirs.begin(), theirs.end(), url) != theirs.end();
    });
  });
}

const wire::Error* Membership::Check(const MemberChange& change, size_t learners_max) const {
  if (removed_.contains(change.id)) return &wire::kErrMemberNotFound;
  const Member* const member = Find(change.id);
  if (change.method == wire::Method::kMemberAdd) {
    if (member != nullptr) return &wire::kErrMemberExists;
    if (UrlsTaken(change.peer_urls, 0)) return &wire::kErrPeerUrlExists;
    const auto learners =
        static_cast<size_t>(std::count_if(members_.begin(), members_.end(), [](const auto& entry) {
          return entry.second.is_learner;
        }));
    if (change.is_learner && learners >= learners_max) return &wire::kErrTooManyLearners;
    return nullptr;
  }
  if (member == nullptr) return &wire::kErrMemberNotFound;
  if (change.method == wire::Method::kMemberUpdate && UrlsTaken(change.peer_urls, change.id)) {
    return &wire::kErrPeerUrlExists;
  }
  if (change.method == wire::Method::kMemberPromote && !member->is_learner) {
    return &wire::kErrMemberNotLearner;
  }
  return nullptr;
}

void Membership::Apply(const MemberChange& change) {
  if (removed_.contains(change.id)) {
    REACHED("member: a change of who is gone");
    return;
  }
  if (change.method == wire::Method::kMemberAdd) {
    Member member;
    member.id = change.id;
    member.peer_urls = change.peer_urls;
    member.is_learner = change.is_learner;
    members_.try_emplace(change.id, std::move(member));
    return;
  }
  const auto found = members_.find(change.id);
  if (found == members_.end()) return;
  if (change.method == wire::Method::kMemberRemove) {
    members_.erase(found);
    if (!MUTANT("removed-member-forgotten")) removed_.insert(change.id);
  } else if (change.method == wire::Method::kMemberUpdate) {
    found->second.peer_urls = change.peer_urls;
    if (MUTANT("update-clears-the-learner")) found->second.is_learner = false;
  } else {
    found->second.is_learner = false;
  }
}

bool Membership::RetainOnly(uint64_t id) {
  if (Find(id) == nullptr) return false;
  for (const auto& [other, member] : members_) {
    if (other != id) removed_.insert(other);
  }
  absl::erase_if(members_, [id](const auto& entry) { return entry.first != id; });
  members_.begin()->second.is_learner = false;
  return true;
}

// ---- Rules --------------------------------------------------------------------------------------

size_t Membership::voters() const {
  return static_cast<size_t>(std::count_if(members_.begin(), members_.end(), [](const auto& entry) {
    return !entry.second.is_learner;
  }));
}

size_t Membership::Started(uint64_t but) const {
  return static_cast<size_t>(
      std::count_if(members_.begin(), members_.end(), [but](const auto& entry) {
        return entry.first != but && !entry.second.is_learner && !entry.second.name.empty();
      }));
}

bool Membership::QuorumStartedWithOneMore() const {
  const size_t after = voters() + 1;
  const size_t started = Started(0);
  // A cluster of one may grow: there is no other way to make it safer.
  return (started == 1 && after == 2) || started >= after / 2 + 1;
}

bool Membership::QuorumStartedWithout(uint64_t id) const {
  const Member* const member = Find(id);
  const size_t after = voters() - (member != nullptr && !member->is_learner ? 1 : 0);
  return Started(id) >= after / 2 + 1;
}

bool Membership::QuorumStartedWithLearner() const {
  return Started(0) + 1 >= (voters() + 1) / 2 + 1;
}

// ---- Answers ------------------------------------------------------------------------------------

namespace {

wire::Member View(const Member& member) {
  return {member.id, member.name, member.peer_urls, member.client_urls, member.is_learner};
}

std::vector<wire::Member> Views(const absl::btree_map<uint64_t, Member>& members) {
  std::vector<wire::Member> views;
  views.reserve(members.size());
  for (const auto& [id, member] : members) views.push_back(View(member));
  return views;
}

}  // namespace

Bytes Membership::EncodeList(wire::ResponseHeader header) const {
  header.revision = 0;
  return wire::EncodeMemberList(header, Views(members_));
}

Bytes Membership::EncodeChanged(wire::ResponseHeader header, const MemberChange& change) const {
  if (change.method != wire::Method::kMemberAdd) return EncodeList(header);
  header.revision = 0;
  const Member* const member = Find(change.id);
  return wire::EncodeMemberAdd(header, member == nullptr ? wire::Member() : View(*member),
                               Views(members_));
}

mvcc::Digest Membership::digest() const {
  wire::ResponseHeader header;
  header.cluster_id = cluster_id_;
  mvcc::Digest digest = mvcc::HashBytes(EncodeList(header).view());
  for (const uint64_t id : removed_) digest = mvcc::Mix(digest, id);
  return digest;
}

}  // namespace conclave::apply
