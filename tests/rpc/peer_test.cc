// Two transports as two members: frames arrive in order on both lanes, strangers are refused, and a
// member that comes back is found again at once.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>

#include "conclave/server/rpc/event_loop.h"
#include "conclave/server/rpc/peer_question.h"
#include "conclave/server/rpc/peer_wire.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::rpc {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

// One member's transport, and all that its core would hear.
class Member : public BurstHandler {
 public:
  Member(uint64_t id, uint64_t cluster, int port) : id_(id), cluster_(cluster), port_(port) {}
  ~Member() override { Stop(); }

  absl::Status Start() {
    TransportOptions options;
    options.peer_listen = {"127.0.0.1:" + std::to_string(port_)};
    options.member = raft::NodeId(id_);
    options.cluster_id = cluster_;
    options.log = [this](const node::LogLine& line) {
      std::lock_guard lock(mutex_);
      std::string text = line.message;
      for (const auto& [name, value] : line.fields) text += " " + name + "=" + value;
      lines_.push_back(text);
      changed_.notify_all();
    };
    auto transport = Transport::Start(std::move(options), this);
    if (!transport.ok()) return transport.status();
    transport_ = *std::move(transport);
    return absl::OkStatus();
  }
  void Stop() {
    if (transport_) transport_->Stop(Duration::zero());
    transport_.reset();
  }
  void Dial(const Member& other) {
    node::Effects effects;
    effects.peers = {
        {raft::NodeId(other.id_), {"http://127.0.0.1:" + std::to_string(other.port_)}}};
    transport_->CarryOut(&effects);
  }
  void Send(const Member& to, node::PeerLane lane, std::string frame) {
    node::Effects effects;
    effects.peer_sends.push_back({raft::NodeId(to.id_), lane, Bytes::Copy(frame)});
    transport_->CarryOut(&effects);
  }

  void Publish(std::string members, std::vector<raft::NodeId> removed) {
    node::Effects effects;
    effects.directory = node::PeerDirectory{std::move(members), std::move(removed)};
    transport_->CarryOut(&effects);
  }

  Instant OnBurst(int /*queue*/, std::vector<node::Input>* inputs) override {
    std::lock_guard lock(mutex_);
    for (node::Input& input : *inputs) {
      if (auto* frame = std::get_if<node::PeerFrame>(&input)) {
        frames_[static_cast<size_t>(frame->lane)].push_back(frame->frame.ToString());
      } else if (auto* connection = std::get_if<node::PeerConnection>(&input)) {
        connected_[static_cast<size_t>(connection->lane)] = connection->connected;
        losses_ += connection->connected ? 0 : 1;
      } else if (std::holds_alternative<node::RemovedByPeer>(input)) {
        removed_ = true;
      }
    }
    inputs->clear();
    changed_.notify_all();
    return kNever;
  }

  template <typename Condition>
  [[nodiscard]] bool Wait(Condition condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(10), [&] { return condition(*this); });
  }
  [[nodiscard]] bool WaitConnected(bool connected) {
    return Wait([connected](const Member& self) {
      return self.connected_[0] == connected && self.connected_[1] == connected;
    });
  }
  [[nodiscard]] bool WaitLine(const std::string& part) {
    return Wait([&part](const Member& self) {
      for (const std::string& line : self.lines_) {
        if (line.find(part) != std::string::npos) return true;
      }
      return false;
    });
  }

  const uint64_t id_;
  const uint64_t cluster_;
  const int port_;
  std::unique_ptr<Transport> transport_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> frames_[2];
  bool connected_[2] = {};
  int losses_ = 0;
  bool removed_ = false;
  std::vector<std::string> lines_;
};

TEST(PeerTest, FramesArriveInOrderOnBothLanes) {
  Member a(1, 7, FreePort());
  Member b(2, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  ASSERT_TRUE(b.Start().ok());
  a.Dial(b);
  ASSERT_TRUE(a.WaitConnected(true));
  constexpr size_t kFrames = 2000;
  for (size_t i = 0; i < kFrames; ++i) {
    a.Send(b, node::PeerLane::kMessages, std::to_string(i));
    if (i % 100 == 0) {
      a.Send(b, node::PeerLane::kSnapshot, std::string(100'000, static_cast<char>('a' + i / 100)));
    }
  }
  ASSERT_TRUE(b.Wait([](const Member& self) {
    return self.frames_[0].size() == kFrames && self.frames_[1].size() == kFrames / 100;
  }));
  for (size_t i = 0; i < kFrames; ++i) EXPECT_EQ(b.frames_[0][i], std::to_string(i));
  for (size_t i = 0; i < kFrames / 100; ++i) {
    EXPECT_EQ(b.frames_[1][i], std::string(100'000, static_cast<char>('a' + i)));
  }
}

TEST(PeerTest, AMemberThatComesBackIsFoundAgainAndFrameLossIsSaid) {
  Member a(1, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  const int port = FreePort();
  auto b = std::make_unique<Member>(2, 7, port);
  ASSERT_TRUE(b->Start().ok());
  a.Dial(*b);
  ASSERT_TRUE(a.WaitConnected(true));
  for (int round = 0; round < 3; ++round) {
    b.reset();
    ASSERT_TRUE(a.WaitConnected(false));
    b = std::make_unique<Member>(2, 7, port);
    ASSERT_TRUE(b->Start().ok());
    const Instant started = Now();
    ASSERT_TRUE(a.WaitConnected(true));
    EXPECT_LT(Now() - started, seconds(2));
    a.Send(*b, node::PeerLane::kMessages, "again");
    ASSERT_TRUE(b->Wait([](const Member& self) { return !self.frames_[0].empty(); }));
  }
}

TEST(PeerTest, ADistrustedMemberLosesItsConnectionsAndMayComeBack) {
  Member a(1, 7, FreePort());
  Member b(2, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  ASSERT_TRUE(b.Start().ok());
  a.Dial(b);
  ASSERT_TRUE(a.WaitConnected(true));
  node::Effects effects;
  effects.distrusted.push_back(raft::NodeId(1));
  b.transport_->CarryOut(&effects);
  EXPECT_TRUE(effects.distrusted.empty());
  ASSERT_TRUE(a.Wait([](const Member& self) { return self.losses_ >= 2; }));
  ASSERT_TRUE(a.WaitConnected(true));
  a.Send(b, node::PeerLane::kMessages, "again");
  ASSERT_TRUE(b.Wait([](const Member& self) { return !self.frames_[0].empty(); }));
}

TEST(PeerTest, AnotherClusterIsRefusedWithAWordOnBothSides) {
  Member ours(1, 7, FreePort());
  Member theirs(2, 8, FreePort());
  ASSERT_TRUE(ours.Start().ok());
  ASSERT_TRUE(theirs.Start().ok());
  theirs.Dial(ours);
  EXPECT_TRUE(theirs.WaitLine("peer refused our connection"));
  EXPECT_TRUE(theirs.WaitLine("cluster ID mismatch: theirs 8, ours 7"));
  EXPECT_TRUE(ours.WaitLine("rejected connection on peer endpoint"));
  EXPECT_FALSE(theirs.connected_[0]);
}

TEST(PeerTest, AnotherMemberAtTheAddressIsNoticed) {
  Member a(1, 7, FreePort());
  Member b(2, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  ASSERT_TRUE(b.Start().ok());
  Member imagined(3, 7, b.port_);
  a.Dial(imagined);
  EXPECT_TRUE(a.WaitLine("member ID mismatch: they look for 3, this is 2"));
}

TEST(PeerTest, BytesThatAreNotGrpcCostTheirConnectionOnly) {
  Member a(1, 7, FreePort());
  Member b(2, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  ASSERT_TRUE(b.Start().ok());
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(5000, '\xff'), std::string(1, '\0')}) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(b.port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_GT(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
    shutdown(fd, SHUT_WR);
    char ignored[512];
    while (recv(fd, ignored, sizeof ignored, 0) > 0) continue;
    close(fd);
  }
  a.Dial(b);
  EXPECT_TRUE(a.WaitConnected(true));
}

TEST(PeerTest, WhoeverAsksIsToldWhoTheMembersAre) {
  Member a(1, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  const std::vector<std::string> urls = {"http://127.0.0.1:" + std::to_string(FreePort()),
                                         "http://127.0.0.1:" + std::to_string(a.port_)};
  const auto too_early = AskForDirectory(urls, nullptr, seconds(5));
  EXPECT_EQ(too_early.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(too_early.status().message()),
              HasSubstr("this member does not know its cluster yet"));
  const std::string members(100'000, 'm');
  a.Publish(members, {});
  const auto answer = AskForDirectory(urls, nullptr, seconds(5));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, members);
  EXPECT_FALSE(AskForDirectory({urls[0]}, nullptr, seconds(5)).ok());
  EXPECT_FALSE(AskForDirectory({"nonsense"}, nullptr, seconds(5)).ok());
}

TEST(PeerTest, ARemovedMemberLosesItsLanesAndIsToldWhy) {
  Member a(1, 7, FreePort());
  Member b(2, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  ASSERT_TRUE(b.Start().ok());
  b.Publish("members", {raft::NodeId(9)});
  a.Dial(b);
  ASSERT_TRUE(a.WaitConnected(true));
  EXPECT_FALSE(a.removed_);
  b.Publish("members", {raft::NodeId(1), raft::NodeId(9)});
  EXPECT_TRUE(a.Wait([](const Member& self) { return self.removed_; }));
  EXPECT_TRUE(a.WaitConnected(false));
}

TEST(PeerTest, APortInUseIsOneClearLine) {
  Member a(1, 7, FreePort());
  ASSERT_TRUE(a.Start().ok());
  Member b(2, 7, a.port_);
  const absl::Status status = b.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("cannot listen for peers on 127.0.0.1:" + std::to_string(a.port_)));
}

TEST(PeerWireTest, AHelloSurvivesItsBytesAndNothingElseIsOne) {
  const Hello hello{kPeerVersion, node::PeerLane::kSnapshot, 7, raft::NodeId(1), raft::NodeId(2)};
  const std::string bytes = EncodeHello(hello);
  ASSERT_EQ(bytes.size(), kHelloBytes);
  const auto decoded = DecodeHello(bytes);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->lane, node::PeerLane::kSnapshot);
  EXPECT_EQ(decoded->cluster_id, 7u);
  EXPECT_EQ(decoded->from, raft::NodeId(1));
  EXPECT_EQ(decoded->to, raft::NodeId(2));
  EXPECT_EQ(CheckHello(*decoded, {raft::NodeId(2), 7}), "");
  EXPECT_NE(CheckHello(*decoded, {raft::NodeId(3), 7}), "");
  EXPECT_NE(CheckHello(*decoded, {raft::NodeId(2), 8}), "");
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      const auto other = DecodeHello(damaged);
      EXPECT_FALSE(other.has_value() && CheckHello(*other, {raft::NodeId(2), 7}).empty())
          << "byte " << i << " bit " << bit;
    }
  }
}

}  // namespace
}  // namespace conclave::rpc
