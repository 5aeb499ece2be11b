#include "conclave/tests/raft/random_world.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/tests/raft/describe.h"

namespace conclave::raft::test {
namespace {

// With CONCLAVE_RAFT_VERBOSE in the environment, all that happens is printed.
const bool verbose = std::getenv("CONCLAVE_RAFT_VERBOSE") != nullptr;

template <typename... Parts>
void Trace(const Parts&... parts) {
  if (verbose) std::cerr << absl::StrCat(parts...) << "\n";
}

constexpr uint64_t kMembers = 5;
constexpr size_t kMaxNetwork = 300;

}  // namespace

RandomWorld::RandomWorld(uint64_t seed) : prng_(seed), temper_(DrawTemper()) {
  constexpr uint64_t kFounders[] = {1, 2, 3, 3, 3, 5, 5};
  const uint64_t count = kFounders[prng_.Below(std::size(kFounders))];
  std::vector<NodeId> founders;
  for (uint64_t id = 1; id <= count; ++id) founders.push_back(NodeId(id));
  for (uint64_t id = 1; id <= kMembers; ++id) {
    Config config;
    config.id = NodeId(id);
    config.election_ticks = 10;
    config.heartbeat_ticks = 2;
    config.suspect_ticks = static_cast<uint32_t>(prng_.Between(3, 10));
    // Small limits, so that they are met.
    config.max_append_bytes = prng_.Chance(1, 2) ? 1 + prng_.Below(60) : 1;
    config.max_inflight_messages = static_cast<uint32_t>(1 + prng_.Below(5));
    config.max_inflight_bytes = 1 + prng_.Below(200);
    config.max_committed_bytes = 1 + prng_.Below(100);
    config.max_uncommitted_bytes = 400;
    config.max_waiting_reads = 8;
    members_.push_back(std::make_unique<Member>(
        config, id <= count ? FoundingSnapshot(founders) : SnapshotMeta()));
    Start(*members_.back());
  }
}

void RandomWorld::RunFaults(int steps) {
  for (int step = 0; step < steps; ++step) {
    OneStep();
    if (step % 64 == 0) CheckLogsMatch();
  }
}

// Each seed has a temper of its own: slow or fast disks, patient or restless elections, many or few
// crashes.
RandomWorld::Temper RandomWorld::DrawTemper() {
  const auto any_of = [&](std::initializer_list<uint64_t> weights) {
    return *(weights.begin() + prng_.Below(weights.size()));
  };
  return {{&RandomWorld::Deliver, any_of({150, 500, 500, 1000})},
          {&RandomWorld::CompleteSomeWrites, any_of({40, 180, 180, 400})},
          {&RandomWorld::TickSome, any_of({50, 100, 100, 300})},
          {&RandomWorld::ProposeSomewhere, any_of({10, 70, 70, 200})},
          {&RandomWorld::ReadSomewhere, any_of({10, 60, 60, 100})},
          {&RandomWorld::EndStream, 20},
          {&RandomWorld::SnapshotSomewhere, any_of({0, 15, 15, 40})},
          {&RandomWorld::CrashOrStart, any_of({0, 5, 5, 30})},
          {&RandomWorld::Partition, any_of({0, 4, 4, 15})},
          {&RandomWorld::ChangeMembership, any_of({0, 0, 20, 40})},
          {&RandomWorld::TransferSomewhere, any_of({0, 3, 3, 10})},
          {&RandomWorld::ReportUnreachable, any_of({0, 3})}};
}

void RandomWorld::OneStep() {
  uint64_t sum = 0;
  for (const auto& [action, weight] : temper_) sum += weight;
  uint64_t dice = prng_.Below(sum);
  for (const auto& [action, weight] : temper_) {
    if (dice < weight) return (this->*action)();
    dice -= weight;
  }
}

void RandomWorld::ReportUnreachable() {
  Member* leader = FindLeader();
  if (leader == nullptr) return;
  leader->node().ReportUnreachable(NodeId(1 + prng_.Below(kMembers)));
  Drain(*leader);
}

// ---- The network ----

void RandomWorld::Post(Envelope envelope) {
  if (faults_ && prng_.Chance(1, 20)) return;
  if (cut_.contains({envelope.from.value(), envelope.to.value()})) return;
  if (faults_ && prng_.Chance(1, 20)) network_.push_back(envelope);
  network_.push_back(std::move(envelope));
  if (network_.size() > kMaxNetwork) {
    network_.erase(network_.begin() + static_cast<ptrdiff_t>(prng_.Below(network_.size())));
  }
}

// Mostly the oldest, sometimes any.
void RandomWorld::Deliver() {
  if (network_.empty()) return;
  const size_t at = faults_ && prng_.Chance(1, 4) ? prng_.Below(network_.size()) : 0;
  Envelope envelope = std::move(network_[at]);
  network_.erase(network_.begin() + static_cast<ptrdiff_t>(at));
  Member& to = Of(envelope.to);
  if (!to.running() || cut_.contains({envelope.from.value(), envelope.to.value()})) return;
  if (verbose) Trace("deliver ", raft::test::Describe(envelope));
  to.node().Step(std::move(envelope));
  // Several inputs may share one turn.
  if (prng_.Chance(3, 4)) Drain(to);
}

void RandomWorld::Partition() {
  cut_.clear();
  if (prng_.Chance(1, 2)) return;
  ++events_["partition"];
  const uint64_t side = prng_.Below(uint64_t{1} << kMembers);
  const bool one_way = prng_.Chance(1, 4);
  for (uint64_t a = 0; a < kMembers; ++a) {
    for (uint64_t b = 0; b < kMembers; ++b) {
      const bool a_in = ((side >> a) & 1) != 0;
      const bool b_in = ((side >> b) & 1) != 0;
      if (a_in != b_in && (!one_way || a_in)) cut_.insert({a + 1, b + 1});
    }
  }
}

// ---- Members ----

Member* RandomWorld::PickRunning() {
  Member& member = Pick();
  return member.running() ? &member : nullptr;
}

Member* RandomWorld::FindLeader() {
  for (auto& member : members_) {
    if (member->running() && member->node().is_leader()) return member.get();
  }
  return nullptr;
}

void RandomWorld::Start(Member& member) {
  Trace("start ", member.config().id.value());
  member.Start(prng_.Next());
  Drain(member);
}

void RandomWorld::Crash(Member& member) {
  ++events_["crash"];
  const uint64_t completed = prng_.Below(member.writes_in_flight() + 1);
  Trace("crash ", member.config().id.value(), ", ", completed, " of ", member.writes_in_flight(),
        " writes completed");
  member.Crash(completed);
  const uint64_t id = member.config().id.value();
  std::erase_if(reads_, [&](const auto& read) { return read.second.member == id; });
  std::erase_if(forwarded_, [&](const auto& item) { return item.first.first == id; });
}

void RandomWorld::CrashOrStart() {
  Member& member = Pick();
  if (member.running()) {
    if (prng_.Chance(1, 4)) Crash(member);
  } else {
    Start(member);
  }
}

void RandomWorld::TickSome() {
  if (Member* member = PickRunning()) {
    member->node().Tick();
    Drain(*member);
  }
}

void RandomWorld::CompleteSomeWrites() {
  Member* member = PickRunning();
  if (member == nullptr || member->writes_in_flight() == 0) return;
  const uint64_t count = 1 + prng_.Below(member->writes_in_flight());
  Trace(member->config().id.value(), " completes ", count, " writes, the last is ",
        member->writes()[count - 1].id.value());
  for (Envelope& envelope : member->CompleteWrites(count)) {
    Post(std::move(envelope));
  }
  Drain(*member);
}

void RandomWorld::Drain(Member& member) {
  while (member.node().HasReady()) {
    Ready ready = member.TakeReady();
    if (verbose) Trace(member.config().id.value(), ": ", raft::test::Describe(ready));
    for (Envelope& envelope : ready.messages) Post(std::move(envelope));
    for (const Entry& entry : ready.committed) CheckCommitted(member, entry);
    for (const ReadState& read : ready.reads) AnswerRead(member, read.id, read.index);
    for (ReadId id : ready.failed_reads) AnswerRead(member, id, std::nullopt);
    for (NodeId peer : ready.snapshots_needed) {
      ++events_["snapshot stream"];
      const Index at = std::min(member.state(), member.node().stable());
      streams_.push_back({member.config().id,
                          peer,
                          {at, *member.node().TermAt(at), member.node().ConfStateAt(at)}});
    }
    for (const DroppedProposals& dropped : ready.dropped_proposals) {
      ++events_["forwarded refused"];
      for (const std::string& payload :
           forwarded_[{member.config().id.value(), dropped.id.value()}]) {
        refused_payloads_.insert(payload);
        CONCLAVE_CHECK(!applied_payloads_.contains(payload), "refused, and yet applied");
      }
    }
    if (member.node().is_leader()) CheckLeader(member);
  }
}

void RandomWorld::SnapshotSomewhere() {
  Member* member = PickRunning();
  if (member == nullptr) return;
  const Index at = std::min(member->state(), member->node().stable());
  if (at <= member->disk().snapshot().index) return;
  ++events_["snapshot"];
  const Index base = member->node().first_index() - 1;
  Trace("snapshot of ", member->config().id.value(), " at ", at.value());
  member->SaveSnapshot(at, base + prng_.Below(at - base + 1));
  Drain(*member);
}

void RandomWorld::EndStream() {
  if (streams_.empty()) return;
  const Stream stream = streams_.front();
  streams_.erase(streams_.begin());
  Member& from = Of(stream.from);
  Member& to = Of(stream.to);
  const bool arrives = to.running() && !(faults_ && prng_.Chance(1, 4));
  if (arrives) {
    Trace("snapshot ", stream.meta.index.value(), "/t", stream.meta.term.value(), " arrives at ",
          stream.to.value());
    if (to.InstallSnapshot(stream.meta)) ++events_["snapshot installed"];
    Drain(to);
  }
  if (from.running()) {
    from.node().SnapshotStatus(stream.to,
                               arrives ? std::optional<Index>(stream.meta.index) : std::nullopt);
    Drain(from);
  }
}

// ---- Work ----

void RandomWorld::ProposeSomewhere() {
  if (Member* member = PickRunning()) Propose(*member);
}

bool RandomWorld::Propose(Member& member) {
  std::vector<Bytes> payloads;
  std::vector<std::string> names;
  for (uint64_t i = 0; i <= prng_.Below(3); ++i) {
    names.push_back(absl::StrCat("p", next_payload_++));
    payloads.push_back(Bytes::Copy(names.back()));
  }
  ProposeResult result = member.node().Propose(payloads);
  if (result.status == ProposeStatus::kNotLeader) {
    result = member.node().Forward(EntryType::kCommand, payloads);
    if (result.status == ProposeStatus::kForwarded) {
      ++events_["forwarded"];
      forwarded_[{member.config().id.value(), result.forwarded.value()}] = names;
    }
  }
  if (result.status != ProposeStatus::kForwarded && result.status != ProposeStatus::kAccepted) {
    refused_payloads_.insert(names.begin(), names.end());
  }
  if (result.status == ProposeStatus::kTooManyUncommitted) ++events_["too many uncommitted"];
  Drain(member);
  return result.status == ProposeStatus::kAccepted;
}

void RandomWorld::ReadSomewhere() {
  Member* member = PickRunning();
  if (member == nullptr) return;
  const ReadId id(++next_read_);
  reads_[id.value()] = {member->config().id.value(), Index(committed_.size() + 1)};
  if (member->node().ReadIndex(id) != ReadStatus::kAccepted) reads_.erase(id.value());
  Drain(*member);
}

void RandomWorld::AnswerRead(const Member& member, ReadId id, std::optional<Index> index) {
  const auto read = reads_.find(id.value());
  CONCLAVE_CHECK(read != reads_.end(), "a read is answered twice, or was never asked");
  CONCLAVE_CHECK(read->second.member == member.config().id.value());
  if (index.has_value()) {
    ++events_[member.node().is_leader() ? "read at leader" : "read at follower"];
    CONCLAVE_CHECK(*index >= read->second.floor, "a stale read: ", index->value(), " < ",
                   read->second.floor.value());
  } else {
    ++events_["read failed"];
  }
  reads_.erase(read);
}

void RandomWorld::ChangeMembership() {
  Member* member = PickRunning();
  if (member == nullptr) return;
  ConfChange change;
  if (!member->node().conf().voters_outgoing.empty() && prng_.Chance(1, 2)) {
    change.kind = ConfChangeKind::kLeaveJoint;
  } else {
    change.kind = static_cast<ConfChangeKind>(prng_.Below(3));
    for (uint64_t i = 0; i <= prng_.Below(3); ++i) {
      change.steps.push_back(
          {static_cast<ConfChangeType>(prng_.Below(3)), NodeId(1 + prng_.Below(kMembers))});
    }
  }
  if (member->node().ProposeConfChange(change).status == ProposeStatus::kAccepted) {
    ++events_[member->node().conf().voters_outgoing.empty() ? "simple change" : "joint change"];
  }
  Drain(*member);
}

void RandomWorld::TransferSomewhere() {
  Member* leader = FindLeader();
  if (leader == nullptr) return;
  if (leader->node().TransferLeader(NodeId(1 + prng_.Below(kMembers))) ==
      TransferStatus::kStarted) {
    ++events_["transfer"];
  }
  Drain(*leader);
}

// ---- What must hold ----

void RandomWorld::CheckCommitted(Member& member, const Entry& entry) {
  const size_t at = entry.index.value() - 2;
  const ConfState& conf = member.node().ConfStateAt(entry.index);
  if (at < committed_.size()) {
    CONCLAVE_CHECK(committed_[at] == entry, "members apply different entries at ",
                   entry.index.value());
    CONCLAVE_CHECK(confs_[at] == conf, "members differ in the configuration at ",
                   entry.index.value());
    return;
  }
  CONCLAVE_CHECK(at == committed_.size());
  committed_.push_back(entry);
  confs_.push_back(conf);
  if (entry.type == EntryType::kConfChange || entry.payload.empty()) return;
  const std::string payload = entry.payload.ToString();
  CONCLAVE_CHECK(applied_payloads_.insert(payload).second, payload, " is applied twice");
  CONCLAVE_CHECK(!refused_payloads_.contains(payload), payload, " was refused, and yet applied");
}

void RandomWorld::CheckLeader(Member& member) {
  const RawNode& node = member.node();
  const auto [known, is_new] = leader_of_term_.try_emplace(node.term().value(), node.id().value());
  CONCLAVE_CHECK(known->second == node.id().value(), "two leaders in term ", node.term().value());
  if (!is_new) return;
  ++events_["leader"];
  for (const Entry& entry : committed_) {
    if (entry.index < node.first_index()) continue;
    CONCLAVE_CHECK(node.TermAt(entry.index) == entry.term, "leader ", node.id().value(),
                   " lacks the committed entry ", entry.index.value());
  }
}

void RandomWorld::CheckLogsMatch() {
  for (auto& a : members_) {
    for (auto& b : members_) {
      if (a == b || !a->running() || !b->running()) continue;
      const Index low = std::max(a->node().first_index(), b->node().first_index());
      Index at = std::min(a->node().last_index(), b->node().last_index());
      while (at >= low && a->node().TermAt(at) != b->node().TermAt(at)) at = at - 1;
      for (; at >= low; at = at - 1) {
        CONCLAVE_CHECK(a->node().TermAt(at) == b->node().TermAt(at), "logs part below a match at ",
                       at.value());
      }
    }
  }
}

// ---- Liveness ----

void RandomWorld::HealAndConverge() {
  faults_ = false;
  cut_.clear();
  for (auto& member : members_) {
    if (!member->running()) Start(*member);
  }
  constexpr int kRoundsMax = 400;
  std::optional<Term> proposed;  // a leader of a later term may not have it
  uint64_t target = 0;
  for (int round = 0; round < kRoundsMax; ++round) {
    while (!network_.empty() || !streams_.empty()) {
      EndStream();
      Deliver();
      for (auto& member : members_) {
        for (Envelope& envelope : member->CompleteWrites(member->writes_in_flight())) {
          Post(std::move(envelope));
        }
        Drain(*member);
      }
    }
    Member* leader = FindLeader();
    if (leader != nullptr && leader->node().leader_is_current() &&
        proposed != leader->node().term()) {
      target = committed_.size() + 1;
      if (Propose(*leader)) proposed = leader->node().term();
    }
    if (proposed.has_value() && committed_.size() >= target && Converged()) return;
    for (auto& member : members_) {
      member->node().Tick();
      for (Envelope& envelope : member->CompleteWrites(member->writes_in_flight())) {
        Post(std::move(envelope));
      }
      Drain(*member);
    }
  }
  CONCLAVE_CHECK(false, "no agreement after healing; committed ", committed_.size(),
                 ", reads open ", reads_.size(), "\n", Describe());
}

std::string RandomWorld::Describe() const {
  std::string text;
  const auto ids = [&](const char* name, const std::vector<NodeId>& list) {
    absl::StrAppend(&text, " ", name, "(");
    for (NodeId id : list) absl::StrAppend(&text, " ", id.value());
    absl::StrAppend(&text, " )");
  };
  for (const auto& member : members_) {
    if (!member->running()) continue;
    const Status status = member->node().status();
    absl::StrAppend(&text, status.id.value(), ": role ", static_cast<int>(status.role), " leader ",
                    status.leader.value(), " term ", status.term.value(), " log ",
                    status.first_index.value(), "..", status.last_index.value(), " commit ",
                    status.commit.value(), " stable ", status.stable.value(), " writes ",
                    member->writes_in_flight());
    ids("voters", status.conf.voters);
    ids("outgoing", status.conf.voters_outgoing);
    ids("learners", status.conf.learners);
    for (const PeerStatus& peer : status.peers) {
      absl::StrAppend(&text, " [", peer.id.value(), " state ", static_cast<int>(peer.state),
                      " match ", peer.match.value(), " next ", peer.next.value(), " inflight ",
                      peer.inflight_messages, peer.recent_active ? " active]" : "]");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

// All members of the effective configuration have applied everything, and no read waits.
bool RandomWorld::Converged() {
  Member* leader = FindLeader();
  if (leader == nullptr || !reads_.empty()) return false;
  for (const PeerStatus& peer : leader->node().status().peers) {
    if (Of(peer.id).state() != leader->node().last_index()) return false;
  }
  return true;
}

}  // namespace conclave::raft::test
