// The whole state as a stream of bytes, and back. Everything is in it: keys with their history
// since the compact revision, leases with what is left of them, members, alarms, cluster version,
// applied index.
//
// The stream:
//
//   "CONCSTAT", version (one byte)
//   block*          length (varint) of what follows: a type byte, then the content
//     1 head        applied index, term, current and compact revision, digest of the store, lease
//                   clock
//     2 cluster     id, version, members, alarms, users and roles
//     3 leases      (id, TTL, remaining ms) each; as many blocks as needed
//     6 named       records that the reader has: (main less the last one's main, sub) each, as
//                   varints; as many blocks as needed. Never in a file.
//     4 records     mvcc::EncodeRecord, one behind the other; as many blocks as needed
//     5 end         number of leases, number of records, the named ones among them
//
// The blocks come in this order; the content of all but 4 and 6 is in protobuf's encoding
// (snapshot.cc has the field numbers), so fields can be added.
//
// Its integrity (checksums, whole file) is the carrier's business; but whatever the bytes are,
// restoring ends with a state or a Status. docs of the carrier: server/snapshot.
//
// Records never change, and come in order of their revisions. So whoever has all of them up to some
// revision, of an older state or of a stream that broke off (of whatever member, made at whatever
// time), can go on from there: the writer names those that are still part of the state, and writes
// the rest.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/base/bytes.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/mvcc/snapshot_cursor.h"

namespace conclave::apply {

// Writes the state as it is when the task is made, in pieces over many turns, while entries are
// applied. Ends before the StateMachine does.
class SnapshotTask {
 public:
  explicit SnapshotTask(StateMachine* state);
  ~SnapshotTask();

  // Where in the log the snapshot stands.
  uint64_t applied_index() const { return applied_index_; }
  uint64_t applied_term() const { return applied_term_; }

  // The next piece, of about `bytes` (at least one record); empty when everything has been written.
  [[nodiscard]] Bytes Next(size_t bytes);
  // The same of what stands before the records; empty when that has been written.
  [[nodiscard]] Bytes NextOfOpening(size_t bytes);

  // The reader has the records up to `last`, as RestoreTask::reusable() told. To be called before
  // the first record was written.
  void ReaderHas(mvcc::Revision last);

  bool done() const { return stage_ == Stage::kDone; }
  // How much of the state has been written; a record that was named counts as if it had been.
  uint64_t covered_bytes() const { return covered_bytes_; }

 private:
  enum class Stage : uint8_t { kHead, kLeases, kRecords, kDone };

  std::string HeadBlocks();
  std::string LeasesBlock(size_t bytes);
  std::string NamesBlock(size_t bytes);
  std::string RecordsBlock(size_t bytes);
  std::string EndBlock() const;

  uint64_t applied_index_;
  uint64_t applied_term_;
  std::string cluster_;  // the encoded cluster block
  lease::LessorImage leases_;
  size_t next_lease_ = 0;
  mvcc::SnapshotCursor cursor_;
  mvcc::RecordRef next_record_;  // taken from the cursor, not written yet
  mvcc::Revision reader_has_;
  int64_t last_named_ = 0;  // its main revision
  uint64_t covered_bytes_ = 0;
  uint64_t record_count_ = 0;
  Stage stage_ = Stage::kHead;
};

// A state taken apart.
struct StateParts {
  uint64_t applied_index = 0;
  uint64_t applied_term = 0;
  std::unique_ptr<mvcc::Store> store;
  lease::LessorImage leases;
  uint64_t cluster_id = 0;
  std::vector<Member> members;  // by id
  absl::btree_set<uint64_t> removed;
  std::string cluster_version;
  std::string downgrade_target;
  absl::btree_set<Alarm> alarms;
  absl::btree_map<uint64_t, uint64_t> refills;
  auth::AuthStore auth;
};

// Puts it together. DataLoss if the parts contradict each other.
absl::StatusOr<std::unique_ptr<StateMachine>> AssembleState(const StateMachineOptions& options,
                                                            StateParts parts);

// Builds a state from the stream, which may be cut anywhere.
class RestoreTask {
 public:
  explicit RestoreTask(const StateMachineOptions& options);
  ~RestoreTask();

  // Where records may come from that are only named: a store of the same cluster, which outlives
  // this task, or what a task that was not finished has. Before the first Feed; that which reaches
  // further is used.
  void Reuse(const mvcc::Store* store);
  void Reuse(std::unique_ptr<RestoreTask> unfinished);
  // All records up to there can be named; {}: none. Known when the head has been fed.
  mvcc::Revision reusable() const;
  // Whether any was.
  bool reused() const { return reused_; }

  // The next bytes of the stream. DataLoss if they are none; nothing more may be fed then. Appends
  // to *whole (if it is not null) what a stream without names has in their place.
  absl::Status Feed(std::string_view bytes, std::string* whole = nullptr);

  // The state. DataLoss if the stream has not ended, or contradicts itself. It takes O(n log n) at
  // once.
  absl::StatusOr<std::unique_ptr<StateMachine>> Finish();

 private:
  // Takes whole blocks off the front of *input.
  absl::Status TakeBlocks(std::string_view* input, std::string* whole);
  absl::Status TakeBlock(std::string_view block, std::string* whole);
  absl::Status TakeHead(std::string_view content);
  absl::Status TakeLeases(std::string_view content);
  absl::Status TakeNames(std::string_view content, std::string* whole);
  absl::Status TakeRecords(std::string_view content);
  absl::Status TakeEnd(std::string_view content);

  StateMachineOptions options_;
  std::string pending_;  // the beginning of a block whose end has not come yet
  bool magic_seen_ = false;
  uint8_t last_block_ = 0;  // the type of the last one
  absl::Status failed_;
  uint64_t applied_index_ = 0;
  uint64_t applied_term_ = 0;
  std::string cluster_;  // the content of the cluster block
  lease::LessorImage leases_;
  std::optional<mvcc::StoreBuilder> builder_;
  uint64_t record_count_ = 0;

  const mvcc::Store* source_ = nullptr;        // of named records
  std::unique_ptr<mvcc::Store> owned_source_;  // if it is of an unfinished task
  mvcc::Revision source_last_;
  int64_t last_named_ = 0;
  bool reused_ = false;
};

}  // namespace conclave::apply
