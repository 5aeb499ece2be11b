#include "conclave/server/node/peer_codec.h"

#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "conclave/base/crc32c.h"
#include "conclave/base/little_endian.h"

namespace conclave::node {
namespace {

constexpr size_t kHeaderBytes = 21;
constexpr size_t kChecksumBytes = 4;
constexpr size_t kVarintBytesMax = 10;

// Kinds of items. Envelopes have one for each kind of message, in the variant's order.
constexpr uint8_t kFirstMessageKind = 1;
constexpr uint8_t kForwardedRequestKind = 32;
constexpr uint8_t kForwardedAnswerKind = 33;
constexpr uint8_t kForwardedOnBehalfKind = 60;
constexpr uint8_t kSnapshotChunkKind = 34;
constexpr uint8_t kSnapshotAckKind = 35;
constexpr uint8_t kBeaconKind = 36;
constexpr uint8_t kBeaconEchoKind = 37;
constexpr uint8_t kIntroductionKind = 39;
constexpr uint8_t kSlowDiskBeaconKind = 40;

// ---- Sizes --------------------------------------------------------------------------------------

size_t BoundOf(const std::vector<raft::Entry>& entries) {
  size_t bound = kVarintBytesMax;
  for (const raft::Entry& entry : entries) {
    bound += 2 * kVarintBytesMax + 1 + entry.payload.size();
  }
  return bound;
}

size_t BoundOf(const raft::ConfState& conf) {
  return kVarintBytesMax * (4 + conf.voters.size() + conf.voters_outgoing.size() +
                            conf.learners.size() + conf.learners_next.size()) +
         1;
}

size_t BoundOf(const raft::Message& message) {
  size_t bound = 8 * kVarintBytesMax;
  if (const auto* append = std::get_if<raft::AppendEntries>(&message)) {
    bound += BoundOf(append->entries);
  } else if (const auto* forwarded = std::get_if<raft::ForwardedProposals>(&message)) {
    for (const Bytes& payload : forwarded->payloads) bound += kVarintBytesMax + payload.size();
  }
  return bound;
}

// ---- Writing ------------------------------------------------------------------------------------

// Writes into memory that is large enough, which EncodedSizeBound promises.
class Writer {
 public:
  explicit Writer(char* out) : begin_(out), out_(out) {}

  size_t size() const { return static_cast<size_t>(out_ - begin_); }

  void Byte(uint8_t value) { *out_++ = static_cast<char>(value); }
  void Flag(bool value) { Byte(value ? 1 : 0); }
  void Fixed64(uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) Byte(static_cast<uint8_t>(value >> shift));
  }
  void Number(uint64_t value) {
    while (value >= 0x80) {
      Byte(static_cast<uint8_t>(value | 0x80));
      value >>= 7;
    }
    Byte(static_cast<uint8_t>(value));
  }
  template <typename Tag>
  void Number(Strong<Tag> value) {
    Number(value.value());
  }
  void String(std::string_view text) {
    Number(text.size());
    if (text.empty()) return;
    std::memcpy(out_, text.data(), text.size());
    out_ += text.size();
  }
  void Nodes(const std::vector<raft::NodeId>& nodes) {
    Number(nodes.size());
    for (const raft::NodeId node : nodes) Number(node);
  }

 private:
  char* begin_;
  char* out_;
};

struct MessageWriter {
  Writer& out;

  void operator()(const raft::VoteRequest& m) {
    out.Flag(m.pre_vote);
    out.Flag(m.leadership_transfer);
    out.Number(m.last_index);
    out.Number(m.last_term);
  }
  void operator()(const raft::VoteResponse& m) {
    out.Flag(m.pre_vote);
    out.Flag(m.granted);
  }
  void operator()(const raft::AppendEntries& m) {
    out.Number(m.prev_index);
    out.Number(m.prev_term);
    out.Number(m.commit);
    out.Number(m.entries.size());
    for (const raft::Entry& entry : m.entries) {  // their indices follow from prev_index
      out.Number(entry.term);
      out.Byte(static_cast<uint8_t>(entry.type));
      out.String(entry.payload.view());
    }
  }
  void operator()(const raft::AppendResponse& m) {
    out.Flag(m.rejected);
    out.Number(m.index);
    out.Number(m.hint_index);
    out.Number(m.hint_term);
  }
  void operator()(const raft::Heartbeat& m) {
    out.Number(m.commit);
    out.Number(m.round);
  }
  void operator()(const raft::HeartbeatResponse& m) { out.Number(m.round); }
  void operator()(const raft::ReadRequest& m) { out.Number(m.round); }
  void operator()(const raft::ReadResponse& m) {
    out.Number(m.round);
    out.Number(m.index);
  }
  void operator()(const raft::ForwardedProposals& m) {
    out.Number(m.id);
    out.Byte(static_cast<uint8_t>(m.type));
    out.Number(m.payloads.size());
    for (const Bytes& payload : m.payloads) out.String(payload.view());
  }
  void operator()(const raft::ProposalsRefused& m) {
    out.Number(m.id);
    out.Byte(static_cast<uint8_t>(m.reason));
  }
  void operator()(const raft::TimeoutNow&) {}
};

struct ItemWriter {
  Writer& out;

  void operator()(const raft::Envelope& item) {
    out.Byte(static_cast<uint8_t>(kFirstMessageKind + item.message.index()));
    out.Number(item.term);
    std::visit(MessageWriter{out}, item.message);
  }
  void operator()(const ForwardedRequest& item) {
    const bool on_behalf = !item.who.user.empty();
    out.Byte(on_behalf ? kForwardedOnBehalfKind : kForwardedRequestKind);
    out.Number(item.id);
    out.Byte(static_cast<uint8_t>(item.kind));
    out.String(item.body.view());
    if (!on_behalf) return;
    out.String(item.who.user);
    out.Number(item.who.revision);
    out.Flag(item.who.bound);
  }
  void operator()(const ForwardedAnswer& item) {
    out.Byte(kForwardedAnswerKind);
    out.Number(item.id);
    out.Number(static_cast<uint64_t>(item.code));
    out.String(item.message);
    out.String(item.body.view());
  }
  void operator()(const SnapshotChunk& item) {
    out.Byte(kSnapshotChunkKind);
    out.Number(item.transfer);
    out.Number(item.term);
    out.Number(item.meta.index);
    out.Number(item.meta.term);
    out.Nodes(item.meta.conf.voters);
    out.Nodes(item.meta.conf.voters_outgoing);
    out.Nodes(item.meta.conf.learners);
    out.Nodes(item.meta.conf.learners_next);
    out.Flag(item.meta.conf.auto_leave);
    out.Number(item.offset);
    out.Flag(item.last);
    out.String(item.data.view());
  }
  void operator()(const SnapshotAck& item) {
    out.Byte(kSnapshotAckKind);
    out.Number(item.transfer);
    out.Byte(static_cast<uint8_t>(item.result));
    out.Number(item.offset);
    out.Number(static_cast<uint64_t>(item.has_revision));
    out.Number(static_cast<uint64_t>(item.has_sub));
  }
  void operator()(const Beacon& item) {
    out.Byte(item.slow_disk ? kSlowDiskBeaconKind : kBeaconKind);
    out.Number(item.sent_at);
    out.Number(item.index);
    out.Fixed64(item.digest);
    out.Number(item.disputed);
    out.Number(item.agreeing);
  }
  void operator()(const BeaconEcho& item) {
    out.Byte(kBeaconEchoKind);
    out.Number(item.sent_at);
  }
  void operator()(const Introduction& item) {
    out.Byte(kIntroductionKind);
    out.Number(item.peer_urls.size());
    for (const std::string& url : item.peer_urls) out.String(url);
  }
};

// ---- Reading ------------------------------------------------------------------------------------

// Reads what may be anything. After the first mistake ok() is false and all results are zero.
class Reader {
 public:
  Reader(const Bytes& frame, size_t offset)
      : frame_(frame), at_(frame.data() + offset), end_(frame.data() + frame.size()) {}

  bool ok() const { return ok_; }
  bool AtEnd() const { return at_ == end_; }
  size_t left() const { return static_cast<size_t>(end_ - at_); }

  void Fail() {
    ok_ = false;
    at_ = end_;
  }
  uint8_t Byte() {
    if (at_ == end_) {
      Fail();
      return 0;
    }
    return static_cast<uint8_t>(*at_++);
  }
  bool Flag() {
    const uint8_t value = Byte();
    if (value > 1) Fail();
    return value == 1;
  }
  // A byte that names one of `first` ... `last`.
  template <typename Enum>
  Enum OneOf(Enum first, Enum last) {
    const uint8_t value = Byte();
    if (value < static_cast<uint8_t>(first) || value > static_cast<uint8_t>(last)) Fail();
    return ok_ ? static_cast<Enum>(value) : first;
  }
  uint64_t Fixed64() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 8) value |= uint64_t{Byte()} << shift;
    return ok_ ? value : 0;
  }
  uint64_t Number() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const uint8_t byte = Byte();
      if (shift == 63 && byte > 1) break;  // beyond 64 bits
      value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return ok_ ? value : 0;
    }
    Fail();
    return 0;
  }
  int64_t Revision() {
    const uint64_t value = Number();
    if (value > INT64_MAX) Fail();
    return ok_ ? static_cast<int64_t>(value) : 0;
  }
  template <typename Type>
  Type Strong() {
    return Type(Number());
  }
  // The number of elements that follow, each of which takes at least `bytes_each`.
  size_t Count(size_t bytes_each) {
    const uint64_t count = Number();
    if (count > left() / bytes_each) Fail();
    return ok_ ? static_cast<size_t>(count) : 0;
  }
  Bytes String() {
    const size_t size = Count(1);
    if (!ok_ || size == 0) return {};
    Bytes slice = frame_.Slice(std::string_view(at_, size));
    at_ += size;
    return slice;
  }
  std::vector<raft::NodeId> Nodes() {
    std::vector<raft::NodeId> nodes(Count(1));
    for (raft::NodeId& node : nodes) node = Strong<raft::NodeId>();
    return nodes;
  }

 private:
  const Bytes& frame_;
  const char* at_;
  const char* end_;
  bool ok_ = true;
};

raft::EntryType ReadEntryType(Reader& in) {
  return in.OneOf(raft::EntryType::kCommand, raft::EntryType::kConfChange);
}

raft::AppendEntries ReadAppendEntries(Reader& in) {
  raft::AppendEntries m;
  m.prev_index = in.Strong<raft::Index>();
  m.prev_term = in.Strong<raft::Term>();
  m.commit = in.Strong<raft::Index>();
  m.entries.resize(in.Count(3));
  raft::Index index = m.prev_index;
  if (index.value() > UINT64_MAX - m.entries.size()) in.Fail();
  for (raft::Entry& entry : m.entries) {
    entry.index = ++index;
    entry.term = in.Strong<raft::Term>();
    entry.type = ReadEntryType(in);
    entry.payload = in.String();
  }
  return m;
}

raft::ForwardedProposals ReadForwardedProposals(Reader& in) {
  raft::ForwardedProposals m;
  m.id = in.Strong<raft::ProposalId>();
  m.type = ReadEntryType(in);
  m.payloads.resize(in.Count(1));
  for (Bytes& payload : m.payloads) {
    payload = in.String();
    if (payload.empty()) in.Fail();  // an empty entry is a new leader's, nobody proposes one
  }
  return m;
}

raft::Message ReadMessage(size_t kind, Reader& in) {
  switch (kind) {
    case 0: {
      raft::VoteRequest m;
      m.pre_vote = in.Flag();
      m.leadership_transfer = in.Flag();
      m.last_index = in.Strong<raft::Index>();
      m.last_term = in.Strong<raft::Term>();
      return m;
    }
    case 1: {
      raft::VoteResponse m;
      m.pre_vote = in.Flag();
      m.granted = in.Flag();
      return m;
    }
    case 2:
      return ReadAppendEntries(in);
    case 3: {
      raft::AppendResponse m;
      m.rejected = in.Flag();
      m.index = in.Strong<raft::Index>();
      m.hint_index = in.Strong<raft::Index>();
      m.hint_term = in.Strong<raft::Term>();
      return m;
    }
    case 4: {
      raft::Heartbeat m;
      m.commit = in.Strong<raft::Index>();
      m.round = in.Strong<raft::ReadRound>();
      return m;
    }
    case 5:
      return raft::HeartbeatResponse{in.Strong<raft::ReadRound>()};
    case 6:
      return raft::ReadRequest{in.Strong<raft::ReadRound>()};
    case 7: {
      raft::ReadResponse m;
      m.round = in.Strong<raft::ReadRound>();
      m.index = in.Strong<raft::Index>();
      return m;
    }
    case 8:
      return ReadForwardedProposals(in);
    case 9: {
      raft::ProposalsRefused m;
      m.id = in.Strong<raft::ProposalId>();
      m.reason = in.OneOf(raft::ProposeStatus::kAccepted, raft::ProposeStatus::kConfChangeInvalid);
      return m;
    }
    default:
      return raft::TimeoutNow{};
  }
}
static_assert(std::variant_size_v<raft::Message> == 11, "ReadMessage knows them all");

ForwardedAnswer ReadForwardedAnswer(Reader& in) {
  ForwardedAnswer item;
  item.id = in.Number();
  const uint64_t code = in.Number();
  if (code > 16) in.Fail();
  item.code = static_cast<int>(code);
  item.message = in.String().ToString();
  item.body = in.String();
  return item;
}

SnapshotChunk ReadSnapshotChunk(Reader& in) {
  SnapshotChunk item;
  item.transfer = in.Number();
  item.term = in.Strong<raft::Term>();
  item.meta.index = in.Strong<raft::Index>();
  item.meta.term = in.Strong<raft::Term>();
  item.meta.conf.voters = in.Nodes();
  item.meta.conf.voters_outgoing = in.Nodes();
  item.meta.conf.learners = in.Nodes();
  item.meta.conf.learners_next = in.Nodes();
  item.meta.conf.auto_leave = in.Flag();
  item.offset = in.Number();
  item.last = in.Flag();
  item.data = in.String();
  return item;
}

PeerItem ReadItem(Reader& in, raft::NodeId from, raft::NodeId self) {
  const uint8_t kind = in.Byte();
  switch (kind) {
    case kForwardedRequestKind:
    case kForwardedOnBehalfKind: {
      ForwardedRequest item;
      item.id = in.Number();
      item.kind =
          in.OneOf(ForwardedRequest::Kind::kKeepAlive, ForwardedRequest::Kind::kMemberChange);
      item.body = in.String();
      if (kind == kForwardedRequestKind) return item;
      item.who.user = in.String().ToString();
      item.who.revision = in.Number();
      item.who.bound = in.Flag();
      return item;
    }
    case kForwardedAnswerKind:
      return ReadForwardedAnswer(in);
    case kSnapshotChunkKind:
      return ReadSnapshotChunk(in);
    case kSnapshotAckKind: {
      SnapshotAck item;
      item.transfer = in.Number();
      item.result = in.OneOf(SnapshotAck::Result::kReceived, SnapshotAck::Result::kUnknown);
      item.offset = in.Number();
      item.has_revision = in.Revision();
      item.has_sub = in.Revision();
      return item;
    }
    case kBeaconKind:
    case kSlowDiskBeaconKind: {
      Beacon item;
      item.sent_at = in.Number();
      item.index = in.Strong<raft::Index>();
      item.digest = in.Fixed64();
      item.disputed = in.Strong<raft::Index>();
      item.agreeing = in.Number();
      item.slow_disk = kind == kSlowDiskBeaconKind;
      return item;
    }
    case kBeaconEchoKind:
      return BeaconEcho{in.Number()};
    case kIntroductionKind: {
      Introduction item;
      const uint64_t urls = in.Number();
      if (urls > kIntroducedUrlsMax) in.Fail();
      for (uint64_t i = 0; in.ok() && i < urls; ++i) {
        item.peer_urls.push_back(in.String().ToString());
      }
      return item;
    }
    default:
      break;
  }
  if (kind < kFirstMessageKind || kind >= kFirstMessageKind + std::variant_size_v<raft::Message>) {
    in.Fail();
    return BeaconEcho{};
  }
  raft::Envelope envelope;
  envelope.from = from;
  envelope.to = self;
  envelope.term = in.Strong<raft::Term>();
  envelope.message = ReadMessage(kind - kFirstMessageKind, in);
  return envelope;
}

}  // namespace

size_t EncodedSizeBound(const PeerItem& item) {
  constexpr size_t kNumbersMax = 1 + 6 * kVarintBytesMax;
  return kNumbersMax + std::visit(
                           [](const auto& value) -> size_t {
                             using Item = std::decay_t<decltype(value)>;
                             if constexpr (std::is_same_v<Item, raft::Envelope>) {
                               return BoundOf(value.message);
                             } else if constexpr (std::is_same_v<Item, ForwardedRequest>) {
                               return value.body.size() + value.who.user.size() + kNumbersMax;
                             } else if constexpr (std::is_same_v<Item, ForwardedAnswer>) {
                               return value.message.size() + value.body.size();
                             } else if constexpr (std::is_same_v<Item, SnapshotChunk>) {
                               return BoundOf(value.meta.conf) + value.data.size();
                             } else if constexpr (std::is_same_v<Item, Introduction>) {
                               size_t bound = 0;
                               for (const std::string& url : value.peer_urls) {
                                 bound += kVarintBytesMax + url.size();
                               }
                               return bound;
                             } else {
                               return 0;
                             }
                           },
                           item);
}

Bytes EncodeFrame(raft::NodeId from, raft::NodeId to, std::span<const PeerItem> items) {
  size_t bound = kHeaderBytes;
  for (const PeerItem& item : items) bound += EncodedSizeBound(item);
  char* memory = nullptr;
  Bytes frame = Bytes::Uninitialized(bound, &memory);
  Writer out(memory + kChecksumBytes);
  out.Byte(kPeerFrameVersion);
  out.Fixed64(from.value());
  out.Fixed64(to.value());
  for (const PeerItem& item : items) std::visit(ItemWriter{out}, item);
  const uint32_t crc = Crc32c(std::string_view(memory + kChecksumBytes, out.size()));
  StoreLittle(memory, crc);
  return frame.Slice(0, kChecksumBytes + out.size());
}

absl::Status DecodeFrame(const Bytes& frame, raft::NodeId from, raft::NodeId self,
                         std::vector<PeerItem>* items) {
  if (frame.size() < kHeaderBytes) return absl::InvalidArgumentError("peer frame: too short");
  if (LoadLittle<uint32_t>(frame.data()) != Crc32c(frame.view().substr(kChecksumBytes))) {
    return absl::InvalidArgumentError("peer frame: checksum mismatch");
  }
  Reader in(frame, kChecksumBytes);
  if (in.Byte() != kPeerFrameVersion) {
    return absl::InvalidArgumentError("peer frame: unknown version");
  }
  if (raft::NodeId(in.Fixed64()) != from) {
    return absl::InvalidArgumentError("peer frame: not from the member that the lane belongs to");
  }
  if (raft::NodeId(in.Fixed64()) != self) {
    return absl::InvalidArgumentError("peer frame: for another member");
  }
  const size_t before = items->size();
  while (in.ok() && !in.AtEnd()) items->push_back(ReadItem(in, from, self));
  if (!in.ok()) {
    items->resize(before);
    return absl::InvalidArgumentError("peer frame: malformed item");
  }
  return absl::OkStatus();
}

}  // namespace conclave::node
