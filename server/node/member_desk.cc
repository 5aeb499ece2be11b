#include "conclave/server/node/member_desk.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "conclave/base/check.h"
#include "conclave/base/little_endian.h"
#include "conclave/base/reached.h"

namespace conclave::node {
namespace {

constexpr size_t kTermBytes = 8;

// The term, little-endian, then the command.
Bytes EncodeForwarded(raft::Term term, const Bytes& command) {
  char* out = nullptr;
  Bytes body = Bytes::Uninitialized(kTermBytes + command.size(), &out);
  StoreLittle(out, term.value());
  std::memcpy(out + kTermBytes, command.view().data(), command.size());
  return body;
}

raft::Term TermOf(std::string_view body) { return raft::Term(LoadLittle<uint64_t>(body.data())); }

}  // namespace

// ---- Asked here ---------------------------------------------------------------------------------

void MemberDesk::Add(Call call) {
  CONCLAVE_CHECK(!full());
  ++unhanded_;
  calls_.emplace(++last_sequence_, std::move(call));
}

void MemberDesk::HandOver(raft::NodeId leader, raft::Term term, Instant now, PeerLinks* links) {
  if (unhanded_ == 0 || !leader) return;
  for (auto& [sequence, call] : calls_) {
    if (call.handed) continue;
    if (leader == self_) {
      if (queue_.size() >= kQueueMax) return;
      queue_.push_back(
          {.from = self_,
           .arrived = now,
           .command = {{static_cast<uint8_t>(call.change.method), self_.value(), sequence},
                       call.change}});
    } else {
      ForwardedRequest request;
      request.id = sequence | kForwardedBit;
      request.kind = ForwardedRequest::Kind::kMemberChange;
      request.body =
          EncodeForwarded(term, apply::EncodeMemberChange(self_.value(), sequence, call.change));
      if (!links->Send(leader, PeerLane::kMessages, std::move(request))) return;
    }
    call.handed = term;
    --unhanded_;
  }
}

std::optional<MemberDesk::Call> MemberDesk::Applied(const apply::CommandHeader& header) {
  if (header.proposer != self_.value()) return std::nullopt;
  return Refused(header.sequence | kForwardedBit);
}

std::optional<MemberDesk::Call> MemberDesk::Refused(uint64_t forwarded) {
  const auto found = calls_.find(forwarded & ~kForwardedBit);
  if (found == calls_.end()) return std::nullopt;
  Call call = std::move(found->second);
  calls_.erase(found);
  if (!call.handed) --unhanded_;
  return call;
}

void MemberDesk::TermApplied(raft::Term term) {
  for (auto& [sequence, call] : calls_) {
    if (!call.handed || call.handed >= term) continue;
    REACHED("member: a change of an earlier term is handed over again");
    call.handed = {};
    ++unhanded_;
  }
}

void MemberDesk::FailIf(absl::FunctionRef<bool(const Call&)> which, Ended ended) {
  for (auto at = calls_.begin(); at != calls_.end();) {
    if (!which(at->second)) {
      ++at;
      continue;
    }
    if (!at->second.handed) --unhanded_;
    ended(at->second);
    at = calls_.erase(at);
  }
}

void MemberDesk::Expire(Instant latest, Ended ended) {
  FailIf([latest](const Call& call) { return call.arrived <= latest; }, ended);
}

void MemberDesk::FailHanded(Ended ended) {
  FailIf([](const Call& call) { return static_cast<bool>(call.handed); }, ended);
}

void MemberDesk::FailAll(Ended ended) {
  FailIf([](const Call&) { return true; }, ended);
}

// ---- Led here -----------------------------------------------------------------------------------

bool MemberDesk::Take(raft::NodeId from, const ForwardedRequest& request, raft::Term term,
                      Instant now) {
  const std::string_view body = request.body.view();
  if (body.size() < kTermBytes || (request.id & kForwardedBit) == 0) return false;
  auto command = apply::DecodeMemberChange(body.substr(kTermBytes));
  if (!command.has_value() || command->header.proposer != from.value()) return false;
  const std::pair key(from, request.id);
  const bool repeated = std::find(seen_.begin(), seen_.end(), key) != seen_.end();
  if (TermOf(body) != term) REACHED("member: a change comes in another term");
  if (repeated) REACHED("member: a change comes twice");
  if (TermOf(body) != term || repeated || queue_.size() >= kQueueMax) return true;
  seen_.push_back(key);
  if (seen_.size() > 2 * kQueueMax) seen_.pop_front();
  queue_.push_back({from, request.id, now, *std::move(command)});
  return true;
}

void MemberDesk::DropOld(Instant latest) {
  while (!queue_.empty() && queue_.front().arrived <= latest) queue_.pop_front();
}

void MemberDesk::DropQueue() {
  queue_.clear();
  seen_.clear();
}

}  // namespace conclave::node
