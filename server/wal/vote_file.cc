#include "conclave/server/wal/vote_file.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "conclave/base/concat.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/status.h"
#include "conclave/server/wal/format.h"

namespace conclave::wal {
namespace {

constexpr std::string_view kVoteMagic = "CNCLVVOT";
constexpr uint32_t kVoteVersion = 1;

enum VoteAt : size_t {
  kVersionAt = 8,
  kSizeAt = 12,
  kClusterAt = 16,
  kMemberAt = 24,
  kCounterAt = 32,
  kTermAt = 40,
  kVotedForAt = 48,
  kLostIndexAt = 56,
  kLostTermAt = 64,
  kVoteCrcAt = 76,
};

constexpr std::string_view kMarkMagic = "CNCLVEND";

enum MarkAt : size_t {
  kMarkClusterAt = 8,
  kMarkMemberAt = 16,
  kMarkSequenceAt = 24,
  kMarkOffsetAt = 32,
  kMarkLastIndexAt = 40,
  kMarkLastTermAt = 48,
  kMarkCrcAt = 60,
};
constexpr uint64_t kMarkPlace = 2 * kVoteCopyBytes;

std::string PathOf(std::string_view name) { return Concat(kDirectory, "/", name); }

struct Copies {
  std::optional<VoteCopy> newest;
  int newest_at = 0;
};

// The newest copy of the two that can be read.
absl::StatusOr<Copies> ReadCopies(env::Disk& disk, env::File& file) {
  Copies copies;
  absl::Status why;
  for (int i = 0; i < 2; ++i) {
    std::string bytes(kVoteRecordBytes, '\0');
    const auto read = file.Read(static_cast<uint64_t>(i) * kVoteCopyBytes, bytes);
    // What the device cannot read may stand in the other copy.
    if (!read.ok() && !absl::IsDataLoss(read.status())) return read.status();
    auto copy = read.ok() ? DecodeVote(std::string_view(bytes).substr(0, *read)) : read.status();
    if (absl::IsFailedPrecondition(copy.status())) return copy.status();
    if (!copy.ok()) {
      why = copy.status();
    } else if (!copies.newest.has_value() || copy->counter > copies.newest->counter) {
      copies.newest = *copy;
      copies.newest_at = i;
    }
  }
  if (!copies.newest.has_value()) {
    return absl::DataLossError(Concat(disk.Describe(), "/", PathOf(kVoteName),
                                      " is damaged in both of its copies: ", why.message()));
  }
  return copies;
}

}  // namespace

std::string EncodeVote(const Options& owner, uint64_t counter, const Vote& vote) {
  std::string bytes(kVoteRecordBytes, '\0');
  kVoteMagic.copy(bytes.data(), kVoteMagic.size());
  StoreLittle(&bytes[kVersionAt], kVoteVersion);
  StoreLittle(&bytes[kSizeAt], static_cast<uint32_t>(kVoteRecordBytes));
  StoreLittle(&bytes[kClusterAt], owner.cluster_id);
  StoreLittle(&bytes[kMemberAt], owner.member_id.value());
  StoreLittle(&bytes[kCounterAt], counter);
  StoreLittle(&bytes[kTermAt], vote.term.value());
  StoreLittle(&bytes[kVotedForAt], vote.vote.value());
  StoreLittle(&bytes[kLostIndexAt], vote.lost.index.value());
  StoreLittle(&bytes[kLostTermAt], vote.lost.term.value());
  StoreLittle(&bytes[kVoteCrcAt], Crc32c(std::string_view(bytes).substr(0, kVoteCrcAt)));
  return bytes;
}

absl::StatusOr<VoteCopy> DecodeVote(std::string_view bytes) {
  if (bytes.size() < kVoteRecordBytes || bytes.substr(0, kVoteMagic.size()) != kVoteMagic) {
    return absl::DataLossError("it is not what this program writes there");
  }
  if (LoadLittle<uint32_t>(&bytes[kVoteCrcAt]) != Crc32c(bytes.substr(0, kVoteCrcAt))) {
    return absl::DataLossError("its checksum is wrong");
  }
  const auto version = LoadLittle<uint32_t>(&bytes[kVersionAt]);
  if (version != kVoteVersion) {
    return absl::FailedPreconditionError(Concat("the format version of wal/vote is ", version,
                                                ", this program reads version ", kVoteVersion));
  }
  return VoteCopy{
      .cluster_id = LoadLittle<uint64_t>(&bytes[kClusterAt]),
      .member_id = raft::NodeId(LoadLittle<uint64_t>(&bytes[kMemberAt])),
      .counter = LoadLittle<uint64_t>(&bytes[kCounterAt]),
      .vote = {.term = raft::Term(LoadLittle<uint64_t>(&bytes[kTermAt])),
               .vote = raft::NodeId(LoadLittle<uint64_t>(&bytes[kVotedForAt])),
               .lost = {.index = raft::Index(LoadLittle<uint64_t>(&bytes[kLostIndexAt])),
                        .term = raft::Term(LoadLittle<uint64_t>(&bytes[kLostTermAt]))}},
  };
}

absl::StatusOr<std::optional<Vote>> VoteFile::Read(env::Disk& disk, const Options& owner) {
  auto file = disk.Open(PathOf(kVoteName), env::OpenMode::kRead);
  if (absl::IsNotFound(file.status())) return std::nullopt;
  CONCLAVE_RETURN_IF_ERROR(file.status());
  CONCLAVE_ASSIGN_OR_RETURN(const Copies copies, ReadCopies(disk, **file));
  if (copies.newest->cluster_id != owner.cluster_id ||
      copies.newest->member_id != owner.member_id) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s/%s belongs to member %x of cluster %x, but this server is started as member %x of "
        "cluster %x",
        disk.Describe(), PathOf(kVoteName), copies.newest->member_id.value(),
        copies.newest->cluster_id, owner.member_id.value(), owner.cluster_id));
  }
  return copies.newest->vote;
}

std::string EncodeMark(const Options& owner, const Mark& mark) {
  std::string bytes(kMarkBytes, '\0');
  kMarkMagic.copy(bytes.data(), kMarkMagic.size());
  StoreLittle(&bytes[kMarkClusterAt], owner.cluster_id);
  StoreLittle(&bytes[kMarkMemberAt], owner.member_id.value());
  StoreLittle(&bytes[kMarkSequenceAt], mark.sequence);
  StoreLittle(&bytes[kMarkOffsetAt], mark.offset);
  StoreLittle(&bytes[kMarkLastIndexAt], mark.last.index.value());
  StoreLittle(&bytes[kMarkLastTermAt], mark.last.term.value());
  StoreLittle(&bytes[kMarkCrcAt], Crc32c(std::string_view(bytes).substr(0, kMarkCrcAt)));
  return bytes;
}

std::optional<Mark> DecodeMark(const Options& owner, std::string_view bytes) {
  if (bytes.size() < kMarkBytes || bytes.substr(0, kMarkMagic.size()) != kMarkMagic ||
      LoadLittle<uint32_t>(&bytes[kMarkCrcAt]) != Crc32c(bytes.substr(0, kMarkCrcAt)) ||
      LoadLittle<uint64_t>(&bytes[kMarkClusterAt]) != owner.cluster_id ||
      LoadLittle<uint64_t>(&bytes[kMarkMemberAt]) != owner.member_id.value()) {
    return std::nullopt;
  }
  return Mark{.sequence = LoadLittle<uint64_t>(&bytes[kMarkSequenceAt]),
              .offset = LoadLittle<uint64_t>(&bytes[kMarkOffsetAt]),
              .last = {.index = raft::Index(LoadLittle<uint64_t>(&bytes[kMarkLastIndexAt])),
                       .term = raft::Term(LoadLittle<uint64_t>(&bytes[kMarkLastTermAt]))}};
}

std::optional<Mark> VoteFile::ReadMark(env::Disk& disk, const Options& owner) {
  const auto file = disk.Open(PathOf(kVoteName), env::OpenMode::kRead);
  if (!file.ok()) return std::nullopt;
  std::string bytes(kMarkBytes, '\0');
  const auto read = (*file)->Read(kMarkPlace, bytes);
  if (!read.ok()) return std::nullopt;
  return DecodeMark(owner, std::string_view(bytes).substr(0, *read));
}

absl::Status VoteFile::WriteMark(const Mark& mark) {
  return file_->Write(kMarkPlace, EncodeMark(owner_, mark));
}

absl::StatusOr<std::unique_ptr<VoteFile>> VoteFile::Open(env::Disk& disk, const Options& owner,
                                                         const Vote& vote) {
  std::unique_ptr<VoteFile> votes(new VoteFile(owner));
  auto file = disk.Open(PathOf(kVoteName), env::OpenMode::kReadWrite);
  if (file.ok()) {
    // In place: it must work on a full disk.
    votes->file_ = *std::move(file);
    if (const auto copies = ReadCopies(disk, *votes->file_); copies.ok()) {
      votes->counter_ = copies->newest->counter;
      votes->older_ = 1 - copies->newest_at;
    }
    CONCLAVE_RETURN_IF_ERROR(votes->Write(vote));
    return votes;
  }
  if (!absl::IsNotFound(file.status())) return file.status();
  CONCLAVE_ASSIGN_OR_RETURN(votes->file_,
                            disk.Open(PathOf(kVoteUnfinishedName), env::OpenMode::kCreateOrReset));
  CONCLAVE_RETURN_IF_ERROR(votes->file_->Preallocate(0, 3 * kVoteCopyBytes));
  CONCLAVE_RETURN_IF_ERROR(votes->Write(vote));
  CONCLAVE_RETURN_IF_ERROR(disk.Rename(PathOf(kVoteUnfinishedName), PathOf(kVoteName)));
  CONCLAVE_RETURN_IF_ERROR(disk.SyncDirectory(kDirectory));
  return votes;
}

absl::Status VoteFile::Write(const Vote& vote) {
  ++counter_;
  const std::string bytes = EncodeVote(owner_, counter_, vote);
  for (const int copy : {older_, 1 - older_}) {
    CONCLAVE_RETURN_IF_ERROR(file_->Write(static_cast<uint64_t>(copy) * kVoteCopyBytes, bytes));
    CONCLAVE_RETURN_IF_ERROR(file_->Sync());
  }
  vote_ = vote;
  return absl::OkStatus();
}

}  // namespace conclave::wal
