// The membership: changing it, and following its changes.
//
//   asked member            leader
//   ChangeMembers --------> TakeMemberChange        its queue; one change at a time
//                           ProposeMembers          checked when everything before it is applied
//          <--refusal-----  or appended: effective for Raft at once on whoever has the entry
//   ApplyConfChange         ApplyConfChange         seen by clients; the asked member answers
//
// A voter that is added begins as a learner of Raft's, so that a cluster that grows never waits for
// it; it gets its vote from the leader when it has caught up (GiveVotes). Clients see it as a voter
// from the beginning, as in etcd.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/api/wire/requests.h"
#include "conclave/base/check.h"
#include "conclave/base/mutant.h"
#include "conclave/base/reached.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/directory.h"
#include "conclave/server/node/node_impl.h"
#include "conclave/server/node/own_call.h"

namespace conclave::node {
namespace {

using apply::MemberChange;

// A new voter has caught up when it lacks no more entries than that.
constexpr uint64_t kVoteLagMax = 1'000;
// A learner may be promoted when it has this part of the leader's log (etcd's number).
constexpr double kPromotionPart = 0.9;
// For how long a removed member may still be told so.
constexpr int kDepartureElections = 2;
// Members that this one does not know, and for how long: to catch up may take a snapshot.
constexpr size_t kStrangersMax = 16;
constexpr int kStrangerElections = 60;

std::string Hex(uint64_t id) { return absl::StrCat(absl::Hex(id)); }

bool Contains(const std::vector<raft::NodeId>& sorted, raft::NodeId id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

}  // namespace

// ---- Asked here ---------------------------------------------------------------------------------

void Node::Impl::ChangeMembers(UnaryCall& call) {
  MemberDesk::Call waiting;
  waiting.call = call.id;
  waiting.arrived = now_;
  waiting.bytes = call.request.size();
  const std::string_view body = call.request.view().substr(kRequestHeadroom);
  const wire::Error* error = apply::ParseMemberChange(call.method, body, &waiting.change);
  if (error == nullptr && member_desk_.full()) error = &wire::kErrTooManyRequests;
  if (error != nullptr) {
    Reply(call.id, call.method, now_, waiting.bytes, error, {});
    return;
  }
  if (call.method == Method::kMemberAdd) {
    // etcd takes the time of day for its salt; any number that does not come again will do.
    waiting.change.id = MemberId(waiting.change.peer_urls, absl::StrCat(prng_.Next())).value();
  }
  member_desk_.Add(std::move(waiting));
}

void Node::Impl::MemberChangeRefused(const ForwardedAnswer& answer) {
  if (const auto call = member_desk_.Refused(answer.id)) {
    ReplyError(call->call, answer.code, answer.message);
  }
}

// Everything but Status and a serializable Range is the voters' affair; without a state there is
// nothing to tell at all.
const wire::Error* Node::Impl::Restriction(const UnaryCall& call) const {
  if (state_->applied_index() == 0) return &wire::kErrNoLeader;
  if (call.method == Method::kStatus || IsOwnCall(call.id)) return nullptr;
  wire::RangeRequest range;
  const bool serializable = call.method == Method::kRange &&
                            wire::Parse(call.request.view().substr(kRequestHeadroom), &range) &&
                            range.serializable;
  return serializable ? nullptr : &wire::kErrNotSupportedForLearner;
}

// ---- Led here -----------------------------------------------------------------------------------

const char* Node::Impl::TakeMemberChange(raft::NodeId from, const ForwardedRequest& request) {
  if (!raft_.is_leader()) return nullptr;  // the term that it was for is over
  return member_desk_.Take(from, request, raft_.term(), now_)
             ? nullptr
             : "it asks for a change of membership that is none";
}

void Node::Impl::Refuse(const MemberDesk::Queued& queued, const wire::Error& error) {
  if (queued.from == options_.id) {
    const auto call = member_desk_.Applied(queued.command.header);
    if (!call.has_value()) return;
    Reply(call->call, call->change.method, call->arrived, call->bytes, &error, {});
    return;
  }
  REACHED("member: a forwarded change is refused");
  ForwardedAnswer answer;
  answer.id = queued.forwarded;
  answer.code = static_cast<int>(error.code);
  answer.message = error.message;
  links_.Send(queued.from, PeerLane::kMessages, std::move(answer));
}

void Node::Impl::ProposeMembers() {
  member_desk_.HandOver(raft_.leader(), raft_.term(), now_, &links_);
  if (!raft_.is_leader()) {
    if (member_desk_.has_queued()) REACHED("member: changes wait at who leads no more");
    member_desk_.DropQueue();
    return;
  }
  // One at a time, and each is checked against a state that knows all before it.
  if ((!raft_.leader_is_current() && !MUTANT("conf-change-before-the-first-commit")) ||
      (applied() < raft_.conf_entry() && !MUTANT("two-conf-changes-at-once")) || GiveVotes()) {
    return;
  }
  while (member_desk_.has_queued()) {
    const MemberDesk::Queued& queued = member_desk_.front();
    const wire::Error* error = WhyNot(queued.command.change);
    if (error == nullptr) {
      switch (raft_.ProposeConfChange(RaftChange(queued)).status) {
        case raft::ProposeStatus::kConfChangeInvalid:
          REACHED("member: no voter would be left");
          // The one that is to stay has not got its vote yet.
          error = &wire::kErrUnhealthy;
          break;
        case raft::ProposeStatus::kAccepted:
          member_desk_.Pop();
          return;
        default:
          return;  // a transfer is under way: in a moment
      }
    }
    Refuse(queued, *error);
    member_desk_.Pop();
  }
}

// A voter for the clients that is still a learner for Raft gets its vote when it has caught up and
// has published itself, so that whoever votes is known to have started (Server's refusal to join
// twice rests on this). True if one was given now.
bool Node::Impl::GiveVotes() {
  if (raft_.conf().learners.empty() || now_ < next_votes_) return false;
  next_votes_ = now_ + tick_;
  const auto is_due = [this](raft::NodeId id) {
    const apply::Member* member = state_->membership().Find(id.value());
    return member != nullptr && !member->is_learner && !member->name.empty();
  };
  const std::vector<raft::NodeId>& learners = raft_.conf().learners;
  if (std::none_of(learners.begin(), learners.end(), is_due)) return false;
  for (const raft::PeerStatus& peer : raft_.status().peers) {
    if (!peer.is_learner || !is_due(peer.id) || !peer.recent_active || !peer.match ||
        peer.match.value() + kVoteLagMax < raft_.last_index().value()) {
      continue;
    }
    raft::ConfChange change;
    change.steps.push_back({raft::ConfChangeType::kAddVoter, peer.id});
    if (raft_.ProposeConfChange(change).status != raft::ProposeStatus::kAccepted) return false;
    Log(Severity::kInfo, "a new member has caught up and votes from now on",
        {{"member", Hex(peer.id.value())}});
    return true;
  }
  return false;
}

size_t Node::Impl::ConnectedVoters() const {
  size_t connected = 0;
  for (const auto& [id, member] : state_->membership().members()) {
    if (member.is_learner) continue;
    const raft::NodeId peer(id);
    if (peer == options_.id || links_.ConnectedFor(peer, now_) >= options_.health_interval) {
      ++connected;
    }
  }
  return connected;
}

// etcd's rules, in etcd's order.
const wire::Error* Node::Impl::WhyNot(const MemberChange& change) const {
  const apply::Membership& members = state_->membership();
  const apply::Member* const member = members.Find(change.id);
  const bool strict = options_.strict_reconfig_check;
  const size_t voters = members.voters();
  if (change.method == Method::kMemberAdd && strict) {
    if (!change.is_learner && !members.QuorumStartedWithOneMore()) {
      return &wire::kErrMemberNotEnoughStarted;
    }
    const size_t after = voters + (change.is_learner ? 0 : 1);
    if (voters > 1 && ConnectedVoters() < after / 2 + 1) return &wire::kErrUnhealthy;
  }
  if (change.method == Method::kMemberRemove && strict &&
      (member == nullptr || !member->is_learner)) {
    if (!members.QuorumStartedWithout(change.id)) return &wire::kErrMemberNotEnoughStarted;
    // Who is down takes nothing away.
    const raft::NodeId id(change.id);
    const bool active = id == options_.id || links_.connected(id, PeerLane::kMessages);
    if (active && ConnectedVoters() < 2 + (voters - 1) / 2) return &wire::kErrUnhealthy;
  }
  if (change.method == Method::kMemberPromote && member != nullptr) {
    if (member->is_learner) {
      const std::vector<raft::PeerStatus> peers = raft_.status().peers;
      const auto found = std::find_if(peers.begin(), peers.end(), [&](const auto& peer) {
        return peer.id.value() == change.id;
      });
      const double mine = static_cast<double>(raft_.stable().value());
      if (!MUTANT("learner-promoted-before-it-is-ready") &&
          (found == peers.end() || member->name.empty() ||
           static_cast<double>(found->match.value()) < mine * kPromotionPart)) {
        REACHED("member: a learner is not ready for its vote");
        return &wire::kErrLearnerNotReady;
      }
    }
    if (strict && !members.QuorumStartedWithLearner()) return &wire::kErrMemberNotEnoughStarted;
  }
  return members.Check(change, options_.learners_max);
}

// An update changes nothing for Raft, but takes its place among the changes.
raft::ConfChange Node::Impl::RaftChange(const MemberDesk::Queued& queued) const {
  const MemberChange& wish = queued.command.change;
  const apply::CommandHeader& header = queued.command.header;
  const raft::NodeId id(wish.id);
  raft::ConfChangeType type = raft::ConfChangeType::kAddLearner;
  if (wish.method == Method::kMemberRemove) type = raft::ConfChangeType::kRemove;
  if (wish.method == Method::kMemberPromote ||
      (wish.method == Method::kMemberUpdate && Contains(raft_.conf().voters, id))) {
    type = raft::ConfChangeType::kAddVoter;
  }
  raft::ConfChange change;
  change.steps.push_back({type, id});
  change.context = apply::EncodeMemberChange(header.proposer, header.sequence, wish);
  return change;
}

// ---- Applied ------------------------------------------------------------------------------------

void Node::Impl::ApplyConfChange(const apply::ApplyContext& context, const raft::Entry& entry) {
  follow_members_ = true;
  if (member_desk_.has_queued()) again_ = true;
  const auto change = raft::DecodeConfChange(entry.payload);
  CONCLAVE_CHECK(change.has_value(), "Raft has checked it");
  const auto command = apply::DecodeMemberChange(change->context.view());
  if (!command.has_value()) {
    CONCLAVE_CHECK(change->context.empty(), "entry ", context.index,
                   " has a change of membership that this version does not know");
    state_->Advance(context.index, context.entry_term);
    return;
  }
  const MemberChange& wish = command->change;
  const raft::NodeId id(wish.id);
  const apply::Member* member = state_->membership().Find(wish.id);
  if (wish.method == Method::kMemberRemove && member != nullptr && id != options_.id) {
    departing_[id] = {{id, member->peer_urls},
                      now_ + kDepartureElections * options_.election_timeout};
  }
  auto call = member_desk_.Applied(command->header);
  apply::ApplyContext asked = context;
  asked.want_response = call.has_value();
  apply::ApplyResult result = state_->ApplyMemberChange(asked, wish);
  if (call.has_value()) {
    Reply(call->call, wish.method, call->arrived, call->bytes, result.error,
          std::move(result.response));
  }
  constexpr char kAdded[] = "added member";
  const char* what = wish.method == Method::kMemberAdd      ? kAdded
                     : wish.method == Method::kMemberRemove ? "removed member"
                     : wish.method == Method::kMemberUpdate ? "updated member"
                                                            : "promoted member";
  Log(Severity::kInfo, what,
      {{"member", Hex(wish.id)}, {"learner", wish.is_learner ? "true" : "false"}});
}

// ---- Followed -----------------------------------------------------------------------------------

// The links are as what is applied says, and what is only in the log yet: Raft speaks to a new
// member as soon as its entry is appended.
std::vector<PeerAddress> Node::Impl::GatherPeers() const {
  absl::btree_map<raft::NodeId, PeerAddress> peers;
  for (const auto& [id, member] : state_->membership().members()) {
    peers[raft::NodeId(id)] = {raft::NodeId(id), member.peer_urls};
  }
  for (const auto& [id, departing] : departing_) peers.try_emplace(id, departing.address);
  for (const auto& [id, stranger] : strangers_) peers.try_emplace(id, stranger.address);
  if (state_->applied_index() == 0) {
    for (const PeerAddress& address : acquaintances_) peers.try_emplace(address.id, address);
  }
  if (raft_.conf_entry() > applied()) {
    for (raft::Index at = std::max(applied() + 1, raft_.first_index()); at <= raft_.last_index();
         ++at) {
      if (raft_.EntryAt(at).type != raft::EntryType::kConfChange) continue;
      const auto change = raft::DecodeConfChange(raft_.EntryAt(at).payload);
      const auto command =
          change.has_value() ? apply::DecodeMemberChange(change->context.view()) : std::nullopt;
      if (!command.has_value() || command->change.peer_urls.empty()) continue;
      PeerAddress& peer = peers[raft::NodeId(command->change.id)];
      peer.id = raft::NodeId(command->change.id);
      REACHED("member: a new peer's address is only in the log yet");
      for (const std::string& url : command->change.peer_urls) {
        if (std::find(peer.peer_urls.begin(), peer.peer_urls.end(), url) == peer.peer_urls.end()) {
          peer.peer_urls.push_back(url);
        }
      }
    }
  }
  std::vector<PeerAddress> all;
  for (auto& [id, peer] : peers) {
    if (id != options_.id) all.push_back(std::move(peer));
  }
  return all;
}

void Node::Impl::FollowMembers() {
  const std::pair conf(raft_.conf_entry(), raft_.TermAt(raft_.conf_entry()).value_or(raft::Term()));
  if (absl::erase_if(departing_, [this](const auto& e) { return e.second.until <= now_; }) > 0 ||
      absl::erase_if(strangers_, [this](const auto& e) { return e.second.until <= now_; }) > 0 ||
      conf != seen_conf_) {
    follow_members_ = true;
  }
  if (!follow_members_) return;
  follow_members_ = false;
  seen_conf_ = conf;
  const apply::Membership& members = state_->membership();
  absl::erase_if(strangers_, [&](const auto& entry) {
    const uint64_t id = entry.first.value();
    return members.Find(id) != nullptr || members.removed().contains(id);
  });
  if (state_->applied_index() > 0) acquaintances_.clear();

  std::vector<PeerAddress> peers = GatherPeers();
  if (peers != peers_ || stats_.turns == 1) {
    peers_ = std::move(peers);
    std::vector<raft::NodeId> ids;
    for (const PeerAddress& peer : peers_) ids.push_back(peer.id);
    links_.SetPeers(ids);
    effects_->peers = peers_;
  }
  if (state_->applied_index() > 0) {
    PeerDirectory directory{.members = EncodeDirectory(members, state_->cluster_version()),
                            .removed = {}};
    for (const uint64_t id : members.removed()) {
      if (!departing_.contains(raft::NodeId(id))) directory.removed.emplace_back(id);
    }
    if (directory != directory_) {
      directory_ = std::move(directory);
      effects_->directory = directory_;
    }
  }
  const apply::Member* self = members.Find(options_.id.value());
  restricted_ = state_->applied_index() == 0 || (self != nullptr && self->is_learner) ||
                (restricted_ && self != nullptr && MUTANT("promoted-member-acts-as-a-learner"));
  if (members.removed().contains(options_.id.value())) LeaveCluster("the log");
}

void Node::Impl::Take(Acquaintances& met) {
  if (state_->applied_index() > 0) return;  // it knows better by now
  acquaintances_ = std::move(met.others);
  follow_members_ = true;
}

// While a member was away, all that it knew may have been replaced. Whoever leads now has it as a
// peer and speaks to it, and it must hear that, as Raft wants (thesis 4.1: nobody looks at the
// configuration before it takes a message), and answer: so it must be told where to.
void Node::Impl::Introduce(raft::NodeId peer) {
  const apply::Member* self = state_->membership().Find(options_.id.value());
  if (self == nullptr || self->peer_urls.size() > kIntroducedUrlsMax) return;
  links_.Send(peer, PeerLane::kMessages, Introduction{self->peer_urls});
}

void Node::Impl::Meet(const PeerFrame& frame) {
  if (state_->membership().removed().contains(frame.from.value()) ||
      strangers_.size() >= kStrangersMax) {
    return;
  }
  std::vector<PeerItem> items;
  if (!DecodeFrame(frame.frame, frame.from, options_.id, &items).ok() || items.empty()) return;
  const auto* introduction = std::get_if<Introduction>(&items.front());
  if (introduction == nullptr) return;
  REACHED("member: one that nobody knew here says who it is");
  Log(Severity::kInfo, "a member that is not known here yet has said who it is",
      {{"member", Hex(frame.from.value())}});
  strangers_[frame.from] = {{frame.from, introduction->peer_urls},
                            now_ + kStrangerElections * options_.election_timeout};
  follow_members_ = true;
  FollowMembers();
}

// ---- Leaving ------------------------------------------------------------------------------------

void Node::Impl::Take(RemovedByPeer& removed) {
  REACHED("member: a peer says that this member was removed");
  LeaveCluster(Hex(removed.peer.value()));
}

void Node::Impl::LeaveCluster(std::string_view who_says) {
  if (std::exchange(removed_, true)) return;
  Log(Severity::kWarning, "the member has been permanently removed from the cluster",
      {{"member", Hex(options_.id.value())}, {"says", std::string(who_says)}});
  if (!stopping_.has_value()) stopping_ = now_;
}

}  // namespace conclave::node
