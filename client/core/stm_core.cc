#include "conclave/client/core/stm_core.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/client/core/validate.h"

namespace conclave {
namespace {

// More reads than this are not read again with a failed commit: servers limit the operations of a
// transaction.
constexpr size_t kPrefetchMax = 64;
constexpr std::string_view kVoid = "void ";  // before the id of a commit that will never be

}  // namespace

void StmCore::Begin(std::string_view id) {
  id_ = std::string(id);
  reads_.clear();
  ranges_.clear();
  unread_.clear();
  writes_.clear();
  snapshot_ = OneSnapshot() && !prefetched_.empty() ? prefetched_revision_ : 0;
}

// ---- Reading
// ---------------------------------------------------------------------------------------

std::optional<std::optional<KeyValue>> StmCore::Get(std::string_view key) {
  using Known = std::optional<KeyValue>;
  if (auto write = writes_.find(key); write != writes_.end()) {
    if (!write->second.value.has_value()) return Known();
    return Known(KeyValue{
        .key = std::string(key), .value = *write->second.value, .lease = write->second.lease});
  }
  if (auto read = reads_.find(key); read != reads_.end()) return read->second;
  if (InARangeRead(key)) return Known();
  if (TakePrefetched(KeyRange(key))) return Get(key);
  return std::nullopt;
}

std::optional<std::vector<KeyValue>> StmCore::Range(const KeyRange& range) {
  const bool known = std::any_of(ranges_.begin(), ranges_.end(),
                                 [&range](const RangeRead& read) { return read.range == range; }) ||
                     TakePrefetched(range);
  if (!known) return std::nullopt;
  std::map<std::string_view, KeyValue> view;
  for (const auto& [key, kv] : reads_) {
    if (kv.has_value() && range.Contains(key)) view[key] = *kv;
  }
  for (const auto& [key, write] : writes_) {
    if (!range.Contains(key)) continue;
    view.erase(key);
    if (write.value.has_value()) {
      view[key] = KeyValue{.key = key, .value = *write.value, .lease = write.lease};
    }
  }
  std::vector<KeyValue> kvs;
  for (auto& [key, kv] : view) kvs.push_back(std::move(kv));
  return kvs;
}

RangeRequest StmCore::ReadOf(const KeyRange& range) const {
  // One more than may be: that there are too many shows in the answer.
  const int64_t limit = range.single() ? 0 : kStmRangeKeysMax + 1;
  return {.range = range,
          .options = {.limit = limit, .revision = snapshot_, .serializable = snapshot_ != 0}};
}

absl::Status StmCore::OnRead(const KeyRange& range, RangeResult result) {
  if (static_cast<int64_t>(result.kvs.size()) > kStmRangeKeysMax) {
    return InvalidRequest(
        absl::StrCat("a range in a transaction holds more than ", kStmRangeKeysMax, " keys"));
  }
  Know(range, std::move(result));
  return absl::OkStatus();
}

void StmCore::Know(const KeyRange& range, RangeResult result) {
  const int64_t revision = snapshot_ != 0 ? snapshot_ : result.revision;
  if (OneSnapshot()) snapshot_ = revision;
  // What an earlier read of this attempt gave stays so, also where the store has gone on (under
  // kRepeatableReads): the commit will see the difference.
  for (KeyValue& kv : result.kvs) {
    std::string key = kv.key;
    if (!InARangeRead(key)) reads_.try_emplace(std::move(key), std::move(kv));
  }
  if (range.single()) {
    reads_.try_emplace(range.key, std::nullopt);
  } else {
    ranges_.push_back({.range = range, .revision = revision});
  }
}

bool StmCore::TakePrefetched(const KeyRange& range) {
  auto found = std::find_if(prefetched_.begin(), prefetched_.end(),
                            [&range](const auto& each) { return each.first == range; });
  if (found == prefetched_.end()) return false;
  Know(range, found->second);
  return true;
}

bool StmCore::InARangeRead(std::string_view key) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [key](const RangeRead& read) { return read.range.Contains(key); });
}

// ---- Writing
// ---------------------------------------------------------------------------------------

void StmCore::Put(std::string_view key, std::string_view value, LeaseId lease) {
  writes_.insert_or_assign(std::string(key), Write{.value = std::string(value), .lease = lease});
}

void StmCore::Delete(std::string_view key) { writes_.insert_or_assign(std::string(key), Write{}); }

// ---- Committing
// ------------------------------------------------------------------------------------

bool StmCore::NeedsCommit() const {
  if (!writes_.empty()) return true;
  // Reads of one revision are a state of the store; one read always is.
  return !OneSnapshot() && reads_.size() + ranges_.size() > 1;
}

std::vector<std::string> StmCore::Missing(size_t max) const {
  std::vector<std::string> keys;
  if (writes_.empty()) return keys;
  if (!marker_.empty() && unread_.count(marker_) == 0) keys.push_back(marker_);
  if (isolation_ != Isolation::kSerializableSnapshot || snapshot_ == 0) return keys;
  for (const auto& [key, write] : writes_) {
    if (keys.size() == max) break;
    if (reads_.count(key) == 0 && unread_.count(key) == 0 && !InARangeRead(key)) {
      keys.push_back(key);
    }
  }
  return keys;
}

TxnRequest StmCore::MissingTxn(const std::vector<std::string>& keys) const {
  TxnRequest request;
  for (const std::string& key : keys) {
    // The marker is ours alone: its latest state is what counts.
    const int64_t revision = key == marker_ ? 0 : snapshot_;
    request.success.push_back(conclave::Range(key, {.revision = revision, .keys_only = true}));
  }
  return request;
}

void StmCore::OnMissing(const std::vector<std::string>& keys, const TxnResult& result) {
  for (size_t i = 0; i < keys.size(); ++i) {
    const KeyValue* kv = result.get(i);
    unread_[keys[i]] = kv == nullptr ? 0 : kv->mod_revision;
  }
}

std::vector<KeyRange> StmCore::ReadSet() const {
  std::vector<KeyRange> all;
  for (const RangeRead& read : ranges_) all.push_back(read.range);
  for (const auto& [key, kv] : reads_) {
    if (!InARangeRead(key)) all.push_back(KeyRange(key));
  }
  return all;
}

TxnRequest StmCore::CommitTxn() const {
  TxnRequest commit;
  for (const auto& [key, kv] : reads_) {
    commit.conditions.push_back(ModRevision(key) == (kv.has_value() ? kv->mod_revision : 0));
  }
  for (const RangeRead& read : ranges_) {
    commit.conditions.push_back(ModRevision(read.range) < read.revision + 1);
  }
  for (const auto& [key, revision] : unread_) {
    commit.conditions.push_back(ModRevision(key) == revision);
  }
  for (const auto& [key, write] : writes_) {
    commit.success.push_back(write.value.has_value()
                                 ? conclave::Put(key, *write.value, {.lease = write.lease})
                                 : conclave::Delete(key));
  }
  if (!marker_.empty() && !writes_.empty()) {
    commit.success.push_back(conclave::Put(marker_, id_));
  }
  const std::vector<KeyRange> read_set = ReadSet();
  if (read_set.size() > kPrefetchMax) return commit;
  for (const KeyRange& range : read_set) {
    commit.failure.push_back(
        conclave::Range(range, {.limit = range.single() ? 0 : kStmRangeKeysMax + 1}));
  }
  return commit;
}

void StmCore::OnConflict(const TxnResult& result) {
  CONCLAVE_CHECK(!result.succeeded);
  prefetched_.clear();
  prefetched_revision_ = result.revision;
  const std::vector<KeyRange> read_set = ReadSet();
  if (result.results.size() != read_set.size()) return;  // they were too many
  for (size_t i = 0; i < read_set.size(); ++i) {
    const RangeResult& range = result.range(i);
    if (static_cast<int64_t>(range.kvs.size()) > kStmRangeKeysMax) continue;
    prefetched_.emplace_back(read_set[i], range);
    prefetched_.back().second.revision = result.revision;
  }
}

// ---- Settling
// --------------------------------------------------------------------------------------

TxnRequest StmCore::SettleTxn() const {
  CONCLAVE_CHECK(can_settle());
  return {.conditions = {ModRevision(marker_) == unread_.at(marker_)},
          .success = {conclave::Put(
              marker_, absl::StrCat(absl::string_view(kVoid.data(), kVoid.size()), id_))},
          .failure = {conclave::Get(marker_)}};
}

StmCore::Settled StmCore::OnSettled(const TxnResult& result) const {
  if (result.succeeded) return Settled::kNever;
  const KeyValue* marker = result.get(0);
  if (marker == nullptr) return Settled::kUnknown;  // deleted by somebody
  if (marker->value == id_) return Settled::kCommitted;
  // An earlier attempt to settle, whose own outcome was unknown.
  if (marker->value == std::string(kVoid) + id_) return Settled::kNever;
  return Settled::kUnknown;
}

}  // namespace conclave
