// WatchMux: all watches of a client over one stream.
//
// A watch goes through: listing (the range's state, if asked for or after a compaction) -> creating
// (the server has been asked) -> active. When the stream is lost, every watch is created again on
// the next one, from the revision behind the last event delivered: nothing is lost and nothing
// comes twice. When that revision has been compacted away, the range is listed and the watch says
// so (resynced).
//
// The server numbers the watches of a stream itself and answers requests to create in their order,
// so the oldest unanswered request belongs to the next `created`. A stream that is silent for
// watch_silence is asked for progress; if nothing comes within watch_answer_timeout it is left for
// another member.
//
// A server may say anything. What it cannot mean (a revision that goes back, a key outside the
// range, an id that nobody has) is dropped or ends the stream; it is counted, and logged once.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/page_cursor.h"
#include "conclave/client/core/resuming_stream.h"
#include "conclave/client/core/types.h"

namespace etcdserverpb {
class WatchResponse;
}

namespace conclave {

using WatchHandle = uint64_t;  // 0 is none

// What threads other than the engine's may read of one watch.
struct WatchVitals {
  std::atomic<int64_t> received = 0;  // all up to here has come from the server
  std::atomic<bool> connected = false;
};

class WatchMux : private ResumingStream::Owner {
 public:
  // On the engine's thread, never from within Add or Remove. A watch may be removed in its own
  // callback.
  using Callback = absl::AnyInvocable<void(WatchBatch)>;

  explicit WatchMux(Engine& engine);
  ~WatchMux() override;

  WatchHandle Add(const KeyRange& range, const WatchOptions& options, Callback callback,
                  std::shared_ptr<WatchVitals> vitals = nullptr);
  void Remove(WatchHandle handle);
  // While paused nothing is read from the stream: the consumers are behind.
  void Pause(bool paused);
  void Shutdown();
  void OnEndpointsChanged() { stream_.OnEndpointsChanged(); }

  size_t size() const { return watches_.size(); }
  // The revision up to which the watch that is furthest behind has received all; nullopt without
  // watches.
  std::optional<int64_t> SlowestReceived() const;

 private:
  enum class State { kListing, kUncreated, kCreating, kActive };

  struct Watcher {
    KeyRange range;
    WatchOptions options;
    Callback callback;
    State state = State::kUncreated;
    int64_t server_id = -1;             // while kActive
    int64_t next_revision = 0;          // 0: from now on
    bool connected = true;              // as last reported
    bool must_be_linearizable = false;  // the next list
    int token_refusals = 0;             // in a row
    int list_failures = 0;              // and lists that led to nothing, in a row
    // The list under way, page by page at one revision: a large range is never in one answer.
    std::optional<PageCursor> pages{};
    std::vector<KeyValue> listed{};
    CallId list = 0;
    TimerId list_again{};
    std::vector<WatchEvent> fragments{};
    std::shared_ptr<WatchVitals> vitals{};
    std::map<std::string, KeyValue> delivered{};  // with diff_on_resync: the range as delivered
  };

  void OnStreamOpen() override;
  void OnStreamMessage(std::string_view message) override;
  void OnStreamLost() override;

  void Handle(std::string_view message);
  void List(WatchHandle handle, Watcher& watcher);
  void AskForPage(WatchHandle handle, Watcher& watcher);
  void AskLater(WatchHandle handle, Watcher& watcher);
  void ListLater(WatchHandle handle, Watcher& watcher);
  void OnPage(WatchHandle handle, absl::StatusOr<RangeResult> result);
  void OnListed(WatchHandle handle, Watcher& watcher);
  void Create(WatchHandle handle, Watcher& watcher);
  void SendCancel(int64_t server_id);
  void OnCreated(const etcdserverpb::WatchResponse& response);
  void OnCancelled(const etcdserverpb::WatchResponse& response, WatchHandle handle);
  void OnEvents(etcdserverpb::WatchResponse& response, WatchHandle handle);
  bool TakeEvents(etcdserverpb::WatchResponse& response, Watcher& watcher);
  void Confuse(std::string_view what, std::string_view detail);
  void MoveTo(Watcher& watcher, int64_t next_revision);
  void NoteDelivered(Watcher& watcher, const WatchBatch& batch);
  std::vector<WatchEvent> Difference(Watcher& watcher, const WatchBatch& resynced) const;
  void Deliver(WatchHandle handle, WatchBatch batch);
  void SetConnected(WatchHandle handle, Watcher& watcher, bool connected);
  void End(WatchHandle handle, const absl::Status& status);
  void ArmSilenceTimer();
  void OnSilence();

  Engine& engine_;
  ResumingStream stream_;
  std::map<WatchHandle, Watcher> watches_;
  WatchHandle next_handle_ = 1;
  std::deque<WatchHandle> creating_;             // asked on this stream, unanswered; in order
  std::map<int64_t, WatchHandle> by_server_id_;  // of this stream
  TimerId silence_{};
  bool asked_progress_ = false;
  bool paused_ = false;
  int unheard_streams_ = 0;  // streams in a row that never said anything
};

}  // namespace conclave
