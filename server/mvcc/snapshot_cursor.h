// The store as a stream of records, and back.
//
//   SnapshotCursor cursor(&store);            // fixes the point
//   write(cursor.image());
//   while (RecordRef record = cursor.Next()) write(*record);      // over many turns, while writes
//   go on
//
//   StoreBuilder builder(image);
//   for each record: builder.Add(fields)
//   std::unique_ptr<Store> store = builder.Finish()
//
// The stream holds every record that is logically there (history since the compact revision
// included), in order of (main, sub). Two members with the same state give the same stream,
// whatever their compaction has freed so far.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/mvcc/record.h"
#include "conclave/server/mvcc/store.h"

namespace conclave::mvcc {

class SnapshotCursor {
 public:
  // No transaction may be open. Pins the compact revision of now until it is destroyed.
  explicit SnapshotCursor(Store* store);

  const StoreImage& image() const { return image_; }
  // Null at the end. O(1) amortised; a record of a compaction that has not been freed yet costs
  // O(log n).
  RecordRef Next();
  // Begins anew, with the same image.
  void Rewind() { next_ = {}; }

 private:
  Store* store_;
  Pin pin_;
  StoreImage image_;
  Revision next_{};
  bool check_garbage_;
};

// Builds a store from a stream in one pass; O(n log n), full leaves, nothing but the records left
// behind.
class StoreBuilder {
 public:
  explicit StoreBuilder(const StoreImage& image);
  // For records whose image nobody knows: those of another program's file.
  StoreBuilder();

  // Records in order of (main, sub), as the cursor gave them. DataLoss if the stream contradicts
  // itself (order, a revision beyond the image's, versions that do not follow each other are found
  // by Finish).
  absl::Status Add(const RecordFields& fields);

  // The same with a record that another store of the same history has: it is shared, not copied.
  // Gives the record; DataLoss if `source` has none of that revision.
  absl::StatusOr<const Record*> Share(const Store& source, Revision revision);

  // Instead of Finish: what has been added so far, of use only as a source to Share.
  std::unique_ptr<Store> Release() { return std::move(store_); }

  // The store; DataLoss if what was added does not have the image's digest.
  absl::StatusOr<std::unique_ptr<Store>> Finish();

  // Without an image: the store at a revision, of which nothing is compacted yet. DataLoss if the
  // records go beyond it.
  absl::StatusOr<std::unique_ptr<Store>> FinishAt(int64_t current_revision);
  // Of the last record; 0 if there is none.
  int64_t last_revision() const { return last_.main; }
  Revision last() const { return last_; }
  const StoreImage& image() const { return image_; }

 private:
  absl::StatusOr<std::unique_ptr<Store>> Build();
  absl::Status TakeRevision(Revision revision, std::string_view key);

  // Checks the revisions of one key against each other.
  static bool Follows(const Record* before, const Record& after);

  StoreImage image_;
  std::unique_ptr<Store> store_;  // with a log, but without an index until Finish; then null
  Revision last_{};
  std::string common_prefix_;  // of all keys
};

// One record as bytes: varints (key size, value size, main, sub and tombstone, create, version,
// lease), key, value. For snapshot chunks; a record may be put behind another without a frame.
void EncodeRecord(const Record& record, std::string* out);
[[nodiscard]] size_t EncodedRecordSize(const Record& record);
// Takes one record off the front of *input; the fields' views point into it. DataLoss if it is not
// one.
absl::Status DecodeRecord(std::string_view* input, RecordFields* fields);

}  // namespace conclave::mvcc
