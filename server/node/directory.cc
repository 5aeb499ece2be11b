#include "conclave/server/node/directory.h"

#include <algorithm>
#include <utility>

#include "conclave/api/wire/reader.h"
#include "conclave/api/wire/writer.h"

namespace conclave::node {

const apply::Member* Directory::FindByUrls(std::vector<std::string> peer_urls) const {
  std::sort(peer_urls.begin(), peer_urls.end());
  for (const apply::Member& member : members) {
    std::vector<std::string> theirs = member.peer_urls;
    std::sort(theirs.begin(), theirs.end());
    if (theirs == peer_urls) return &member;
  }
  return nullptr;
}

// Fields: 1 cluster id; 2 version; 3 member (etcdserverpb.Member), repeated.
std::string EncodeDirectory(const apply::Membership& membership, std::string_view cluster_version) {
  wire::Builder builder;
  builder.AppendNumber(1, membership.cluster_id());
  builder.AppendText(2, cluster_version);
  for (const auto& [id, member] : membership.members()) {
    wire::AppendMember(&builder, 3,
                       {id, member.name, member.peer_urls, member.client_urls, member.is_learner});
  }
  return std::string(builder.view());
}

absl::StatusOr<Directory> DecodeDirectory(std::string_view bytes) {
  Directory directory;
  wire::Reader reader(bytes);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        directory.cluster_id = reader.Varint();
        break;
      case wire::LengthTag(2):
        directory.cluster_version = reader.String();
        break;
      case wire::LengthTag(3): {
        apply::Member member;
        if (!apply::DecodeMember(reader.Bytes(), &member) || member.id == 0) reader.Fail();
        directory.members.push_back(std::move(member));
        break;
      }
      default:
        reader.Skip(3);
    }
  }
  if (!reader.ok() || directory.cluster_id == 0) {
    return absl::InvalidArgumentError("a list of members that is none");
  }
  return directory;
}

}  // namespace conclave::node
