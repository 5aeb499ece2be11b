// What the HTTP side needs from the server behind it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conclave/base/bytes.h"
#include "conclave/server/local/local_channel.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/stats.h"

namespace conclave::http {

// Asynchronous: the callbacks may run on any thread, exactly once.
class Backend {
 public:
  virtual ~Backend() = default;

  // Any unary method, in the server's own name; `request` without headroom.
  virtual void Call(node::Method method, std::string request,
                    std::function<void(node::Reply)> done) = 0;
  // A call in the name of an HTTP client, as if it had come over gRPC.
  virtual std::shared_ptr<local::Call> Open(local::CallOptions options,
                                            std::shared_ptr<local::Listener> listener) = 0;
  virtual void GetStats(std::function<void(std::shared_ptr<const node::Stats>)> done) = 0;
  // The metrics of what lies round the node, in Prometheus' text format; `stats` are the node's.
  virtual std::string RenderMetrics(const node::Stats& stats) = 0;
  // The program and its arguments as anybody may see them, for /debug/pprof/; nothing: those pages
  // are off.
  virtual std::optional<std::vector<std::string>> command_line() const { return std::nullopt; }
  // The version of the protocol that is served, "3.6.0".
  virtual std::string version() const = 0;
};

}  // namespace conclave::http
