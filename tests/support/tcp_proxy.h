// TcpProxy: a port on 127.0.0.1 in front of another one, whose network can be made bad on command.
//
// Purpose: real processes behind networks that cut, stall, delay and half-close. Thread: one of its
// own; all methods from any thread. Limits: kBufferedMax bytes wait in each direction of a
// connection, then it stops reading, as a full network would.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace conclave::testing {

class TcpProxy {
 public:
  enum class Direction { kToServer, kToClient };

  // In front of 127.0.0.1:`port`.
  static absl::StatusOr<std::unique_ptr<TcpProxy>> Start(int port);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  int port() const;
  std::string endpoint() const;  // "127.0.0.1:port"

  // Closes all connections with a reset, and every new one at once, until Heal.
  void Cut();
  // Bytes of this direction stay in the network, connections stand, until Heal.
  void Stall(Direction direction);
  void Stall();  // both
  // Bytes arrive this much later, in order.
  void Delay(absl::Duration delay);
  // Ends one direction of all present connections, as a peer that shuts down its side does.
  void HalfClose(Direction direction);
  // Resets the present connections; new ones work.
  void Reset();
  // As in the beginning. What was stalled arrives now.
  void Heal();

  int connections() const;
  int64_t accepted() const;  // ever

 private:
  class Impl;
  explicit TcpProxy(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::testing
