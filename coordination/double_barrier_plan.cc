#include "conclave/coordination/double_barrier_plan.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave {
namespace {

RangeOptions InOrder() {
  return {.sort_order = SortOrder::kAscend, .sort_target = SortTarget::kCreateRevision};
}

std::string IdOf(const std::string& key) { return key.substr(key.rfind('/') + 1); }

std::vector<std::string> Ids(const std::string& joined) {
  return absl::StrSplit(joined, ',', absl::SkipEmpty());
}

}  // namespace

DoubleBarrierPlan::DoubleBarrierPlan(std::string_view name, LeaseId lease, int members)
    : waiters_(std::string(name) + "/waiters/"),
      left_(std::string(name) + "/left/"),
      id_(absl::StrCat(absl::Hex(lease))),
      own_(waiters_ + id_),
      ready_(std::string(name) + "/ready"),
      last_(std::string(name) + "/last"),
      lease_(lease),
      members_(members) {}

// ---- Requests
// --------------------------------------------------------------------------------------

TxnRequest DoubleBarrierPlan::Look() const {
  return {.success = {Get(ready_), Range(Prefix(waiters_), InOrder()), Range(Prefix(left_)),
                      Get(last_)}};
}

TxnRequest DoubleBarrierPlan::Join() const {
  TxnRequest join = Look();
  join.failure = join.success;
  join.success.insert(join.success.begin(), Put(own_, absl::StrCat(members_), {.lease = lease_}));
  join.conditions = {Absent(ready_), Absent(own_)};
  return join;
}

TxnRequest DoubleBarrierPlan::Open(const DoubleBarrierView& view) const {
  CONCLAVE_CHECK(view.waiters.size() >= static_cast<size_t>(members_), "opened too early");
  TxnRequest open{.conditions = {Absent(ready_)}};
  std::vector<std::string> ids;
  for (int i = 0; i < members_; ++i) {
    const KeyValue& waiter = view.waiters[i];
    if (!MUTANT("barrier-opens-without-its-waiters")) {
      open.conditions.push_back(CreateRevision(waiter.key) == waiter.create_revision);
    }
    ids.push_back(IdOf(waiter.key));
  }
  open.success = {Put(ready_, absl::StrJoin(ids, ","))};
  return open;
}

TxnRequest DoubleBarrierPlan::GiveUp(int64_t own_revision) const {
  return {.conditions = {CreateRevision(own_) == own_revision, Absent(ready_)},
          .success = {Delete(own_)},
          .failure = Look().success};
}

TxnRequest DoubleBarrierPlan::Leave(int64_t own_revision, int64_t round) const {
  return {.conditions = {CreateRevision(own_) == own_revision, CreateRevision(ready_) == round},
          .success = {Delete(own_), Put(left_ + id_, absl::StrCat(round))},
          .failure = {Get(left_ + id_)}};
}

TxnRequest DoubleBarrierPlan::Finish(const DoubleBarrierView& view) const {
  CONCLAVE_CHECK(view.ready.has_value() && view.waiters.empty(), "the round is not over");
  return {.conditions = {ModRevision(ready_) == view.ready->mod_revision, Absent(Prefix(waiters_))},
          .success = {Delete(ready_), Delete(Prefix(left_)),
                      Put(last_, absl::StrCat(view.ready->create_revision, " ",
                                              absl::StrJoin(Lost(view), ",")))}};
}

DoubleBarrierView DoubleBarrierPlan::ViewOf(const TxnResult& result, size_t first_range) {
  DoubleBarrierView view{.revision = result.revision};
  if (const KeyValue* ready = result.get(first_range)) view.ready = *ready;
  view.waiters = result.range(first_range + 1).kvs;
  for (const KeyValue& kv : result.range(first_range + 2).kvs) view.left.push_back(kv.key);
  if (const KeyValue* last = result.get(first_range + 3)) view.last = *last;
  return view;
}

// ---- Decisions
// -------------------------------------------------------------------------------------

const KeyValue* DoubleBarrierPlan::Own(const DoubleBarrierView& view) const {
  for (const KeyValue& waiter : view.waiters) {
    if (waiter.key == own_) return &waiter;
  }
  return nullptr;
}

bool DoubleBarrierPlan::LetIn(const DoubleBarrierView& view) const {
  const std::vector<std::string> ids = Ids(view.ready->value);
  return std::find(ids.begin(), ids.end(), id_) != ids.end();
}

DoubleBarrierPlan::Entering DoubleBarrierPlan::OnEntering(const DoubleBarrierView& view) const {
  const KeyValue* own = Own(view);
  if (own == nullptr) return Entering::kGone;
  if (view.ready.has_value()) {
    return LetIn(view) && own->create_revision < view.ready->create_revision ? Entering::kInside
                                                                             : Entering::kRoundOn;
  }
  const std::string expected = absl::StrCat(members_);
  for (const KeyValue& waiter : view.waiters) {
    if (waiter.value != expected) return Entering::kMismatch;
  }
  return view.waiters.size() >= static_cast<size_t>(members_) ? Entering::kOpen : Entering::kWait;
}

bool DoubleBarrierPlan::RoundOver(const DoubleBarrierView& view, int64_t round) {
  return !view.ready.has_value() || view.ready->create_revision != round;
}

const std::string& DoubleBarrierPlan::WaitFor(const DoubleBarrierView& view) const {
  return view.waiters.at(std::hash<std::string>{}(id_) % view.waiters.size()).key;
}

std::vector<std::string> DoubleBarrierPlan::Lost(const DoubleBarrierView& view) {
  if (!view.ready.has_value()) return {};
  std::set<std::string> accounted;
  for (const KeyValue& waiter : view.waiters) accounted.insert(IdOf(waiter.key));
  for (const std::string& key : view.left) accounted.insert(IdOf(key));
  std::vector<std::string> lost;
  for (std::string& id : Ids(view.ready->value)) {
    if (accounted.count(id) == 0 && !MUTANT("barrier-forgets-its-dead")) {
      REACHED("coordination: somebody died inside a double barrier");
      lost.push_back(std::move(id));
    }
  }
  return lost;
}

std::optional<std::vector<std::string>> DoubleBarrierPlan::LostIn(const DoubleBarrierView& view,
                                                                  int64_t round) {
  if (!view.last.has_value()) return std::nullopt;
  const std::vector<std::string> parts = absl::StrSplit(view.last->value, ' ');
  int64_t ended = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &ended) || ended != round) {
    return std::nullopt;
  }
  return Ids(parts[1]);
}

}  // namespace conclave
