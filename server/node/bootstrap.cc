#include "conclave/server/node/bootstrap.h"

#include <openssl/evp.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/settings.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/snapshot/writer.h"

namespace conclave::node {
namespace {

constexpr size_t kPieceBytes = 256 << 10;

// The first 8 bytes, big-endian, of a SHA-1: etcd's way to an id. Nothing rests on its strength.
uint64_t HashId(std::string_view bytes) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CONCLAVE_CHECK(EVP_Digest(bytes.data(), bytes.size(), hash, &size, EVP_sha1(), nullptr) == 1);
  uint64_t id = 0;
  for (int i = 0; i < 8; ++i) id = id << 8 | hash[i];
  return id;
}

void AppendBigEndian(uint64_t number, std::string* out) {
  for (int shift = 56; shift >= 0; shift -= 8) out->push_back(static_cast<char>(number >> shift));
}

// Writes the state as a snapshot file.
absl::Status SaveState(env::Disk& disk, uint64_t cluster_id, const raft::SnapshotMeta& meta,
                       apply::StateMachine* state) {
  // Prepares the directory, too.
  CONCLAVE_ASSIGN_OR_RETURN(snapshot::Newest newest, snapshot::OpenNewest(disk, cluster_id));
  newest.reader.reset();
  CONCLAVE_ASSIGN_OR_RETURN(std::unique_ptr<snapshot::Writer> writer,
                            snapshot::Writer::Create(disk, {cluster_id, meta}));
  apply::SnapshotTask task(state);
  for (Bytes piece = task.Next(kPieceBytes); !piece.empty(); piece = task.Next(kPieceBytes)) {
    CONCLAVE_RETURN_IF_ERROR(writer->Append(piece.view()));
  }
  return writer->Finish().status();
}

absl::StatusOr<std::unique_ptr<apply::StateMachine>> ReadState(snapshot::Reader& reader,
                                                               const Options& options,
                                                               uint64_t* bytes) {
  apply::RestoreTask task(StateSettings(options));
  while (true) {
    CONCLAVE_ASSIGN_OR_RETURN(std::optional<Bytes> piece, reader.Next());
    if (!piece.has_value()) break;
    *bytes += piece->size();
    CONCLAVE_RETURN_IF_ERROR(task.Feed(piece->view()));
  }
  return task.Finish();
}

}  // namespace

const InitialCluster::Member* InitialCluster::Find(std::string_view name) const {
  const auto found = std::find_if(members.begin(), members.end(),
                                  [&](const Member& member) { return member.name == name; });
  return found == members.end() ? nullptr : &*found;
}

raft::NodeId MemberId(std::vector<std::string> peer_urls, std::string_view token) {
  std::sort(peer_urls.begin(), peer_urls.end());
  std::string bytes;
  for (const std::string& url : peer_urls) bytes += url;
  bytes += token;
  return raft::NodeId(HashId(bytes));
}

absl::StatusOr<InitialCluster> FoundCluster(std::span<const FoundingMember> founders,
                                            std::string_view token) {
  if (founders.empty()) return absl::InvalidArgumentError("the initial cluster has no members");
  InitialCluster cluster;
  std::set<std::string> names;
  std::set<std::string> urls;
  for (const FoundingMember& founder : founders) {
    if (!names.insert(founder.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the initial cluster names member '", founder.name, "' twice"));
    }
    if (founder.peer_urls.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("member '", founder.name, "' of the initial cluster has no peer URL"));
    }
    for (const std::string& url : founder.peer_urls) {
      if (urls.insert(url).second) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the initial cluster has the peer URL '", url, "' twice"));
    }
    InitialCluster::Member member{MemberId(founder.peer_urls, token), founder.name,
                                  founder.peer_urls};
    std::sort(member.peer_urls.begin(), member.peer_urls.end());
    cluster.members.push_back(std::move(member));
  }
  std::sort(cluster.members.begin(), cluster.members.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  std::string ids;
  for (const InitialCluster::Member& member : cluster.members) {
    AppendBigEndian(member.id.value(), &ids);
  }
  cluster.cluster_id = HashId(ids);
  return cluster;
}

Recovered FoundingState(const Options& options, const InitialCluster& cluster) {
  std::vector<raft::NodeId> voters;
  std::vector<apply::Member> members;
  for (const InitialCluster::Member& founder : cluster.members) {
    voters.push_back(founder.id);
    apply::Member member;
    member.id = founder.id.value();
    member.name = founder.name;
    member.peer_urls = founder.peer_urls;
    members.push_back(std::move(member));
  }
  Recovered recovered;
  recovered.snapshot = raft::FoundingSnapshot(std::move(voters));
  recovered.state = std::make_unique<apply::StateMachine>(StateSettings(options));
  recovered.state->Bootstrap(cluster.cluster_id, std::move(members));
  while (recovered.state->applied_index() < recovered.snapshot.index.value()) {
    recovered.state->Advance(recovered.state->applied_index() + 1, recovered.snapshot.term.value());
  }
  recovered.hard_state.term = recovered.snapshot.term;
  recovered.hard_state.commit = recovered.snapshot.index;
  return recovered;
}

absl::StatusOr<Opened> OpenMember(env::Disk& disk, const Options& options,
                                  const InitialCluster* founding, const OpenOptions& open) {
  Opened opened;
  CONCLAVE_ASSIGN_OR_RETURN(const bool existed, wal::Log::Exists(disk));
  Recovered& recovered = opened.recovered;
  if (!existed) {
    if (founding == nullptr) {
      return absl::NotFoundError(
          absl::StrCat(disk.Describe(), " holds no member, and no initial cluster was given"));
    }
    opened.first_start = true;
    recovered = FoundingState(options, *founding);
    CONCLAVE_RETURN_IF_ERROR(
        SaveState(disk, options.cluster_id, recovered.snapshot, recovered.state.get()));
  } else {
    CONCLAVE_ASSIGN_OR_RETURN(snapshot::Newest newest,
                              snapshot::OpenNewest(disk, options.cluster_id));
    for (const absl::Status& skipped : newest.skipped) {
      opened.notes.push_back(absl::StrCat("skipped a snapshot: ", skipped.message()));
    }
    if (newest.reader == nullptr) {
      return absl::DataLossError(
          absl::StrCat(disk.Describe(), " holds a log, but no snapshot that can be read"));
    }
    recovered.snapshot = newest.reader->meta();
    CONCLAVE_ASSIGN_OR_RETURN(recovered.state,
                              ReadState(*newest.reader, options, &recovered.snapshot_bytes));
    if (recovered.state->applied_index() != recovered.snapshot.index.value()) {
      return absl::DataLossError(absl::StrCat(newest.reader->name(), ": the state stands at index ",
                                              recovered.state->applied_index()));
    }
  }
  wal::Options settings;
  settings.cluster_id = options.cluster_id;
  settings.member_id = options.id;
  settings.segment_bytes = open.segment_bytes;
  CONCLAVE_ASSIGN_OR_RETURN(
      wal::Recovered log,
      wal::Log::Recover(disk, settings, {recovered.snapshot.index, recovered.snapshot.term}));
  if (log.torn_bytes > 0) {
    opened.notes.push_back(absl::StrCat("cut ", log.torn_bytes,
                                        " bytes of an unfinished write off the end of the log"));
  }
  // What a first start promised to nobody need not be in the log.
  if (log.hard_state.term >= recovered.hard_state.term) recovered.hard_state = log.hard_state;
  recovered.hard_state.commit = std::max(recovered.hard_state.commit, recovered.snapshot.index);
  recovered.hard_state.term = std::max(recovered.hard_state.term, recovered.snapshot.term);
  recovered.entries = std::move(log.entries);
  opened.log = std::move(log.log);
  return opened;
}

}  // namespace conclave::node
