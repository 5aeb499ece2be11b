#include "conclave/client/core/watch_mux.h"

#include <algorithm>
#include <string>
#include <utility>

#include "conclave/client/core/calls.h"
#include "conclave/client/core/convert.h"
#include "conclave/client/core/error.h"

namespace conclave {
namespace {

constexpr std::string_view kMethod = "/etcdserverpb.Watch/Watch";
constexpr Duration kListTimeout = std::chrono::seconds(10);
constexpr Duration kListRetryBase = std::chrono::milliseconds(50);
constexpr Duration kListRetryCap = std::chrono::seconds(2);
constexpr int kPatienceDoublingsMax = 6;

}  // namespace

WatchMux::WatchMux(Engine& engine) : engine_(engine), stream_(engine, kMethod, *this) {}

WatchMux::~WatchMux() = default;

WatchHandle WatchMux::Add(const KeyRange& range, const WatchOptions& options, Callback callback) {
  const WatchHandle handle = next_handle_++;
  Watcher& watcher = watches_[handle];
  watcher.range = range;
  watcher.options = options;
  watcher.callback = std::move(callback);
  watcher.next_revision = options.list_first ? 0 : options.from_revision;
  if (options.list_first) {
    List(handle, watcher);
  } else if (stream_.open()) {
    Create(handle, watcher);
  }
  stream_.Start();
  return handle;
}

void WatchMux::Remove(WatchHandle handle) {
  auto found = watches_.find(handle);
  if (found == watches_.end()) return;
  Watcher& watcher = found->second;
  if (watcher.list != 0) engine_.Cancel(watcher.list);
  engine_.CancelTimer(watcher.list_again);
  if (watcher.state == State::kActive) {
    SendCancel(watcher.server_id);
    by_server_id_.erase(watcher.server_id);
  }
  watches_.erase(found);  // one that is being created is cancelled when the server has numbered it
  if (watches_.empty()) {
    stream_.Stop();
    creating_.clear();
    by_server_id_.clear();
    engine_.CancelTimer(silence_);
  }
}

void WatchMux::Shutdown() {
  watches_.clear();
  stream_.Stop();
}

void WatchMux::Pause(bool paused) {
  if (paused_ == paused) return;
  paused_ = paused;
  stream_.Pause(paused);
  if (stream_.open()) ArmSilenceTimer();
}

// ---- Listing
// ---------------------------------------------------------------------------------------

void WatchMux::List(WatchHandle handle, Watcher& watcher) {
  watcher.state = State::kListing;
  RangeRequest request{.range = watcher.range};
  request.options.serializable = watcher.options.serializable_list && !watcher.must_be_linearizable;
  watcher.list = calls::Range(
      engine_, request, engine_.now() + kListTimeout,
      [this, handle](absl::StatusOr<RangeResult> result) { OnListed(handle, std::move(result)); });
}

void WatchMux::OnListed(WatchHandle handle, absl::StatusOr<RangeResult> result) {
  auto found = watches_.find(handle);
  if (found == watches_.end()) return;
  Watcher& watcher = found->second;
  watcher.list = 0;
  if (!result.ok()) {
    if (!IsRetryable(result.status())) return End(handle, result.status());
    SetConnected(handle, watcher, false);
    const Duration delay =
        FullJitter(watcher.list_failures++, kListRetryBase, kListRetryCap, engine_.prng());
    watcher.list_again = engine_.After(delay, [this, handle] {
      auto again = watches_.find(handle);
      if (again != watches_.end()) List(handle, again->second);
    });
    return;
  }
  if (result->revision + 1 < watcher.next_revision) {
    // A member that lags behind what was delivered: its state would turn time back.
    watcher.must_be_linearizable = true;
    return List(handle, watcher);
  }
  watcher.list_failures = 0;
  watcher.must_be_linearizable = true;
  watcher.next_revision = result->revision + 1;
  watcher.state = State::kUncreated;
  watcher.connected = true;
  if (stream_.open()) Create(handle, watcher);
  Deliver(handle,
          {.revision = result->revision, .resynced = true, .state = std::move(result->kvs)});
}

// ---- The stream
// ------------------------------------------------------------------------------------

void WatchMux::OnStreamOpen() {
  asked_progress_ = false;
  if (paused_) stream_.Pause(true);
  for (auto& [handle, watcher] : watches_) {
    if (watcher.state == State::kUncreated) Create(handle, watcher);
  }
  ArmSilenceTimer();
}

void WatchMux::OnStreamLost() {
  creating_.clear();
  by_server_id_.clear();
  engine_.CancelTimer(silence_);
  ++unheard_streams_;
  std::vector<WatchHandle> lost;
  for (auto& [handle, watcher] : watches_) {
    watcher.fragments.clear();
    if (watcher.state != State::kCreating && watcher.state != State::kActive) continue;
    watcher.state = State::kUncreated;
    lost.push_back(handle);
  }
  for (WatchHandle handle : lost) {
    if (auto found = watches_.find(handle); found != watches_.end()) {
      SetConnected(handle, found->second, false);
    }
  }
}

void WatchMux::Create(WatchHandle handle, Watcher& watcher) {
  watcher.state = State::kCreating;
  creating_.push_back(handle);
  etcdserverpb::WatchRequest request;
  etcdserverpb::WatchCreateRequest& create = *request.mutable_create_request();
  create.set_key(watcher.range.key);
  create.set_range_end(watcher.range.end);
  create.set_start_revision(watcher.next_revision);
  create.set_prev_kv(watcher.options.prev_kv);
  create.set_progress_notify(true);
  create.set_fragment(true);
  if (watcher.options.no_puts) create.add_filters(etcdserverpb::WatchCreateRequest::NOPUT);
  if (watcher.options.no_deletes) create.add_filters(etcdserverpb::WatchCreateRequest::NODELETE);
  stream_.Send(request.SerializeAsString());
  if (creating_.size() == 1) ArmSilenceTimer();
}

void WatchMux::SendCancel(int64_t server_id) {
  etcdserverpb::WatchRequest request;
  request.mutable_cancel_request()->set_watch_id(server_id);
  if (stream_.open()) stream_.Send(request.SerializeAsString());
}

void WatchMux::OnStreamMessage(std::string_view message) {
  unheard_streams_ = 0;
  asked_progress_ = false;
  Handle(message);
  if (stream_.open()) ArmSilenceTimer();
}

void WatchMux::Handle(std::string_view message) {
  etcdserverpb::WatchResponse response;
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return stream_.Abandon();
  }
  if (response.created()) return OnCreated(response);
  auto found = by_server_id_.find(response.watch_id());
  if (found == by_server_id_.end()) return;  // removed meanwhile, or an answer for the whole stream
  const WatchHandle handle = found->second;
  if (response.canceled()) {
    by_server_id_.erase(found);
    return OnCancelled(response, handle);
  }
  OnEvents(response, handle);
}

void WatchMux::OnCreated(const etcdserverpb::WatchResponse& response) {
  if (creating_.empty()) return stream_.Abandon();  // not an answer to anything we asked
  const WatchHandle handle = creating_.front();
  creating_.pop_front();
  auto found = watches_.find(handle);
  if (found == watches_.end()) {
    if (!response.canceled()) SendCancel(response.watch_id());
    return;
  }
  if (response.canceled()) return OnCancelled(response, handle);
  Watcher& watcher = found->second;
  watcher.state = State::kActive;
  watcher.server_id = response.watch_id();
  by_server_id_[watcher.server_id] = handle;
  if (watcher.next_revision == 0) watcher.next_revision = response.header().revision() + 1;
  SetConnected(handle, watcher, true);
}

void WatchMux::OnCancelled(const etcdserverpb::WatchResponse& response, WatchHandle handle) {
  auto found = watches_.find(handle);
  if (found == watches_.end()) return;
  Watcher& watcher = found->second;
  watcher.fragments.clear();
  if (response.compact_revision() > 0) {
    watcher.must_be_linearizable = true;
    return List(handle, watcher);
  }
  const absl::Status status = StatusOfServerText(response.cancel_reason());
  if (response.cancel_reason().empty() || IsRetryable(status)) {
    watcher.state = State::kUncreated;
    return stream_.Abandon();  // this member will not serve it; another one will
  }
  End(handle, status);
}

void WatchMux::OnEvents(etcdserverpb::WatchResponse& response, WatchHandle handle) {
  Watcher& watcher = watches_.at(handle);
  if (response.events().empty() && !response.fragment() && watcher.fragments.empty()) {
    // The server says that nothing happened up to its revision.
    watcher.next_revision = std::max(watcher.next_revision, response.header().revision() + 1);
    if (watcher.options.report_progress) {
      Deliver(handle, {.revision = watcher.next_revision - 1});
    }
    return;
  }
  for (mvccpb::Event& event : *response.mutable_events()) {
    if (event.kv().mod_revision() < watcher.next_revision) continue;  // was delivered before
    watcher.fragments.push_back(FromProto(event));
  }
  if (response.fragment() || watcher.fragments.empty()) return;
  WatchBatch batch{.events = std::move(watcher.fragments)};
  watcher.fragments.clear();
  batch.revision = batch.events.back().kv.mod_revision;
  watcher.next_revision = batch.revision + 1;
  Deliver(handle, std::move(batch));
}

// ---- Delivery
// --------------------------------------------------------------------------------------

void WatchMux::Deliver(WatchHandle handle, WatchBatch batch) {
  engine_.Defer([this, handle, batch = std::move(batch)]() mutable {
    auto found = watches_.find(handle);
    if (found == watches_.end()) return;
    // The callback may remove its own watch: it stands outside the map while it runs.
    Callback callback = std::move(found->second.callback);
    const bool ended = !batch.status.ok();
    callback(std::move(batch));
    found = watches_.find(handle);
    if (found == watches_.end()) return;
    found->second.callback = std::move(callback);
    if (ended) Remove(handle);
  });
}

void WatchMux::SetConnected(WatchHandle handle, Watcher& watcher, bool connected) {
  if (watcher.connected == connected) return;
  watcher.connected = connected;
  if (!watcher.options.report_connection) return;
  Deliver(handle,
          {.revision = std::max<int64_t>(0, watcher.next_revision - 1), .connected = connected});
}

void WatchMux::End(WatchHandle handle, const absl::Status& status) {
  watches_.at(handle).state = State::kListing;  // nothing more is asked for it
  Deliver(handle, {.status = status});
}

// ---- Silence
// ---------------------------------------------------------------------------------------

void WatchMux::ArmSilenceTimer() {
  engine_.CancelTimer(silence_);
  if (paused_ || watches_.empty()) return;
  const EngineOptions& options = engine_.options();
  Duration patience = options.watch_silence;
  if (asked_progress_) {
    patience = options.watch_answer_timeout;
  } else if (!creating_.empty()) {
    patience = std::min(
        options.watch_answer_timeout,
        options.attempt_timeout * (1 << std::min(unheard_streams_, kPatienceDoublingsMax)));
  }
  silence_ = engine_.After(patience, [this] { OnSilence(); });
}

void WatchMux::OnSilence() {
  if (!stream_.open()) return;
  if (asked_progress_ || !creating_.empty()) return stream_.Abandon();
  etcdserverpb::WatchRequest request;
  request.mutable_progress_request();
  stream_.Send(request.SerializeAsString());
  asked_progress_ = true;
  ArmSilenceTimer();
}

}  // namespace conclave
