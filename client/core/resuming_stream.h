// ResumingStream: one stream to the cluster that comes back by itself, on another member when its
// own is gone, hung or without a leader. Shared by the watch stream and the keep-alive stream,
// whose owners know what to say again after it was lost.
#pragma once

#include <cstddef>
#include <string_view>

#include "conclave/client/core/engine.h"

namespace conclave {

class ResumingStream : public StreamListener {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void OnStreamOpen() = 0;  // Send is allowed from here on, also at once
    virtual void OnStreamMessage(std::string_view message) = 0;
    virtual void OnStreamLost() = 0;
  };

  // `method` outlives the stream.
  ResumingStream(Engine& engine, std::string_view method, Owner& owner)
      : engine_(engine), method_(method), owner_(owner) {}

  void Start();  // opens it, unless it is open or about to be
  void Stop();   // closes it for good, without OnStreamLost
  bool open() const { return wire_ != 0; }
  void Send(std::string_view message);
  void Pause(bool paused);
  // The member does not do what it should: go to another one.
  void Abandon();
  // The stream's token was refused: opens it anew with another one.
  void RenewToken();
  // From the owner, whom the engine tells: leaves a member that is no longer an endpoint, and opens
  // what could not be opened for want of one.
  void OnEndpointsChanged();

  // From the engine.
  void OnMessage(std::string_view message) override;
  void OnClosed(const WireStatus& status) override;

 private:
  void Open();
  void Lost(bool blame, std::string_view why);
  void Close();

  Engine& engine_;
  const std::string_view method_;
  Owner& owner_;
  bool wanted_ = false;
  WireId wire_ = 0;
  size_t endpoint_ = 0;
  bool heard_ = false;  // a message came since it was opened
  Instant opened_at_{};
  uint64_t token_generation_ = 0;
  int failures_ = 0;      // openings in a row that heard nothing or did not last
  bool starved_ = false;  // there was no endpoint to open it on, or no token
  TimerId reopen_{};
};

}  // namespace conclave
