// StmCore: what a software transaction knows and wants. Pure: it says what to read and what to
// commit, and takes the answers; a function of the user's runs against it, once for each attempt.
//
//   attempt:  reads and writes, the reads from the store or from what is known  ->  Missing, if
//             anything is left to read  ->  CommitTxn  ->  committed, or a new attempt
//
// - The read set: a key that was read must have the same mod_revision at the commit (0: absent). A
//   range that was read must hold no key newer than the reading, and its keys as they were; so new,
//   changed and deleted keys all count.
// - The write set is kept until the commit; reads see it.
// - Under kSerializable and kSerializableSnapshot all reads are of one revision, that of the first.
//   So the function never sees a state that never was, and an attempt that only read needs no
//   commit: its reads are one state.
// - Under kSerializableSnapshot a key that is written without being read must be as it was at that
//   revision, too: nobody's write is overwritten unseen. Its mod_revision is fetched before the
//   commit (Missing); comparing "older than the snapshot" alone would not see a deletion. Without
//   any read there is no snapshot, and nothing to conflict with.
// - A commit that fails reads again, within the same transaction, what the attempt had read; the
//   next attempt begins with that state and needs no more calls as long as it reads the same.
// - A marker, if there is one, settles a commit of unknown outcome. It is a key that belongs to
//   this caller alone: every commit compares its revision and puts an id. SettleTxn overwrites it
//   if it is as before the commit: then the commit can never take effect any more. Else it holds
//   the id, and the commit did.
//
// Thread: one. Limits: kStmRangeKeysMax keys in a range; what a transaction of the server may hold
// (128 operations and as many conditions by default).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "conclave/client/core/types.h"

namespace conclave {

enum class Isolation {
  // Reads of one revision; what was read is unchanged at the commit, and what is written has not
  // been written by anybody since.
  kSerializableSnapshot,
  // Reads of one revision; what was read is unchanged at the commit. Writes of keys that were not
  // read overwrite whatever is there.
  kSerializable,
  // Each key's first read is the latest state then, so that the reads of an attempt may be of
  // different revisions; what was read is unchanged at the commit. An attempt that saw a mixture is
  // never committed.
  kRepeatableReads,
};

inline constexpr int64_t kStmRangeKeysMax = 1000;

class StmCore {
 public:
  struct Write {
    std::optional<std::string> value{};  // nullopt: delete
    LeaseId lease = 0;
  };

  StmCore(Isolation isolation, std::string_view marker) : isolation_(isolation), marker_(marker) {}

  // ---- An attempt. `id` is unique among all commits under the marker.
  void Begin(std::string_view id);
  // What a read of the key gives. Outer nullopt: not known, so ask for ReadOf(key).
  std::optional<std::optional<KeyValue>> Get(std::string_view key);
  std::optional<std::vector<KeyValue>> Range(const KeyRange& range);
  RangeRequest ReadOf(const KeyRange& range) const;
  // The answer. InvalidArgument: the range holds too many keys.
  absl::Status OnRead(const KeyRange& range, RangeResult result);
  void Put(std::string_view key, std::string_view value, LeaseId lease);
  void Delete(std::string_view key);

  // ---- At its end.
  bool NeedsCommit() const;
  // Keys whose revisions have to be known for the commit, at most `max` of them; read them with
  // MissingTxn and give the answer to OnMissing, until there are none.
  std::vector<std::string> Missing(size_t max) const;
  TxnRequest MissingTxn(const std::vector<std::string>& keys) const;
  void OnMissing(const std::vector<std::string>& keys, const TxnResult& result);
  TxnRequest CommitTxn() const;
  // Takes over, from a commit that did not succeed, what the next attempt begins with.
  void OnConflict(const TxnResult& result);
  // Nothing is known any more, as when the snapshot was compacted.
  void Forget() { prefetched_.clear(); }

  // ---- After a commit of unknown outcome. Without a marker there is no way to know.
  enum class Settled { kCommitted, kNever, kUnknown };
  bool can_settle() const { return !marker_.empty(); }
  TxnRequest SettleTxn() const;
  Settled OnSettled(const TxnResult& result) const;

 private:
  struct RangeRead {
    KeyRange range;
    int64_t revision = 0;
  };

  bool OneSnapshot() const { return isolation_ != Isolation::kRepeatableReads; }
  bool TakePrefetched(const KeyRange& range);
  void Know(const KeyRange& range, RangeResult result);
  bool InARangeRead(std::string_view key) const;
  std::vector<KeyRange> ReadSet() const;

  const Isolation isolation_;
  const std::string marker_;
  std::string id_;
  int64_t snapshot_ = 0;  // 0: none yet
  std::map<std::string, std::optional<KeyValue>, std::less<>> reads_;
  std::vector<RangeRead> ranges_;
  std::map<std::string, int64_t> unread_;  // mod_revisions of keys that were only written; marker
  std::map<std::string, Write, std::less<>> writes_;
  // By what a conflict's answer knew, at prefetched_revision_.
  std::vector<std::pair<KeyRange, RangeResult>> prefetched_;
  int64_t prefetched_revision_ = 0;
};

}  // namespace conclave
