// Frames between members: what is encoded comes back, and nothing else is ever accepted.
#include "conclave/server/node/peer_codec.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "conclave/base/crc32c.h"
#include "conclave/base/prng.h"

namespace conclave::node {
namespace {

constexpr raft::NodeId kFrom{0x1234567890abcdef};
constexpr raft::NodeId kTo{7};

raft::Envelope In(uint64_t term, raft::Message message) {
  return {kFrom, kTo, raft::Term(term), std::move(message)};
}

std::vector<PeerItem> OneOfEach() {
  using raft::Index;
  using raft::NodeId;
  using raft::ReadRound;
  using raft::Term;
  std::vector<PeerItem> items;
  items.push_back(In(3, raft::VoteRequest{true, false, Index(9), Term(2)}));
  items.push_back(In(UINT64_MAX, raft::VoteResponse{false, true}));
  raft::AppendEntries append{Index(41), Term(2), Index(40), {}};
  append.entries.push_back({Term(2), Index(42), raft::EntryType::kCommand, Bytes::Copy("put")});
  append.entries.push_back({Term(3), Index(43), raft::EntryType::kConfChange, Bytes::Copy("c")});
  append.entries.push_back({Term(3), Index(44), raft::EntryType::kCommand, {}});
  items.push_back(In(3, append));
  items.push_back(In(3, raft::AppendResponse{true, Index(1), Index(2), Term(3)}));
  items.push_back(In(3, raft::Heartbeat{Index(300), ReadRound(1u << 20)}));
  items.push_back(In(3, raft::HeartbeatResponse{ReadRound(128)}));
  items.push_back(In(3, raft::ReadRequest{ReadRound(127)}));
  items.push_back(In(3, raft::ReadResponse{ReadRound(127), Index(16384)}));
  raft::ForwardedProposals forwarded{raft::ProposalId(5), raft::EntryType::kCommand, {}};
  forwarded.payloads = {Bytes::Copy("one"), Bytes::Copy(std::string(1000, 'x'))};
  items.push_back(In(3, forwarded));
  items.push_back(
      In(3, raft::ProposalsRefused{raft::ProposalId(5), raft::ProposeStatus::kTransferring}));
  items.push_back(In(3, raft::TimeoutNow{}));
  items.push_back(ForwardedRequest{77, ForwardedRequest::Kind::kTimeToLive, Bytes::Copy("ttl")});
  items.push_back(ForwardedAnswer{77, 14, "etcdserver: no leader", {}});
  SnapshotChunk chunk{9, Term(3), {Index(100), Term(2), {}}, 4096, true, Bytes::Copy("state")};
  chunk.meta.conf = {.voters = {NodeId(1), NodeId(2)},
                     .voters_outgoing = {NodeId(3)},
                     .learners = {NodeId(4)},
                     .learners_next = {NodeId(5)},
                     .auto_leave = true};
  items.push_back(chunk);
  items.push_back(SnapshotAck{9, SnapshotAck::Result::kRefused, 4096});
  items.push_back(SnapshotAck{9, SnapshotAck::Result::kReceived, 4096, 1000, 7});
  items.push_back(Beacon{123456789, Index(100), 0xfedcba9876543210, Index(96), 2});
  items.push_back(Beacon{123456789, Index(100), 0xfedcba9876543210, Index(96), 2, true});
  items.push_back(BeaconEcho{123456789});
  items.push_back(Introduction{{"http://10.0.0.1:2380", "https://a.example:2380"}});
  return items;
}

// The frame with another checksum: the right one for what it says now.
Bytes Sealed(std::string frame) {
  const uint32_t crc = Crc32c(std::string_view(frame).substr(4));
  for (int i = 0; i < 4; ++i) frame[i] = static_cast<char>(crc >> (8 * i));
  return Bytes::Copy(frame);
}

TEST(PeerCodec, EveryItemComesBackAsItWas) {
  const std::vector<PeerItem> items = OneOfEach();
  const Bytes frame = EncodeFrame(kFrom, kTo, items);
  std::vector<PeerItem> decoded;
  ASSERT_TRUE(DecodeFrame(frame, kFrom, kTo, &decoded).ok());
  EXPECT_EQ(decoded, items);
}

TEST(PeerCodec, TheSizeBoundHolds) {
  for (const PeerItem& item : OneOfEach()) {
    const Bytes frame = EncodeFrame(kFrom, kTo, {&item, 1});
    EXPECT_LE(frame.size(), 21 + EncodedSizeBound(item)) << "item " << item.index();
  }
}

TEST(PeerCodec, PayloadsShareTheFramesMemory) {
  const Bytes frame = EncodeFrame(kFrom, kTo, OneOfEach());
  std::vector<PeerItem> decoded;
  ASSERT_TRUE(DecodeFrame(frame, kFrom, kTo, &decoded).ok());
  const auto& append = std::get<raft::AppendEntries>(std::get<raft::Envelope>(decoded[2]).message);
  const char* payload = append.entries[0].payload.data();
  EXPECT_TRUE(payload >= frame.data() && payload < frame.data() + frame.size());
}

TEST(PeerCodec, AFrameWithoutItemsIsAFrame) {
  std::vector<PeerItem> decoded;
  EXPECT_TRUE(DecodeFrame(EncodeFrame(kFrom, kTo, {}), kFrom, kTo, &decoded).ok());
  EXPECT_TRUE(decoded.empty());
}

TEST(PeerCodec, AFrameOfSomebodyElseOrForSomebodyElseIsRefused) {
  const Bytes frame = EncodeFrame(kFrom, kTo, OneOfEach());
  std::vector<PeerItem> decoded;
  EXPECT_FALSE(DecodeFrame(frame, raft::NodeId(1), kTo, &decoded).ok());
  EXPECT_FALSE(DecodeFrame(frame, kFrom, raft::NodeId(8), &decoded).ok());
  EXPECT_TRUE(decoded.empty());
}

TEST(PeerCodec, EveryFlippedBitIsFound) {
  const std::string frame = EncodeFrame(kFrom, kTo, OneOfEach()).ToString();
  std::vector<PeerItem> decoded;
  for (size_t bit = 0; bit < frame.size() * 8; ++bit) {
    std::string flipped = frame;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_FALSE(DecodeFrame(Bytes::Copy(flipped), kFrom, kTo, &decoded).ok()) << "bit " << bit;
  }
}

TEST(PeerCodec, EveryTruncationIsFoundEvenUnderAGoodChecksum) {
  for (const PeerItem& item : OneOfEach()) {
    const std::string frame = EncodeFrame(kFrom, kTo, {&item, 1}).ToString();
    for (size_t size = 0; size < frame.size(); ++size) {
      std::vector<PeerItem> decoded;
      const std::string part = frame.substr(0, size);
      EXPECT_FALSE(DecodeFrame(Bytes::Copy(part), kFrom, kTo, &decoded).ok());
      if (size > 21) {
        EXPECT_FALSE(DecodeFrame(Sealed(part), kFrom, kTo, &decoded).ok())
            << "item " << item.index() << " cut to " << size;
      }
      EXPECT_TRUE(decoded.empty());
    }
  }
}

TEST(PeerCodec, GarbageUnderAGoodChecksumIsRefusedOrHarmless) {
  Prng prng(1);
  const std::string good = EncodeFrame(kFrom, kTo, OneOfEach()).ToString();
  for (int round = 0; round < 20'000; ++round) {
    std::string frame = good;
    for (uint64_t changes = 1 + prng.Below(4); changes > 0; --changes) {
      frame[21 + prng.Below(frame.size() - 21)] = static_cast<char>(prng.Next());
    }
    std::vector<PeerItem> decoded;
    const Bytes sealed = Sealed(frame);
    if (DecodeFrame(sealed, kFrom, kTo, &decoded).ok()) {
      // Whatever it says now can be said again.
      std::vector<PeerItem> again;
      ASSERT_TRUE(DecodeFrame(EncodeFrame(kFrom, kTo, decoded), kFrom, kTo, &again).ok());
      EXPECT_EQ(again, decoded);
    } else {
      EXPECT_TRUE(decoded.empty());
    }
  }
}

TEST(PeerCodec, ACountBeyondTheFrameCostsNoMemory) {
  const PeerItem append =
      In(3, raft::AppendEntries{raft::Index(1), raft::Term(1), raft::Index(1), {}});
  std::string frame = EncodeFrame(kFrom, kTo, {&append, 1}).ToString();
  frame.pop_back();  // the count of entries, 0
  frame += "\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
  std::vector<PeerItem> decoded;
  EXPECT_FALSE(DecodeFrame(Sealed(frame), kFrom, kTo, &decoded).ok());
}

}  // namespace
}  // namespace conclave::node
