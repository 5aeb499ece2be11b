#include "conclave/server/watch/interval_tree.h"

#include <utility>

#include "conclave/base/check.h"
#include "conclave/server/watch/watch_group.h"

namespace conclave::watch {
namespace {

// Where a range ends: before a key, or never.
struct End {
  bool open;
  std::string_view key;

  static End Of(const WatchGroup& group) {
    const mvcc::KeyRange range = group.range();
    return {.open = range.open_ended(), .key = range.end()};
  }
  bool IsBehind(std::string_view other) const { return open || key > other; }
  friend bool operator<(const End& a, const End& b) { return !a.open && (b.open || a.key < b.key); }
};

uint64_t PriorityOf(uint64_t id) {
  id = (id ^ (id >> 32)) * 0xd6e8feb86659fd93u;
  id = (id ^ (id >> 32)) * 0xd6e8feb86659fd93u;
  return id ^ (id >> 32);
}

}  // namespace

struct IntervalTree::Node {
  explicit Node(WatchGroup* owner)
      : group(owner), priority(PriorityOf(owner->id())), greatest_end(End::Of(*owner)) {}

  void Update() {
    greatest_end = End::Of(*group);
    for (const Link* child : {&left, &right}) {
      if (*child != nullptr && greatest_end < (*child)->greatest_end) {
        greatest_end = (*child)->greatest_end;
      }
    }
  }

  WatchGroup* group;
  uint64_t priority;
  End greatest_end;  // of the subtree; its view is into some group of it
  Link left;
  Link right;
};

IntervalTree::IntervalTree() = default;
IntervalTree::~IntervalTree() = default;

bool IntervalTree::Before(const WatchGroup& a, const WatchGroup& b) {
  const int order = a.key().compare(b.key());
  return order != 0 ? order < 0 : a.id() < b.id();
}

void IntervalTree::RotateRight(Link* link) {
  Link left = std::move((*link)->left);
  (*link)->left = std::move(left->right);
  (*link)->Update();
  left->right = std::move(*link);
  *link = std::move(left);
  (*link)->Update();
}

void IntervalTree::RotateLeft(Link* link) {
  Link right = std::move((*link)->right);
  (*link)->right = std::move(right->left);
  (*link)->Update();
  right->left = std::move(*link);
  *link = std::move(right);
  (*link)->Update();
}

void IntervalTree::Insert(WatchGroup* group) {
  InsertAt(&root_, std::make_unique<Node>(group));
  ++size_;
}

void IntervalTree::InsertAt(Link* link, Link node) {
  if (*link == nullptr) {
    *link = std::move(node);
    return;
  }
  Node* here = link->get();
  if (Before(*node->group, *here->group)) {
    InsertAt(&here->left, std::move(node));
    here->Update();
    if (here->left->priority < here->priority) RotateRight(link);
  } else {
    InsertAt(&here->right, std::move(node));
    here->Update();
    if (here->right->priority < here->priority) RotateLeft(link);
  }
}

void IntervalTree::Erase(WatchGroup* group) {
  EraseAt(&root_, *group);
  --size_;
}

void IntervalTree::EraseAt(Link* link, const WatchGroup& group) {
  CONCLAVE_CHECK(*link != nullptr, "the group is not in the tree");
  Node* here = link->get();
  if (here->group != &group) {
    EraseAt(Before(group, *here->group) ? &here->left : &here->right, group);
    here->Update();
    return;
  }
  // Down with it, the child of lower priority up, until it has but one.
  if (here->left == nullptr) {
    Link right = std::move(here->right);
    *link = std::move(right);
  } else if (here->right == nullptr) {
    Link left = std::move(here->left);
    *link = std::move(left);
  } else if (here->left->priority < here->right->priority) {
    RotateRight(link);
    EraseAt(&(*link)->right, group);
    (*link)->Update();
  } else {
    RotateLeft(link);
    EraseAt(&(*link)->left, group);
    (*link)->Update();
  }
}

void IntervalTree::ForEachHolding(std::string_view key,
                                  absl::FunctionRef<void(WatchGroup*)> visit) const {
  Visit(root_.get(), key, visit);
}

void IntervalTree::Visit(const Node* node, std::string_view key,
                         absl::FunctionRef<void(WatchGroup*)> visit) {
  while (node != nullptr && node->greatest_end.IsBehind(key)) {
    Visit(node->left.get(), key, visit);
    if (key < node->group->key()) return;
    if (End::Of(*node->group).IsBehind(key)) visit(node->group);
    node = node->right.get();
  }
}

void IntervalTree::CheckInvariants() const {
  size_t nodes = 0;
  const WatchGroup* last = nullptr;
  const auto check = [&](const auto& self, const Node* node) -> void {
    if (node == nullptr) return;
    self(self, node->left.get());
    CONCLAVE_CHECK(last == nullptr || Before(*last, *node->group));
    last = node->group;
    ++nodes;
    self(self, node->right.get());
    End greatest = End::Of(*node->group);
    for (const Link* child : {&node->left, &node->right}) {
      if (*child == nullptr) continue;
      CONCLAVE_CHECK(node->priority <= (*child)->priority);
      if (greatest < (*child)->greatest_end) greatest = (*child)->greatest_end;
    }
    CONCLAVE_CHECK(greatest.open == node->greatest_end.open &&
                   greatest.key == node->greatest_end.key);
  };
  check(check, root_.get());
  CONCLAVE_CHECK(nodes == size_);
}

}  // namespace conclave::watch
