// TurnRule: whose turn it is among those who queue. What a Contender asks of its kind of lock.
//
// A rule is a function of what the store says about those who came before us: keys with a lower
// create revision. It must be monotone: once it is our turn, those before us that leave, and those
// who come after us, do not change that. So no two members need to agree on more than the store.
//
// Thread: the engine's. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/types.h"

namespace conclave {

struct Turn {
  enum class Kind {
    kOurs,
    kWait,     // for an event in `watch` for which `wakes` is true
    kRefused,  // it can never be ours: `why`
  };

  Kind kind = Kind::kOurs;
  KeyRange watch{};
  bool puts = false;                                    // watch puts too, not only deletes
  absl::AnyInvocable<bool(const WatchEvent&)> wakes{};  // empty: every event wakes
  // kOurs: somebody behind us waits for our turn to come, not for our end. Our key is written once
  // more to tell him.
  bool announce = false;
  absl::Status why{};
};

class TurnRule {
 public:
  // What to do about a join whose conditions did not hold, though our keys were not there.
  enum class Missed { kOccupied, kJoinAgain, kRefused };

  virtual ~TurnRule() = default;

  // For joining, besides the absence of our own keys. `only_try`: and nobody may stand in our way,
  // as far as conditions can say that.
  virtual std::vector<Compare> Conditions(bool only_try) const = 0;
  // What else to write when joining.
  virtual std::vector<Op> Writes() const { return {}; }
  // What to read in order to decide. `token` is our create revision: only keys older than that
  // count. 0: in the join itself, where all other keys are older than ours.
  virtual std::vector<Op> Reads(int64_t token) const = 0;
  // `answers`: as many as Reads asked for, as of `revision`.
  virtual Turn Decide(const std::vector<const RangeResult*>& answers, int64_t token) = 0;
  virtual Missed OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                          absl::Status& why) = 0;
  // Who owns the name: one range, the first key of whose answer does. For tries that fail.
  virtual KeyRange Owners() const = 0;
};

// ---- For rules.

// Of the keys that are older than `token` (0: all), the youngest; null if there is none.
const KeyValue* LastBefore(const RangeResult& range, int64_t token);
// A read that LastBefore can be asked of: of the keys in `range`, the youngest before ours. `own`:
// the range holds a key of ours.
Op ReadLastBefore(const KeyRange& range, int64_t token, bool own);

// One at a time, in the order of arrival, under each of `names` at once: Mutex, MultiLock,
// elections. All keys of a contender are put in one transaction, so the order is the same under
// every name, and nobody waits in a circle.
class OneAtATime : public TurnRule {
 public:
  struct Options {
    std::vector<std::string> names{};  // sorted
    // Wait for `<name>~hold` as well, unless its value is `holder`.
    bool heed_hold = false;
    std::string holder{};
  };
  explicit OneAtATime(Options options);

  std::vector<Compare> Conditions(bool only_try) const override;
  std::vector<Op> Reads(int64_t token) const override;
  Turn Decide(const std::vector<const RangeResult*>& answers, int64_t token) override;
  Missed OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                  absl::Status& why) override;
  KeyRange Owners() const override { return Prefix(options_.names.front() + "/"); }

 private:
  const Options options_;
  std::vector<bool> our_hold_;  // by name: a hold that was left behind under our own identity
};

std::string HoldKey(const std::string& name);

}  // namespace conclave
