// Http2Desk: the pages and the gateway for clients that speak HTTP/2. Their connections are the
// transport's, which serves gRPC on them; each request that is no call of gRPC comes here, and its
// answer goes back in parts.
//
//   Http2Call --Begin, Body, Sent, Cancel--> Http2Desk --> Http2Exchange --> page, GatewayCall
//             <--head, body effects---------
//
// Contract with the transport: every request that has begun ends with one effect that has `finish`,
// also after its Cancel, unless Stop has come before it; then no answers come.
//
// Threads: Begin, Body, Sent, Cancel and Stop on any; they do not block. All else happens on the
// HTTP side's. Limits: kHttp2RequestsMax requests at a time; bodies of kPostedBytesMax together are
// on their way to the HTTP side's thread; a request's body may be kBodyAheadBytesMax ahead of the
// gateway; the times of HttpConnection.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "conclave/base/bytes.h"
#include "conclave/server/http/routing.h"
#include "conclave/server/node/io.h"

namespace conclave::http {

inline constexpr size_t kHttp2RequestsMax = 4096;
inline constexpr size_t kPostedBytesMax = 64u << 20;
inline constexpr size_t kBodyAheadBytesMax = 4u << 20;

struct HttpShared;
class Http2Exchange;

struct Http2Request {
  node::CallId id;
  std::string method;     // "GET"
  std::string target;     // "/health?serializable=true"
  std::string authority;  // what HTTP/1.1 calls the host
  Fields fields;          // names in lower case
  bool is_tls = false;
  Serves serves = Serves::kAll;
};

struct Http2Head {
  node::CallId id;
  int status = 200;
  Fields fields;  // names in lower case
};

// To the transport. Any thread.
struct Http2Answers {
  std::function<void(Http2Head)> head;
  // The body, in effects whose messages are its bytes; an error with `finish` breaks it off.
  std::function<void(node::StreamEffect)> body;
};

class Http2Desk {
 public:
  Http2Desk(HttpShared* shared, Http2Answers answers);
  ~Http2Desk();

  void Begin(Http2Request request);
  // A piece of a request's body. False: it is not taken, and the request is to be broken off.
  [[nodiscard]] bool Body(node::CallId id, Bytes piece, bool is_last);
  // So many bytes of the answer (its charges) have left.
  void Sent(node::CallId id, uint64_t bytes);
  // Nobody waits for it any more.
  void Cancel(node::CallId id);

  // No answers follow.
  void Stop();
  // Lets go of what is open. When the HTTP side's thread has ended.
  void CloseAll();

 private:
  friend class Http2Exchange;
  void Open(Http2Request request);
  std::shared_ptr<Http2Exchange> Find(node::CallId id);
  void Head(Http2Head head);
  void Effect(node::StreamEffect effect);
  void Forget(node::CallId id) { open_.erase(id.value()); }

  HttpShared* const shared_;
  const Http2Answers answers_;
  std::atomic<size_t> posted_bytes_{0};
  std::unordered_map<uint64_t, std::shared_ptr<Http2Exchange>> open_;

  std::mutex mutex_;
  bool stopped_ = false;
};

}  // namespace conclave::http
