#include "conclave/discovery/snapshot.h"

namespace conclave {

const std::shared_ptr<const InstanceList::Entries>& InstanceList::Nothing() {
  static const auto& nothing = *new std::shared_ptr<const Entries>(std::make_shared<Entries>());
  return nothing;
}

Delta Difference(const Snapshot& before, const Snapshot& after) {
  const InstanceList::Entries& old_ones = before.instances().entries();
  const InstanceList::Entries& new_ones = after.instances().entries();
  InstanceList::Entries added;
  InstanceList::Entries updated;
  InstanceList::Entries removed;
  auto b = old_ones.begin();
  auto a = new_ones.begin();
  while (b != old_ones.end() || a != new_ones.end()) {
    if (a == new_ones.end() || (b != old_ones.end() && (*b)->key < (*a)->key)) {
      removed.push_back(*b++);
    } else if (b == old_ones.end() || (*a)->key < (*b)->key) {
      added.push_back(*a++);
    } else {
      if (*a != *b && (*a)->instance != (*b)->instance) updated.push_back(*a);
      ++a;
      ++b;
    }
  }
  return {.added = InstanceList(std::move(added)),
          .updated = InstanceList(std::move(updated)),
          .removed = InstanceList(std::move(removed))};
}

}  // namespace conclave
