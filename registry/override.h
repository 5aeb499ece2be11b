// Override: what an operator says about an instance from outside, and what the instance heeds.
//
// It stands in the store without a lease, under "<prefix><service>/<id or address>" with the prefix
// ".override/", as one of
//   out        the instance leaves the registry, but goes on running
//   drain      it says that it is draining
//   weight=N   it carries that weight, 0 and up
// and holds until somebody removes it: over the instance's re-registrations and its restarts. If
// both the id and the address have one, that of the id counts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/watch_mux.h"

namespace conclave {

struct Override {
  enum class Kind { kOut, kDrain, kWeight };

  Kind kind = Kind::kOut;
  int64_t weight = 0;  // of kWeight

  friend bool operator==(const Override&, const Override&) = default;
};

std::string OverrideText(const Override& value);
// InvalidArgument for anything else.
absl::StatusOr<Override> ParseOverride(std::string_view text);

inline constexpr std::string_view kOverridePrefix = ".override/";
// `name` is an id or an address.
std::string OverrideKey(std::string_view prefix, std::string_view service, std::string_view name);

// OverrideBook: the overrides of the services that somebody here registers, one watch per service.
// What cannot be read is as if it were not there, and `complain` hears of it once. Pure.
//
// Thread: the engine's. Subscribers are never called from within.
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
