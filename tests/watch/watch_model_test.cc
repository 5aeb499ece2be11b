// Random watchers on random slow streams while the store is written to, compacted and replaced by
// snapshots. What every watcher has received must be exactly what the history says it should: in
// order, each event once, none missing, until it is told that it was cancelled. Every failure names
// its seed.

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <set>

#include "conclave/base/prng.h"
#include "conclave/server/mvcc/snapshot_cursor.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/watch/watch_hub.h"
#include "conclave/tests/mvcc/model.h"

namespace conclave::watch {
namespace {

using mvcc::KeyRange;
using mvcc::Model;
using mvcc::ModelRecord;
using mvcc::Store;

struct ClientWatcher {
  CreateRequest request;
  int64_t start = 0;
  bool created = false;
  bool canceled = false;
  bool in_fragments = false;
  int64_t heard_revision = 0;  // of the last response with events
  std::vector<ModelRecord> received;
};

struct ClientStream {
  std::deque<WatchResponse> in_flight;  // handed out, not read yet
  std::map<WatchId, ClientWatcher> watchers;
  std::vector<ClientWatcher> past;     // cancelled
  std::deque<CreateRequest> awaiting;  // creations, in order
  int progress_asked = 0;
  int progress_answered = 0;
};

class World {
 public:
  explicit World(uint64_t seed)
      : prng_(seed), store_(new Store), hub_(new WatchHub(store_.get(), Options())) {
    for (int i = 0; i < 12; ++i) keys_.push_back(std::string(1, static_cast<char>('a' + i)));
  }

  void Step() {
    now_ += std::chrono::milliseconds(prng_.Below(50));
    // A turn: some requests, some commands, then the hub.
    for (uint64_t n = prng_.Below(3); n > 0; --n) Request();
    for (uint64_t n = prng_.Below(4); n > 0; --n) Command();
    for (uint64_t n = prng_.Below(2); n > 0; --n) Request();
    store_->CompactSlice(prng_.Below(30));
    if (prng_.Chance(1, 4)) hub_->CatchUp(prng_.Below(40));  // with the hub behind the store
    hub_->Notify();
    if (prng_.Chance(1, 3)) hub_->CatchUp(prng_.Below(40));
    hub_->Tick(now_);
    hub_->CheckInvariants();
    Collect();
    Read();
    if (prng_.Chance(1, 100)) Reinstall();
  }

  // Everything is read, everybody catches up: then nothing may be missing.
  void Finish() {
    hub_->Notify();
    for (int idle = 0; idle < 2;) {
      const bool more = hub_->CatchUp(50);
      Collect();
      bool read = false;
      for (auto& [id, stream] : streams_) {
        while (!stream.in_flight.empty()) {
          ReadOne(id, &stream);
          read = true;
        }
      }
      hub_->CheckInvariants();
      idle = more || read ? 0 : idle + 1;
    }
    ASSERT_EQ(hub_->sizes().lagging, 0u);
    ASSERT_EQ(hub_->sizes().waiting_streams, 0u);
    for (const auto& [id, stream] : streams_) {
      for (const auto& [watch_id, watcher] : stream.watchers) {
        ASSERT_TRUE(watcher.created);
        ASSERT_FALSE(watcher.in_fragments);
        ASSERT_EQ(watcher.received, Expected(watcher, model_.current)) << "watcher " << watch_id;
      }
      for (const auto& watcher : stream.past) CheckPrefix(watcher);
      ASSERT_TRUE(stream.awaiting.empty());
      // Requests that come before the answer to another are one.
      ASSERT_TRUE(stream.progress_asked == 0 || stream.progress_answered > 0 ||
                  HasFutureWatcher(stream));
    }
  }

 private:
  static WatchOptions Options() {
    WatchOptions options;
    options.stream_bytes_max = 1500;
    options.response_overhead_bytes = 20;
    options.fragment_bytes = 100;
    options.batch_revisions_max = 7;
    options.batch_bytes_max = 400;
    options.batch_records_max = 30;
    options.progress_interval = std::chrono::seconds(1);
    return options;
  }

  const std::string& AnyKey() { return keys_[prng_.Below(keys_.size())]; }

  std::vector<ModelRecord> Expected(const ClientWatcher& watcher, int64_t until) const {
    std::vector<ModelRecord> expected;
    const std::string key =
        watcher.request.key.empty() ? std::string(1, '\0') : watcher.request.key;
    const KeyRange range = KeyRange::FromRequest(key, watcher.request.range_end);
    for (const ModelRecord& record : model_.log) {
      if (record.revision.main < watcher.start || record.revision.main > until) continue;
      if (!range.Contains(record.key)) continue;
      if (record.tombstone ? watcher.request.no_delete : watcher.request.no_put) continue;
      expected.push_back(record);
    }
    return expected;
  }

  // Whole revisions, from the start on, without a hole.
  void CheckPrefix(const ClientWatcher& watcher) const {
    const int64_t until = watcher.received.empty() ? 0 : watcher.received.back().revision.main;
    ASSERT_EQ(watcher.received, Expected(watcher, until));
  }

  bool HasFutureWatcher(const ClientStream& stream) const {
    for (const auto& [id, watcher] : stream.watchers) {
      if (watcher.start > model_.current + 1) return true;
    }
    return false;
  }

  // --- Requests ---

  void Request() {
    if (streams_.size() < 4 && prng_.Chance(1, 5)) {
      hub_->OpenStream(next_stream_);
      streams_[next_stream_++];
      return;
    }
    if (streams_.empty()) return;
    auto stream = streams_.lower_bound(prng_.Below(next_stream_));
    if (stream == streams_.end()) stream = streams_.begin();
    switch (prng_.Below(12)) {
      case 0: {
        hub_->Cancel(stream->first, static_cast<WatchId>(prng_.Below(8)));
        break;
      }
      case 1:
        hub_->RequestProgress(stream->first);
        ++stream->second.progress_asked;
        break;
      case 2:
        if (prng_.Chance(1, 10)) {
          hub_->CloseStream(stream->first);
          streams_.erase(stream);
        }
        break;
      default:
        if (stream->second.watchers.size() < 6) Create(stream->first, &stream->second);
    }
  }

  void Create(StreamId id, ClientStream* stream) {
    CreateRequest request;
    request.key = prng_.Chance(1, 10) ? "" : AnyKey();
    switch (prng_.Below(4)) {
      case 0:
        request.range_end = std::string(1, '\0');
        break;
      case 1:
        request.range_end = AnyKey();
        break;
      default:
        break;
    }
    if (prng_.Chance(1, 2)) {
      request.start_revision =
          prng_.Between(std::max<int64_t>(-1, model_.current - 60), model_.current + 8);
    }
    if (prng_.Chance(1, 4)) request.watch_id = prng_.Between(1, 6);
    request.no_put = prng_.Chance(1, 8);
    request.no_delete = prng_.Chance(1, 8);
    request.prev_kv = prng_.Chance(1, 3);
    request.progress_notify = prng_.Chance(1, 3);
    request.fragment = prng_.Chance(1, 3);
    hub_->Create(id, request, now_);
    CreateRequest sent = request;
    // What "from now on" means is decided when the request is taken.
    if (request.start_revision == 0) sent.start_revision = model_.current + 1;
    stream->awaiting.push_back(sent);
  }

  // --- Commands ---

  void Command() {
    if (prng_.Chance(1, 25)) {
      const int64_t revision = prng_.Between(model_.compacted + 1, model_.current);
      if (revision > model_.compacted && revision <= model_.current) {
        ASSERT_TRUE(store_->Compact(revision).ok());
        model_.compacted = revision;
      }
      return;
    }
    mvcc::WriteTxn txn = store_->Begin();
    const int64_t main = model_.current + 1;
    int64_t sub = 0;
    for (uint64_t ops = prng_.Between(1, 4); ops > 0; --ops) {
      const std::string& key = AnyKey();
      if (prng_.Chance(2, 3)) {
        const std::string value(prng_.Below(40), 'v');
        txn.Put(key, value, 0);
        model_.Put({main, sub++}, key, value, 0);
      } else {
        const KeyRange range = KeyRange::Between(key, AnyKey());
        for (const mvcc::RecordRef& record : txn.DeleteRange(range)) {
          ASSERT_TRUE(model_.Delete({main, sub++}, std::string(record->key())));
        }
      }
    }
    if (sub > 0) model_.current = main;
    ASSERT_EQ(txn.Commit(), model_.current);
  }

  void Reinstall() {
    mvcc::SnapshotCursor cursor(store_.get());
    mvcc::StoreBuilder builder(cursor.image());
    while (const mvcc::RecordRef record = cursor.Next()) {
      ASSERT_TRUE(builder.Add(ModelRecord::Of(*record).Fields()).ok());
    }
    // The member was away: its new state has revisions that the hub has not seen.
    std::unique_ptr<Store> rebuilt = *builder.Finish();
    cursor = mvcc::SnapshotCursor(rebuilt.get());
    store_ = std::move(rebuilt);
    for (uint64_t n = prng_.Below(5); n > 0; --n) Command();
    hub_->Restore(store_.get());
    hub_->CheckInvariants();
  }

  // --- Answers ---

  void Collect() {
    hub_->TakeOutput(&output_);
    for (StreamOutput& output : output_) {
      ClientStream& stream = streams_.at(output.stream);
      for (WatchResponse& response : output.responses) {
        stream.in_flight.push_back(std::move(response));
      }
    }
    // Memory is bounded: the limit, and what one batch may have beyond it.
    for (const auto& [id, stream] : streams_) {
      size_t bytes = 0;
      for (const WatchResponse& response : stream.in_flight) {
        if (response.events != nullptr) bytes += response.charge;
      }
      ASSERT_LT(bytes, 1500u + 3000u);
    }
  }

  void Read() {
    for (auto& [id, stream] : streams_) {
      if (prng_.Chance(1, 2)) continue;
      for (uint64_t n = prng_.Below(id % 2 == 0 ? 3 : 20); n > 0 && !stream.in_flight.empty();
           --n) {
        ReadOne(id, &stream);
      }
    }
  }

  void ReadOne(StreamId id, ClientStream* stream) {
    const WatchResponse response = std::move(stream->in_flight.front());
    stream->in_flight.pop_front();
    hub_->Written(id, response.charge);
    if (response.created) return OnCreated(response, stream);
    if (response.watch_id == kNoWatch) return OnStreamProgress(response, stream);
    const auto found = stream->watchers.find(response.watch_id);
    ASSERT_NE(found, stream->watchers.end()) << "nothing may come behind the cancellation";
    ClientWatcher& watcher = found->second;
    if (response.canceled) {
      if (response.compact_revision != 0) {
        ASSERT_EQ(response.header_revision, 0);
        ASSERT_EQ(response.cancel_reason, "");
        ASSERT_LE(response.compact_revision, model_.compacted);
        const int64_t heard = std::max(watcher.start - 1, watcher.heard_revision);
        ASSERT_LT(heard + 1, response.compact_revision) << "cancelled without need";
      }
      stream->past.push_back(std::move(watcher));
      stream->watchers.erase(found);
    } else if (response.events == nullptr) {
      ASSERT_TRUE(watcher.request.progress_notify);
      CheckComplete(watcher, response.header_revision);
    } else {
      OnEvents(response, &watcher);
    }
  }

  void OnCreated(const WatchResponse& response, ClientStream* stream) {
    ASSERT_FALSE(stream->awaiting.empty());
    const CreateRequest request = stream->awaiting.front();
    stream->awaiting.pop_front();
    ASSERT_GE(response.header_revision, 1);
    const std::string key = request.key.empty() ? std::string(1, '\0') : request.key;
    if (response.canceled) {
      ASSERT_EQ(response.watch_id, kNoWatch);
      ASSERT_EQ(response.compact_revision, 0);
      if (request.start_revision < 0) {
        ASSERT_EQ(response.cancel_reason, mvcc::kCompactedText);
      } else if (KeyRange::FromRequest(key, request.range_end).empty()) {
        ASSERT_EQ(response.cancel_reason, kEmptyRangeText);
      } else {
        ASSERT_EQ(response.cancel_reason, kDuplicateWatchIdText);
        ASSERT_NE(request.watch_id, 0);
      }
      return;
    }
    if (request.watch_id != 0) {
      ASSERT_EQ(response.watch_id, request.watch_id);
    }
    ASSERT_FALSE(stream->watchers.contains(response.watch_id));
    ClientWatcher& watcher = stream->watchers[response.watch_id];
    watcher.request = request;
    watcher.start = request.start_revision;
    watcher.created = true;
  }

  void OnEvents(const WatchResponse& response, ClientWatcher* watcher) {
    const EventBatch& batch = *response.events;
    ASSERT_TRUE(watcher->created);
    ASSERT_GE(response.header_revision, batch.last_revision());
    if (watcher->in_fragments) {
      ASSERT_GE(batch.first_revision(), watcher->heard_revision);
    } else {
      ASSERT_GT(batch.first_revision(), watcher->heard_revision) << "a revision in two responses";
    }
    ASSERT_TRUE(!response.fragment || watcher->request.fragment);
    if (watcher->request.fragment && batch.events().size() > 1) {
      ASSERT_LE(batch.encoded_size(), 100u);
    }
    watcher->in_fragments = response.fragment;
    watcher->heard_revision = batch.last_revision();
    ASSERT_EQ(batch.Encoded().size(), batch.encoded_size());
    for (const Event& event : batch.events()) {
      watcher->received.push_back(ModelRecord::Of(*event.record));
      ASSERT_EQ(event.is_delete(), event.record->tombstone());
      CheckPrevious(event, *watcher);
    }
    CheckPrefixSoFar(*watcher);
  }

  void CheckPrefixSoFar(const ClientWatcher& watcher) {
    if (watcher.in_fragments) return;
    CheckPrefix(watcher);
  }

  void CheckPrevious(const Event& event, const ClientWatcher& watcher) {
    const int64_t before = event.record->mod_revision() - 1;
    const ModelRecord* expected =
        watcher.request.prev_kv ? model_.Get(std::string(event.record->key()), before) : nullptr;
    if (event.record->creation()) expected = nullptr;
    if (event.previous) {
      ASSERT_NE(expected, nullptr);
      ASSERT_EQ(ModelRecord::Of(*event.previous), *expected);
    } else if (expected != nullptr) {
      ASSERT_LT(before, model_.compacted) << "prev_kv is missing, and not compacted";
    }
  }

  // Everything up to `revision` has been heard: what a progress response promises.
  void CheckComplete(const ClientWatcher& watcher, int64_t revision) {
    ASSERT_GE(revision + 1, watcher.start);
    ASSERT_FALSE(watcher.in_fragments);
    std::vector<ModelRecord> heard;
    for (const ModelRecord& record : watcher.received) {
      ASSERT_LE(record.revision.main, revision) << "progress came behind later events";
      heard.push_back(record);
    }
    ASSERT_EQ(heard, Expected(watcher, revision));
  }

  void OnStreamProgress(const WatchResponse& response, ClientStream* stream) {
    ASSERT_LE(++stream->progress_answered, stream->progress_asked);
    for (const auto& [id, watcher] : stream->watchers) {
      CheckComplete(watcher, response.header_revision);
    }
  }

  Prng prng_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<WatchHub> hub_;
  Model model_;
  std::vector<std::string> keys_;
  Instant now_{std::chrono::seconds(1)};
  std::map<StreamId, ClientStream> streams_;
  StreamId next_stream_ = 1;
  std::vector<StreamOutput> output_;
};

TEST(WatchModel, EveryWatcherHearsItsHistoryInOrderOnceAndWhole) {
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed);
    for (int i = 0; i < 400 && !HasFatalFailure(); ++i) world.Step();
    if (!HasFatalFailure()) world.Finish();
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace conclave::watch
