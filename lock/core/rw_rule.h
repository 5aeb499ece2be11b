// The rules of RWMutex. Keys: "<name>/read/..." and "<name>/write/...", as in Go's experimental
// recipe, which these exclude as well.
//
// A reader waits for the last writer before it; a writer for the last key before it, of either
// kind. So a release wakes those who wait for just that key: all readers behind a writer, one
// writer behind the last of them.
//
// A writer that has become a reader keeps its key and its place, and writes the key once more:
// version 2 under "write/" is a reader. (A new key under "read/" would stand behind the writers
// that wait already, and let them in.) Whoever holds a write lock is first, so before such a key
// there is nobody.
#pragma once

#include <string>
#include <vector>

#include "conclave/client/core/turn_rule.h"

namespace conclave {

std::string ReadPrefix(const std::string& name);
std::string WritePrefix(const std::string& name);
// Of a key under WritePrefix.
bool IsDowngraded(const KeyValue& writer);

class ReadRule : public TurnRule {
 public:
  explicit ReadRule(const std::string& name) : writers_(Prefix(WritePrefix(name))) {}

  std::vector<Compare> Conditions(bool only_try) const override;
  std::vector<Op> Reads(int64_t token) const override;
  Turn Decide(const std::vector<const RangeResult*>& answers, int64_t token) override;
  Missed OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                  absl::Status& why) override;
  KeyRange Owners() const override { return writers_; }

 private:
  const KeyRange writers_;
  int64_t downgraded_ = 0;  // a try: the create revision of a writer that has become a reader
};

class WriteRule : public TurnRule {
 public:
  explicit WriteRule(const std::string& name) : all_(Prefix(name + "/")) {}

  std::vector<Compare> Conditions(bool only_try) const override;
  std::vector<Op> Reads(int64_t token) const override;
  Turn Decide(const std::vector<const RangeResult*>& answers, int64_t token) override;
  Missed OnMissed(const std::vector<const RangeResult*>& answers, bool only_try,
                  absl::Status& why) override;
  KeyRange Owners() const override { return all_; }

 private:
  const KeyRange all_;
};

}  // namespace conclave
