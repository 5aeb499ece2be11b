// CallerClient: the client core (engine, watches, contenders) on the server's connection to itself,
// with the credentials of one caller. So a recipe that runs in a caller's name may do what the
// caller may do, and nothing else.
//
// A caller that is known by his certificate alone cannot be shown on that connection: as soon as
// users are checked, he is refused, like anybody without a token.
//
// Thread: the loop's that `post` leads to; what the channel's thread says comes by `post` as well.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/transport.h"
#include "conclave/server/local/local_channel.h"

namespace conclave::recipes {

class CallerClient final : public std::enable_shared_from_this<CallerClient>, private Transport {
 public:
  using Post = std::function<void(std::function<void()>)>;

  // `token` is printable.
  CallerClient(local::LocalChannel* channel, Post post, std::string token, EngineOptions options);
  ~CallerClient() override;

  Engine& engine() { return *engine_; }
  // Ends all that is under way.
  void Shutdown();

  // The header of the newest answer: who we are, and how far the store is.
  const etcdserverpb::ResponseHeader& header() const { return header_; }

 private:
  class Attempt;
  class StreamLink;

  void StartUnary(const Unary& call) override;
  void CancelUnary(WireId id) override;
  void OpenStream(WireId id, size_t endpoint, std::string_view method) override;
  void OpenDownload(WireId id, size_t endpoint, std::string_view method,
                    std::string_view request) override;
  void SendOnStream(WireId id, std::string_view message) override;
  void CloseStream(WireId id) override;
  void PauseStream(WireId id, bool paused) override;

  local::CallOptions OptionsFor(std::string_view method, bool require_leader) const;
  void OnAnswer(WireId id, int code, std::string text, std::string message);
  void NoteHeader(const std::string& message);

  local::LocalChannel* const channel_;
  const Post post_;
  const std::string token_;
  std::map<WireId, std::shared_ptr<local::Call>> calls_;
  std::map<WireId, std::shared_ptr<StreamLink>> streams_;
  etcdserverpb::ResponseHeader header_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace conclave::recipes
