// Snapshot: the instances of a service at one revision; and Delta: what two of them differ in.
//
// Both are immutable and share their instances: a snapshot of 10,000 instances in which one has
// changed costs a vector of pointers, and copying a Snapshot or an InstanceList costs nothing.
// Thread-safe as immutable things are.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/registry/instance.h"

namespace conclave {

// An instance and the key that it stands at.
struct InstanceEntry {
  std::string key{};
  Instance instance{};
};

// A list of instances in the order of their keys, to be read like a vector of them.
class InstanceList {
 public:
  using Entries = std::vector<std::shared_ptr<const InstanceEntry>>;
  using value_type = Instance;
  using size_type = size_t;
  using const_reference = const Instance&;
  using reference = const_reference;

  class const_iterator {
   public:
    using iterator_category = std::random_access_iterator_tag;
    using value_type = Instance;
    using difference_type = std::ptrdiff_t;
    using pointer = const Instance*;
    using reference = const Instance&;

    const_iterator() = default;
    explicit const_iterator(Entries::const_iterator at) : at_(at) {}
    reference operator*() const { return (*at_)->instance; }
    pointer operator->() const { return &(*at_)->instance; }
    reference operator[](difference_type n) const { return at_[n]->instance; }
    const_iterator& operator++() { return ++at_, *this; }
    const_iterator operator++(int) { return const_iterator(at_++); }
    const_iterator& operator--() { return --at_, *this; }
    const_iterator operator--(int) { return const_iterator(at_--); }
    const_iterator& operator+=(difference_type n) { return at_ += n, *this; }
    const_iterator& operator-=(difference_type n) { return at_ -= n, *this; }
    friend const_iterator operator+(const_iterator i, difference_type n) { return i += n; }
    friend const_iterator operator+(difference_type n, const_iterator i) { return i += n; }
    friend const_iterator operator-(const_iterator i, difference_type n) { return i -= n; }
    friend difference_type operator-(const_iterator a, const_iterator b) { return a.at_ - b.at_; }
    friend bool operator==(const_iterator a, const_iterator b) { return a.at_ == b.at_; }
    friend std::strong_ordering operator<=>(const_iterator a, const_iterator b) {
      return a.at_ - b.at_ <=> 0;
    }

   private:
    Entries::const_iterator at_{};
  };
  using iterator = const_iterator;

  InstanceList() : entries_(Nothing()) {}
  explicit InstanceList(Entries entries)
      : entries_(std::make_shared<const Entries>(std::move(entries))) {}

  size_t size() const { return entries_->size(); }
  bool empty() const { return entries_->empty(); }
  const Instance& operator[](size_t i) const { return (*entries_)[i]->instance; }
  const Instance& front() const { return entries_->front()->instance; }
  const Instance& back() const { return entries_->back()->instance; }
  const_iterator begin() const { return const_iterator(entries_->begin()); }
  const_iterator end() const { return const_iterator(entries_->end()); }

  // The key of the i-th; and the i-th itself for somebody who wants to keep it and not the list.
  const std::string& key(size_t i) const { return (*entries_)[i]->key; }
  std::shared_ptr<const Instance> share(size_t i) const {
    const std::shared_ptr<const InstanceEntry>& entry = (*entries_)[i];
    return std::shared_ptr<const Instance>(entry, &entry->instance);
  }
  const Entries& entries() const { return *entries_; }

 private:
  static const std::shared_ptr<const Entries>& Nothing();

  std::shared_ptr<const Entries> entries_;  // never null
};

class Snapshot {
 public:
  const std::string& service() const { return service_; }
  // In the order of their keys; also those that are draining or down (Instance::state), unless a
  // filter has left them out.
  const InstanceList& instances() const { return instances_; }
  // Of the store, as of which this is the truth. 0: nothing has been heard yet (then known() is
  // false).
  int64_t revision() const { return revision_; }
  bool known() const { return revision_ != 0; }
  // Entries under the service's prefix that could not be read, and are not among instances().
  int64_t skipped() const { return skipped_; }
  // Since when the cluster has been out of reach, so that this may be out of date; nullopt: it is
  // not.
  std::optional<absl::Time> stale_since() const { return stale_since_; }
  // Read from disk, because the cluster could not be reached since this process began; it was the
  // truth at stale_since().
  bool from_cache() const { return from_cache_; }
  // Since when the shrink guard has been holding instances that the last list no longer had;
  // nullopt: all of instances() stand in the store. held() of them do not.
  std::optional<absl::Time> suspect_since() const { return suspect_since_; }
  int64_t held() const { return held_; }
  // The filter's preferred zone has no instance that serves, so this has those of other zones.
  bool spilled_over() const { return spilled_over_; }
  // How long ago the instances last changed.
  absl::Duration age() const { return absl::Now() - changed_at_; }

 private:
  friend class ServiceState;
  friend class SnapshotFilter;

  std::string service_;
  InstanceList instances_;
  int64_t revision_ = 0;
  int64_t skipped_ = 0;
  int64_t held_ = 0;
  std::optional<absl::Time> stale_since_;
  std::optional<absl::Time> suspect_since_;
  bool from_cache_ = false;
  bool spilled_over_ = false;
  absl::Time changed_at_ = absl::InfinitePast();
};

// What has changed between two snapshots. Empty if only stale_since() or suspect_since() has.
struct Delta {
  InstanceList added{};
  InstanceList updated{};  // as they are now
  InstanceList removed{};  // as they were

  bool empty() const { return added.empty() && updated.empty() && removed.empty(); }
};

// O(size), and no instance that both share is looked into.
Delta Difference(const Snapshot& before, const Snapshot& after);

}  // namespace conclave
