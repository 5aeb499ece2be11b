// OverrideBook: the overrides of the services that somebody here registers, one watch per service.
// What cannot be read is as if it were not there, and `complain` hears of it once. Pure.
//
// Thread: the engine's. Subscribers are never called from within.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/watch_mux.h"
#include "conclave/registry/override.h"

namespace conclave {

class OverrideBook : public std::enable_shared_from_this<OverrideBook> {
 public:
  // The override, or none. The first call tells that it is known now.
  using Callback = absl::AnyInvocable<void(const std::optional<Override>&)>;

  OverrideBook(Engine& engine, std::string prefix,
               std::function<void(const std::string&)> complain);

  uint64_t Subscribe(const std::string& service, const std::string& id, const std::string& address,
                     Callback callback);
  void Unsubscribe(uint64_t subscriber);

 private:
  struct Subscriber {
    std::string service;
    std::string id;
    std::string address;
    Callback callback;
    bool told = false;
    std::optional<Override> last{};
  };
  struct Feed {
    WatchHandle watch = 0;
    TimerId again{};
    bool known = false;
    int subscribers = 0;
    std::map<std::string, Override> overrides{};  // by id or address
  };

  void Watch(const std::string& service);
  void OnBatch(const std::string& service, const WatchBatch& batch);
  void Take(const std::string& service, Feed& feed, const KeyValue& kv);
  std::string NameIn(const std::string& service, const std::string& key) const;
  void TellLater(uint64_t subscriber);

  Engine& engine_;
  const std::string prefix_;
  const std::function<void(const std::string&)> complain_;
  std::map<std::string, Feed> feeds_;  // by service
  std::map<uint64_t, Subscriber> subscribers_;
  uint64_t next_ = 1;
};

}  // namespace conclave
