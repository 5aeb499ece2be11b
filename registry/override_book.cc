#include "conclave/registry/override_book.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

// A watch that the server refused is asked for again: rights come and go.
constexpr Duration kWatchAgain = std::chrono::seconds(30);

}  // namespace

OverrideBook::OverrideBook(Engine& engine, std::string prefix,
                           std::function<void(const std::string&)> complain)
    : engine_(engine), prefix_(std::move(prefix)), complain_(std::move(complain)) {}

uint64_t OverrideBook::Subscribe(const std::string& service, const std::string& id,
                                 const std::string& address, Callback callback) {
  const uint64_t subscriber = next_++;
  subscribers_.emplace(
      subscriber,
      Subscriber{
          .service = service, .id = id, .address = address, .callback = std::move(callback)});
  Feed& feed = feeds_[service];
  if (feed.subscribers++ == 0) Watch(service);
  if (feed.known) TellLater(subscriber);
  return subscriber;
}

void OverrideBook::Unsubscribe(uint64_t subscriber) {
  auto found = subscribers_.find(subscriber);
  if (found == subscribers_.end()) return;
  auto feed = feeds_.find(found->second.service);
  subscribers_.erase(found);
  if (--feed->second.subscribers > 0) return;
  engine_.watches().Remove(feed->second.watch);
  engine_.CancelTimer(feed->second.again);
  feeds_.erase(feed);
}

void OverrideBook::Watch(const std::string& service) {
  feeds_[service].watch =
      engine_.watches().Add(Prefix(OverrideKey(prefix_, service, "")), {.list_first = true},
                            [weak = weak_from_this(), service](const WatchBatch& batch) {
                              if (std::shared_ptr<OverrideBook> self = weak.lock())
                                self->OnBatch(service, batch);
                            });
}

// The id or address that a key is about; empty for those of a service deeper in the tree.
std::string OverrideBook::NameIn(const std::string& service, const std::string& key) const {
  const std::string before = OverrideKey(prefix_, service, "");
  const std::string name = absl::StartsWith(key, before) ? key.substr(before.size()) : "";
  return absl::StrContains(name, "/") ? "" : name;
}

void OverrideBook::Take(const std::string& service, Feed& feed, const KeyValue& kv) {
  const std::string name = NameIn(service, kv.key);
  if (name.empty()) return;
  absl::StatusOr<Override> value = ParseOverride(kv.value);
  if (value.ok()) {
    feed.overrides[name] = *value;
  } else {
    feed.overrides.erase(name);
    complain_(absl::StrCat(kv.key, ": ", value.status().message()));
  }
}

void OverrideBook::OnBatch(const std::string& service, const WatchBatch& batch) {
  auto found = feeds_.find(service);
  if (found == feeds_.end()) return;
  Feed& feed = found->second;
  if (!batch.status.ok()) {
    // Registering does not hang on the right to read overrides.
    complain_(absl::StrCat("no overrides for ", service, ": ", batch.status.ToString()));
    engine_.watches().Remove(feed.watch);
    feed.watch = 0;
    feed.again = engine_.After(kWatchAgain, [weak = weak_from_this(), service] {
      std::shared_ptr<OverrideBook> self = weak.lock();
      if (self != nullptr && self->feeds_.contains(service)) self->Watch(service);
    });
  }
  if (batch.resynced) {
    feed.overrides.clear();
    for (const KeyValue& kv : batch.state) Take(service, feed, kv);
  }
  for (const WatchEvent& event : batch.events) {
    if (event.type == WatchEvent::Type::kPut) {
      Take(service, feed, event.kv);
    } else {
      feed.overrides.erase(NameIn(service, event.kv.key));
    }
  }
  feed.known |= batch.resynced || !batch.status.ok();
  if (!feed.known) return;
  for (const auto& [id, subscriber] : subscribers_) {
    if (subscriber.service == service) TellLater(id);
  }
}

void OverrideBook::TellLater(uint64_t subscriber) {
  engine_.Defer([weak = weak_from_this(), subscriber] {
    std::shared_ptr<OverrideBook> self = weak.lock();
    if (self == nullptr) return;
    auto found = self->subscribers_.find(subscriber);
    if (found == self->subscribers_.end()) return;
    const Feed& feed = self->feeds_.at(found->second.service);
    std::optional<Override> value;
    for (const std::string* name : {&found->second.address, &found->second.id}) {
      if (auto each = feed.overrides.find(*name); each != feed.overrides.end()) {
        value = each->second;
      }
    }
    if (found->second.told && found->second.last == value) return;
    found->second.told = true;
    found->second.last = value;
    // It may unsubscribe meanwhile.
    Callback callback = std::move(found->second.callback);
    callback(value);
    found = self->subscribers_.find(subscriber);
    if (found != self->subscribers_.end()) found->second.callback = std::move(callback);
  });
}

}  // namespace conclave
