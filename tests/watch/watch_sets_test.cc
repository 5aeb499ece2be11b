// Which watchers hear what and when: those that are up to date, those that lag, those that wait for
// their readers: tests/watch/scripts/watch_sets.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/concat.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/watch/watch_hub.h"
#include "conclave/tests/datadriven/datadriven.h"

namespace conclave::watch {
namespace {

constexpr Instant kStart{std::chrono::seconds(1000)};
constexpr size_t kStreamBytesMax = 200;
constexpr size_t kCatchUpRecords = 100;

std::string Describe(const WatchResponse& response) {
  std::string text = Concat(response.watch_id, response.created ? " created" : "",
                            response.canceled ? " canceled" : "");
  if (response.compact_revision != 0) text += Concat(" compacted ", response.compact_revision);
  if (!response.cancel_reason.empty()) text += Concat(" (", response.cancel_reason, ")");
  if (response.events != nullptr) {
    for (const Event& event : response.events->events()) {
      text += Concat(" ", event.is_delete() ? "-" : "+", event.record->key(), "@",
                     event.record->mod_revision());
      if (event.previous) text += Concat("<", event.previous->value());
    }
  } else if (!response.created && !response.canceled) {
    text += Concat(" progress ", response.header_revision);
  }
  return text;
}

// A store, a hub, and streams that read at once, but for those that are slow.
//   watch stream=1 key=a [end=c] [from=2] [prev=1] [no-put=1] [no-delete=1]
//   cancel stream=1 id=0 | progress stream=1 | close stream=1
//   put a=1 b=2 | delete a b      one revision
//   compact 5
//   slow stream=1 | read stream=1   its responses leave only then
//   catch-up                        those that lag
//   sets
// Each prints what is handed out by it.
class ScriptedHub {
 public:
  ScriptedHub() : hub_(&store_, {.stream_bytes_max = kStreamBytesMax}) {}

  std::string Run(const datadriven::Command& command) {
    const StreamId stream = command.Number("stream", 1);
    if (command.name == "watch") {
      Watch(command, stream);
    } else if (command.name == "cancel") {
      hub_.Cancel(stream, static_cast<WatchId>(command.Number("id", 0)));
    } else if (command.name == "progress") {
      hub_.RequestProgress(stream);
    } else if (command.name == "close") {
      hub_.CloseStream(stream);
    } else if (command.name == "slow") {
      unread_.try_emplace(stream, 0);
    } else if (command.name == "read") {
      hub_.Written(stream, std::exchange(unread_[stream], 0));
      unread_.erase(stream);
    } else if (command.name == "put" || command.name == "delete") {
      Write(command);
    } else if (command.name == "compact") {
      return Concat(store_.Compact(static_cast<int64_t>(command.WordNumber(0))).ok() ? "" : "no ",
                    "compacted\n", Output());
    } else if (command.name == "catch-up") {
      while (hub_.CatchUp(kCatchUpRecords)) {
      }
    } else if (command.name == "sets") {
      const WatchSizes sizes = hub_.sizes();
      return Concat(sizes.watchers - sizes.lagging, " up to date, ", sizes.lagging, " lag, ",
                    sizes.waiting_streams, " streams wait");
    } else {
      return "error: unknown command";
    }
    return Output();
  }

 private:
  void Watch(const datadriven::Command& command, StreamId stream) {
    if (open_.insert(stream).second) hub_.OpenStream(stream);
    const auto text = [&](const char* key) {
      const std::vector<std::string> list = command.List(key);
      return list.empty() ? std::string() : list.front();
    };
    hub_.Create(stream,
                {.key = text("key"),
                 .range_end = text("end"),
                 .start_revision = static_cast<int64_t>(command.Number("from", 0)),
                 .no_put = command.Has("no-put"),
                 .no_delete = command.Has("no-delete"),
                 .prev_kv = command.Has("prev")},
                kStart);
  }

  void Write(const datadriven::Command& command) {
    mvcc::WriteTxn txn = store_.Begin();
    for (const std::string& key : command.words) txn.Delete(key);
    for (const auto& [key, values] : command.named) txn.Put(key, values.front(), 0);
    txn.Commit();
    hub_.Notify();
  }

  std::string Output() {
    std::vector<StreamOutput> outputs;
    hub_.TakeOutput(&outputs);
    std::string text;
    for (const StreamOutput& output : outputs) {
      for (const WatchResponse& response : output.responses) {
        text += Concat("stream ", output.stream, ": ", Describe(response), "\n");
        const auto slow = unread_.find(output.stream);
        if (slow == unread_.end()) {
          hub_.Written(output.stream, response.charge);
        } else {
          slow->second += response.charge;
        }
      }
    }
    hub_.CheckInvariants();
    return text;
  }

  mvcc::Store store_;
  WatchHub hub_;
  std::set<StreamId> open_;
  std::map<StreamId, size_t> unread_;  // of slow streams
};

TEST(WatchSets, Scripts) {
  for (const std::string& path : datadriven::ScriptsIn("tests/watch/scripts/watch_sets")) {
    ScriptedHub hub;
    datadriven::RunScript(path,
                          [&](const datadriven::Command& command) { return hub.Run(command); });
  }
}

}  // namespace
}  // namespace conclave::watch
