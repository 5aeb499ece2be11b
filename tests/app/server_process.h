// What the tests of the real binary share: a server of one member, raw connections, exit codes.
#pragma once

#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

inline std::string Binary() { return *ServerBinary(ServerKind::kConclave); }

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "conclave-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A connection that sends bytes and gives back everything until the other side closes.
inline std::string Exchange(int port, const std::string& bytes, bool half_close = true) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  timeval timeout{15, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  if (!bytes.empty()) {
    EXPECT_GT(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
  }
  if (half_close) shutdown(fd, SHUT_WR);
  std::string reply;
  char buffer[4096];
  ssize_t got = 0;
  while ((got = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    reply.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return reply;
}

inline std::string Get(int port, const std::string& target, const std::string& method = "GET") {
  return Exchange(
      port, absl::StrCat(method, " ", target, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
      false);
}

inline int PortOf(const std::string& endpoint) {
  return std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
}

inline bool Put(const std::string& endpoint, const std::string& key, const std::string& value,
                std::chrono::milliseconds deadline = std::chrono::seconds(2)) {
  auto stub =
      etcdserverpb::KV::NewStub(grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + deadline);
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  etcdserverpb::PutResponse response;
  return stub->Put(&context, request, &response).ok();
}

inline std::map<std::string, std::string> ReadAll(const std::string& endpoint) {
  auto stub =
      etcdserverpb::KV::NewStub(grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  etcdserverpb::RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  etcdserverpb::RangeResponse response;
  const grpc::Status status = stub->Range(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::map<std::string, std::string> all;
  for (const auto& kv : response.kvs()) all[kv.key()] = kv.value();
  return all;
}

struct Outcome {
  int code = -1;
  std::string output;
};

inline Outcome RunToEnd(std::vector<std::string> flags,
                        const std::vector<std::string>& environment = {}) {
  flags.insert(flags.begin(), Binary());
  auto process = ChildProcess::Start(flags, environment);
  EXPECT_TRUE(process.ok()) << process.status();
  auto code = (*process)->Wait();
  EXPECT_TRUE(code.ok()) << code.status();
  return {code.value_or(-1), (*process)->Output()};
}

// A member of one, on free ports, in a directory of its own.
class SingleServer {
 public:
  explicit SingleServer(std::string data_dir, std::vector<std::string> extra = {},
                        int client_port = FreePort(), int peer_port = FreePort())
      : client_port_(client_port), peer_port_(peer_port) {
    flags_ = {Binary(),
              absl::StrCat("--data-dir=", data_dir),
              absl::StrCat("--listen-client-urls=http://127.0.0.1:", client_port_),
              absl::StrCat("--listen-peer-urls=http://127.0.0.1:", peer_port_),
              "--heartbeat-interval=50",
              "--election-timeout=500"};
    flags_.insert(flags_.end(), extra.begin(), extra.end());
  }
  void Start() {
    auto process = ChildProcess::Start(flags_);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
  }
  bool WaitReady() {
    return WaitFor(
        [&] { return Output().find("ready to serve client requests") != std::string::npos; });
  }
  std::string Output() const { return process_->Output(); }
  std::string endpoint() const { return absl::StrCat("127.0.0.1:", client_port_); }

  int client_port_;
  int peer_port_;
  std::vector<std::string> flags_;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace conclave::testing
