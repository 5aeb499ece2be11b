#include "conclave/coordination/queue_plan.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "conclave/base/mutant.h"

namespace conclave {

// "/" sorts behind "-": the marks come first, and both are one range.
QueuePlan::QueuePlan(std::string_view name)
    : items_(std::string(name) + "/item/"),
      taken_(std::string(name) + "/item-taken/"),
      tail_(std::string(name) + "/tail"),
      turn_(std::string(name) + "/turn") {}

TxnRequest QueuePlan::Ticket() const {
  return {.success = {Put(tail_, ""), Range(Items(), {.count_only = true})}};
}

std::string QueuePlan::ItemKey(int priority, int64_t ticket) const {
  return absl::StrCat(items_, absl::StrFormat("%04d/%016x", kPriorityMax - priority, ticket));
}

TxnRequest QueuePlan::Look(std::string_view after_key, int64_t in_flight_max) const {
  KeyRange items = Items();
  if (!after_key.empty()) items.key = std::string(after_key) + '\0';
  return {.success = {Range(items, {.limit = kWindow}),
                      Range(Prefix(taken_), {.limit = in_flight_max, .keys_only = true})}};
}

QueuePlan::Next QueuePlan::NextOf(const TxnResult& look) const {
  Next next{.in_flight = look.range(1).count, .revision = look.revision};
  std::set<std::string> taken;
  for (const KeyValue& mark : look.range(1).kvs) taken.insert(mark.key);
  const RangeResult& items = look.range(0);
  for (const KeyValue& item : items.kvs) {
    if (taken.count(TakenKey(item.key)) != 0) continue;
    next.found = true;
    next.item = item;
    return next;
  }
  if (items.more && !items.kvs.empty()) next.look_after = items.kvs.back().key;
  return next;
}

TxnRequest QueuePlan::Pop(const KeyValue& item) const {
  if (MUTANT("pop-ignores-who-took")) {
    return {.conditions = {ModRevision(item.key) == item.mod_revision},
            .success = {Delete(item.key)}};
  }
  return {.conditions = {ModRevision(item.key) == item.mod_revision, Absent(TakenKey(item.key))},
          .success = {Delete(item.key)}};
}

TxnRequest QueuePlan::Take(const KeyValue& item, LeaseId lease, std::string_view mark) const {
  const std::string taken = TakenKey(item.key);
  if (MUTANT("take-ignores-who-took")) {
    return {.conditions = {ModRevision(item.key) == item.mod_revision},
            .success = {Put(taken, mark, {.lease = lease}), Get(taken)},
            .failure = {Get(taken)}};
  }
  return {.conditions = {ModRevision(item.key) == item.mod_revision, Absent(taken)},
          .success = {Put(taken, mark, {.lease = lease}), Get(taken)},
          .failure = {Get(taken)}};
}

TxnRequest QueuePlan::Untake(std::string_view item_key, std::string_view mark) const {
  const std::string taken = TakenKey(item_key);
  return {.conditions = {Value(taken) == mark}, .success = {Delete(taken)}};
}

bool QueuePlan::TookIt(const TxnResult& result, LeaseId lease, std::string_view mark) {
  if (result.succeeded) return true;
  const KeyValue* taken = result.get(0);
  return taken != nullptr && taken->lease == lease && taken->value == mark;
}

std::string QueuePlan::TakenKey(std::string_view item_key) const { return taken_ + IdOf(item_key); }

std::string QueuePlan::IdOf(std::string_view item_key) const {
  if (item_key.substr(0, items_.size()) != items_) return "";
  return std::string(item_key.substr(items_.size()));
}

std::optional<int> QueuePlan::PriorityOf(std::string_view item_key) const {
  const std::string id = IdOf(item_key);
  int rank = 0;
  if (!absl::SimpleAtoi(absl::string_view(id).substr(0, id.find('/')), &rank)) {
    return std::nullopt;
  }
  if (rank < 0 || rank > kPriorityMax) return std::nullopt;
  return kPriorityMax - rank;
}

}  // namespace conclave
