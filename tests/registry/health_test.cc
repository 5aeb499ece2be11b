// Health in the registry: thresholds, step by step; a check of one's own; a gRPC server's own word.
#include "conclave/registry/health.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/base/check.h"
#include "conclave/registry/grpc/health.h"
#include "conclave/registry/grpc/server.h"
#include "conclave/registry/health_damper.h"
#include "conclave/registry/registry.h"
#include "conclave/tests/client/core/fake_transport.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::seconds;
using testing::AllServers;
using testing::ServerName;
using testing::ServerUnderTest;
using testing::WaitFor;

constexpr absl::Duration kLong = absl::Seconds(20);

// ---- Thresholds
// ------------------------------------------------------------------------------------

class HealthDamperTest : public testing::EngineFixture {
 protected:
  std::shared_ptr<HealthDamper> Make(HealthDamper::Options options) {
    return std::make_shared<HealthDamper>(engine_, options, [this](const absl::Status& verdict) {
      verdicts_ += verdict.ok() ? 'U' : 'D';
    });
  }
  void Report(HealthDamper& damper, const std::string& checks) {
    for (char check : checks) {
      damper.Report(check == '+' ? absl::OkStatus() : absl::UnavailableError("bad"));
    }
  }
  std::string verdicts_;
};

TEST_F(HealthDamperTest, OnlyARowOfChecksTurnsIt) {
  auto damper = Make({.fall = 3, .rise = 2});
  Report(*damper, "+");
  EXPECT_EQ(verdicts_, "U") << "the first good check counts at once";
  Report(*damper, "--+--+-+--+");
  EXPECT_EQ(verdicts_, "U") << "never three bad ones in a row";
  Report(*damper, "---");
  EXPECT_EQ(verdicts_, "UD");
  Report(*damper, "+-+-+-");
  EXPECT_EQ(verdicts_, "UD") << "never two good ones in a row";
  Report(*damper, "++");
  EXPECT_EQ(verdicts_, "UDU");
}

TEST_F(HealthDamperTest, IsDownUntilTheFirstGoodCheckAndSaysWhyOnce) {
  auto damper = Make({.fall = 3, .rise = 2});
  Report(*damper, "----");
  EXPECT_EQ(verdicts_, "D");
  EXPECT_FALSE(damper->up());
  Report(*damper, "+");
  EXPECT_EQ(verdicts_, "DU");
}

TEST_F(HealthDamperTest, RisesOnlyAfterAQuietWhile) {
  auto damper = Make({.fall = 1, .rise = 1, .hold = seconds(2)});
  Report(*damper, "+-+");
  EXPECT_EQ(verdicts_, "UD");
  Go(seconds(1));
  Report(*damper, "-+");
  Go(seconds(1));
  EXPECT_EQ(verdicts_, "UD") << "the bad one began the while anew";
  Go(seconds(1));
  EXPECT_EQ(verdicts_, "UDU");
  Report(*damper, "-+");
  damper->Stop();
  Go(seconds(3));
  EXPECT_EQ(verdicts_, "UDUD") << "after Stop nothing comes";
}

// ---- In the registry
// -------------------------------------------------------------------------------

class HealthTest : public ::testing::TestWithParam<ServerUnderTest> {
 protected:
  void SetUp() override {
    CONCLAVE_SHARED_CLUSTER(cluster, GetParam());
    absl::StatusOr<Client> client = Client::Connect({.endpoints = cluster->endpoints()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    service_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    service_ = service_.substr(0, service_.find('/'));
  }
  Registration MustRegister(RegistrationOptions options) {
    auto registration =
        Registry(*client_).Register({.service = service_, .address = "h:1"}, std::move(options));
    EXPECT_TRUE(registration.ok()) << registration.status();
    return registration.ok() ? *std::move(registration) : Registration();
  }
  // What readers see of the instance; nothing if it is not there.
  std::optional<InstanceState> Shown() {
    auto kv = client_->Get(InstanceKey(service_, "h:1"));
    if (!kv.ok() || !kv->has_value()) return std::nullopt;
    auto instance = DecodeNamingValue((*kv)->value);
    return instance.ok() ? std::optional(instance->state) : std::nullopt;
  }
  bool Becomes(InstanceState state) {
    return WaitFor([&] { return Shown() == state; }, kLong);
  }

  std::optional<Client> client_;
  std::string service_;
};

TEST_P(HealthTest, ACheckOfOnesOwnIsMirrored) {
  std::atomic<bool> well = false;
  std::atomic<bool> on_callback_thread = false;
  std::thread::id callbacks;
  std::atomic<bool> known = false;
  client_->RunOnCallbackThread([&] {
    callbacks = std::this_thread::get_id();
    known = true;
  });
  ASSERT_TRUE(WaitFor([&] { return known.load(); }));
  Registration registration =
      MustRegister({.health = CustomCheck(
                        [&] {
                          if (std::this_thread::get_id() == callbacks) on_callback_thread = true;
                          return well ? absl::OkStatus() : absl::UnavailableError("no database");
                        },
                        {.interval = absl::Milliseconds(20), .fall = 2, .rise = 2})});
  ASSERT_TRUE(registration.WaitRegistered(kLong).ok());
  EXPECT_TRUE(Becomes(InstanceState::kDown)) << "not before the first good check";
  EXPECT_TRUE(WaitFor([&] { return registration.status().message() == "no database"; }));
  EXPECT_EQ(registration.state(), RegState::kRegistered);
  well = true;
  EXPECT_TRUE(Becomes(InstanceState::kServing));
  EXPECT_TRUE(WaitFor([&] { return registration.status().ok(); }));
  well = false;
  EXPECT_TRUE(Becomes(InstanceState::kDown));
  // It stays down over a repair, and Update does not bring it up.
  ASSERT_TRUE(client_->Delete(InstanceKey(service_, "h:1")).ok());
  EXPECT_TRUE(Becomes(InstanceState::kDown));
  EXPECT_TRUE(registration.Update([](Instance& instance) { instance.weight = 3; }).ok());
  EXPECT_TRUE(WaitFor([&] {
    auto kv = client_->Get(InstanceKey(service_, "h:1"));
    return kv.ok() && kv->has_value() && (*kv)->value.find("\"weight\":3") != std::string::npos;
  }));
  EXPECT_EQ(Shown(), InstanceState::kDown);
  EXPECT_FALSE(on_callback_thread);
}

TEST_P(HealthTest, ACheckThatHangsIsABadOneAndTheEndWaitsForIt) {
  std::mutex mutex;
  std::condition_variable bell;
  bool hang = false;
  std::atomic<bool> hanging = false;
  auto check = [&] {
    std::unique_lock lock(mutex);
    hanging = hang;
    bell.wait(lock, [&] { return !hang; });
    hanging = false;
    return absl::OkStatus();
  };
  Registration registration =
      MustRegister({.health = CustomCheck(check, {.interval = absl::Milliseconds(20),
                                                  .timeout = absl::Milliseconds(50)})});
  EXPECT_TRUE(Becomes(InstanceState::kServing));
  {
    std::lock_guard lock(mutex);
    hang = true;
  }
  EXPECT_TRUE(Becomes(InstanceState::kDown));
  EXPECT_TRUE(WaitFor([&] { return absl::IsDeadlineExceeded(registration.status()); }));
  std::atomic<bool> ended = false;
  ASSERT_TRUE(WaitFor([&] { return hanging.load(); }));
  std::thread end([&] {
    { Registration last = std::move(registration); }
    ended = true;
  });
  EXPECT_FALSE(ended);
  {
    std::lock_guard lock(mutex);
    hang = false;
  }
  bell.notify_all();
  end.join();
  EXPECT_FALSE(hanging);
}

TEST_P(HealthTest, ARegistrationMayEndInsideItsOwnCheck) {
  std::optional<Registration> registration;
  std::mutex mutex;
  std::atomic<bool> over = false;
  {
    std::lock_guard lock(mutex);
    registration = MustRegister({.health = CustomCheck(
                                     [&] {
                                       std::lock_guard lock(mutex);
                                       registration.reset();
                                       over = true;
                                       return absl::OkStatus();
                                     },
                                     {.interval = absl::Milliseconds(10)})});
  }
  EXPECT_TRUE(WaitFor([&] { return over.load(); }));
  EXPECT_TRUE(WaitFor([&] { return Shown() == std::nullopt; }));
}

TEST_P(HealthTest, AnUnreasonableCheckIsRefused) {
  Registry registry(*client_);
  const auto refused = [&](HealthCheck health) {
    return absl::IsInvalidArgument(
        registry.Register({.service = service_, .address = "h:1"}, {.health = std::move(health)})
            .status());
  };
  const auto good = [] { return absl::OkStatus(); };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused(CustomCheck(nullptr)));
  EXPECT_TRUE(refused(CustomCheck(good, {.interval = absl::ZeroDuration()})));
  EXPECT_TRUE(refused(CustomCheck(good, {.timeout = absl::InfiniteDuration()})));
  EXPECT_TRUE(refused(CustomCheck(good, {.fall = 0})));
  EXPECT_TRUE(refused(CustomCheck(good, {.hold = -absl::Seconds(1)})));
}

// A gRPC server with nothing but its own health service.
class HealthyServer {
 public:
  explicit HealthyServer(const std::string& address = "127.0.0.1:0") {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    builder.RegisterCallbackGenericService(&none_);  // a server wants some service
    server_ = builder.BuildAndStart();
    CONCLAVE_CHECK(server_ != nullptr, "cannot listen on ", address);
  }
  ~HealthyServer() { server_->Shutdown(std::chrono::system_clock::now()); }
  grpc::Server& operator*() { return *server_; }
  grpc::Server* operator->() { return server_.get(); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  int port_ = 0;
  grpc::CallbackGenericService none_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_P(HealthTest, AGrpcServersHealthIsMirrored) {
  HealthyServer server;
  server->GetHealthCheckService()->SetServingStatus("greeter", false);
  Registration registration = MustRegister(
      {.health = GrpcHealth(*server, {.service = "greeter", .hold = absl::ZeroDuration()})});
  EXPECT_TRUE(Becomes(InstanceState::kDown));
  EXPECT_TRUE(WaitFor([&] {
    return registration.status().message().find("NOT_SERVING") != std::string_view::npos;
  }));
  server->GetHealthCheckService()->SetServingStatus("greeter", true);
  EXPECT_TRUE(Becomes(InstanceState::kServing));
  server->GetHealthCheckService()->SetServingStatus("greeter", false);
  EXPECT_TRUE(Becomes(InstanceState::kDown));
  // The order of leaving ends the watch before the server waits for it.
  GracefulStop(*server, {&registration},
               {.notice = absl::Milliseconds(1), .settle = absl::Milliseconds(1)});
  EXPECT_EQ(Shown(), std::nullopt);
}

TEST_P(HealthTest, AServerThatIsGoneIsDownAndItsReturnIsSeen) {
  auto server = std::make_unique<HealthyServer>();
  const std::string address = server->address();
  Registration registration =
      MustRegister({.health = GrpcHealth(address, {.poll_interval = absl::Milliseconds(50),
                                                   .hold = absl::ZeroDuration()})});
  EXPECT_TRUE(Becomes(InstanceState::kServing));
  server = nullptr;
  EXPECT_TRUE(Becomes(InstanceState::kDown));
  server = std::make_unique<HealthyServer>(address);
  EXPECT_TRUE(Becomes(InstanceState::kServing));
}

// A server of the health protocol that knows Check only, as many do.
class CheckOnly : public grpc::CallbackGenericService {
 public:
  std::atomic<int> status = 1;  // SERVING
  std::atomic<bool> none = false;

 private:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    class Reactor : public grpc::ServerGenericBidiReactor {
     public:
      Reactor(bool known, int status) {
        const std::string text = {'\x08', static_cast<char>(status)};
        const grpc::Slice slice(text);
        response_ = grpc::ByteBuffer(&slice, 1);
        if (known) {
          StartRead(&request_);
        } else {
          Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no such method"));
        }
      }
      void OnReadDone(bool) override {
        StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
      }
      void OnDone() override { delete this; }

     private:
      grpc::ByteBuffer request_;
      grpc::ByteBuffer response_;
    };
    return new Reactor(!none && context->method() == "/grpc.health.v1.Health/Check", status);
  }
};

TEST_P(HealthTest, AServerWithoutWatchIsPolledAndOneWithoutHealthIsHealthy) {
  CheckOnly service;
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterCallbackGenericService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  {
    Registration registration = MustRegister(
        {.health =
             GrpcHealth(absl::StrCat("127.0.0.1:", port),
                        {.poll_interval = absl::Milliseconds(20), .hold = absl::ZeroDuration()})});
    EXPECT_TRUE(Becomes(InstanceState::kServing));
    service.status = 2;  // NOT_SERVING
    EXPECT_TRUE(Becomes(InstanceState::kDown));
    service.none = true;
    EXPECT_TRUE(Becomes(InstanceState::kServing));
  }
  server->Shutdown();
}

TEST_P(HealthTest, RunUntilSignalStopsAServerInTheRightOrder) {
  HealthyServer server;
  Registration registration = MustRegister({.health = GrpcHealth(*server)});
  ASSERT_TRUE(Becomes(InstanceState::kServing));
  std::mutex mutex;
  std::vector<std::string> seen;
  auto now = client_->Range("none");
  ASSERT_TRUE(now.ok()) << now.status();
  Watch watch =
      client_->Watch(InstanceKey(service_, "h:1"), {.from_revision = now->revision + 1},
                     [&](const WatchBatch& batch) {
                       std::lock_guard lock(mutex);
                       for (const WatchEvent& event : batch.events) {
                         if (event.type == WatchEvent::Type::kDelete) {
                           seen.push_back("deleted");
                         } else if (event.kv.value.find("draining") != std::string::npos) {
                           seen.push_back("draining");
                         }
                       }
                     });
  std::stop_source stop;
  stop.request_stop();
  bool there_at_shutdown = true;
  EXPECT_EQ(
      RunUntilSignal(*server, {&registration},
                     {.notice = absl::Milliseconds(200),
                      .settle = absl::Milliseconds(1),
                      .shutdown = [&](absl::Duration) { there_at_shutdown = Shown().has_value(); }},
                     stop.get_token()),
      0);
  EXPECT_FALSE(there_at_shutdown);
  EXPECT_EQ(registration.state(), RegState::kGone);
  EXPECT_TRUE(WaitFor([&] {
    std::lock_guard lock(mutex);
    return seen == std::vector<std::string>{"draining", "deleted"};
  }));
  // The server is down: nobody listens on its port any more.
  auto channel = grpc::CreateChannel(server.address(), grpc::InsecureChannelCredentials());
  EXPECT_FALSE(
      channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::milliseconds(300)));
}

INSTANTIATE_TEST_SUITE_P(Servers, HealthTest, ::testing::ValuesIn(AllServers()), ServerName);

}  // namespace
}  // namespace conclave
