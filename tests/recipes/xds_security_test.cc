// --listen-xds-urls over TLS: who gets in is settled by the client port's certificates, and what he
// sees by what the user of his certificate's name may read.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/support/sync_stream.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/discovery/xds/resources.h"
#include "conclave/discovery/xds/xds.pb.h"
#include "conclave/tests/support/authority.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {
namespace {

using ::testing::HasSubstr;

// Hears of a service's endpoints, as a gRPC client would; without the rest of xDS.
class EndpointListener {
 public:
  EndpointListener(const std::string& address,
                   std::shared_ptr<grpc::ChannelCredentials> credentials,
                   const std::string& service)
      : channel_(grpc::CreateChannel(address, std::move(credentials))) {
    const grpc::internal::RpcMethod method(
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        grpc::internal::RpcMethod::BIDI_STREAMING, channel_);
    context_.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(40)));
    stream_.reset(Factory::Create(channel_.get(), method, &context_));
    xds::DiscoveryRequest request;
    request.set_type_url(std::string(xds::kEndpointType));
    request.add_resource_names(service);
    stream_->Write(request);
  }
  ~EndpointListener() {
    context_.TryCancel();
    if (!over_) stream_->Finish();
  }

  // How many instances the next message tells of; none if the stream has ended instead.
  std::optional<int> Next() {
    xds::DiscoveryResponse response;
    if (!stream_->Read(&response)) {
      over_ = true;
      status_ = stream_->Finish();
      return std::nullopt;
    }
    xds::DiscoveryRequest ack;
    ack.set_type_url(response.type_url());
    ack.set_response_nonce(response.nonce());
    ack.set_version_info(response.version_info());
    int instances = 0;
    for (const auto& resource : response.resources()) {
      xds::ClusterLoadAssignment assignment;
      EXPECT_TRUE(assignment.ParseFromString(resource.value()));
      ack.add_resource_names(assignment.cluster_name());
      for (const auto& locality : assignment.endpoints()) instances += locality.lb_endpoints_size();
    }
    stream_->Write(ack);
    return instances;
  }
  // Until a message tells of so many.
  bool Hears(int instances) {
    for (std::optional<int> next = Next(); next.has_value(); next = Next()) {
      if (*next == instances) return true;
    }
    return false;
  }
  const grpc::Status& status() const { return status_; }

 private:
  using Stream = grpc::ClientReaderWriter<xds::DiscoveryRequest, xds::DiscoveryResponse>;
  using Factory =
      grpc::internal::ClientReaderWriterFactory<xds::DiscoveryRequest, xds::DiscoveryResponse>;

  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
  grpc::Status status_;
  bool over_ = false;
};

class XdsSecurityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!ServerBinary(ServerKind::kConclave).ok()) GTEST_SKIP() << "there is no server here";
    directory_ = absl::StrCat(::testing::TempDir(), "conclave-xds-tls-", getpid());
    std::filesystem::create_directories(directory_);
    authority_ = std::make_unique<Authority>(directory_, "ca");
    server_ = authority_->Issue({.name = "server"});
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Start(std::vector<std::string> more) {
    std::vector<std::string> flags = {"--listen-xds-urls=https://127.0.0.1:0",
                                      "--cert-file=" + server_.cert, "--key-file=" + server_.key};
    flags.insert(flags.end(), more.begin(), more.end());
    auto cluster = TestCluster::Start(
        TestCluster::Options{.kind = ServerKind::kConclave, .members = 1, .extra_flags = flags});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    Ctl({"put", "blue/1", R"({"Op":0,"Addr":"10.0.0.1:1"})"});
    Ctl({"put", "red/1", R"({"Op":0,"Addr":"10.0.0.2:1"})"});
  }
  void Ctl(std::vector<std::string> command) {
    const auto done = Etcdctl(*cluster_, std::move(command));
    ASSERT_TRUE(done.ok()) << done.status();
  }
  // As root, once authentication is on.
  void RootCtl(std::vector<std::string> command) {
    command.push_back("--user=root:pw");
    Ctl(std::move(command));
  }

  std::string Address() const {
    std::ifstream file(cluster_->log_path(0));
    for (std::string line; std::getline(file, line);) {
      if (line.find("serving xDS clients securely") == std::string::npos) continue;
      const size_t begin = line.find("127.0.0.1:");
      return line.substr(begin, line.find('"', begin) - begin);
    }
    ADD_FAILURE() << "it does not serve xDS";
    return "";
  }

  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  std::shared_ptr<grpc::ChannelCredentials> Shown(const Authority::Files& files) const {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = Read(authority_->ca_file());
    if (!files.cert.empty()) {
      options.pem_cert_chain = Read(files.cert);
      options.pem_private_key = Read(files.key);
    }
    return grpc::SslCredentials(options);
  }

  std::string directory_;
  std::unique_ptr<Authority> authority_;
  Authority::Files server_;
  std::unique_ptr<TestCluster> cluster_;
};

TEST_F(XdsSecurityTest, WithTlsAloneEverybodySeesEverything) {
  Start({});
  EndpointListener listener(Address(), Shown({}), "blue");
  EXPECT_TRUE(listener.Hears(1));
  EndpointListener in_plain_text(Address(), grpc::InsecureChannelCredentials(), "blue");
  EXPECT_EQ(in_plain_text.Next(), std::nullopt);
}

TEST_F(XdsSecurityTest, ACertificateIsJudgedAsOnTheClientPort) {
  const Authority::Files alice = authority_->Issue({.name = "alice"});
  const Authority::Files bob = authority_->Issue({.name = "bob"});
  const Authority::Files elsewhere =
      authority_->Issue({.name = "elsewhere", .hosts = {"elsewhere.example"}});
  authority_->Revoke(bob);
  Authority stranger(directory_, "stranger");
  Start({"--trusted-ca-file=" + authority_->ca_file(),
         "--client-crl-file=" + authority_->crl_file(),
         "--client-cert-allowed-hostname=localhost"});
  EndpointListener listener(Address(), Shown(alice), "blue");
  EXPECT_TRUE(listener.Hears(1));
  for (const Authority::Files& refused :
       {Authority::Files{}, bob, elsewhere, stranger.Issue({.name = "mallory"})}) {
    EndpointListener outside(Address(), Shown(refused), "blue");
    EXPECT_EQ(outside.Next(), std::nullopt) << refused.cert;
    EXPECT_EQ(outside.status().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
}

TEST_F(XdsSecurityTest, ANewCertificateIsShownWithoutARestart) {
  Start({});
  EndpointListener before(Address(), Shown({}), "blue");
  EXPECT_TRUE(before.Hears(1));
  // From now on only whoever believes the other authority gets in.
  Authority other(directory_, "other");
  const Authority::Files files = other.Issue({.name = "server2"});
  std::filesystem::rename(files.key, server_.key);
  std::filesystem::rename(files.cert, server_.cert);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = Read(other.ca_file());
  EXPECT_TRUE(WaitFor(
      [&] {
        EndpointListener after(Address(), grpc::SslCredentials(options), "blue");
        return after.Hears(1);
      },
      absl::Seconds(60)));
}

TEST_F(XdsSecurityTest, WhatAUserMayReadHeSees) {
  const Authority::Files alice = authority_->Issue({.name = "alice"});
  const Authority::Files nobody = authority_->Issue({.name = "nobody"});
  Start({"--trusted-ca-file=" + authority_->ca_file(), "--client-cert-auth"});
  Ctl({"user", "add", "root:pw"});
  Ctl({"user", "grant-role", "root", "root"});
  Ctl({"user", "add", "alice:pw"});
  Ctl({"role", "add", "blues"});
  Ctl({"role", "grant-permission", "blues", "read", "--prefix", "blue/"});
  Ctl({"user", "grant-role", "alice", "blues"});
  EndpointListener early(Address(), Shown(nobody), "blue");
  EXPECT_TRUE(early.Hears(1)) << "as long as nobody is asked";
  Ctl({"auth", "enable"});

  EXPECT_TRUE(early.Hears(0)) << "what was seen is taken away";
  EndpointListener blue(Address(), Shown(alice), "blue");
  EXPECT_TRUE(blue.Hears(1));
  EndpointListener red(Address(), Shown(alice), "red");
  EXPECT_EQ(red.Next(), 0);
  RootCtl({"put", "blue/2", R"({"Op":0,"Addr":"10.0.0.3:1"})"});
  EXPECT_TRUE(blue.Hears(2)) << "and what comes is heard";

  RootCtl({"role", "grant-permission", "blues", "read", "--prefix", "red/"});
  EXPECT_TRUE(red.Hears(1));
  RootCtl({"user", "revoke-role", "alice", "blues"});
  EXPECT_TRUE(red.Hears(0));
  EXPECT_THAT(Read(cluster_->log_path(0)), HasSubstr("may not see red"));
}

}  // namespace
}  // namespace conclave::testing
