// Download: one call that is answered by a stream of messages, from one member. It does not resume:
// whoever asked begins anew.
//
// Thread: the engine's. Messages come one after the other until the end does; none comes while it
// is paused. Destroying it ends the call without a word.
#pragma once

#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "conclave/client/core/engine.h"

namespace conclave {

class Download : public StreamListener {
 public:
  struct Callbacks {
    absl::AnyInvocable<void(std::string_view message)> message;
    absl::AnyInvocable<void(absl::Status)> end;  // once; may destroy the download
  };

  // `method` outlives the download.
  Download(Engine& engine, size_t endpoint, std::string_view method, std::string_view request,
           Callbacks callbacks);
  ~Download() override;

  void Pause(bool paused);

  void OnMessage(std::string_view message) override;
  void OnClosed(const WireStatus& status) override;

 private:
  Engine& engine_;
  const size_t endpoint_;
  const std::string_view method_;
  Callbacks callbacks_;
  WireId wire_ = 0;
};

}  // namespace conclave
