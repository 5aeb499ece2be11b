// MethodTable: the methods that stubs have registered with a picking channel.
//
// A stub registers each of its methods with its channel and shows the handle with each call. gRPC's
// handles belong to one real channel; so a picking channel gives out handles of its own, and each
// connection keeps the real ones beside them, made when first needed.
//
// Thread-safe. Entries live as long as the table.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <string>

namespace conclave::picking {

class MethodTable {
 public:
  // Further methods are called by name, which costs gRPC a little more.
  static constexpr size_t kMethodsMax = 256;

  struct Entry {
    size_t index = 0;
    std::string name{};
  };

  // The same entry for the same name; null if the table is full.
  const Entry* Register(const char* name) {
    const std::lock_guard lock(mutex_);
    const auto found = by_name_.find(name);
    if (found != by_name_.end()) return found->second;
    if (entries_.size() == kMethodsMax) return nullptr;
    const Entry& entry = entries_.emplace_back(Entry{.index = entries_.size(), .name = name});
    by_name_.emplace(name, &entry);
    return &entry;
  }

 private:
  std::mutex mutex_;
  std::deque<Entry> entries_;                    // guarded by mutex_
  std::map<std::string, const Entry*> by_name_;  // guarded by mutex_
};

}  // namespace conclave::picking
