// Transport: the one seam between the client's engine and the network. The gRPC actor implements it
// in production, the simulator in simulation.
//
// Nothing here calls back from within: answers reach the engine later, through Engine::OnUnaryDone,
// OnStreamMessage and OnStreamClosed, on the engine's thread. Endpoints are ids: 0, 1, ... for
// those that the engine began with, in their order; one that is added later has an id never used
// before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "conclave/base/time.h"

namespace conclave {

using WireId = uint64_t;  // of one attempt or one stream; never used twice

class Transport {
 public:
  virtual ~Transport() = default;

  struct Unary {
    WireId id = 0;
    size_t endpoint = 0;
    std::string_view method;   // "/etcdserverpb.KV/Put"
    std::string_view request;  // encoded; copied
    Duration timeout{};
    bool require_leader = false;  // a member without a leader refuses instead of waiting
  };
  // Exactly one OnUnaryDone follows, also after CancelUnary.
  virtual void StartUnary(const Unary& call) = 0;
  virtual void CancelUnary(WireId id) = 0;

  // A stream in both directions; require-leader always. Messages may be sent at once.
  virtual void OpenStream(WireId id, size_t endpoint, std::string_view method) = 0;
  // The same of a call with one request, which is copied and sent; a leader is not required.
  virtual void OpenDownload(WireId id, size_t endpoint, std::string_view method,
                            std::string_view request) = 0;
  virtual void SendOnStream(WireId id, std::string_view message) = 0;
  // Nothing comes from the stream any more, not even OnStreamClosed.
  virtual void CloseStream(WireId id) = 0;
  // While paused, no more messages are taken off the network.
  virtual void PauseStream(WireId id, bool paused) = 0;

  // What calls and streams carry from now on as the client's token; empty: nothing.
  virtual void SetToken(std::string_view /*token*/) {}

  // The set of endpoints has changed. What is under way on one that is removed goes on; nothing new
  // is asked of it.
  virtual void AddEndpoint(size_t /*endpoint*/, std::string_view /*name*/) {}
  virtual void RemoveEndpoint(size_t /*endpoint*/) {}
};

}  // namespace conclave
