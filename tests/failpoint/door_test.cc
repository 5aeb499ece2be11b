// gofail's protocol over a real connection, and what armed failpoints do to the threads that come
// by.
#include "conclave/server/failpoint/door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <mutex>
#include <thread>

#include "conclave/server/failpoint/names.h"

namespace conclave::failpoint {
namespace {

namespace http = boost::beast::http;
using ::testing::HasSubstr;

class DoorTest : public ::testing::Test {
 protected:
  DoorTest()
      : registry_({.seed = 1,
                   .print =
                       [this](std::string_view line) {
                         std::lock_guard lock(mutex_);
                         printed_ += std::string(line) + "\n";
                       },
                   .end_process = [this] { ++panics_; }}) {
    auto door = Door::Open("127.0.0.1:0", &registry_);
    EXPECT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
  }

  struct Response {
    unsigned status = 0;
    std::string body;
  };
  Response Ask(http::verb method, const std::string& target, const std::string& body = "") {
    boost::asio::io_context context;
    boost::asio::ip::tcp::socket socket(context);
    socket.connect({boost::asio::ip::make_address("127.0.0.1"), door_->port()});
    http::request<http::string_body> request(method, target, 11);
    request.set(http::field::host, "x");
    request.body() = body;
    request.prepare_payload();
    http::write(socket, request);
    boost::beast::flat_buffer buffer;
    http::response<http::string_body> response;
    http::read(socket, buffer, response);
    // The door closes the connection when what was asked for is in effect.
    boost::system::error_code error;
    char byte = 0;
    EXPECT_EQ(socket.read_some(boost::asio::buffer(&byte, 1), error), 0u);
    return {response.result_int(), response.body()};
  }

  std::mutex mutex_;
  std::string printed_;
  std::atomic<int> panics_{0};
  Registry registry_;
  std::unique_ptr<Door> door_;
};

TEST_F(DoorTest, ListsAllFailpoints) {
  EXPECT_EQ(Ask(http::verb::put, "/raftBeforeSave", "sleep(5)").status, 204u);
  const Response all = Ask(http::verb::get, "/");
  EXPECT_EQ(all.status, 200u);
  EXPECT_THAT(all.body, HasSubstr("\nraftBeforeSave=sleep(5)\n"));
  EXPECT_THAT(all.body, HasSubstr("\nraftAfterSave=\n"));
  EXPECT_EQ(std::count(all.body.begin(), all.body.end(), '\n'), std::ssize(kNames));
}

TEST_F(DoorTest, ArmsAndDisarmsOne) {
  EXPECT_EQ(Ask(http::verb::get, "/beforeCommit").status, 404u);
  EXPECT_EQ(Ask(http::verb::put, "/beforeCommit", "2*print").status, 204u);
  EXPECT_EQ(Ask(http::verb::get, "/beforeCommit").body, "2*print\n");
  for (int i = 0; i < 3; ++i) registry_.Hit("beforeCommit");
  registry_.Hit("afterCommit");
  EXPECT_EQ(printed_, "failpoint print: beforeCommit\nfailpoint print: beforeCommit\n");
  EXPECT_EQ(Ask(http::verb::get, "/beforeCommit/count").body, "2\n");
  EXPECT_EQ(Ask(http::verb::delete_, "/beforeCommit").status, 204u);
  EXPECT_EQ(Ask(http::verb::delete_, "/beforeCommit").status, 404u);
  EXPECT_EQ(Ask(http::verb::get, "/beforeCommit").status, 404u);
}

TEST_F(DoorTest, APathBeforeTheNameIsAllowed) {
  EXPECT_EQ(
      Ask(http::verb::put, "/go.etcd.io/etcd/server/v3/etcdserver/raftBeforeSave", "panic").status,
      204u);
  EXPECT_EQ(Ask(http::verb::get, "/raftBeforeSave").body, "panic\n");
}

TEST_F(DoorTest, ArmsSeveralOrNone) {
  EXPECT_EQ(Ask(http::verb::put, "/failpoints", "beforeCommit=print;afterCommit=off").status, 204u);
  EXPECT_EQ(registry_.TermsOf("beforeCommit"), "print");
  EXPECT_EQ(registry_.TermsOf("afterCommit"), "off");
  EXPECT_EQ(Ask(http::verb::put, "/failpoints", "raftBeforeSave=print;afterCommit=x").status, 400u);
  EXPECT_EQ(registry_.TermsOf("raftBeforeSave"), std::nullopt);
}

TEST_F(DoorTest, WhatIsWrongIsRefused) {
  EXPECT_EQ(Ask(http::verb::put, "/nonsense", "panic").status, 404u);
  const Response wrong = Ask(http::verb::put, "/beforeCommit", "boom");
  EXPECT_EQ(wrong.status, 400u);
  EXPECT_THAT(wrong.body, HasSubstr("\"boom\""));
  EXPECT_EQ(Ask(http::verb::post, "/beforeCommit", "panic").status, 405u);
  EXPECT_FALSE(Door::Open("nonsense", &registry_).ok());
  EXPECT_TRUE(absl::IsUnavailable(Door::Open("192.0.2.1:1", &registry_).status()));
}

TEST_F(DoorTest, PanicSaysWhereAndEndsTheProcess) {
  ASSERT_TRUE(registry_.ArmAll("raftAfterSave=panic").ok());
  registry_.Hit("raftAfterSave");
  EXPECT_EQ(panics_, 1);
  EXPECT_EQ(printed_, "failpoint panic: raftAfterSave\n");
}

TEST_F(DoorTest, ASleepEndsWhenItsFailpointIsDisarmed) {
  ASSERT_TRUE(registry_.ArmAll("raftBeforeSave=sleep(\"1h\")").ok());
  std::thread sleeper([this] { registry_.Hit("raftBeforeSave"); });
  while (registry_.EvaluationsOf("raftBeforeSave") == 0) std::this_thread::yield();
  EXPECT_EQ(Ask(http::verb::delete_, "/raftBeforeSave").status, 204u);
  sleeper.join();
}

}  // namespace
}  // namespace conclave::failpoint
