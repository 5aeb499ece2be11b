// DnsServer: answers SRV questions on a UDP port of 127.0.0.1, from a table that the test changes.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace conclave::testing {

class DnsServer {
 public:
  struct Record {
    uint16_t priority = 0;
    uint16_t port = 0;
    std::string host{};
  };

  DnsServer() : socket_(socket(AF_INET, SOCK_DGRAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    const timeval timeout{.tv_sec = 0, .tv_usec = 20'000};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    thread_ = std::thread([this] { Serve(); });
  }
  ~DnsServer() {
    ending_ = true;
    thread_.join();
    close(socket_);
  }
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  // "127.0.0.1:port"
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Set(const std::string& name, std::vector<Record> records) {
    std::lock_guard lock(mutex_);
    table_[name] = std::move(records);
  }
  void set_silent(bool silent) { silent_ = silent; }
  // What stands where the records should be; empty: the records.
  void set_garbage(std::string bytes) {
    std::lock_guard lock(mutex_);
    garbage_ = std::move(bytes);
  }
  int questions() const { return questions_; }

 private:
  static void Put16(std::string& out, int value) {
    out.push_back(static_cast<char>(value >> 8));
    out.push_back(static_cast<char>(value));
  }
  static std::string Name(const std::string& dotted) {
    std::string out;
    size_t begin = 0;
    while (begin < dotted.size()) {
      size_t end = dotted.find('.', begin);
      if (end == std::string::npos) end = dotted.size();
      out.push_back(static_cast<char>(end - begin));
      out += dotted.substr(begin, end - begin);
      begin = end + 1;
    }
    out.push_back('\0');
    return out;
  }

  std::string AnswerTo(const std::string& question) {
    constexpr size_t kHeader = 12;
    std::string name;
    size_t at = kHeader;
    while (at < question.size() && question[at] != 0) {
      const auto length = static_cast<size_t>(static_cast<unsigned char>(question[at]));
      name += (name.empty() ? "" : ".") + question.substr(at + 1, length);
      at += length + 1;
    }
    at += 1 + 4;  // the root, type and class
    if (at > question.size()) return {};
    std::lock_guard lock(mutex_);
    auto found = table_.find(name);
    const size_t count = found == table_.end() ? 0 : found->second.size();
    std::string answer = question.substr(0, 2);              // its id
    Put16(answer, found == table_.end() ? 0x8183 : 0x8180);  // no such name, or fine
    Put16(answer, 1);
    Put16(answer, static_cast<int>(garbage_.empty() ? count : 3));
    Put16(answer, 0);
    Put16(answer, 0);
    answer += question.substr(kHeader, at - kHeader);
    if (!garbage_.empty()) return answer + garbage_;
    for (size_t i = 0; i < count; ++i) {
      const Record& record = found->second[i];
      const std::string host = Name(record.host);
      Put16(answer, 0xc00c);  // the name asked for
      Put16(answer, 33);      // SRV
      Put16(answer, 1);
      answer += std::string("\0\0\0\x01", 4);  // a second to live
      Put16(answer, static_cast<int>(6 + host.size()));
      Put16(answer, record.priority);
      Put16(answer, 0);
      Put16(answer, record.port);
      answer += host;
    }
    return answer;
  }

  void Serve() {
    while (!ending_) {
      std::string question(1500, '\0');
      sockaddr_in from{};
      socklen_t size = sizeof(from);
      const ssize_t got = recvfrom(socket_, question.data(), question.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
      if (got < 12) continue;
      ++questions_;
      if (silent_) continue;
      question.resize(static_cast<size_t>(got));
      const std::string answer = AnswerTo(question);
      (void)sendto(socket_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from),
                   size);
    }
  }

  const int socket_;
  int port_ = 0;
  std::atomic<bool> ending_ = false;
  std::atomic<bool> silent_ = false;
  std::atomic<int> questions_ = 0;
  std::mutex mutex_;
  std::map<std::string, std::vector<Record>> table_;  // guarded by mutex_
  std::string garbage_;                               // guarded by mutex_
  std::thread thread_;
};

}  // namespace conclave::testing
