#include "conclave/client/core/turn_rule.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"

namespace conclave {

const KeyValue* LastBefore(const RangeResult& range, int64_t token) {
  const KeyValue* last = nullptr;
  for (const KeyValue& kv : range.kvs) {
    if (token != 0 && kv.create_revision >= token) continue;
    if (last == nullptr || kv.create_revision > last->create_revision) last = &kv;
  }
  return last;
}

Op ReadLastBefore(const KeyRange& range, int64_t token, bool own) {
  RangeOptions options{
      .limit = 1, .sort_order = SortOrder::kDescend, .sort_target = SortTarget::kCreateRevision};
  if (token != 0) {
    options.max_create_revision = token - 1;
  } else if (own) {
    options.limit = 2;  // ours, just put, and the last one before it
  }
  return Range(range, options);
}

std::string HoldKey(const std::string& name) { return absl::StrCat(name, "~hold"); }

OneAtATime::OneAtATime(Options options)
    : options_(std::move(options)), our_hold_(options_.names.size(), false) {}

std::vector<Compare> OneAtATime::Conditions(bool only_try) const {
  std::vector<Compare> conditions;
  if (!only_try) return conditions;
  for (size_t i = 0; i < options_.names.size(); ++i) {
    const std::string& name = options_.names[i];
    conditions.push_back(Absent(Prefix(name + "/")));
    if (!options_.heed_hold) continue;
    const std::string hold = HoldKey(name);
    conditions.push_back(our_hold_[i] ? Value(hold) == options_.holder : Absent(hold));
  }
  return conditions;
}

std::vector<Op> OneAtATime::Reads(int64_t token) const {
  std::vector<Op> reads;
  for (const std::string& name : options_.names) {
    reads.push_back(ReadLastBefore(Prefix(name + "/"), token, /*own=*/true));
    if (options_.heed_hold) reads.push_back(Get(HoldKey(name)));
  }
  return reads;
}

Turn OneAtATime::Decide(const std::vector<const RangeResult*>& answers, int64_t token) {
  const size_t stride = options_.heed_hold ? 2 : 1;
  if (MUTANT("lock-does-not-wait")) return {};
  for (size_t i = 0; i < options_.names.size(); ++i) {
    if (MUTANT("several-locks-wait-for-the-first") && i > 0) break;
    if (const KeyValue* before = LastBefore(*answers[i * stride], token)) {
      return {.kind = Turn::Kind::kWait, .watch = before->key};
    }
  }
  for (size_t i = 0; options_.heed_hold && i < options_.names.size(); ++i) {
    const RangeResult& hold = *answers[i * stride + 1];
    if (hold.kvs.empty() || hold.kvs.front().value == options_.holder) continue;
    return {.kind = Turn::Kind::kWait, .watch = hold.kvs.front().key};
  }
  return {};
}

TurnRule::Missed OneAtATime::OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                                      absl::Status& why) {
  if (!only_try) {
    why = absl::InternalError("the server did not put an absent key");
    return Missed::kRefused;
  }
  const size_t stride = options_.heed_hold ? 2 : 1;
  bool again = false;
  for (size_t i = 0; i < options_.names.size(); ++i) {
    if (!answers[i * stride]->kvs.empty()) return Missed::kOccupied;
    if (!options_.heed_hold) continue;
    const std::vector<KeyValue>& hold = answers[i * stride + 1]->kvs;
    const bool ours = !hold.empty() && hold.front().value == options_.holder;
    if (!hold.empty() && !ours) return Missed::kOccupied;
    again |= ours != our_hold_[i];
    our_hold_[i] = ours;
  }
  return again ? Missed::kJoinAgain : Missed::kOccupied;
}

}  // namespace conclave
