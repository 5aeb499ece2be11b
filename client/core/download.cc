#include "conclave/client/core/download.h"

#include <utility>

#include "conclave/client/core/judge.h"

namespace conclave {

Download::Download(Engine& engine, size_t endpoint, std::string_view method,
                   std::string_view request, Callbacks callbacks)
    : engine_(engine),
      endpoint_(endpoint),
      method_(method),
      callbacks_(std::move(callbacks)),
      wire_(engine.OpenDownload(endpoint, method, request, this)) {}

Download::~Download() {
  if (wire_ != 0) engine_.CloseStream(wire_);
}

void Download::Pause(bool paused) {
  if (wire_ != 0) engine_.transport().PauseStream(wire_, paused);
}

void Download::OnMessage(std::string_view message) { callbacks_.message(message); }

void Download::OnClosed(const WireStatus& status) {
  wire_ = 0;
  absl::Status end;
  if (!status.ok()) {
    Verdict verdict = Judge(CallKind::kRead, status, engine_.pool().NameOf(endpoint_));
    if (verdict.blame_endpoint) engine_.Blame(endpoint_, method_, status.message);
    end = std::move(verdict.status);
  }
  callbacks_.end(std::move(end));
}

}  // namespace conclave
