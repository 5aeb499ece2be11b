// Store: the versioned key-value state of a server, in memory.
//
//   index   key -> its revisions (TreeIndex; the head is in the leaf)
//   log     revision -> record   (RevisionLog; segments in order of (main, sub))
//
// Both hold the same records (record.h). A write appends to the log and moves the head; a
// compaction walks the log from the last compact revision to the new one and removes what was
// superseded.
//
// Thread: one owner (the node's core thread); only RecordRefs may leave it. No time, no IO, no
// randomness: the same calls give the same answers on every member. What compaction has physically
// removed so far is never visible: every answer is as if compaction had ended at once.
//
// Lifetimes: a `const Record*` from a read is valid until the next call that changes the store (a
// write, CompactSlice); take a RecordRef to keep it. Pins, cursors and transactions must end before
// the store does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/mvcc/digest.h"
#include "conclave/server/mvcc/errors.h"
#include "conclave/server/mvcc/key_range.h"
#include "conclave/server/mvcc/record.h"
#include "conclave/server/mvcc/revision.h"

namespace conclave::mvcc {

class RangeCursor;
class RevisionLog;
class Store;
class StoreBuilder;
class TreeIndex;

// Keeps physical compaction at or below a revision, however far the compact revision moves: the
// newest revision <= it of every key, and everything behind it, stays in memory. Move-only; empty
// by default. May outlive its store (and then does nothing).
class Pin {
 public:
  Pin() = default;
  Pin(Pin&& other) noexcept;
  Pin& operator=(Pin&& other) noexcept;
  ~Pin();

  int64_t revision() const { return revision_; }
  explicit operator bool() const { return pins_ != nullptr; }

 private:
  friend class Store;
  using Pins = std::map<int64_t, size_t>;  // revision -> how many
  Pin(std::shared_ptr<Pins> pins, int64_t revision);

  std::shared_ptr<Pins> pins_;
  int64_t revision_ = 0;
};

// The writes of one request at the next main revision. They take effect at once: reads of the store
// at kLatest see them, reads at any numbered revision do not. There is no rollback: whoever may
// refuse a request must do so before the first write. One transaction at a time; it must be
// committed if it wrote anything (checked in the destructor).
class WriteTxn {
 public:
  struct PutResult {
    RecordRef record;
    RecordRef previous;  // null if the key did not exist
  };

  WriteTxn(WriteTxn&& other) noexcept;
  WriteTxn& operator=(WriteTxn&&) = delete;
  ~WriteTxn();

  // The value is copied, once. `lease` 0 = none; attaching it is the caller's business.
  PutResult Put(std::string_view key, std::string_view value, int64_t lease);

  // Deletes all live keys of the range in ascending order; returns what they were, in that order.
  std::vector<RecordRef> DeleteRange(const KeyRange& range);
  // Deletes one key; null if it did not exist.
  RecordRef Delete(std::string_view key);

  bool wrote() const { return sub_ > 0; }
  // What header.revision would be now: the new main revision if anything was written, else the
  // current one.
  int64_t revision() const;

  // Ends the transaction; returns the store's current revision, unchanged if nothing was written.
  int64_t Commit();

 private:
  friend class Store;
  explicit WriteTxn(Store* store);

  Store* store_;
  int64_t main_;
  int64_t sub_ = 0;
};

struct StoreSizes {
  // Of keys that exist. Deterministic: the same on every member at the same applied index, so that
  // a quota may be decided by it. A key costs its bytes, its value's and kLiveOverhead.
  int64_t live_keys = 0;
  int64_t live_bytes = 0;
  // Of everything in memory, history that is still to be compacted included. Depends on the
  // progress of compaction: for Status and metrics only.
  int64_t records = 0;
  int64_t record_bytes = 0;
};
inline constexpr int64_t kLiveOverhead = 96;

// What stands beside the records of a snapshot.
struct StoreImage {
  int64_t current_revision = 1;
  int64_t compact_revision = -1;
  Digest digest;

  friend bool operator==(const StoreImage&, const StoreImage&) = default;
};

struct HashKvResult {
  uint32_t hash = 0;
  int64_t hash_revision = 0;
  int64_t compact_revision = 0;
};

class Store {
 public:
  Store();
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // 1 when fresh.
  int64_t current_revision() const { return current_revision_; }
  // -1 when nothing was compacted.
  int64_t compact_revision() const { return compact_revision_; }

  // --- Reads ---

  // The head of a key, also as the open transaction left it; null if the key does not exist.
  // Hot: no allocation, O(log n).
  const Record* Get(std::string_view key) const;

  // The key at a main revision (kLatest: as Get); null if it did not exist then.
  // Requires compact_revision <= revision.
  const Record* GetAt(std::string_view key, int64_t revision) const;

  // What a range request may ask for: revision <= 0 means the current one. Gives the revision to
  // read at (kLatest for the current one, so that reads inside a transaction see its writes), or
  // CompactedError / FutureRevisionError.
  absl::StatusOr<int64_t> ResolveRevision(int64_t revision) const;

  // Visits the keys of a range in ascending order at a resolved revision until `visit` gives false.
  // `visit` must not change the store.
  void ForEach(const KeyRange& range, int64_t revision,
               absl::FunctionRef<bool(const Record&)> visit) const;

  // Number of keys of the range at a resolved revision. O(log n) at kLatest or the current
  // revision; at older ones it walks the range.
  int64_t Count(const KeyRange& range, int64_t revision) const;

  // A range that is read in slices, over several turns, at one revision. Owns a copy of the range.
  RangeCursor OpenRange(const KeyRange& range, int64_t revision);

  // Every record with main >= from, in order of (main, sub), until `visit` gives false. `visit`
  // must not change the store. Skips nothing: with from = compact_revision it begins with what is
  // left of that revision, tombstones included. Requires from >= compact_revision, or a pin at or
  // below `from` that was taken when that was so.
  void ForEachSince(int64_t from, absl::FunctionRef<bool(const Record&)> visit) const;

  // The same of one key only; O(log n) and the key's own records.
  void ForEachVersionSince(std::string_view key, int64_t from,
                           absl::FunctionRef<bool(const Record&)> visit) const;

  // --- Writes ---

  // No transaction may be open.
  WriteTxn Begin();

  // --- Compaction ---

  // Makes `revision` the compact revision: from now on older revisions cannot be read.
  // CompactedError if it is <= compact_revision, FutureRevisionError if > current_revision. Memory
  // is freed by CompactSlice.
  absl::Status Compact(int64_t revision);

  // Frees what compaction has made garbage, looking at `budget` records at most (0.2 - 1 us each).
  // True while there is more to do; false also if a pin stands in the way.
  bool CompactSlice(size_t budget);
  // True if CompactSlice has something to do.
  bool compaction_pending() const;

  // Holds physical compaction at or below `revision` (>= compact_revision; CHECK).
  [[nodiscard]] Pin PinAt(int64_t revision);

  // --- Hashes ---

  // etcd's HashKV at a revision (0 = current): CompactedError, FutureRevisionError as for reads.
  // All at once; hash_kv.h has the sliced form.
  absl::StatusOr<HashKvResult> HashKv(int64_t revision);

  // Digest of the logical state: live records, current and compact revision. O(1); kept by every
  // write.
  Digest digest() const;

  // --- Sizes ---

  StoreSizes sizes() const { return sizes_; }

  // Checks every invariant of index and log, at O(n). For tests.
  void CheckInvariants() const;

 private:
  friend class DigestCheck;
  friend class HashKvCursor;
  friend class Pin;
  friend class RangeCursor;
  friend class SnapshotCursor;
  friend class StoreBuilder;
  friend class WriteTxn;

  // The revision up to which garbage may be freed now: the compact revision or the lowest pin.
  int64_t FreeTarget() const;
  // True if compaction at `compact_revision` takes the record away: it is older, and superseded by
  // then or a tombstone.
  bool Garbage(const Record& record, int64_t compact_revision) const;
  // True if no newer revision of the key is <= `revision`.
  bool Newest(const Record& record, int64_t revision) const;
  bool Latest(int64_t revision) const { return revision >= current_revision_ && !txn_open_; }
  // Accounts for a record that has become a head, and for the one it follows.
  void AddHead(const Record& record);
  void RemoveHead(const Record& record);
  void Log(const Record& record);

  int64_t current_revision_ = 1;
  int64_t compact_revision_ = -1;
  // Everything that compaction at this revision takes away has been freed.
  int64_t freed_revision_ = -1;
  // The walk to the next one: where it goes, and where it stands (none: between walks).
  int64_t free_target_ = -1;
  std::optional<Revision> free_position_;
  bool txn_open_ = false;
  Digest live_digest_;
  StoreSizes sizes_;
  std::shared_ptr<Pin::Pins> pins_;
  std::unique_ptr<TreeIndex> index_;
  std::unique_ptr<RevisionLog> log_;
};

}  // namespace conclave::mvcc
