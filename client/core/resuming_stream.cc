#include "conclave/client/core/resuming_stream.h"

#include "conclave/base/check.h"

namespace conclave {
namespace {

constexpr Duration kReopenBase = std::chrono::milliseconds(25);
constexpr Duration kReopenCap = std::chrono::seconds(1);

}  // namespace

void ResumingStream::Start() {
  if (wanted_) return;
  wanted_ = true;
  Open();
}

void ResumingStream::Stop() {
  wanted_ = false;
  engine_.CancelTimer(reopen_);
  if (wire_ == 0) return;
  engine_.CloseStream(wire_);
  wire_ = 0;
}

void ResumingStream::Send(std::string_view message) {
  CONCLAVE_CHECK(wire_ != 0);
  engine_.transport().SendOnStream(wire_, message);
}

void ResumingStream::Pause(bool paused) {
  if (wire_ != 0) engine_.transport().PauseStream(wire_, paused);
}

void ResumingStream::Open() {
  if (!wanted_ || wire_ != 0) return;
  endpoint_ = engine_.pool().Pick(engine_.now());
  heard_ = false;
  wire_ = engine_.OpenStream(endpoint_, method_, this);
  owner_.OnStreamOpen();
}

void ResumingStream::OnMessage(std::string_view message) {
  if (!heard_) {
    heard_ = true;
    failures_ = 0;
    engine_.pool().Succeeded(endpoint_);
  }
  owner_.OnStreamMessage(message);
}

void ResumingStream::OnClosed(const WireStatus&) {
  wire_ = 0;
  Lost(/*blame=*/true);
}

void ResumingStream::Abandon() {
  if (wire_ == 0) return;
  engine_.CloseStream(wire_);
  wire_ = 0;
  Lost(/*blame=*/true);
}

void ResumingStream::Lost(bool blame) {
  if (blame) engine_.pool().Failed(endpoint_, engine_.now());
  // A member that was fine until now: go to the next one at once. Else with growing pauses, so that
  // clients do not storm a cluster that comes back.
  const bool at_once = failures_ < static_cast<int>(engine_.pool().size()) &&
                       engine_.pool().AnyHealthy(engine_.now());
  const Duration delay =
      at_once ? Duration(0) : FullJitter(failures_, kReopenBase, kReopenCap, engine_.prng());
  ++failures_;
  engine_.CancelTimer(reopen_);
  if (wanted_) reopen_ = engine_.After(delay, [this] { Open(); });
  owner_.OnStreamLost();
}

}  // namespace conclave
