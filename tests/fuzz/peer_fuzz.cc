// Fuzzes what a member takes from its peers: frames of a correct form with any content.
//
// Input: one byte of flags, then items, each as a byte (bits 0-1: which peer, bit 2: on the lane of
// snapshots, bit 3: time passes first), a length of two bytes and the encoded item of a frame; what
// goes round it is made right. Flag 1: the member leads its cluster, else it follows. Whatever its
// peers say, the member stays up, never takes back what it has applied, and its state stays whole;
// an item that can be decoded is encoded to the same again.
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/crc32c.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/command.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/node.h"
#include "conclave/server/node/peer_codec.h"
#include "conclave/server/raft/confchange/confchange.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace conclave::node {
namespace {

constexpr size_t kFrameHead = 21;
constexpr uint8_t kLeads = 1;
constexpr size_t kItemsMax = 64;

InitialCluster Cluster() {
  static const auto* const kCluster = new InitialCluster(*FoundCluster(
      std::vector<FoundingMember>{
          {"a", {"http://10.0.0.1"}}, {"b", {"http://10.0.0.2"}}, {"c", {"http://10.0.0.3"}}},
      "fuzz"));
  return *kCluster;
}

// A frame with everything right but its items.
Bytes Frame(raft::NodeId from, raft::NodeId to, std::string_view items) {
  std::string frame(EncodeFrame(from, to, {}).view().substr(0, kFrameHead));
  frame.append(items);
  const uint32_t crc = Crc32c(std::string_view(frame).substr(4));
  std::memcpy(frame.data(), &crc, 4);
  return Bytes::Copy(frame);
}

// One member with an instant log, and two peers of which only what the input says is heard.
class Target {
 public:
  explicit Target(bool leads) {
    options_.id = self();
    options_.name = "a";
    options_.cluster_id = Cluster().cluster_id;
    options_.version = "3.5.0";
    options_.seed = 7;
    node_ = std::make_unique<Node>(options_, FoundingState(options_, Cluster()), now_);
    for (int peer : {1, 2}) {
      for (const PeerLane lane : {PeerLane::kMessages, PeerLane::kSnapshot}) {
        Put(PeerConnection{Id(peer), lane, true});
      }
    }
    if (leads) Elect();
  }

  static raft::NodeId Id(size_t member) { return Cluster().members[member].id; }
  static raft::NodeId self() { return Id(0); }

  void Hear(raft::NodeId from, PeerLane lane, std::string_view items) {
    Put(PeerFrame{from, lane, Frame(from, self(), items)});
  }
  void Advance(Duration duration) {
    now_ += duration;
    Turn();
  }
  void Finish() {
    for (int i = 0; i < 30; ++i) Advance(std::chrono::milliseconds(100));
    node_->state().CheckInvariants();
  }
  RaftStatus status() const { return node_->raft_status(); }

 private:
  void Put(Input input) {
    inputs_.push_back(std::move(input));
    Turn();
  }
  void Turn() {
    for (int turns = 0; turns < 100; ++turns) {
      Effects effects;
      std::vector<Input> inputs = std::exchange(inputs_, {});
      node_->Turn(now_, inputs, &effects);
      const raft::Index applied = node_->raft_status().applied;
      CONCLAVE_CHECK(applied >= applied_, "the member takes back what it has applied");
      applied_ = applied;
      if (effects.append.has_value()) inputs_.push_back(LogSynced{effects.append->batch, {}});
      for (SnapshotPiece& piece : effects.snapshot_pieces) {
        if (!piece.data.empty()) inputs_.push_back(SnapshotWritten{piece.data.size()});
        if (piece.last) {
          inputs_.push_back(std::make_unique<SnapshotSaved>(SnapshotSaved{piece.meta, 1}));
        }
      }
      for (const PeerSend& send : effects.peer_sends) sent_.push_back(send);
      if (inputs_.empty() && node_->NextDeadline() > now_) return;
    }
  }
  // Both peers grant what it asks for and take what it sends, until it leads.
  void Elect() {
    for (int i = 0; i < 100 && !status().is_leader; ++i) {
      Advance(std::chrono::milliseconds(100));
      for (const PeerSend& send : std::exchange(sent_, {})) {
        std::vector<PeerItem> items;
        CONCLAVE_CHECK(DecodeFrame(send.frame, self(), send.to, &items).ok());
        for (const PeerItem& item : items) {
          const auto* envelope = std::get_if<raft::Envelope>(&item);
          if (envelope == nullptr) continue;
          const auto* request = std::get_if<raft::VoteRequest>(&envelope->message);
          if (request == nullptr) continue;
          const PeerItem vote = raft::Envelope{send.to, self(), envelope->term,
                                               raft::VoteResponse{request->pre_vote, true}};
          Put(PeerFrame{send.to, PeerLane::kMessages, EncodeFrame(send.to, self(), {&vote, 1})});
        }
      }
    }
    CONCLAVE_CHECK(status().is_leader, "two votes make a leader");
  }

  Options options_;
  Instant now_{};
  std::unique_ptr<Node> node_;
  std::vector<Input> inputs_;
  std::vector<PeerSend> sent_;
  raft::Index applied_;
};

void CheckRoundTrip(raft::NodeId from, std::string_view encoded) {
  std::vector<PeerItem> items;
  if (!DecodeFrame(Frame(from, Target::self(), encoded), from, Target::self(), &items).ok()) return;
  std::vector<PeerItem> again;
  CONCLAVE_CHECK(
      DecodeFrame(EncodeFrame(from, Target::self(), items), from, Target::self(), &again).ok());
  CONCLAVE_CHECK(items == again, "an item is not encoded to itself");
}

void RunOne(std::string_view input) {
  if (input.empty()) return;
  Target target((static_cast<uint8_t>(input[0]) & kLeads) != 0);
  input.remove_prefix(1);
  for (size_t count = 0; count < kItemsMax && input.size() >= 3; ++count) {
    const auto how = static_cast<uint8_t>(input[0]);
    const size_t length = static_cast<uint8_t>(input[1]) | static_cast<uint8_t>(input[2]) << 8;
    input.remove_prefix(3);
    const std::string_view items = input.substr(0, length);
    input.remove_prefix(items.size());
    const raft::NodeId from = Target::Id(1 + (how & 1));
    if ((how & 8) != 0) target.Advance(std::chrono::milliseconds(200));
    CheckRoundTrip(from, items);
    target.Hear(from, (how & 4) != 0 ? PeerLane::kSnapshot : PeerLane::kMessages, items);
  }
  target.Finish();
}

// ---- Seeds --------------------------------------------------------------------------------------

std::string Item(uint8_t how, const PeerItem& item) {
  const raft::NodeId from = Target::Id(1 + (how & 1));
  const Bytes frame = EncodeFrame(from, Target::self(), {&item, 1});
  const std::string_view encoded = frame.view().substr(kFrameHead);
  std::string out(1, static_cast<char>(how));
  out.push_back(static_cast<char>(encoded.size()));
  out.push_back(static_cast<char>(encoded.size() >> 8));
  return out.append(encoded);
}

PeerItem In(uint64_t term, uint8_t how, raft::Message message) {
  return raft::Envelope{Target::Id(1 + (how & 1)), Target::self(), raft::Term(term),
                        std::move(message)};
}

std::vector<std::string> Seeds() {
  using raft::Index;
  using raft::Term;
  // The member founds its cluster at index 1, say; what follows continues it there.
  const Target follower(false);
  const Index base = follower.status().applied;
  const Target leader(true);
  const uint64_t term = leader.status().term.value();
  Prng prng(1);
  const auto entry = [](uint64_t entry_term, Index index) {
    return raft::Entry{Term(entry_term), index, raft::EntryType::kCommand,
                       apply::EncodeClusterVersion(Target::Id(1).value(), 0, "3.5.0")};
  };
  std::vector<std::string> seeds;
  for (const uint8_t flags : {0, 1}) {
    const uint64_t at = flags == 0 ? 2 : term;
    const std::string head(1, static_cast<char>(flags));
    std::string all = head;
    const auto add = [&](uint8_t how, const PeerItem& item) {
      seeds.push_back(head + Item(how, item));
      all += Item(how, item);
    };
    add(0, In(at + 1, 0, raft::VoteRequest{true, false, base + 1, Term(at)}));
    add(0, In(at, 0, raft::VoteResponse{false, true}));
    raft::AppendEntries append{base, Term(1), base + 1, {entry(at, base + 1), entry(at, base + 2)}};
    add(0, In(at, 0, append));
    raft::ConfChange change;
    change.steps.push_back({raft::ConfChangeType::kAddLearner, raft::NodeId(99)});
    append.entries[1].type = raft::EntryType::kConfChange;
    append.entries[1].payload = raft::EncodeConfChange(change);
    add(0, In(at + 1, 0, append));
    add(1, In(at, 1, raft::AppendResponse{false, base + 1, {}, {}}));
    add(1, In(at, 1, raft::AppendResponse{true, base + 1, base, Term(1)}));
    add(0, In(at, 0, raft::Heartbeat{base, raft::ReadRound(1)}));
    add(1, In(at, 1, raft::HeartbeatResponse{raft::ReadRound(0)}));
    add(1, In(at, 1, raft::ReadRequest{raft::ReadRound(5)}));
    add(0, In(at, 0, raft::ReadResponse{raft::ReadRound(5), base}));
    raft::ForwardedProposals forwarded{raft::ProposalId(5), raft::EntryType::kCommand, {}};
    forwarded.payloads.push_back(
        apply::EncodeClusterVersion(Target::Id(1).value(), prng.Next(), "3.5.0"));
    add(1, In(at, 1, forwarded));
    add(1, In(at, 1, raft::ProposalsRefused{raft::ProposalId(5), raft::ProposeStatus::kNotLeader}));
    add(0, In(at, 0, raft::TimeoutNow{}));
    add(1, ForwardedRequest{77, ForwardedRequest::Kind::kKeepAlive, Bytes::Copy("12345678")});
    add(1, ForwardedRequest{78, ForwardedRequest::Kind::kTimeToLive, Bytes::Copy("\x08\x01")});
    add(0, ForwardedAnswer{77, 14, "etcdserver: no leader", {}});
    raft::SnapshotMeta meta{base + 5, Term(at), {}};
    for (const auto& member : Cluster().members) meta.conf.voters.push_back(member.id);
    add(4, SnapshotChunk{9, Term(at), meta, 0, false, Bytes::Copy(std::string(40, 's'))});
    add(5, SnapshotAck{1, SnapshotAck::Result::kReceived, 4096});
    add(0, Beacon{123456789, base, 0xfedcba9876543210, base, 2});
    add(0, BeaconEcho{123456789});
    add(0, Introduction{{"http://10.0.0.1:2380"}});
    seeds.push_back(all);
  }
  return seeds;
}

}  // namespace
}  // namespace conclave::node

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  conclave::node::RunOne({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() { return conclave::node::Seeds(); }
