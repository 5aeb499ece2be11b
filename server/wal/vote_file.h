// What a member has promised with its votes, kept apart from the log: `wal/vote`.
//
// The log holds the term and the vote too. But a log can lose its tail to a bad disk, and the
// member must still know afterwards in which term it was, for whom it voted there, and how far the
// log had reached: with these three it goes on as a member that is merely behind
// (docs/reliability.md says why nothing is lost by that), without them it could vote twice.
//
// The file holds the same record twice, each copy in a page of its own with its own checksum and a
// counter. A write replaces the older copy, syncs, then the other one, and syncs: so a torn write
// leaves the record before it, and rot of one copy costs nothing. It is written when the term or
// the vote changes, before the log gets that change: never for a mere append.
//
// A third page holds a mark: how far the log was synced when it last came to rest. It is written
// behind that sync and is not synced itself: lost, it says nothing; found, it is true. So an end of
// the log that is gone without a trace in the log leaves one here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/raft/types.h"
#include "conclave/server/wal/log.h"

namespace conclave::wal {

inline constexpr std::string_view kVoteName = "vote";
inline constexpr std::string_view kVoteUnfinishedName = "vote.unfinished";
inline constexpr size_t kVoteRecordBytes = 80;
inline constexpr uint64_t kVoteCopyBytes = 4096;  // from one copy to the other

struct Vote {
  raft::Term term;
  raft::NodeId vote;
  // Where a log ended that was damaged since; index 0: no log ever was.
  Position lost;

  friend bool operator==(const Vote&, const Vote&) = default;
};

// The bytes of one copy (docs/formats.md).
[[nodiscard]] std::string EncodeVote(const Options& owner, uint64_t counter, const Vote& vote);
struct VoteCopy {
  uint64_t cluster_id = 0;
  raft::NodeId member_id;
  uint64_t counter = 0;
  Vote vote;
};
// DataLoss: damaged. FailedPrecondition: of a newer version.
[[nodiscard]] absl::StatusOr<VoteCopy> DecodeVote(std::string_view bytes);

// The log reached to `offset` of the segment `sequence`, where `last` was its last entry.
struct Mark {
  uint64_t sequence = 0;
  uint64_t offset = 0;
  Position last;

  friend bool operator==(const Mark&, const Mark&) = default;
};
inline constexpr size_t kMarkBytes = 64;
[[nodiscard]] std::string EncodeMark(const Options& owner, const Mark& mark);
// Nullopt: there is none that can be read, or it is another member's.
[[nodiscard]] std::optional<Mark> DecodeMark(const Options& owner, std::string_view bytes);

// The open file. Thread: one, the log's. After an error it is unusable, as the log.
class VoteFile {
 public:
  // Nullopt: there is none. DataLoss: neither copy can be read. FailedPrecondition: another
  // cluster's, member's or version's.
  [[nodiscard]] static absl::StatusOr<std::optional<Vote>> Read(env::Disk& disk,
                                                                const Options& owner);

  [[nodiscard]] static std::optional<Mark> ReadMark(env::Disk& disk, const Options& owner);

  // Opens it with `vote` in it, durably; creates it where needed. Both copies are written, whatever
  // they hold: after a failed sync the page cache may show what the disk does not have.
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<VoteFile>> Open(env::Disk& disk,
                                                                      const Options& owner,
                                                                      const Vote& vote);

  // Durable when it returns.
  [[nodiscard]] absl::Status Write(const Vote& vote);
  // Not synced.
  [[nodiscard]] absl::Status WriteMark(const Mark& mark);

  [[nodiscard]] const Vote& vote() const { return vote_; }

 private:
  explicit VoteFile(const Options& owner) : owner_(owner) {}

  const Options owner_;
  std::unique_ptr<env::File> file_;
  uint64_t counter_ = 0;
  int older_ = 0;  // the copy to be written first
  Vote vote_;
};

}  // namespace conclave::wal
