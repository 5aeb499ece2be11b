// Http2Call: one call or stream of a gRPC client, from its first header to its trailers; or another
// request of HTTP, which the HttpDoor answers.
//
// A slot is used for one call after the other, so a call costs no allocation of ours. Its CallId is
// its address with a generation in the bits that addresses do not use: the way back from a reply to
// its call is one cast, and a reply to a call that is over (a defect of the core) is caught.
//
// A slot is free when both sides are done with it: the HTTP/2 stream is closed, and the core owes
// no reply and no finish.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/api/wire/errors.h"
#include "conclave/base/bytes.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/server/rpc/call_counters.h"
#include "conclave/server/rpc/method_table.h"
#include "conclave/server/rpc/out_buffer.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::rpc {

class Http2Connection;
class Http2Host;

inline constexpr int kAddressBits = 48;
inline constexpr uint64_t kGenerationMask = (uint64_t{1} << 15) - 1;  // kLocalCallBit stays clear

// gRPC's framing of a message: a compression flag and a big-endian u32 length.
inline constexpr size_t kMessagePrefixBytes = 5;

class Http2Call {
 public:
  // A message on its way out, or a piece of a body, which has no frame.
  struct Outgoing {
    char frame[kMessagePrefixBytes];
    uint8_t frame_bytes = kMessagePrefixBytes;
    Bytes prefix;
    Bytes shared;
    uint64_t charge = 0;
    size_t size() const { return frame_bytes + prefix.size() + shared.size(); }
  };

  node::CallId id() const;
  // The slot that `id` names.
  static Http2Call* Find(node::CallId id);

  // For the pool: a new call in this slot.
  void Begin(Http2Connection* connection, int32_t stream);
  Http2Host* host() const { return host_; }
  Http2Connection* connection() const { return connection_; }
  int32_t stream() const { return stream_; }

  // ---- What the connection hears.
  void OnHeader(std::string_view name, std::string_view value);
  void OnHeadersComplete();
  void OnData(std::string_view data);
  void OnEndOfRequest();
  // The HTTP/2 stream is closed: in the regular way after our trailers, or by a reset, or with its
  // connection.
  void OnStreamGone();

  // ---- What the core says.
  void Answer(node::Reply reply);
  void Add(node::StreamEffect effect);
  void Answer(const HttpHead& head);

  // At `now`, which may be up to a second behind it: most clients reset their stream before. True
  // if there is one that is still to come.
  bool CheckDeadline(Instant now);
  // To a watch of the server's health: it did not serve for a moment. Others do not mind.
  void TellOfPause();

  // ---- What goes out.
  // The request is no call of gRPC.
  bool is_http() const { return is_http_; }
  size_t queued_bytes() const { return out_bytes_; }
  bool out_complete() const { return out_complete_; }
  // Messages leave as they come, before the call is complete.
  bool streams_out() const { return method_ != nullptr && !is_unary(); }
  // Moves `length` queued bytes into a DATA frame.
  void TakeOut(size_t length, OutBuffer* out);
  // The status that the trailers carry.
  int status_code() const { return status_ == nullptr ? 0 : status_->code; }
  std::string_view status_message() const {
    return status_ == nullptr ? std::string_view() : std::string_view(status_->message);
  }

  size_t index_in_connection = 0;
  bool response_submitted = false;

 private:
  friend class Http2Host;
  explicit Http2Call(Http2Host* host) : host_(host) {}

  bool is_unary() const { return method_->type == CallType::kUnary; }
  bool has_one_request() const { return method_->type != CallType::kBidiStream; }
  // The node answers with a stream.
  bool streams_from_node() const {
    return method_->served == Served::kNodeStream || method_->served == Served::kNodeServerStream;
  }
  // Answered by TransportOptions::door, which stands for the core then.
  bool at_door() const { return method_->served == Served::kDoor; }
  // Null: the core itself.
  Answerer* answerer() const;
  void KnockAtDoor(Bytes request);
  void KeepHeader(std::string_view name, std::string_view value);
  void OnOtherRequest();
  void RefuseHttp(const char* status);
  void BeginHttp();
  void AddHttp(node::StreamEffect effect);
  void HttpBody(std::string_view data, bool is_last);
  void StartMessage();
  void MessageComplete();
  void HealthRequest(const Bytes& request);
  void TellCoreGone();
  // Ends the call from here, without the core.
  void Refuse(wire::Code code, std::string message);
  void Refuse(const wire::Error& error);
  void QueueMessage(Bytes prefix, Bytes shared, uint64_t charge);
  void Complete(std::unique_ptr<node::CallError> status);
  void GiveCredit();
  void CountHandled(int code);
  void ReleaseIfOver();

  Http2Host* const host_;
  uint64_t generation_ = 0;
  Http2Connection* connection_ = nullptr;  // null once the stream is gone
  int32_t stream_ = 0;

  // The request's headers.
  const MethodEntry* method_ = nullptr;
  MethodCounters* counters_ = nullptr;
  std::string unknown_path_;
  std::string encoding_;
  std::string token_;
  node::CredentialsRef credentials_;  // null: nothing was shown
  bool is_post_ = false;
  bool is_grpc_ = false;
  bool require_leader_ = false;
  bool has_bad_version_ = false;
  Instant deadline_ = kNever;
  size_t header_bytes_ = 0;
  std::string authority_;
  std::unique_ptr<HttpDoor::Request> http_;  // what may be no call of gRPC
  bool is_http_ = false;
  const char* http_error_ = nullptr;  // to be answered when the request has ended

  // The message that is being received.
  char frame_[kMessagePrefixBytes];
  size_t frame_have_ = 0;
  Bytes message_;
  char* fill_ = nullptr;
  size_t want_ = 0;
  bool has_message_ = false;  // the only one of a call that has one, until the request ends

  Instant arrived_{};
  bool refused_ = false;    // what still arrives is dropped
  bool at_core_ = false;    // the core owes a reply or a finish
  bool core_told_ = false;  // that nobody waits for it any more
  bool counted_ = false;    // as handled
  bool watches_health_ = false;

  std::vector<Outgoing> out_;
  size_t out_head_ = 0;
  size_t out_offset_ = 0;  // already taken of the first message
  size_t out_bytes_ = 0;
  bool out_complete_ = false;
  std::unique_ptr<node::CallError> status_;
  uint64_t credit_ = 0;
};

}  // namespace conclave::rpc
