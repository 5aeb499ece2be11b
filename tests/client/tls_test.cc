// The client over TLS and over unix sockets, against both servers.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "conclave/client/client.h"
#include "conclave/tests/posix/temporary_directory.h"
#include "conclave/tests/support/authority.h"
#include "conclave/tests/support/test_cluster.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using testing::Authority;
using testing::ChildProcess;
using testing::ServerKind;
using testing::WaitFor;

constexpr absl::Duration kPatience = absl::Seconds(30);
// For calls that must not succeed: long enough that they would.
constexpr absl::Duration kRefusal = absl::Seconds(2);

class TlsTest : public ::testing::TestWithParam<ServerKind> {
 protected:
  void SetUp() override {
    const auto binary = testing::ServerBinary(GetParam());
    if (!binary.ok()) GTEST_SKIP() << binary.status().message();
    binary_ = *binary;
    server_ = authority_.Issue({.name = "server"});
    alice_ = authority_.Issue({.name = "alice"});
  }

  // With mutual TLS on a port; ours also in plain text on a unix socket (etcd 3.4 takes no paths).
  void StartServer() {
    port_ = testing::FreePort();
    const std::string url = absl::StrCat("https://127.0.0.1:", port_);
    const std::string peer = absl::StrCat("http://127.0.0.1:", testing::FreePort());
    const std::string listen =
        GetParam() == ServerKind::kEtcd ? url : absl::StrCat(url, ",unix://", socket());
    std::vector<std::string> command = {binary_,
                                        "--name=m",
                                        "--data-dir=" + (directory_ / "data"),
                                        "--listen-client-urls=" + listen,
                                        "--advertise-client-urls=" + url,
                                        "--listen-peer-urls=" + peer,
                                        "--initial-advertise-peer-urls=" + peer,
                                        "--initial-cluster=m=" + peer,
                                        "--cert-file=" + server_.cert,
                                        "--key-file=" + server_.key,
                                        "--trusted-ca-file=" + authority_.ca_file(),
                                        "--client-cert-auth"};
    auto process = ChildProcess::Start(command);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
    ASSERT_TRUE(WaitFor([&] { return Put(Alice(), absl::Seconds(1)).ok(); }, kPatience))
        << process_->Output();
  }

  std::string socket() const { return directory_ / "socket"; }
  TlsOptions Alice() const {
    return {.ca_file = authority_.ca_file(), .cert_file = alice_.cert, .key_file = alice_.key};
  }
  absl::StatusOr<Client> Connect(std::optional<TlsOptions> tls, std::string scheme = "") const {
    return Client::Connect({.endpoints = {absl::StrCat(scheme, "127.0.0.1:", port_)},
                            .tls = std::move(tls),
                            .log_sink = [](LogLevel, std::string_view) {}});
  }
  absl::Status Put(std::optional<TlsOptions> tls, absl::Duration timeout) const {
    auto client = Connect(std::move(tls));
    if (!client.ok()) return client.status();
    return client->Put("k", "v", {}, {.timeout = timeout}).status();
  }

  posix::TemporaryDirectory directory_;
  Authority authority_{directory_.path(), "ca"};
  Authority stranger_{directory_ / "strange", "stranger"};
  std::string binary_;
  Authority::Files server_;
  Authority::Files alice_;
  int port_ = 0;
  std::unique_ptr<ChildProcess> process_;
};

TEST_P(TlsTest, BothSidesAreChecked) {
  StartServer();
  auto client = Connect(Alice(), "https://");
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(client->Put("a", "1").ok());
  EXPECT_EQ((*client->Get("a"))->value, "1");

  TlsOptions wrong = Alice();
  wrong.ca_file = stranger_.ca_file();
  EXPECT_FALSE(Put(wrong, kRefusal).ok()) << "the server is nobody the client believes";
  wrong = Alice();
  wrong.cert_file.clear();
  wrong.key_file.clear();
  EXPECT_FALSE(Put(wrong, kRefusal).ok()) << "no certificate";
  EXPECT_FALSE(Put(std::nullopt, kRefusal).ok()) << "plain text";
  wrong = Alice();
  wrong.server_name = "other.example.com";
  EXPECT_FALSE(Put(wrong, kRefusal).ok()) << "another name";
}

TEST_P(TlsTest, TheServersNameMayBeGivenOrLeftUnchecked) {
  server_ = authority_.Issue({.name = "server", .hosts = {"other.example.com"}});
  alice_ = authority_.Issue({.name = "alice"});
  TlsOptions named = Alice();
  named.server_name = "other.example.com";
  TlsOptions unchecked = Alice();
  unchecked.ca_file.clear();
  unchecked.insecure_skip_verify = true;
  const std::string ca = authority_.ca_file();
  port_ = testing::FreePort();
  const std::string url = absl::StrCat("https://127.0.0.1:", port_);
  const std::string peer = absl::StrCat("http://127.0.0.1:", testing::FreePort());
  auto process = ChildProcess::Start(
      {binary_, "--name=m", "--data-dir=" + (directory_ / "data"), "--listen-client-urls=" + url,
       "--advertise-client-urls=" + url, "--listen-peer-urls=" + peer,
       "--initial-advertise-peer-urls=" + peer, "--initial-cluster=m=" + peer,
       "--cert-file=" + server_.cert, "--key-file=" + server_.key, "--trusted-ca-file=" + ca,
       "--client-cert-auth"});
  ASSERT_TRUE(process.ok()) << process.status();
  ASSERT_TRUE(WaitFor([&] { return Put(named, absl::Seconds(1)).ok(); }, kPatience))
      << (*process)->Output();
  EXPECT_TRUE(Put(unchecked, kPatience).ok());
  EXPECT_FALSE(Put(Alice(), kRefusal).ok());
}

TEST_P(TlsTest, NewFilesAreTakenUpByARunningClient) {
  StartServer();
  const std::string cert = directory_ / "current.crt";
  const std::string key = directory_ / "current.key";
  const Authority::Files mallory = stranger_.Issue({.name = "mallory"});
  std::filesystem::copy_file(mallory.cert, cert);
  std::filesystem::copy_file(mallory.key, key);
  auto client =
      Connect(TlsOptions{.ca_file = authority_.ca_file(), .cert_file = cert, .key_file = key});
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_FALSE(client->Put("k", "v", {}, {.timeout = kRefusal}).ok());
  const auto replace = std::filesystem::copy_options::overwrite_existing;
  std::filesystem::copy_file(alice_.key, key, replace);
  std::filesystem::copy_file(alice_.cert, cert, replace);
  EXPECT_TRUE(WaitFor([&] { return client->Put("k", "v", {}, {.timeout = absl::Seconds(1)}).ok(); },
                      kPatience));
}

TEST_P(TlsTest, UnixSockets) {
  if (GetParam() == ServerKind::kEtcd) GTEST_SKIP() << "etcd 3.4 takes no path of a socket";
  StartServer();
  auto client = Client::Connect({.endpoints = {"unix://" + socket()}});
  ASSERT_TRUE(client.ok()) << client.status();
  const auto put = client->Put("u", "1");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ((*client->Get("u"))->value, "1");
}

INSTANTIATE_TEST_SUITE_P(Servers, TlsTest,
                         ::testing::Values(ServerKind::kEtcd, ServerKind::kConclave),
                         [](const auto& info) {
                           return info.param == ServerKind::kEtcd ? "etcd" : "conclave";
                         });

TEST(TlsOptionsTest, WhatDoesNotFitTogetherIsRefused) {
  const auto code = [](const ConnectOptions& options) {
    return Client::Connect(options).status().code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code({.endpoints = {"h:1"}, .tls = TlsOptions{.cert_file = "/dev/null"}}), kInvalid);
  EXPECT_EQ(code({.endpoints = {"h:1"}, .tls = TlsOptions{.ca_file = "/no/such/file"}}), kInvalid);
  EXPECT_EQ(code({.endpoints = {"http://h:1"}, .tls = TlsOptions{}}), kInvalid);
  EXPECT_EQ(code({.endpoints = {"http://h:1", "https://h:2"}}), kInvalid);
  EXPECT_EQ(code({.endpoints = {"https://h:1"}}), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace conclave
