#include "conclave/client/core/resuming_stream.h"

#include <optional>

#include "conclave/base/check.h"
#include "conclave/client/core/token_keeper.h"

namespace conclave {
namespace {

constexpr Duration kReopenBase = std::chrono::milliseconds(25);
constexpr Duration kReopenCap = std::chrono::seconds(1);
// A stream that was heard and lasted this long was a good one. One that ends sooner counts as a
// failure even if it was heard, so that a server that answers nonsense is not asked in a hot loop.
constexpr Duration kGoodStreamMin = std::chrono::seconds(2);

}  // namespace

void ResumingStream::Start() {
  if (wanted_) return;
  wanted_ = true;
  Open();
}

void ResumingStream::Stop() {
  wanted_ = false;
  engine_.CancelTimer(reopen_);
  starved_ = false;
  failures_ = 0;  // whoever wants it next is not to wait for what was before
  if (wire_ != 0) Close();
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
  const std::optional<size_t> endpoint =
      engine_.MayOpenStreams() ? engine_.pool().Pick(engine_.now()) : std::nullopt;
  starved_ = !endpoint.has_value();
  if (starved_) return;  // OnEndpointsChanged opens it
  engine_.CancelTimer(reopen_);
  endpoint_ = *endpoint;
  heard_ = false;
  opened_at_ = engine_.now();
  if (engine_.tokens() != nullptr) token_generation_ = engine_.tokens()->generation();
  wire_ = engine_.OpenStream(endpoint_, method_, this);
  owner_.OnStreamOpen();
}

void ResumingStream::OnEndpointsChanged() {
  if (starved_) return Open();
  if (wire_ == 0 || engine_.pool().Contains(endpoint_)) return;
  Close();
  Lost(/*blame=*/false, "");
}

void ResumingStream::OnMessage(std::string_view message) {
  if (!heard_) {
    heard_ = true;
    engine_.pool().Succeeded(endpoint_);
  }
  owner_.OnStreamMessage(message);
}

void ResumingStream::RenewToken() {
  if (wire_ == 0) return;
  Close();
  engine_.tokens()->Refused(token_generation_);
  Lost(/*blame=*/false, "");
}

void ResumingStream::OnClosed(const WireStatus& status) {
  wire_ = 0;
  if (engine_.tokens() != nullptr && TokenKeeper::IsTokenError(status.message)) {
    engine_.tokens()->Refused(token_generation_);
    // Refused anew as soon as it is open: with pauses.
    return Lost(/*blame=*/!heard_, status.message);
  }
  Lost(/*blame=*/true, status.message);
}

void ResumingStream::Abandon() {
  if (wire_ == 0) return;
  Close();
  Lost(/*blame=*/true, "its stream is silent or no use");
}

void ResumingStream::Close() {
  engine_.CloseStream(wire_);
  wire_ = 0;
}

void ResumingStream::Lost(bool blame, std::string_view why) {
  if (heard_ && engine_.now() - opened_at_ >= kGoodStreamMin) failures_ = 0;
  if (blame) engine_.Blame(endpoint_, method_, why);
  // A member that was fine until now: go to the next one at once. Else with growing pauses, so that
  // clients do not storm a cluster that comes back.
  const bool at_once = !blame || (failures_ < static_cast<int>(engine_.pool().size()) &&
                                  engine_.pool().AnyHealthy(engine_.now()));
  const Duration delay =
      at_once ? Duration(0) : FullJitter(failures_, kReopenBase, kReopenCap, engine_.prng());
  if (blame) ++failures_;
  engine_.CancelTimer(reopen_);
  if (wanted_) reopen_ = engine_.After(delay, [this] { Open(); });
  owner_.OnStreamLost();
}

}  // namespace conclave
