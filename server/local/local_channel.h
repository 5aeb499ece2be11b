// LocalChannel: calls of this process to its own server, over a pair of sockets instead of a
// network.
//
// What a part of the server asks for in the name of a client (the JSON gateway, the lock and
// election services) goes the way that a client's calls go: the same checks of tokens, limits,
// counters and flow control, and no second way into the store that could forget one of them. There
// is one connection, so the server's limit of concurrent streams holds for all of these calls
// together; more of them wait.
//
// Threads: one, begun by the first call. Limits: an answer of more than kAnswerBytesMax is refused;
// one message of a call is under way in each direction, and the next is read only when asked for.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/base/time.h"

namespace conclave::local {

inline constexpr int kAnswerBytesMax = 256 << 20;

// Hears of a call: on the channel's thread, which must not be blocked.
class Listener {
 public:
  virtual ~Listener() = default;
  // The message given to Send has left; there may be another one.
  virtual void OnSent() = 0;
  // Asked for by Read.
  virtual void OnMessage(std::string message) = 0;
  // The last word: gRPC's code and text. Comes once, and only while a Read is under way.
  virtual void OnDone(int code, std::string text) = 0;
};

// Any thread. After OnDone nothing here does anything.
class Call {
 public:
  virtual ~Call() = default;
  // Not before OnSent for the message before.
  virtual void Send(std::string_view message) = 0;
  // No more messages; may follow the last Send at once.
  virtual void HalfClose() = 0;
  // For the next message, or the end. Not before OnMessage for the one before.
  virtual void Read() = 0;
  // OnDone comes soon, whether or not a Read is under way.
  virtual void Cancel() = 0;
};

struct CallOptions {
  std::string method{};  // "/etcdserverpb.KV/Range"
  // Names in lower case, printable values: this is not checked again.
  std::vector<std::pair<std::string, std::string>> metadata{};
  std::optional<Duration> timeout{};
};

class LocalChannel {
 public:
  // `hand_over` takes a connected descriptor as a client's that speaks gRPC.
  explicit LocalChannel(std::function<void(int)> hand_over);
  // Cancels what is under way, and waits for its end. Calls that come later end with Unavailable.
  ~LocalChannel();

  std::shared_ptr<Call> Start(CallOptions options, std::shared_ptr<Listener> listener);

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::local
