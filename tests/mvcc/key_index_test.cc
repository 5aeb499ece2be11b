// The revisions of one key, and what compaction leaves of them: tests/mvcc/scripts/key_index.
#include "conclave/server/mvcc/key_index.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/base/concat.h"
#include "conclave/tests/datadriven/datadriven.h"

namespace conclave::mvcc {
namespace {

// "4 v1": a put, of version 1; "6 deleted": a tombstone.
std::string Describe(const Record& record) {
  const Revision revision = record.revision();
  return Concat(revision.main, revision.sub == 0 ? "" : Concat(".", revision.sub),
                record.tombstone() ? " deleted" : Concat(" v", record.version()));
}

// One key, with a command per call:
//   put 4 [sub] | delete 6 [sub]   as a transaction of that revision would
//   at 5                           the newest record that is not above 5
//   before 5                       how many are below
//   compact 5                      what goes
//   all
class ScriptedKey {
 public:
  ~ScriptedKey() { slot_.Clear(); }

  std::string Run(const datadriven::Command& command) {
    if (command.name == "put" || command.name == "delete") return Write(command);
    if (command.name == "all") return All();
    const auto revision = static_cast<int64_t>(command.WordNumber(0));
    if (command.name == "at") {
      const Record* newest = slot_.empty() ? nullptr : slot_.At(revision);
      return newest == nullptr ? "nothing" : Describe(*newest);
    }
    if (command.name == "before") return Concat(slot_.empty() ? 0 : slot_.CountBefore(revision));
    if (command.name == "compact") return Compact(revision);
    return "error: unknown command";
  }

 private:
  std::string Write(const datadriven::Command& command) {
    const bool puts = command.name == "put";
    const Record* head = slot_.empty() ? nullptr : slot_.head();
    const int64_t version = !puts                                  ? 0
                            : head == nullptr || head->tombstone() ? 1
                                                                   : head->version() + 1;
    const auto main = static_cast<int64_t>(command.WordNumber(0));
    const auto sub = command.words.size() > 1 ? static_cast<int64_t>(command.WordNumber(1)) : 0;
    const Record* record =
        MakeRecord({.key = "key", .revision = {main, sub}, .version = version, .tombstone = !puts})
            .Release();
    if (slot_.empty()) {
      slot_ = Slot::Of(record);
    } else {
      slot_.Push(record);
    }
    return All();
  }

  std::string Compact(int64_t revision) {
    std::string gone = "gone:";
    if (slot_.empty()) return gone + " nothing";
    const size_t before = gone.size();
    slot_.DropOlder(revision, [&](const Record& record) { gone += Concat(" ", Describe(record)); });
    if (gone.size() == before) gone += " nothing";
    return Concat(gone, "\n", All());
  }

  std::string All() const {
    if (slot_.empty()) return "forgotten";
    std::string text = slot_.live() ? "live:" : "dead:";
    for (uint32_t i = 0; i < slot_.size(); ++i) {
      text += Concat(i == 0 ? " " : ", ", Describe(*slot_.record(i)));
    }
    return text;
  }

  Slot slot_{};  // empty
};

TEST(KeyIndex, Scripts) {
  for (const std::string& path : datadriven::ScriptsIn("tests/mvcc/scripts/key_index")) {
    ScriptedKey key;
    datadriven::RunScript(path,
                          [&](const datadriven::Command& command) { return key.Run(command); });
  }
}

}  // namespace
}  // namespace conclave::mvcc
