#include "conclave/lock/core/rw_rule.h"

#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"

namespace conclave {
namespace {

TurnRule::Missed NeverMissed(absl::Status& why) {
  why = absl::InternalError("the server did not put an absent key");
  return TurnRule::Missed::kRefused;
}

}  // namespace

std::string ReadPrefix(const std::string& name) { return name + "/read/"; }
std::string WritePrefix(const std::string& name) { return name + "/write/"; }
bool IsDowngraded(const KeyValue& writer) { return writer.version > 1; }

std::vector<Compare> ReadRule::Conditions(bool only_try) const {
  if (!only_try) return {};
  if (downgraded_ == 0) return {Absent(writers_)};
  return {CreateRevision(writers_) < downgraded_ + 1};  // no writer behind that one
}

std::vector<Op> ReadRule::Reads(int64_t token) const {
  return {ReadLastBefore(writers_, token, /*own=*/false)};
}

Turn ReadRule::Decide(const std::vector<const RangeResult*>& answers, int64_t token) {
  const KeyValue* writer = LastBefore(*answers[0], token);
  if (writer == nullptr || IsDowngraded(*writer)) return {};
  if (MUTANT("reader-ignores-writers")) return {};
  return {.kind = Turn::Kind::kWait, .watch = writer->key, .puts = true};
}

TurnRule::Missed ReadRule::OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                                    absl::Status& why) {
  if (!only_try) return NeverMissed(why);
  const KeyValue* writer = LastBefore(*answers[0], 0);
  if (writer != nullptr && !IsDowngraded(*writer)) return Missed::kOccupied;
  REACHED("lock: a reader tries behind a writer who became one");
  downgraded_ = writer == nullptr ? 0 : writer->create_revision;
  return Missed::kJoinAgain;
}

std::vector<Compare> WriteRule::Conditions(bool only_try) const {
  if (!only_try) return {};
  return {Absent(all_)};
}

std::vector<Op> WriteRule::Reads(int64_t token) const {
  return {ReadLastBefore(all_, token, /*own=*/true)};
}

Turn WriteRule::Decide(const std::vector<const RangeResult*>& answers, int64_t token) {
  const KeyValue* before = LastBefore(*answers[0], token);
  if (before == nullptr) return {};
  return {.kind = Turn::Kind::kWait, .watch = before->key};
}

TurnRule::Missed WriteRule::OnMissed(const std::vector<const RangeResult*>&, bool only_try,
                                     absl::Status& why) {
  return only_try ? Missed::kOccupied : NeverMissed(why);
}

}  // namespace conclave
