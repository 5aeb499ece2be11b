// How a typed call is made of a message and a method; for calls.cc and admin_calls.cc.
#pragma once

#include <string_view>
#include <utility>

#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/calls.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/error.h"

namespace conclave::calls {

// An answer that is none. A write that was answered so may have happened.
inline absl::Status Undecodable(Engine& engine, std::string_view method, CallKind kind) {
  engine.OnNonsense("undecodable answer", method);
  absl::Status status = absl::InternalError("the answer is not of the protocol");
  SetErrorDetail(status,
                 {.outcome = kind == CallKind::kWrite ? Outcome::kUnknown : Outcome::kNotExecuted});
  return status;
}

// Encodes, calls, decodes; `convert` makes the result of the response message.
template <typename Response, typename Result, typename Convert>
CallId Send(Engine& engine, Engine::UnaryCall call, const google::protobuf::MessageLite& request,
            Done<Result> done, Convert convert) {
  call.request = request.SerializeAsString();
  const std::string_view method = call.method;  // a literal
  const CallKind kind = call.kind;
  return engine.Call(std::move(call), [&engine, method, kind, done = std::move(done),
                                       convert](absl::StatusOr<std::string> bytes) mutable {
    if (!bytes.ok()) return done(bytes.status());
    Response response;
    if (!response.ParseFromString(*bytes)) return done(Undecodable(engine, method, kind));
    engine.OnRevision(response.header().revision());
    done(convert(response));
  });
}

// The call that is not made. Its answer comes later all the same, as that of every call.
template <typename Result>
CallId Refuse(Engine& engine, absl::Status status, Done<Result> done) {
  engine.Defer([done = std::move(done), status = std::move(status)]() mutable { done(status); });
  return 0;
}

template <typename Members>
std::vector<Member> MembersOf(const Members& messages) {
  std::vector<Member> members;
  for (const etcdserverpb::Member& member : messages) {
    members.push_back({.id = member.id(),
                       .name = member.name(),
                       .peer_urls = {member.peerurls().begin(), member.peerurls().end()},
                       .client_urls = {member.clienturls().begin(), member.clienturls().end()},
                       .is_learner = member.islearner()});
  }
  return members;
}

}  // namespace conclave::calls
