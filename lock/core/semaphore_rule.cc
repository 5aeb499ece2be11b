#include "conclave/lock/core/semaphore_rule.h"

#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"

namespace conclave {

std::string QueuePrefix(const std::string& name) { return name + "/queue/"; }
std::string PermitsKey(const std::string& name) { return name + "/permits"; }
std::string PermitsSuffix(int64_t permits) { return absl::StrCat("x", permits); }

int64_t PermitsOf(std::string_view key, int64_t all) {
  const size_t mark = key.rfind('x');
  if (mark == std::string_view::npos) return all;
  int64_t permits = 0;
  const char* end = key.data() + key.size();
  const auto [parsed, error] = std::from_chars(key.data() + mark + 1, end, permits);
  const bool good = error == std::errc() && parsed == end && permits >= 1 && permits <= all;
  return good ? permits : all;
}

SemaphoreRule::SemaphoreRule(const std::string& name, int64_t permits, int64_t wanted)
    : queue_(Prefix(QueuePrefix(name))),
      permits_key_(PermitsKey(name)),
      permits_(permits),
      wanted_(wanted) {}

std::vector<Compare> SemaphoreRule::Conditions(bool) const {
  if (create_) return {Absent(permits_key_)};
  return {Value(permits_key_) == std::to_string(permits_)};
}

std::vector<Op> SemaphoreRule::Writes() const {
  if (!create_) return {};
  return {Put(permits_key_, std::to_string(permits_))};
}

std::vector<Op> SemaphoreRule::Reads(int64_t token) const {
  RangeOptions oldest{.limit = permits_ + 1,
                      .sort_order = SortOrder::kAscend,
                      .sort_target = SortTarget::kCreateRevision,
                      .keys_only = true};
  if (token == 0) {
    ++oldest.limit;  // ours may be among them
    return {Range(queue_, oldest), ReadLastBefore(queue_, 0, /*own=*/true), Get(permits_key_)};
  }
  oldest.max_create_revision = token - 1;
  const RangeOptions behind{.limit = 1, .keys_only = true, .min_create_revision = token + 1};
  return {Range(queue_, oldest), ReadLastBefore(queue_, token, /*own=*/true), Get(permits_key_),
          Range(queue_, behind)};
}

Turn SemaphoreRule::Decide(const std::vector<const RangeResult*>& answers, int64_t token) {
  std::map<std::string, int64_t> holders;  // all that are before us and hold
  int64_t sum = 0;
  for (const KeyValue& kv : answers[0]->kvs) {
    if (kv.create_revision >= token) continue;
    sum += PermitsOf(kv.key, permits_);
    if (sum > permits_) break;
    holders.emplace(kv.key, PermitsOf(kv.key, permits_));
  }
  if (sum + wanted_ <= permits_ + (MUTANT("semaphore-with-one-too-many") ? 1 : 0)) {
    return {.announce = answers.size() > 3 && !answers[3]->kvs.empty()};
  }
  const KeyValue* before = LastBefore(*answers[1], token);
  if (before != nullptr && holders.count(before->key) == 0) {
    return {.kind = Turn::Kind::kWait, .watch = before->key, .puts = true};
  }
  // The first who waits.
  return {.kind = Turn::Kind::kWait,
          .watch = queue_,
          .wakes = [holders = std::move(holders),
                    missing = sum + wanted_ - permits_](const WatchEvent& event) mutable {
            auto found = holders.find(event.kv.key);
            if (found == holders.end()) return false;
            missing -= found->second;
            holders.erase(found);
            return missing <= 0;
          }};
}

TurnRule::Missed SemaphoreRule::OnMissed(const std::vector<const RangeResult*>& answers, bool,
                                         absl::Status& why) {
  const RangeResult& permits = *answers[2];
  create_ = permits.kvs.empty();
  if (create_ || permits.kvs.front().value == std::to_string(permits_)) return Missed::kJoinAgain;
  why = absl::FailedPreconditionError(
      absl::StrCat("the semaphore has ", permits.kvs.front().value, " permits, not ", permits_,
                   ": all who use it must name the same number (Remove it to change that)"));
  return Missed::kRefused;
}

}  // namespace conclave
