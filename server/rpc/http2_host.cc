#include "conclave/server/rpc/http2_host.h"

#include <algorithm>
#include <utility>

#include "conclave/base/check.h"
#include "conclave/server/rpc/http2_connection.h"

namespace conclave::rpc {
namespace {

// Clients' certificates that are judged anew in one sweep: about 0.1 ms each.
constexpr int kJudgedPerSweepMax = 200;

}  // namespace

Http2Host::Http2Host(EventLoop* loop, const TransportOptions& options)
    : loop_(loop), options_(options) {
  CONCLAVE_CHECK(nghttp2_session_callbacks_new(&callbacks_) == 0);
  Http2Connection::SetCallbacks(callbacks_);
  CONCLAVE_CHECK(nghttp2_option_new(&option_) == 0);
  // nghttp2's own rules for HTTP refuse what gRPC clients send (Go's puts a URL into :authority);
  // Http2Call looks at what matters to a call.
  nghttp2_option_set_no_http_messaging(option_, 1);
  // Closed streams are not remembered for priorities that nobody uses.
  nghttp2_option_set_no_closed_streams(option_, 1);
}

Http2Host::~Http2Host() {
  CONCLAVE_CHECK(connections_.empty(), "connections are open");
  nghttp2_option_del(option_);
  nghttp2_session_callbacks_del(callbacks_);
}

void Http2Host::Adopt(Accepted accepted) {
  connections_.push_back(std::make_unique<Http2Connection>(this, std::move(accepted)));
  if (stopping_) connections_.back()->SayFarewell();
  connections_.back()->Start();
}

void Http2Host::Forget(Http2Connection* connection) {
  const auto found =
      std::find_if(connections_.begin(), connections_.end(),
                   [&](const auto& candidate) { return candidate.get() == connection; });
  CONCLAVE_CHECK(found != connections_.end());
  std::swap(*found, connections_.back());
  loop_->Retire(std::move(connections_.back()));
  connections_.pop_back();
}

void Http2Host::Sweep() {
  const uint64_t material = options_.client_tls == nullptr ? 0 : options_.client_tls->Refresh();
  int judged = 0;
  for (size_t i = 0; i < connections_.size();) {
    Http2Connection* connection = connections_[i].get();
    if (connection->Sweep(loop_->now(), material, judged < kJudgedPerSweepMax)) ++judged;
    if (i < connections_.size() && connections_[i].get() == connection) ++i;
  }
}

void Http2Host::TellOfPause() {
  for (const auto& call : calls_) call->TellOfPause();
}

void Http2Host::BeginStop() {
  stopping_ = true;
  for (const auto& call : calls_) {
    if (!call->at_core_) continue;
    auto stopped = std::make_unique<node::CallError>(node::CallError{
        static_cast<int>(wire::kErrStopped.code), std::string(wire::kErrStopped.message)});
    if (!call->is_http() && call->is_unary()) {
      call->Answer(node::Reply{call->id(), std::move(stopped), {}});
    } else {
      node::StreamEffect effect;
      effect.id = call->id();
      effect.finish = true;
      effect.error = std::move(stopped);
      call->Add(std::move(effect));
    }
  }
  for (const auto& connection : connections_) connection->SayFarewell();
}

void Http2Host::CloseAll() {
  while (!connections_.empty()) connections_.back()->Close();
}

Http2Call* Http2Host::TakeCall(Http2Connection* connection, int32_t stream) {
  if (free_.empty()) {
    calls_.push_back(std::unique_ptr<Http2Call>(new Http2Call(this)));
    free_.push_back(calls_.back().get());
  }
  Http2Call* call = free_.back();
  free_.pop_back();
  call->Begin(connection, stream);
  return call;
}

void Http2Host::ReturnCall(Http2Call* call) { free_.push_back(call); }

}  // namespace conclave::rpc
