// ModelStore: the part of the store that rules see, small enough to be right by looking at it. Keys
// with their create revisions; ranges with a limit, an order and bounds; events.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/client/core/types.h"

namespace conclave::testing {

class ModelStore {
 public:
  int64_t revision() const { return revision_; }
  const std::map<std::string, KeyValue>& keys() const { return keys_; }

  WatchEvent Put(const std::string& key, const std::string& value) {
    KeyValue& kv = keys_[key];
    ++revision_;
    if (kv.version == 0) kv.create_revision = revision_;
    kv.key = key;
    kv.value = value;
    kv.mod_revision = revision_;
    ++kv.version;
    return {.type = WatchEvent::Type::kPut, .kv = kv};
  }
  // Several new keys in one revision.
  void PutTogether(const std::vector<std::string>& keys) {
    ++revision_;
    for (const std::string& key : keys) {
      keys_[key] = {
          .key = key, .create_revision = revision_, .mod_revision = revision_, .version = 1};
    }
  }
  WatchEvent Delete(const std::string& key) {
    keys_.erase(key);
    ++revision_;
    return {.type = WatchEvent::Type::kDelete, .kv = {.key = key, .mod_revision = revision_}};
  }

  RangeResult Read(const RangeRequest& request) const {
    RangeResult result{.revision = revision_};
    const RangeOptions& options = request.options;
    for (const auto& [key, kv] : keys_) {
      if (!request.range.Contains(key)) continue;
      if (options.max_create_revision != 0 && kv.create_revision > options.max_create_revision)
        continue;
      if (kv.create_revision < options.min_create_revision) continue;
      result.kvs.push_back(kv);
      if (options.keys_only) result.kvs.back().value.clear();
    }
    if (options.sort_order != SortOrder::kNone &&
        options.sort_target == SortTarget::kCreateRevision) {
      const bool up = options.sort_order == SortOrder::kAscend;
      std::stable_sort(result.kvs.begin(), result.kvs.end(),
                       [up](const KeyValue& a, const KeyValue& b) {
                         return up ? a.create_revision < b.create_revision
                                   : a.create_revision > b.create_revision;
                       });
    }
    result.count = static_cast<int64_t>(result.kvs.size());
    if (options.limit != 0 && result.count > options.limit) result.kvs.resize(options.limit);
    return result;
  }
  std::vector<RangeResult> Read(const std::vector<Op>& ops) const {
    std::vector<RangeResult> results;
    for (const Op& op : ops) results.push_back(Read(std::get<RangeRequest>(op)));
    return results;
  }

 private:
  std::map<std::string, KeyValue> keys_;
  int64_t revision_ = 10;
};

inline std::vector<const RangeResult*> Pointers(const std::vector<RangeResult>& results) {
  std::vector<const RangeResult*> pointers;
  for (const RangeResult& result : results) pointers.push_back(&result);
  return pointers;
}

}  // namespace conclave::testing
