// Writes a snapshot of the state machine, piece by piece, so that it becomes visible all at once.
//
// The pieces go to "<name>.unfinished"; Finish syncs the file, renames it to its own name and syncs
// the directory. A crash before that leaves an unfinished file, and so does the end of the process:
// each of its chunks can be read (of one that was received they need not be sent again). The next
// Writer removes it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/bytes.h"
#include "conclave/server/env/disk.h"
#include "conclave/server/raft/types.h"
#include "conclave/server/snapshot/format.h"

namespace conclave::snapshot {

class Sha256;

// One snapshot file in the making. Thread: one. Memory: none to speak of.
class Writer {
 public:
  [[nodiscard]] static absl::StatusOr<std::unique_ptr<Writer>> Create(env::Disk& disk,
                                                                      const Header& header);
  // Removes the file unless it was finished, or is to be left.
  ~Writer();

  // The next bytes of the body: a chunk, or several if they are many. Pieces of kChunkBytes or so
  // cost least.
  [[nodiscard]] absl::Status Append(std::string_view bytes);

  // Makes it durable and visible; gives the size of the body. Nothing may follow.
  [[nodiscard]] absl::StatusOr<uint64_t> Finish();

  // Nothing more comes, but what has come may be of use.
  void Leave() { left_ = true; }

  [[nodiscard]] const raft::SnapshotMeta& meta() const { return header_.meta; }

 private:
  Writer(env::Disk* disk, const Header& header);
  [[nodiscard]] absl::Status WriteChunk(std::string_view bytes);

  env::Disk* const disk_;
  const Header header_;
  std::string path_;
  std::unique_ptr<env::File> file_;
  std::unique_ptr<Sha256> hash_;
  uint32_t seed_ = 0;
  uint64_t offset_ = 0;
  uint64_t chunks_ = 0;
  uint64_t body_bytes_ = 0;
  uint64_t unsynced_bytes_ = 0;
  bool finished_ = false;
  bool left_ = false;
};

// A piece of a snapshot on its way to the disk; as node::SnapshotPiece.
struct Piece {
  raft::SnapshotMeta meta;  // the same in all pieces of one snapshot
  Bytes data;
  bool first = false;
  bool last = false;
  bool abandon = false;  // drop the unfinished file
};

struct Saved {
  raft::SnapshotMeta meta;
  uint64_t bytes = 0;  // of the body
};

// Turns a node's pieces into files: the first piece opens one, the last closes it and purges what
// is too old. A first piece amid a snapshot drops that one. Thread: one.
class Saver {
 public:
  // Keeps the newest `keep` snapshots.
  Saver(env::Disk* disk, uint64_t cluster_id, size_t keep)
      : disk_(disk), cluster_id_(cluster_id), keep_(keep) {}
  // Leaves what is unfinished.
  ~Saver();

  // What has become durable, if this was the last piece. An error ends the snapshot, not the saver:
  // an earlier snapshot and the log are still there.
  // ResourceExhausted: then all but the newest one have been removed, so that the next may find
  // room.
  [[nodiscard]] absl::StatusOr<std::optional<Saved>> Take(const Piece& piece);

 private:
  [[nodiscard]] absl::StatusOr<std::optional<Saved>> Write(const Piece& piece);

  env::Disk* const disk_;
  const uint64_t cluster_id_;
  const size_t keep_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace conclave::snapshot
