// RecipeDoor: the services v3lockpb.Lock and v3electionpb.Election: locks and elections for clients
// that leave the recipe to the server.
//
//   call --Begin--> RecipeDoor (its thread) --Contender--> CallerClient --> the server's own port
//        <--answer-                          the core that lock/ and election/ run on
//
// Keys, order and values are those of our recipes and of Go's concurrency package, so callers of
// these services, `etcdctl lock` and our libraries queue for the same names. All is done in the
// caller's name (caller_client.h). A lease is the caller's business, and kept alive by him; without
// one, a lease of kDefaultLeaseSeconds is granted that nobody renews.
//
// Better than the model: who waits watches his own key too, so when it or its lease goes, the call
// fails at once; an observer hears when a leader has gone and nobody follows (a message whose kv is
// empty). A call that is cancelled takes its key out of the queue.
//
// Threads: one of its own; Begin, Cancel and Sent may be called on any, and do not block. Limits:
// kCallsMax calls at a time; kCallersMax callers, of whom those without calls make room; an
// observer that does not read gets only the newest state once kUnsentBytesMax wait for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "conclave/base/bytes.h"
#include "conclave/server/local/local_channel.h"
#include "conclave/server/node/io.h"

namespace conclave::recipes {

class RecipeDoor {
 public:
  static constexpr size_t kCallsMax = 20'000;
  static constexpr size_t kCallersMax = 1'000;
  static constexpr size_t kUnsentBytesMax = 4u << 20;
  static constexpr int64_t kDefaultLeaseSeconds = 60;

  struct Call {
    node::CallId id;
    std::string method{};  // "/v3lockpb.Lock/Lock"
    Bytes request{};
    node::CredentialsRef credentials{};
  };
  struct Options {
    local::LocalChannel* channel = nullptr;
    uint64_t seed = 0;
    // Each call gets one reply, or stream effects of which the last one has `finish`. Any thread.
    std::function<void(node::Reply)> reply{};
    std::function<void(node::StreamEffect)> stream{};
  };

  explicit RecipeDoor(Options options);
  ~RecipeDoor();

  void Begin(Call call);
  // Nobody waits for it any more; it is answered all the same.
  void Cancel(node::CallId id);
  // So many bytes of a stream's effects (their `charge`) have left.
  void Sent(node::CallId id, uint64_t bytes);
  // Answers all calls with `etcdserver: server stopped`. Calls that come later are not answered.
  void Stop();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::recipes
