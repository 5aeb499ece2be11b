// Reads snapshot files, and finds the one to start from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/bytes.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/raft/types.h"
#include "conclave/server/snapshot/format.h"

namespace conclave::snapshot {

class Sha256;

// Streams one snapshot. Thread: one. Memory: one chunk.
// Every chunk is checked when it is read, and the whole when the end is reached: who consumes
// chunks before that must be ready to throw the result away, or call Verify first.
class Reader {
 public:
  // Reads the header. `name` is a file name within kDirectory; that of an unfinished file too,
  // which ends with a chunk that is DataLoss.
  //   FailedPrecondition  of another cluster, another program or a newer version
  //   DataLoss            damaged; the message names the file
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<Reader>> Open(env::Disk& disk,
                                                                    std::string_view name,
                                                                    uint64_t cluster_id);
  ~Reader();

  [[nodiscard]] const raft::SnapshotMeta& meta() const { return header_.meta; }
  [[nodiscard]] const std::string& name() const { return name_; }

  // The next piece of the body; nullopt at the end, once the whole is verified. DataLoss if
  // damaged.
  [[nodiscard]] absl::StatusOr<std::optional<Bytes>> Next();

  // Reads to the end; gives the size of the body.
  [[nodiscard]] absl::StatusOr<uint64_t> Verify();

 private:
  Reader(std::string name, std::unique_ptr<env::File> file);
  [[nodiscard]] absl::Status ReadExactly(size_t bytes, char* out);
  [[nodiscard]] absl::Status ReadHeader();
  [[nodiscard]] absl::Status ReadTrailer();
  [[nodiscard]] absl::Status Damaged(std::string_view what) const;

  const std::string name_;
  std::string where_;  // for messages
  std::unique_ptr<env::File> file_;
  Header header_;
  std::unique_ptr<Sha256> hash_;
  uint32_t seed_ = 0;
  uint64_t offset_ = 0;
  uint64_t chunks_ = 0;
  uint64_t body_bytes_ = 0;
  bool finished_ = false;
};

struct Newest {
  std::unique_ptr<Reader> reader;     // null: there is no usable snapshot
  std::vector<absl::Status> skipped;  // one line for each newer one that is damaged
  std::vector<std::string> damaged;   // their names
};

// Prepares the directory (creates it) and opens the newest snapshot that is whole: it is verified
// to its end first. A snapshot of another cluster or a newer format is an error, not skipped.
[[nodiscard]] absl::StatusOr<Newest> OpenNewest(env::Disk& disk, uint64_t cluster_id);

// Says whether OpenNewest would refuse the directory as somebody else's: FailedPrecondition, as
// there. Reads headers, writes nothing; damage is left for OpenNewest to judge.
[[nodiscard]] absl::Status CheckOwner(env::Disk& disk, uint64_t cluster_id);

// Gives damaged snapshots another name, so that they do not count among those that are kept. The
// next Purge removes them.
[[nodiscard]] absl::Status SetAside(env::Disk& disk, std::span<const std::string> names);

// Gives all snapshots another name: their state is not to be used again, and is evidence. Removes
// what was set aside so before (a Purge does not), and what is unfinished.
[[nodiscard]] absl::Status KeepAsEvidence(env::Disk& disk);

// The names of all finished snapshots, newest first.
[[nodiscard]] absl::StatusOr<std::vector<std::string>> ListNewestFirst(env::Disk& disk);

// The names of the files that a Writer did not come to the end of, newest first.
[[nodiscard]] absl::StatusOr<std::vector<std::string>> ListUnfinished(env::Disk& disk);
[[nodiscard]] absl::Status RemoveUnfinished(env::Disk& disk, std::span<const std::string> names);

// Removes all but the newest `keep` snapshots, and those that were set aside.
[[nodiscard]] absl::Status Purge(env::Disk& disk, size_t keep);

}  // namespace conclave::snapshot
