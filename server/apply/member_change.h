// MemberChange: what a client wants of the membership, as it stands in the log.
//
// It is the context of a Raft configuration change: a command's header (command.h), whose kind is
// the wire::Method, then the body below. So one entry changes who votes, when it is appended, and
// what clients see of the members, when it is applied.
//
// A change is checked by the leader at a moment when everything that changes the membership has
// been applied, and only then appended (Membership::Check...). Applying it never fails.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/api/wire/errors.h"
#include "conclave/api/wire/method.h"
#include "conclave/base/bytes.h"
#include "conclave/server/apply/command.h"

namespace conclave::apply {

struct MemberChange {
  // kMemberAdd, kMemberRemove, kMemberUpdate or kMemberPromote.
  wire::Method method = wire::Method::kMemberAdd;
  uint64_t id = 0;                     // of an addition: chosen where the client asks
  std::vector<std::string> peer_urls;  // of addition and update; sorted
  bool is_learner = false;             // of an addition

  friend bool operator==(const MemberChange&, const MemberChange&) = default;
};

inline constexpr size_t kMemberUrlsMax = 64;         // of one member
inline constexpr size_t kMemberUrlBytesMax = 2'048;  // of one of them

// What a peer URL may be: a scheme of etcd's and host:port (of unix sockets: any name), nothing
// behind it.
[[nodiscard]] bool IsPeerUrl(std::string_view url);

// A client's request, without headroom. The error is etcd's; null: *change is what it asks for,
// with the id still to be chosen if it is an addition.
[[nodiscard]] const wire::Error* ParseMemberChange(wire::Method method, std::string_view request,
                                                   MemberChange* change);

struct MemberCommand {
  CommandHeader header;
  MemberChange change;
};
// The context of a configuration change, and back; nothing if it is none.
[[nodiscard]] Bytes EncodeMemberChange(uint64_t proposer, uint64_t sequence,
                                       const MemberChange& change);
[[nodiscard]] std::optional<MemberCommand> DecodeMemberChange(std::string_view context);

}  // namespace conclave::apply
