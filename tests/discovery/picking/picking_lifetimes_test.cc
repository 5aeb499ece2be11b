// Picking channels that come and go with calls under way, in random order. For the sanitizers.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/tests/discovery/picking/picking_fixture.h"

namespace conclave {
namespace {

using testing::Echo;
using testing::EchoBackend;
using testing::ServerUnderTest;
using testing::WaitFor;

class PickingLifetimesTest : public testing::PickingFixture {};

// A call that owns all it needs, and ends by itself.
struct LooseCall : grpc::ClientUnaryReactor {
  void OnDone(const grpc::Status&) override {
    std::atomic<int>* const left = under_way;
    // The stub, and perhaps with it the channel's last owner, goes on gRPC's own thread.
    delete this;
    --*left;
  }
  std::unique_ptr<Echo::Stub> stub;
  grpc::ClientContext context;
  testing::EchoRequest request;
  testing::EchoReply reply;
  std::atomic<int>* under_way = nullptr;
};

TEST_P(PickingLifetimesTest, AThousandChannelsEndWithCallsUnderWay) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  Client client = Connect(*cluster);
  const Discovery discovery(client);
  std::vector<std::unique_ptr<EchoBackend>> backends;
  for (int i = 0; i < 3; ++i) {
    backends.push_back(std::make_unique<EchoBackend>());
    Put(client, *backends.back());
  }
  std::atomic<int> under_way = 0;
  constexpr int kThreads = 4;
  constexpr int kChannels = 250;  // per thread
  const auto live = [&](uint64_t seed) {
    Prng prng(seed);
    for (int i = 0; i < kChannels; ++i) {
      PickingOptions options;
      if (prng.Chance(1, 2)) options.policy = picking::LeastRequest{};
      if (prng.Chance(1, 4)) options.policy = picking::RingHash{.header = "x-user"};
      if (prng.Chance(1, 4)) options.outlier = picking::Outlier{.consecutive_failures = 1};
      auto channel = MustDial(discovery, options);
      if (prng.Chance(1, 2)) {
        channel->WaitForConnected(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
      }
      std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
      std::vector<
          std::unique_ptr<grpc::ClientReaderWriter<testing::EchoRequest, testing::EchoReply>>>
          streams;
      const auto stub = Echo::NewStub(channel);
      for (uint64_t n = prng.Below(4); n > 0; --n) {
        switch (prng.Below(4)) {
          case 0: {
            contexts.push_back(std::make_unique<grpc::ClientContext>());
            streams.push_back(stub->Chat(contexts.back().get()));
            if (prng.Chance(1, 2)) streams.back()->Write({});
            break;
          }
          case 1: {
            auto* call = new LooseCall;
            call->stub = Echo::NewStub(channel);
            call->under_way = &under_way;
            ++under_way;
            call->context.set_deadline(
                absl::ToChronoTime(absl::Now() + absl::Milliseconds(prng.Between(0, 50))));
            call->request.set_pause_ms(static_cast<int>(prng.Below(20)));
            call->stub->async()->Unary(&call->context, &call->request, &call->reply, call);
            call->StartCall();
            break;
          }
          case 2:
            (void)testing::BlockingUnary(*stub, {.user = std::to_string(i)});
            break;
          default:
            EXPECT_TRUE(ChannelStats(*channel).ok());
        }
      }
      channel.reset();  // the stub has it still, or the loose call
      for (size_t k = 0; k < streams.size(); ++k) {
        if (prng.Chance(1, 2)) contexts[k]->TryCancel();
        if (prng.Chance(1, 2)) (void)streams[k]->WritesDone();
      }
    }
  };
  // Meanwhile the set changes all the time.
  std::atomic<bool> stop = false;
  std::thread churn([&] {
    for (int i = 0; !stop; ++i) {
      Put(client, Instance{.address = backends[i % 3]->address(), .weight = i % 7});
      if (i % 5 == 0) Delete(client, backends[0]->address());
    }
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(live, i + 1);
  for (std::thread& thread : threads) thread.join();
  stop = true;
  churn.join();
  EXPECT_TRUE(WaitFor([&] { return under_way == 0; }));
}

TEST_P(PickingLifetimesTest, TheLastOwnerMayGoWithACallUnderWayWhichIsFinished) {
  CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
  EchoBackend backend;
  std::unique_ptr<grpc::ClientContext> context = std::make_unique<grpc::ClientContext>();
  std::unique_ptr<grpc::ClientReaderWriter<testing::EchoRequest, testing::EchoReply>> stream;
  {
    Client client = Connect(*cluster);
    Put(client, backend);
    auto channel = MustDial(client);
    WaitReady(*channel, 1);
    stream = Echo::NewStub(channel)->Chat(context.get());
  }  // channel, discovery and client are gone
  testing::EchoReply reply;
  EXPECT_TRUE(stream->Write({}));
  EXPECT_TRUE(stream->Read(&reply));
  EXPECT_EQ(reply.backend(), backend.address());
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

INSTANTIATE_TEST_SUITE_P(Servers, PickingLifetimesTest,
                         ::testing::ValuesIn(testing::SingleServers()), testing::ServerName);

}  // namespace
}  // namespace conclave
