#include "conclave/client/core/watch_mux.h"

#include <algorithm>
#include <string>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/convert.h"
#include "conclave/client/core/error.h"
#include "conclave/client/core/token_keeper.h"
#include "conclave/client/core/validate.h"

namespace conclave {
namespace {

constexpr std::string_view kMethod = "/etcdserverpb.Watch/Watch";
constexpr Duration kListTimeout = std::chrono::seconds(10);  // of a page
constexpr int64_t kListPage = 1000;                          // keys
constexpr Duration kListRetryBase = std::chrono::milliseconds(50);
constexpr Duration kListRetryCap = std::chrono::seconds(2);
constexpr int kPatienceDoublingsMax = 6;
// Of one revision that comes in fragments. A transaction has far fewer operations.
constexpr int kTokenRefusalsMax = 3;  // of one watch in a row
constexpr size_t kFragmentEventsMax = 1'000'000;

bool IsRevision(int64_t revision) { return revision > 0 && revision <= kRevisionMax; }

}  // namespace

WatchMux::WatchMux(Engine& engine) : engine_(engine), stream_(engine, kMethod, *this) {}

WatchMux::~WatchMux() = default;

WatchHandle WatchMux::Add(const KeyRange& range, const WatchOptions& options, Callback callback,
                          std::shared_ptr<WatchVitals> vitals) {
  const WatchHandle handle = next_handle_++;
  Watcher& watcher = watches_[handle];
  watcher.range = range;
  watcher.options = options;
  watcher.callback = std::move(callback);
  watcher.next_revision = options.list_first ? 0 : options.from_revision;
  watcher.vitals = vitals != nullptr ? std::move(vitals) : std::make_shared<WatchVitals>();
  if (engine_.observer() != nullptr) engine_.observer()->OnWatches(watches_.size());
  absl::Status bad = Validate(range);
  if (bad.ok() && options.from_revision < 0) bad = InvalidRequest("from_revision is negative");
  if (!bad.ok()) {
    End(handle, bad);
    return handle;
  }
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
  if (engine_.observer() != nullptr) engine_.observer()->OnWatches(watches_.size());
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

std::optional<int64_t> WatchMux::SlowestReceived() const {
  std::optional<int64_t> slowest;
  for (const auto& [handle, watcher] : watches_) {
    const int64_t received = watcher.vitals->received;
    slowest = std::min(slowest.value_or(received), received);
  }
  return slowest;
}

// ---- Listing
// ---------------------------------------------------------------------------------------

// Begins anew: a list that was begun is dropped.
void WatchMux::List(WatchHandle handle, Watcher& watcher) {
  watcher.listed.clear();
  watcher.pages.emplace(watcher.range,
                        PagesOptions{.page_size = kListPage,
                                     .serializable = watcher.options.serializable_list &&
                                                     !watcher.must_be_linearizable});
  AskForPage(handle, watcher);
}

void WatchMux::AskForPage(WatchHandle handle, Watcher& watcher) {
  watcher.state = State::kListing;
  absl::StatusOr<RangeRequest> request = watcher.pages->Request();
  CONCLAVE_CHECK(request.ok());
  watcher.list = calls::Range(
      engine_, *request, engine_.now() + kListTimeout,
      [this, handle](absl::StatusOr<RangeResult> result) { OnPage(handle, std::move(result)); });
}

void WatchMux::AskLater(WatchHandle handle, Watcher& watcher) {
  watcher.state = State::kListing;
  const Duration delay =
      FullJitter(watcher.list_failures++, kListRetryBase, kListRetryCap, engine_.prng());
  watcher.list_again = engine_.After(delay, [this, handle] {
    auto again = watches_.find(handle);
    if (again == watches_.end()) return;
    Watcher& watcher = again->second;
    if (!watcher.pages.has_value()) return List(handle, watcher);
    AskForPage(handle, watcher);
  });
}

void WatchMux::ListLater(WatchHandle handle, Watcher& watcher) {
  watcher.pages.reset();
  watcher.listed.clear();
  AskLater(handle, watcher);
}

void WatchMux::OnPage(WatchHandle handle, absl::StatusOr<RangeResult> result) {
  auto found = watches_.find(handle);
  if (found == watches_.end()) return;
  Watcher& watcher = found->second;
  watcher.list = 0;
  const int64_t revision = result.ok() ? result->revision : 0;
  if (result.ok() && !IsRevision(revision)) {
    engine_.OnNonsense("list without a revision", std::to_string(revision));
    return ListLater(handle, watcher);
  }
  absl::StatusOr<std::optional<Page>> page = watcher.pages->Accept(std::move(result));
  if (IsCompacted(page.status())) return ListLater(handle, watcher);
  if (!page.ok()) {
    if (revision != 0) {
      engine_.OnNonsense("page that goes back", std::string(page.status().message()));
      return ListLater(handle, watcher);
    }
    if (!IsRetryable(page.status())) return End(handle, page.status());
    SetConnected(handle, watcher, false);
    return AskLater(handle, watcher);
  }
  if (page->has_value()) {
    for (KeyValue& kv : (*page)->kvs) {
      if (watcher.range.Contains(kv.key)) {
        watcher.listed.push_back(std::move(kv));
      } else {
        engine_.OnNonsense("key outside the range", kv.key);
      }
    }
  }
  if (watcher.pages->revision() != 0 && watcher.pages->revision() + 1 < watcher.next_revision) {
    REACHED("client: a member lags behind what was delivered");
    // A member that lags behind what was delivered: its state would turn time back.
    const bool asked_the_quorum = std::exchange(watcher.must_be_linearizable, true);
    if (!asked_the_quorum && watcher.options.serializable_list) return List(handle, watcher);
    engine_.OnNonsense("store that went back", std::to_string(watcher.pages->revision()));
    return ListLater(handle, watcher);
  }
  if (!watcher.pages->done()) return AskForPage(handle, watcher);
  OnListed(handle, watcher);
}

void WatchMux::OnListed(WatchHandle handle, Watcher& watcher) {
  WatchBatch batch{.revision = watcher.pages->revision(),
                   .resynced = true,
                   .state = std::exchange(watcher.listed, {})};
  watcher.pages.reset();
  watcher.must_be_linearizable = true;
  MoveTo(watcher, batch.revision + 1);
  watcher.state = State::kUncreated;
  watcher.connected = true;
  if (stream_.open()) Create(handle, watcher);
  if (engine_.observer() != nullptr) engine_.observer()->OnResync();
  if (watcher.options.diff_on_resync) batch.events = Difference(watcher, batch);
  Deliver(handle, std::move(batch));
}

// ---- The difference to what was delivered
// ----------------------------------------------------------

std::vector<WatchEvent> WatchMux::Difference(Watcher& watcher, const WatchBatch& resynced) const {
  const WatchOptions& options = watcher.options;
  std::map<std::string, KeyValue> before = std::move(watcher.delivered);
  watcher.delivered.clear();
  std::vector<WatchEvent> events;
  for (const KeyValue& kv : resynced.state) {
    auto known = before.find(kv.key);
    const bool changed = known == before.end() || known->second.mod_revision != kv.mod_revision;
    if (changed && !options.no_puts) {
      WatchEvent& event = events.emplace_back(WatchEvent{.kv = kv});
      if (options.prev_kv && known != before.end()) event.prev_kv = std::move(known->second);
    }
    if (known != before.end()) before.erase(known);
    KeyValue& now = watcher.delivered[kv.key] = kv;
    if (!options.prev_kv) now.value.clear();
  }
  // In the order of their revisions, as events come.
  std::stable_sort(events.begin(), events.end(), [](const WatchEvent& a, const WatchEvent& b) {
    return a.kv.mod_revision < b.kv.mod_revision;
  });
  if (options.no_deletes) return events;
  for (auto& [key, kv] : before) {
    WatchEvent& event = events.emplace_back(WatchEvent{.type = WatchEvent::Type::kDelete});
    event.kv.key = key;
    event.kv.mod_revision = resynced.revision;
    if (options.prev_kv) event.prev_kv = std::move(kv);
  }
  return events;
}

void WatchMux::NoteDelivered(Watcher& watcher, const WatchBatch& batch) {
  if (!watcher.options.diff_on_resync) return;
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kDelete) {
      watcher.delivered.erase(event.kv.key);
      continue;
    }
    KeyValue& now = watcher.delivered[event.kv.key] = event.kv;
    if (!watcher.options.prev_kv) now.value.clear();
  }
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
    REACHED("client: a watch loses its stream");
    if (!MUTANT("watch-ends-with-its-stream")) watcher.state = State::kUncreated;
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
  const NameSpace& space = engine_.options().name_space;
  create.set_key(space.Key(watcher.range.key));
  create.set_range_end(space.End(watcher.range.end));
  create.set_start_revision(
      watcher.next_revision +
      (MUTANT("resumed-watch-skips-a-revision") && watcher.next_revision > 0 ? 1 : 0));
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
  engine_.options().vitals->watch_heard = engine_.now();
  Handle(message);
  if (stream_.open()) ArmSilenceTimer();
}

void WatchMux::Handle(std::string_view message) {
  etcdserverpb::WatchResponse response;
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return Confuse("undecodable message", kMethod);
  }
  engine_.OnRevision(response.header().revision());
  if (response.created()) return OnCreated(response);
  auto found = by_server_id_.find(response.watch_id());
  // Removed meanwhile, or an answer for the whole stream.
  if (found == by_server_id_.end()) return;
  const WatchHandle handle = found->second;
  if (response.canceled()) {
    by_server_id_.erase(found);
    return OnCancelled(response, handle);
  }
  OnEvents(response, handle);
}

// Nothing this stream says can be trusted any more: the watches begin again on another one.
void WatchMux::Confuse(std::string_view what, std::string_view detail) {
  engine_.OnNonsense(what, detail);
  stream_.Abandon();
}

void WatchMux::MoveTo(Watcher& watcher, int64_t next_revision) {
  watcher.next_revision = std::max(watcher.next_revision, next_revision);
  watcher.vitals->received = watcher.next_revision - 1;
}

void WatchMux::OnCreated(const etcdserverpb::WatchResponse& response) {
  if (creating_.empty()) return Confuse("watch that nobody asked for", "created");
  const WatchHandle handle = creating_.front();
  creating_.pop_front();
  auto found = watches_.find(handle);
  if (found == watches_.end()) {
    REACHED("client: a watch is gone before it is created");
    if (!response.canceled()) SendCancel(response.watch_id());
    return;
  }
  if (response.canceled()) return OnCancelled(response, handle);
  Watcher& watcher = found->second;
  if (!by_server_id_.emplace(response.watch_id(), handle).second) {
    return Confuse("watch id given twice", std::to_string(response.watch_id()));
  }
  if (watcher.next_revision == 0 && !IsRevision(response.header().revision())) {
    return Confuse("watch without a revision", std::to_string(response.header().revision()));
  }
  watcher.token_refusals = 0;
  watcher.state = State::kActive;
  watcher.server_id = response.watch_id();
  if (watcher.next_revision == 0) MoveTo(watcher, response.header().revision() + 1);
  SetConnected(handle, watcher, true);
}

void WatchMux::OnCancelled(const etcdserverpb::WatchResponse& response, WatchHandle handle) {
  auto found = watches_.find(handle);
  if (found == watches_.end()) return;
  Watcher& watcher = found->second;
  watcher.fragments.clear();
  watcher.state = State::kUncreated;
  if (response.compact_revision() > 0) {
    REACHED("client: a watch was compacted");
    if (MUTANT("watch-ends-with-compaction")) return;
    watcher.must_be_linearizable = true;
    // A list that led nowhere, if it was one of a row: not in a hot loop.
    return watcher.list_failures++ == 0 ? List(handle, watcher) : ListLater(handle, watcher);
  }
  const absl::Status status = StatusOfServerText(response.cancel_reason());
  // etcd before 3.5 calls it a denied permission, whatever is wrong with the token.
  if (engine_.tokens() != nullptr && watcher.token_refusals < kTokenRefusalsMax &&
      (TokenKeeper::IsTokenError(response.cancel_reason()) ||
       (status.code() == absl::StatusCode::kPermissionDenied && watcher.token_refusals == 0))) {
    ++watcher.token_refusals;
    return stream_.RenewToken();
  }
  if (response.cancel_reason().empty() || IsRetryable(status)) {
    return stream_.Abandon();  // this member will not serve it; another one will
  }
  End(handle, status);
}

void WatchMux::OnEvents(etcdserverpb::WatchResponse& response, WatchHandle handle) {
  Watcher& watcher = watches_.at(handle);
  if (response.events().empty() && !response.fragment() && watcher.fragments.empty()) {
    // The server says that nothing happened up to its revision.
    if (!IsRevision(response.header().revision())) return;
    watcher.list_failures = 0;
    MoveTo(watcher, response.header().revision() + 1);
    if (watcher.options.report_progress) {
      Deliver(handle, {.revision = watcher.next_revision - 1});
    }
    return;
  }
  if (!TakeEvents(response, watcher)) return;
  if (response.fragment() || watcher.fragments.empty()) return;
  WatchBatch batch{.events = std::move(watcher.fragments)};
  watcher.fragments.clear();
  batch.revision = batch.events.back().kv.mod_revision;
  watcher.list_failures = 0;
  MoveTo(watcher, batch.revision + 1);
  NoteDelivered(watcher, batch);
  if (engine_.observer() != nullptr) engine_.observer()->OnEvents(batch.events.size());
  Deliver(handle, std::move(batch));
}

// False: the stream was left.
bool WatchMux::TakeEvents(etcdserverpb::WatchResponse& response, Watcher& watcher) {
  for (mvccpb::Event& event : *response.mutable_events()) {
    const int64_t revision = event.kv().mod_revision();
    if (revision < watcher.next_revision) {
      REACHED("client: an event was delivered before");
      continue;
    }
    if (!IsRevision(revision) ||
        (!watcher.fragments.empty() && revision < watcher.fragments.back().kv.mod_revision)) {
      Confuse("revisions that go back", std::to_string(revision));
      return false;
    }
    std::optional<WatchEvent> own = FromProto(event, engine_.options().name_space);
    if (!own.has_value() || !watcher.range.Contains(own->kv.key)) {
      engine_.OnNonsense("event outside the range", event.kv().key());
      continue;
    }
    watcher.fragments.push_back(*std::move(own));
  }
  if (watcher.fragments.size() <= kFragmentEventsMax) return true;
  Confuse("fragments without end", std::to_string(watcher.fragments.size()));
  return false;
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
  watcher.vitals->connected = connected;
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
  if (asked_progress_ || !creating_.empty()) {
    REACHED("client: a stream of watches is silent");
    return stream_.Abandon();
  }
  etcdserverpb::WatchRequest request;
  request.mutable_progress_request();
  stream_.Send(request.SerializeAsString());
  asked_progress_ = true;
  ArmSilenceTimer();
}

}  // namespace conclave
