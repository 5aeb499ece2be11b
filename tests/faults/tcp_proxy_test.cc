// The proxy that the fault tests stand on does what it says.
#include "conclave/tests/support/tcp_proxy.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

sockaddr_in At(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// Gives every byte back, on each connection, until its end.
class EchoServer {
 public:
  EchoServer() {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = At(0);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      for (int fd = 0; (fd = accept(listener_, nullptr, nullptr)) >= 0;) {
        std::thread([fd] {
          char buffer[4096];
          ssize_t got = 0;
          while ((got = recv(fd, buffer, sizeof buffer, 0)) > 0) {
            if (send(fd, buffer, static_cast<size_t>(got), MSG_NOSIGNAL) != got) break;
          }
          close(fd);
        }).detach();
      }
    });
  }
  ~EchoServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }

 private:
  int listener_ = -1;
  int port_ = 0;
  std::thread thread_;
};

class Caller {
 public:
  explicit Caller(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in address = At(port);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~Caller() { close(fd_); }
  bool connected() const { return connected_; }
  void Patience(absl::Duration patience) {
    timeval timeout = absl::ToTimeval(patience);
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }
  bool Say(const std::string& text) {
    return send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  void EndSaying() { shutdown(fd_, SHUT_WR); }
  // "" at the end of the stream, "!" at an error or when patience has ended.
  std::string Hear() {
    char buffer[4096];
    const ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
    return got < 0 ? "!" : std::string(buffer, static_cast<size_t>(got));
  }

 private:
  int fd_;
  bool connected_ = false;
};

class TcpProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto proxy = TcpProxy::Start(server_.port());
    ASSERT_TRUE(proxy.ok()) << proxy.status();
    proxy_ = *std::move(proxy);
  }
  EchoServer server_;
  std::unique_ptr<TcpProxy> proxy_;
};

TEST_F(TcpProxyTest, CarriesBytesAndTheEndOfThem) {
  Caller caller(proxy_->port());
  caller.Patience(absl::Seconds(10));
  ASSERT_TRUE(caller.Say("hello"));
  EXPECT_EQ(caller.Hear(), "hello");
  caller.EndSaying();
  EXPECT_EQ(caller.Hear(), "");
  EXPECT_TRUE(WaitFor([this] { return proxy_->connections() == 0; }));
  EXPECT_EQ(proxy_->accepted(), 1);
}

TEST_F(TcpProxyTest, ACutEndsConnectionsAndRefusesNewOnesUntilItHeals) {
  Caller caller(proxy_->port());
  caller.Patience(absl::Seconds(10));
  ASSERT_TRUE(caller.Say("a"));
  ASSERT_EQ(caller.Hear(), "a");
  proxy_->Cut();
  EXPECT_EQ(caller.Hear(), "!");
  Caller refused(proxy_->port());
  refused.Patience(absl::Seconds(10));
  refused.Say("b");
  // It may be closed before or after what it said has come: an end, or an error.
  EXPECT_THAT(refused.Hear(), ::testing::AnyOf("", "!"));
  proxy_->Heal();
  Caller again(proxy_->port());
  again.Patience(absl::Seconds(10));
  ASSERT_TRUE(again.Say("c"));
  EXPECT_EQ(again.Hear(), "c");
}

TEST_F(TcpProxyTest, WhatIsStalledArrivesAfterHealing) {
  for (const TcpProxy::Direction direction :
       {TcpProxy::Direction::kToServer, TcpProxy::Direction::kToClient}) {
    Caller caller(proxy_->port());
    caller.Patience(absl::Milliseconds(200));
    ASSERT_TRUE(caller.Say("a"));
    ASSERT_EQ(caller.Hear(), "a");
    proxy_->Stall(direction);
    ASSERT_TRUE(caller.Say("late"));
    EXPECT_EQ(caller.Hear(), "!");
    proxy_->Heal();
    caller.Patience(absl::Seconds(10));
    EXPECT_EQ(caller.Hear(), "late");
  }
}

TEST_F(TcpProxyTest, ADelayHoldsInEachDirection) {
  Caller caller(proxy_->port());
  caller.Patience(absl::Seconds(10));
  proxy_->Delay(absl::Milliseconds(60));
  const absl::Time began = absl::Now();
  ASSERT_TRUE(caller.Say("slow"));
  EXPECT_EQ(caller.Hear(), "slow");
  EXPECT_GE(absl::Now() - began, absl::Milliseconds(115));
}

TEST_F(TcpProxyTest, AHalfClosedConnectionStillCarriesTheOtherDirection) {
  Caller caller(proxy_->port());
  caller.Patience(absl::Seconds(10));
  ASSERT_TRUE(caller.Say("a"));
  ASSERT_EQ(caller.Hear(), "a");
  proxy_->HalfClose(TcpProxy::Direction::kToClient);
  EXPECT_EQ(caller.Hear(), "");  // the server's side has ended
  EXPECT_TRUE(caller.Say("b"));  // ours has not
  EXPECT_EQ(proxy_->connections(), 1);
}

TEST_F(TcpProxyTest, AResetEndsOnlyWhatIsThere) {
  Caller caller(proxy_->port());
  caller.Patience(absl::Seconds(10));
  ASSERT_TRUE(caller.Say("a"));
  ASSERT_EQ(caller.Hear(), "a");
  proxy_->Reset();
  EXPECT_EQ(caller.Hear(), "!");
  Caller next(proxy_->port());
  next.Patience(absl::Seconds(10));
  ASSERT_TRUE(next.Say("b"));
  EXPECT_EQ(next.Hear(), "b");
}

}  // namespace
}  // namespace conclave::testing
