// What the tests of the picking channel have in common: a registry, backends, load.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "conclave/client/client.h"
#include "conclave/discovery/picking/channel.h"
#include "conclave/registry/instance.h"
#include "conclave/tests/discovery/picking/echo_backend.h"
#include "conclave/tests/discovery/picking/echo_calls.h"
#include "conclave/tests/discovery/service_fixture.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

// Callers in every style at full speed; what failed is kept.
class EchoLoad {
 public:
  EchoLoad(const std::shared_ptr<grpc::ChannelInterface>& channel, std::vector<Style> styles,
           EchoOptions options = {}) {
    for (const Style& style : styles) {
      threads_.emplace_back([this, channel, style, options] {
        auto stub = Echo::NewStub(channel);
        while (!stop_) {
          const Echoed echoed = style.call(*stub, options);
          ++calls_;
          if (echoed.status.ok()) continue;
          std::lock_guard lock(mutex_);
          failures_.push_back(style.name + ": " + std::to_string(echoed.status.error_code()) + " " +
                              echoed.status.error_message());
        }
      });
    }
  }
  ~EchoLoad() { Finish(); }

  void Finish() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  // Waits for so many more calls.
  void Progress(int calls) {
    const int goal = calls_ + calls;
    EXPECT_TRUE(WaitFor([&] { return calls_ >= goal; }, absl::Seconds(60)));
  }
  int calls() const { return calls_; }
  std::vector<std::string> failures() {
    std::lock_guard lock(mutex_);
    return failures_;
  }

 private:
  std::atomic<bool> stop_ = false;
  std::atomic<int> calls_ = 0;
  std::mutex mutex_;
  std::vector<std::string> failures_;
  std::vector<std::thread> threads_;
};

class PickingFixture : public ServiceFixture {
 protected:
  static void Put(const Client& client, const Instance& instance) {
    PutInstance(client, Name(), instance);
  }
  static void Put(const Client& client, const EchoBackend& backend) {
    Put(client, Instance{.address = backend.address()});
  }
  static void Delete(const Client& client, const std::string& address) {
    DeleteInstance(client, Name(), address);
  }
  template <typename Source>
  static std::shared_ptr<grpc::ChannelInterface> MustDial(const Source& source,
                                                          const PickingOptions& options = {}) {
    auto channel = DialPicking(source, Name(), grpc::InsecureChannelCredentials(), options);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return channel.ok() ? *channel : nullptr;
  }
  static picking::PickingStats Stats(const grpc::ChannelInterface& channel) {
    auto stats = ChannelStats(channel);
    EXPECT_TRUE(stats.ok()) << stats.status();
    return *std::move(stats);
  }
  static int Ready(const grpc::ChannelInterface& channel) {
    int ready = 0;
    for (const auto& backend : Stats(channel).backends) {
      ready += backend.state == picking::BackendState::kReady ? 1 : 0;
    }
    return ready;
  }
  static void WaitReady(const grpc::ChannelInterface& channel, int count) {
    ASSERT_TRUE(WaitFor([&] { return Ready(channel) == count; }, absl::Seconds(20)))
        << Ready(channel) << " of " << count;
  }
  static picking::BackendStats StatsOf(const grpc::ChannelInterface& channel,
                                       const std::string& address) {
    for (const auto& backend : Stats(channel).backends) {
      if (backend.address == address) return backend;
    }
    return {};
  }
};

}  // namespace conclave::testing
