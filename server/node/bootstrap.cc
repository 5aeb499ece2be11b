#include "conclave/server/node/bootstrap.h"

#include <openssl/evp.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/base/reached.h"
#include "conclave/base/status.h"
#include "conclave/server/apply/member_change.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/identity.h"
#include "conclave/server/node/settings.h"
#include "conclave/server/raft/conf_history.h"
#include "conclave/server/raft/confchange/confchange.h"
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

std::string Hex(uint64_t id) { return absl::StrCat(absl::Hex(id)); }

std::string Text(const absl::Status& status) { return std::string(status.message()); }

wal::Options LogSettings(const Options& options, const OpenOptions& open) {
  wal::Options settings;
  settings.cluster_id = options.cluster_id;
  settings.member_id = options.id;
  settings.segment_bytes = open.segment_bytes;
  return settings;
}

// There is no log. Who has not come to the end of its first start has at most the founding
// snapshot, or the empty one of a member that joins; whoever has more has been a member, and must
// not start without its memory.
absl::Status RefuseAmnesia(env::Disk& disk) {
  const auto identity = ReadIdentity(disk);
  CONCLAVE_ASSIGN_OR_RETURN(const auto snapshots, snapshot::ListNewestFirst(disk));
  const std::string founding = snapshot::FileName(raft::FoundingSnapshot({}));
  std::string sign;
  if (!identity.ok() || identity->has_value()) sign = std::string(kIdentityName);
  if (!snapshots.empty() && snapshots.front() != founding &&
      snapshots.front() != snapshot::FileName(raft::SnapshotMeta())) {
    sign = absl::StrCat(std::string(snapshot::kDirectory), "/", snapshots.front());
  }
  if (sign.empty()) return absl::OkStatus();
  const std::string root = disk.Describe();
  return absl::DataLossError(absl::StrCat(
      "the log of this member is missing: ", root, "/", std::string(wal::kDirectory),
      " holds none, but ", root, "/", sign,
      " shows that there was one; without it the member would forget its vote and what it "
      "acknowledged. Put the log back; if it is lost, remove ",
      root, " and have a new member take this one's place"));
}

// The state of the newest snapshot that can be read; gives the names of those that cannot.
absl::StatusOr<std::vector<std::string>> ReadNewest(env::Disk& disk, const Options& options,
                                                    Opened* opened) {
  CONCLAVE_ASSIGN_OR_RETURN(const auto names, snapshot::ListNewestFirst(disk));
  const std::string directory =
      absl::StrCat(disk.Describe(), "/", std::string(snapshot::kDirectory));
  constexpr char kRemedy[] =
      "Put the snapshots back; if they are lost, the other members have the data: remove this "
      "member's directory and have a new member take its place";
  if (names.empty()) {
    return absl::DataLossError(absl::StrCat("the snapshots of this member are missing: ", directory,
                                            " holds none, but ", disk.Describe(), "/",
                                            std::string(wal::kDirectory),
                                            " holds the log that goes on from them. ", kRemedy));
  }
  CONCLAVE_ASSIGN_OR_RETURN(snapshot::Newest newest,
                            snapshot::OpenNewest(disk, options.cluster_id));
  if (newest.reader == nullptr) {
    return absl::DataLossError(absl::StrCat("no snapshot in ", directory, " can be read: ",
                                            Text(newest.skipped.front()), ". ", kRemedy));
  }
  for (const absl::Status& skipped : newest.skipped) {
    opened->notes.push_back(absl::StrCat(Text(skipped), "; started from the one before it, ",
                                         newest.reader->name(), ", and the log"));
  }
  Recovered& recovered = opened->recovered;
  recovered.snapshot = newest.reader->meta();
  CONCLAVE_ASSIGN_OR_RETURN(recovered.state,
                            ReadState(*newest.reader, options, &recovered.snapshot_bytes));
  if (recovered.state->applied_index() != recovered.snapshot.index.value()) {
    return absl::DataLossError(absl::StrCat(newest.reader->name(), ": the state stands at index ",
                                            recovered.state->applied_index()));
  }
  return std::move(newest.damaged);
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
  apply::StateParts nothing;
  nothing.store = std::make_unique<mvcc::Store>();
  auto recovered = FoundingState(options, cluster, std::move(nothing));
  CONCLAVE_CHECK(recovered.ok(), recovered.status().ToString());
  return *std::move(recovered);
}

absl::StatusOr<Recovered> FoundingState(const Options& options, const InitialCluster& cluster,
                                        apply::StateParts parts) {
  std::vector<raft::NodeId> voters;
  for (const InitialCluster::Member& founder : cluster.members) {
    voters.push_back(founder.id);
    apply::Member member;
    member.id = founder.id.value();
    member.name = founder.name;
    member.peer_urls = founder.peer_urls;
    parts.members.push_back(std::move(member));
  }
  Recovered recovered;
  recovered.snapshot = raft::FoundingSnapshot(std::move(voters));
  parts.cluster_id = cluster.cluster_id;
  parts.applied_index = recovered.snapshot.index.value();
  parts.applied_term = recovered.snapshot.term.value();
  CONCLAVE_ASSIGN_OR_RETURN(recovered.state,
                            apply::AssembleState(StateSettings(options), std::move(parts)));
  recovered.hard_state.term = recovered.snapshot.term;
  recovered.hard_state.commit = recovered.snapshot.index;
  return recovered;
}

Recovered JoiningState(const Options& options, std::vector<PeerAddress> others) {
  Recovered recovered;
  recovered.state = std::make_unique<apply::StateMachine>(StateSettings(options));
  recovered.acquaintances = std::move(others);
  return recovered;
}

absl::Status CheckOwner(env::Disk& disk, const Options& options) {
  const auto identity = ReadIdentity(disk);
  if (absl::IsFailedPrecondition(identity.status())) return identity.status();
  if (identity.ok() && identity->has_value() && (*identity)->cluster_id != options.cluster_id) {
    return absl::FailedPreconditionError(absl::StrCat(
        "data directory ", disk.Describe(), " belongs to cluster ", Hex((*identity)->cluster_id),
        ", but this server is started as a member of cluster ", Hex(options.cluster_id),
        "; start it with the --initial-cluster and --initial-cluster-token that it was founded "
        "with, or with another --data-dir"));
  }
  if (identity.ok() && identity->has_value() && (*identity)->member_id != options.id) {
    return absl::FailedPreconditionError(
        absl::StrCat("data directory ", disk.Describe(), " belongs to member ",
                     Hex((*identity)->member_id.value()), ", but this server is started as member ",
                     Hex(options.id.value()),
                     "; start it with that member's --name, or with another "
                     "--data-dir"));
  }
  CONCLAVE_RETURN_IF_ERROR(wal::Log::CheckOwner(disk, LogSettings(options, {})));
  return snapshot::CheckOwner(disk, options.cluster_id);
}

absl::Status FoundMember(env::Disk& disk, const Options& options, const InitialCluster& cluster,
                         apply::StateParts parts, const OpenOptions& open) {
  CONCLAVE_RETURN_IF_ERROR(CheckOwner(disk, options));
  CONCLAVE_ASSIGN_OR_RETURN(const bool existed, wal::Log::Exists(disk));
  CONCLAVE_ASSIGN_OR_RETURN(const auto identity, ReadIdentity(disk));
  if (existed || identity.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("data directory ", disk.Describe(), " belongs to a member already"));
  }
  CONCLAVE_ASSIGN_OR_RETURN(Recovered recovered, FoundingState(options, cluster, std::move(parts)));
  CONCLAVE_RETURN_IF_ERROR(
      SaveState(disk, options.cluster_id, recovered.snapshot, recovered.state.get()));
  CONCLAVE_ASSIGN_OR_RETURN(wal::Recovered log,
                            wal::Log::Recover(disk, LogSettings(options, open),
                                              {recovered.snapshot.index, recovered.snapshot.term}));
  return WriteIdentity(disk, {options.cluster_id, options.id});
}

absl::StatusOr<bool> KnowsNoCluster(env::Disk& disk) {
  CONCLAVE_ASSIGN_OR_RETURN(const bool existed, wal::Log::Exists(disk));
  if (!existed) return true;
  CONCLAVE_ASSIGN_OR_RETURN(const auto snapshots, snapshot::ListNewestFirst(disk));
  return !snapshots.empty() && snapshots.front() == snapshot::FileName(raft::SnapshotMeta());
}

namespace {

absl::Status ApplyAll(const std::vector<raft::Entry>& entries, apply::StateMachine* state) {
  for (const raft::Entry& entry : entries) {
    const apply::ApplyContext context{.index = entry.index.value(),
                                      .entry_term = entry.term.value()};
    if (entry.type == raft::EntryType::kCommand) {
      (void)state->Apply(context, entry.payload);  // what it answers was for its client
      continue;
    }
    const auto change = raft::DecodeConfChange(entry.payload);
    if (!change.has_value()) {
      return absl::DataLossError(
          absl::StrCat("a broken change of membership in the log at ", entry.index.value()));
    }
    if (const auto command = apply::DecodeMemberChange(change->context.view())) {
      (void)state->ApplyMemberChange(context, command->change);
    } else {
      state->Advance(context.index, context.entry_term);
    }
  }
  return absl::OkStatus();
}

// What this member has is the truth from now on, committed or not. A crash before the snapshot is
// there changes nothing; behind it, the log is void by itself.
absl::Status ForceNewCluster(env::Disk& disk, const Options& options, Opened* opened) {
  Recovered& recovered = opened->recovered;
  apply::StateMachine* const state = recovered.state.get();
  CONCLAVE_RETURN_IF_ERROR(ApplyAll(recovered.entries, state));
  raft::SnapshotMeta forced;
  forced.index = raft::Index(state->applied_index() + 1);
  forced.term = std::max(recovered.hard_state.term, raft::Term(state->applied_term())) + 1;
  forced.conf.voters = {options.id};
  if (!state->RetainOnlySelf(forced.index.value(), forced.term.value())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "a new cluster cannot be made of ", disk.Describe(), ": member ", Hex(options.id.value()),
        " is not a member by its own data (it was removed, or had not joined yet)"));
  }
  CONCLAVE_RETURN_IF_ERROR(SaveState(disk, options.cluster_id, forced, state));
  wal::LogBatch batch;
  batch.reset = {forced.index, forced.term};
  batch.hard_state = {forced.term, raft::NodeId(), forced.index};
  CONCLAVE_RETURN_IF_ERROR(opened->log->Append(batch));
  CONCLAVE_RETURN_IF_ERROR(opened->log->Sync());
  opened->notes.push_back(absl::StrCat("made a new cluster of this member alone, with ",
                                       recovered.entries.size(), " entries of its log"));
  recovered.entries.clear();
  recovered.snapshot = forced;
  recovered.hard_state = *batch.hard_state;
  return absl::OkStatus();
}

// Whether somebody else has voted on what this member's log held: then it was acknowledged only
// because they have it too.
bool HasOtherVoters(const raft::SnapshotMeta& snapshot, std::span<const raft::Entry> entries,
                    raft::NodeId self) {
  raft::ConfHistory confs(snapshot.index, snapshot.conf);
  for (const raft::Entry& entry : entries) {
    if (entry.type == raft::EntryType::kConfChange) confs.Append(entry);
  }
  bool others = false;
  confs.quorum().ForEach([&](raft::NodeId id) { others = others || id != self; });
  return others;
}

// What is left is a member that remembers its votes, and gets the rest as one that joins.
absl::Status LoseState(env::Disk& disk, const Options& options, const absl::Status& why,
                       const OpenOptions& open, Opened* opened) {
  absl::StatusOr<std::vector<PeerAddress>> others = std::vector<PeerAddress>();
  if (open.ask_others) others = open.ask_others();
  if (!others.ok()) {
    return absl::DataLossError(absl::StrCat(
        Text(why),
        "; and to have the state again from the other members: ", Text(others.status())));
  }
  if (others->empty()) return why;
  opened->recovered = JoiningState(options, *std::move(others));
  CONCLAVE_RETURN_IF_ERROR(SaveState(disk, options.cluster_id, opened->recovered.snapshot,
                                     opened->recovered.state.get()));
  opened->notes.push_back(absl::StrCat(Text(why), " It will be asked of the other members now."));
  return absl::OkStatus();
}

// With a log there is a state, and be it the empty one of a member that joins.
absl::StatusOr<std::vector<std::string>> FindState(env::Disk& disk, const Options& options,
                                                   const OpenOptions& open, Opened* opened) {
  auto damaged = ReadNewest(disk, options, opened);
  if (!absl::IsDataLoss(damaged.status())) return damaged;
  CONCLAVE_RETURN_IF_ERROR(LoseState(disk, options, damaged.status(), open, opened));
  CONCLAVE_ASSIGN_OR_RETURN(auto names, snapshot::ListNewestFirst(disk));
  std::erase(names, snapshot::FileName(opened->recovered.snapshot));
  return names;
}

absl::StatusOr<wal::Recovered> RecoverLog(env::Disk& disk, const Options& options,
                                          const OpenOptions& open, Opened* opened) {
  const Recovered& recovered = opened->recovered;
  const wal::MayCut may_cut = [&](std::span<const raft::Entry> left) {
    // Without a state it has been asked, or is to be, who the others are.
    return open.force_new_cluster || !recovered.snapshot.index ||
           HasOtherVoters(recovered.snapshot, left, options.id);
  };
  auto log = wal::Log::Recover(disk, LogSettings(options, open),
                               {recovered.snapshot.index, recovered.snapshot.term}, may_cut);
  if (absl::IsDataLoss(log.status()) && wal::DamageOf(log.status()).has_value()) {
    return absl::DataLossError(absl::StrCat(
        Text(log.status()),
        ". This member is the only one, nobody else has that data. Restore a snapshot (conclave "
        "snapshot restore), or start it once with --force-new-cluster, to go on with what can "
        "still be read and lose the rest"));
  }
  CONCLAVE_RETURN_IF_ERROR(log.status());
  if (log->torn_bytes > 0) {
    opened->notes.push_back(absl::StrCat("cut ", log->torn_bytes,
                                         " bytes of an unfinished write off the end of the log"));
  }
  if (!log->damage.empty()) {
    opened->notes.push_back(absl::StrCat(
        log->damage, "; kept ", log->entries.size(),
        " entries before the damage, and the old files with the suffix .damaged; the other members "
        "are to repair it"));
  }
  return log;
}

// What had come of a snapshot when the process that was receiving it ended. The file stays until
// the next one is begun. Those that the log reaches as far as (they are of our own state, say) are
// gone.
absl::StatusOr<std::unique_ptr<apply::RestoreTask>> ReadUnfinished(env::Disk& disk,
                                                                   const Options& options,
                                                                   raft::Index last) {
  CONCLAVE_ASSIGN_OR_RETURN(const std::vector<std::string> names, snapshot::ListUnfinished(disk));
  for (const std::string& name : names) {
    auto reader = snapshot::Reader::Open(disk, name, options.cluster_id);
    if (reader.ok() && (*reader)->meta().index > last) {
      REACHED("bootstrap: a snapshot was being received");
      auto task = std::make_unique<apply::RestoreTask>(StateSettings(options));
      // It ends in the midst of a chunk, or of what the chunks hold.
      for (auto piece = (*reader)->Next(); piece.ok() && piece->has_value();) {
        if (!task->Feed((*piece)->view()).ok()) break;
        piece = (*reader)->Next();
      }
      return task;
    }
    CONCLAVE_RETURN_IF_ERROR(snapshot::RemoveUnfinished(disk, {&name, 1}));
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<Opened> OpenMember(env::Disk& disk, const Options& options,
                                  const InitialCluster* founding, const OpenOptions& open) {
  CONCLAVE_RETURN_IF_ERROR(CheckOwner(disk, options));
  Opened opened;
  CONCLAVE_ASSIGN_OR_RETURN(const bool existed, wal::Log::Exists(disk));
  Recovered& recovered = opened.recovered;
  std::vector<std::string> damaged;
  if (existed) {
    CONCLAVE_ASSIGN_OR_RETURN(damaged, FindState(disk, options, open, &opened));
  } else {
    CONCLAVE_RETURN_IF_ERROR(RefuseAmnesia(disk));
    if (founding == nullptr && !open.joining.has_value()) {
      return absl::NotFoundError(
          absl::StrCat(disk.Describe(), " holds no member, and no initial cluster was given"));
    }
    opened.first_start = true;
    recovered =
        open.joining.has_value() ? JoiningState(options, {}) : FoundingState(options, *founding);
    CONCLAVE_RETURN_IF_ERROR(
        SaveState(disk, options.cluster_id, recovered.snapshot, recovered.state.get()));
  }
  CONCLAVE_ASSIGN_OR_RETURN(wal::Recovered log, RecoverLog(disk, options, open, &opened));
  CONCLAVE_RETURN_IF_ERROR(snapshot::SetAside(disk, damaged));
  // From here on it is known that there was a member, even should its log get lost.
  const Identity self{options.cluster_id, options.id};
  if (const auto known = ReadIdentity(disk); !known.ok() || *known != self) {
    if (!known.ok()) opened.notes.push_back(absl::StrCat("wrote anew ", Text(known.status())));
    CONCLAVE_RETURN_IF_ERROR(WriteIdentity(disk, self));
  }
  // What a first start promised to nobody need not be in the log.
  if (log.hard_state.term >= recovered.hard_state.term) recovered.hard_state = log.hard_state;
  recovered.hard_state.commit = std::max(recovered.hard_state.commit, recovered.snapshot.index);
  recovered.hard_state.term = std::max(recovered.hard_state.term, recovered.snapshot.term);
  recovered.entries = std::move(log.entries);
  recovered.lost_index = log.lost.index;
  recovered.lost_term = log.lost.term;
  opened.log = std::move(log.log);
  if (!recovered.snapshot.index && open.joining.has_value()) {
    recovered.acquaintances = *open.joining;
  }
  if (open.force_new_cluster) {
    CONCLAVE_RETURN_IF_ERROR(ForceNewCluster(disk, options, &opened));
  }
  const raft::Index last =
      recovered.entries.empty() ? recovered.snapshot.index : recovered.entries.back().index;
  CONCLAVE_ASSIGN_OR_RETURN(recovered.unfinished, ReadUnfinished(disk, options, last));
  return opened;
}

}  // namespace conclave::node
