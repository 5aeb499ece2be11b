#include "conclave/server/node/lease_desk.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "conclave/api/wire/requests.h"
#include "conclave/base/little_endian.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/node/auth_desk.h"

namespace conclave::node {
namespace {

Bytes EncodeNumber(int64_t value) {
  char* out = nullptr;
  Bytes bytes = Bytes::Uninitialized(8, &out);
  StoreLittle(out, value);
  return bytes;
}

bool DecodeNumber(std::string_view bytes, int64_t* value) {
  if (bytes.size() != 8) return false;
  *value = LoadLittle<int64_t>(bytes.data());
  return true;
}

StreamEffect FinishStream(CallId stream, int code, std::string_view message) {
  StreamEffect effect;
  effect.id = stream;
  effect.finish = true;
  if (code != 0) effect.error = std::make_unique<CallError>(CallError{code, std::string(message)});
  return effect;
}

}  // namespace

// ---- Streams ------------------------------------------------------------------------------------

bool LeaseDesk::Message(CallId stream, std::string_view message, Instant now, AskerRef who) {
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return true;
  wire::LeaseKeepAliveRequest parsed;
  if (!wire::Parse(message, &parsed)) return false;
  ++found->second.waiting;
  Request& request = waiting_.emplace_back();
  request.kind = Request::Kind::kStreamKeepAlive;
  request.call = stream;
  request.lease = parsed.id;
  request.arrived = now;
  request.who = std::move(who);
  return true;
}

void LeaseDesk::HalfClosed(CallId stream, Effects* effects) {
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return;
  found->second.half_closed = true;
  if (found->second.waiting > 0) return;
  streams_.erase(found);
  effects->streams.push_back(FinishStream(stream, 0, {}));
}

// Its requests stay where they are, and find nobody to answer.
bool LeaseDesk::Close(CallId stream) { return streams_.erase(stream) > 0; }

void LeaseDesk::EndAll(const wire::Error& error, Effects* effects) {
  for (const auto& [stream, unused] : streams_) {
    effects->streams.push_back(FinishStream(stream, static_cast<int>(error.code), error.message));
  }
  streams_.clear();
}

// ---- Other members ------------------------------------------------------------------------------

void LeaseDesk::ForwardTimeToLive(CallId call, Bytes request, Instant now, AskerRef who) {
  Request& waiting = waiting_.emplace_back();
  waiting.kind = Request::Kind::kTimeToLive;
  waiting.call = call;
  waiting.request = std::move(request);
  waiting.arrived = now;
  waiting.who = std::move(who);
}

void LeaseDesk::KeepAliveFrom(raft::NodeId peer, const ForwardedRequest& request, Instant now) {
  Request& waiting = waiting_.emplace_back();
  waiting.kind = Request::Kind::kPeerKeepAlive;
  waiting.peer = peer;
  waiting.peer_id = request.id;
  waiting.arrived = now;
  if (!request.who.user.empty()) {
    waiting.who = std::make_shared<const Asker>(Asker{request.who, nullptr});
  }
  if (!DecodeNumber(request.body.view(), &waiting.lease)) waiting_.pop_back();
}

void LeaseDesk::Answered(const LeaseTurn& turn, raft::NodeId peer, const ForwardedAnswer& answer) {
  const auto found = forwarded_.find(answer.id);
  if (found == forwarded_.end() || found->second.to != peer) return;
  Request request = std::move(found->second.request);
  forwarded_.erase(found);
  if (answer.code == static_cast<int>(wire::kErrNotPrimaryLessor.code) &&
      answer.message == wire::kErrNotPrimaryLessor.message) {
    REACHED("lease: who was asked leads no more");
    waiting_.push_back(std::move(request));  // ask whoever does
    return;
  }
  if (answer.code != 0) {
    Fail(turn, request, answer.code, answer.message);
    return;
  }
  if (request.kind == Request::Kind::kTimeToLive) {
    // The leader's answer has no header: that one is the asked member's own.
    wire::Builder response;
    wire::AppendHeader(&response, turn.state->Header(turn.term.value()));
    response.AppendRaw(answer.body.view());
    ended_.push_back(
        {.call = request.call, .arrived = request.arrived, .response = response.Take()});
    return;
  }
  int64_t ttl = 0;
  if (DecodeNumber(answer.body.view(), &ttl)) Answer(turn, request, ttl);
}

// ---- Once a turn --------------------------------------------------------------------------------

void LeaseDesk::Answer(const LeaseTurn& turn, const Request& request, int64_t ttl) {
  if (request.kind == Request::Kind::kPeerKeepAlive) {
    ForwardedAnswer answer;
    answer.id = request.peer_id;
    answer.body = EncodeNumber(ttl);
    turn.links->Send(request.peer, PeerLane::kMessages, std::move(answer));
    return;
  }
  const auto found = streams_.find(request.call);
  if (found == streams_.end()) return;
  StreamEffect& effect = turn.effects->streams.emplace_back();
  effect.id = request.call;
  effect.prefix =
      wire::EncodeLeaseKeepAlive(turn.state->Header(turn.term.value()), request.lease, ttl);
  if (--found->second.waiting == 0 && found->second.half_closed) {
    streams_.erase(found);
    turn.effects->streams.push_back(FinishStream(request.call, 0, {}));
  }
}

void LeaseDesk::Fail(const LeaseTurn& turn, const Request& request, int code,
                     std::string_view message) {
  switch (request.kind) {
    case Request::Kind::kPeerKeepAlive:
      turn.links->Send(request.peer, PeerLane::kMessages,
                       ForwardedAnswer{request.peer_id, code, std::string(message), {}});
      return;
    case Request::Kind::kTimeToLive:
      ended_.push_back({.call = request.call,
                        .arrived = request.arrived,
                        .code = code,
                        .message = std::string(message)});
      return;
    case Request::Kind::kStreamKeepAlive:
      if (streams_.erase(request.call) > 0) {
        turn.effects->streams.push_back(FinishStream(request.call, code, message));
      }
      return;
  }
}

void LeaseDesk::Renew(const LeaseTurn& turn, Request request, Wishes* wishes) {
  if (turn.state->auth().enabled()) [[unlikely]] {
    // To keep a lease is to keep its keys.
    if (const wire::Error* error = turn.state->CheckAccess(
            AuthDesk::Present(request.who, *turn.state),
            {.kind = apply::Access::Kind::kWriteLease, .lease = request.lease})) {
      return Fail(turn, request, *error);
    }
  }
  const auto result = turn.state->Renew(request.lease, turn.now);
  using Renewal = apply::StateMachine::Renewal;
  switch (result.outcome) {
    case Renewal::kRenewed:
      ++renewed_;
      if (!result.must_replicate) {
        Answer(turn, request, result.ttl_seconds);
        return;
      }
      request.ttl = result.ttl_seconds;
      wishes->replicate.push_back({request.lease, result.ttl_seconds * 1000});
      replicate_.push_back(std::move(request));
      return;
    case Renewal::kNotFound:
      if (turn.confirmed < request.arrived) {
        REACHED("lease: the leadership is verified before a lease is called gone");
        wishes->verify = true;
        waiting_.push_back(std::move(request));
        return;
      }
      REACHED("lease: a renewal of what is gone");
      Answer(turn, request, 0);
      return;
    case Renewal::kExpired:
      REACHED("lease: a renewal waits for the end of its lease");
      ending_.push_back(std::move(request));
      return;
    case Renewal::kNotPrimary:
      waiting_.push_back(std::move(request));
      return;
  }
}

void LeaseDesk::Forward(const LeaseTurn& turn, uint64_t id, Forwarded& forwarded) {
  ForwardedRequest item;
  item.id = id;
  if (forwarded.request.kind == Request::Kind::kTimeToLive) {
    item.kind = ForwardedRequest::Kind::kTimeToLive;
    item.body = forwarded.request.request;
  } else {
    item.kind = ForwardedRequest::Kind::kKeepAlive;
    item.body = EncodeNumber(forwarded.request.lease);
  }
  if (forwarded.request.who != nullptr) item.who = forwarded.request.who->identity;
  forwarded.to = turn.leader;
  forwarded.sent = turn.now;
  turn.links->Send(turn.leader, PeerLane::kMessages, std::move(item));
}

void LeaseDesk::AnswerEnding(const LeaseTurn& turn) {
  std::vector<Request> ending = std::exchange(ending_, {});
  for (Request& request : ending) {
    if (!turn.state->LeaseExists(request.lease)) {
      Answer(turn, request, 0);
    } else if (!turn.primary) {
      REACHED("lease: the end of a lease is another leader's affair");
      waiting_.push_back(std::move(request));
    } else {
      ending_.push_back(std::move(request));
    }
  }
}

void LeaseDesk::ForwardAgain(const LeaseTurn& turn) {
  for (auto it = forwarded_.begin(); it != forwarded_.end();) {
    Forwarded& forwarded = it->second;
    if (forwarded.to == turn.leader && turn.now - forwarded.sent < kForwardAgainAfter) {
      ++it;
    } else if (turn.leader == self_) {
      waiting_.push_back(std::move(forwarded.request));
      it = forwarded_.erase(it);
    } else {
      if (turn.leader) {
        REACHED("lease: a request is forwarded again");
        Forward(turn, it->first, forwarded);
      }
      ++it;
    }
  }
}

void LeaseDesk::Expire(const LeaseTurn& turn) {
  const auto over = [&](const Request& request) { return turn.now - request.arrived >= patience_; };
  const wire::Error& error = turn.leader ? wire::kErrTimeout : wire::kErrNoLeader;
  for (std::vector<Request>* list : {&waiting_, &ending_}) {
    const auto kept = std::stable_partition(list->begin(), list->end(), over);
    for (auto it = list->begin(); it != kept; ++it) Fail(turn, *it, error);
    list->erase(list->begin(), kept);
  }
  for (auto it = forwarded_.begin(); it != forwarded_.end();) {
    if (!over(it->second.request)) {
      ++it;
      continue;
    }
    Fail(turn, it->second.request, error);
    it = forwarded_.erase(it);
  }
}

LeaseDesk::Wishes LeaseDesk::Work(const LeaseTurn& turn) {
  Wishes wishes;
  if (idle()) return wishes;
  if (!ending_.empty()) AnswerEnding(turn);
  if (turn.now >= next_scan_) {
    next_scan_ = turn.now + kScanInterval;
    if (!forwarded_.empty()) ForwardAgain(turn);
    Expire(turn);
  }
  if (waiting_.empty()) return wishes;
  if (turn.leader == self_ && (!turn.primary || !turn.verified)) {
    wishes.verify = turn.primary;
    // Reads need no lessor: they wait for their own round.
    std::vector<Request> waiting = std::exchange(waiting_, {});
    for (Request& request : waiting) {
      if (request.kind == Request::Kind::kTimeToLive) {
        ended_.push_back({.call = request.call,
                          .arrived = request.arrived,
                          .ask_again = true,
                          .request = std::move(request.request),
                          .who = std::move(request.who)});
      } else {
        waiting_.push_back(std::move(request));
      }
    }
    return wishes;
  }
  if (!turn.leader) return wishes;
  std::vector<Request> waiting = std::exchange(waiting_, {});
  for (Request& request : waiting) {
    if (turn.leader != self_) {
      if (request.kind == Request::Kind::kPeerKeepAlive) {
        REACHED("lease: a renewal came to who leads no more");
        Fail(turn, request, wire::kErrNotPrimaryLessor);
        continue;
      }
      Forwarded& forwarded = forwarded_[++last_forwarded_];
      forwarded.request = std::move(request);
      Forward(turn, last_forwarded_, forwarded);
    } else if (request.kind == Request::Kind::kTimeToLive) {
      ended_.push_back({.call = request.call,
                        .arrived = request.arrived,
                        .ask_again = true,
                        .request = std::move(request.request),
                        .who = std::move(request.who)});
    } else {
      Renew(turn, std::move(request), &wishes);
    }
  }
  if (waiting_.empty()) {
    waiting.clear();
    waiting_ = std::move(waiting);  // for its capacity
  }
  return wishes;
}

void LeaseDesk::Replicating(const LeaseTurn& turn, uint64_t sequence) {
  replicating_[sequence] = {turn.term, std::exchange(replicate_, {})};
}

void LeaseDesk::Replicated(const LeaseTurn& turn, uint64_t sequence) {
  const auto found = replicating_.find(sequence);
  if (found == replicating_.end()) return;
  // Another leader has decided about leases meanwhile, who knew of no renewal: the end of this one
  // or an earlier reading of what it has left may stand behind ours in the log.
  if (!turn.primary || turn.term != found->second.term) {
    REACHED("lease: a renewal comes through the log under another leader");
    return AskAgain(found);
  }
  for (Request& request : found->second.requests) {
    const bool exists = turn.state->LeaseExists(request.lease);
    if (!exists) REACHED("lease: a renewal comes through the log too late");
    if (turn.state->LeaseIsEnding(request.lease) && !MUTANT("renewal-overtakes-the-end")) {
      ending_.push_back(std::move(request));
      continue;
    }
    Answer(turn, request, exists || MUTANT("renewal-of-a-lease-that-is-gone") ? request.ttl : 0);
  }
  replicating_.erase(found);
}

void LeaseDesk::NotReplicated(uint64_t sequence) {
  const auto found = replicating_.find(sequence);
  if (found == replicating_.end()) return;
  REACHED("lease: renewals were not replicated");
  AskAgain(found);
}

void LeaseDesk::AskAgain(ReplicatingMap::iterator renewals) {
  for (Request& request : renewals->second.requests) waiting_.push_back(std::move(request));
  replicating_.erase(renewals);
}

Instant LeaseDesk::NextDeadline() const { return idle() ? kNever : next_scan_; }

}  // namespace conclave::node
