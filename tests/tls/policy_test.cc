#include "conclave/server/tls/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "conclave/server/tls/self_signed.h"
#include "conclave/server/tls/stream.h"
#include "conclave/tests/posix/temporary_directory.h"
#include "conclave/tests/support/authority.h"

namespace conclave::tls {
namespace {

using conclave::testing::Authority;
using ::testing::HasSubstr;

// Both ends of a connection, and what became of their handshake.
struct Pair {
  Pair(Policy* server, Policy* client, const std::string& host = "localhost",
       Speaks speaks = Speaks::kPeerStreams) {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    accepted = server->Accept(fds[0], speaks);
    dialled = client->Connect(fds[1], host);
    Pump();
  }
  ~Pair() {
    for (const int fd : fds) {
      if (fd >= 0) close(fd);
    }
  }

  void Pump() {
    constexpr int kRoundsMax = 20;
    for (int i = 0; i < kRoundsMax; ++i) {
      client = dialled->Handshake();
      server = accepted->Handshake();
      if (server == Stream::Step::kDone && client == Stream::Step::kDone) break;
      if (server == Stream::Step::kFailed && client == Stream::Step::kFailed) break;
    }
  }
  bool up() const { return server == Stream::Step::kDone && client == Stream::Step::kDone; }

  int fds[2] = {-1, -1};
  std::unique_ptr<Stream> accepted;
  std::unique_ptr<Stream> dialled;
  Stream::Step server{};
  Stream::Step client{};
};

class PolicyTest : public ::testing::Test {
 protected:
  Options Of(const Authority::Files& files) const {
    return {.cert_file = files.cert, .key_file = files.key, .ca_file = authority_.ca_file()};
  }
  std::unique_ptr<Policy> Make(const Options& options) {
    auto policy = Policy::Create(options, [this](Policy::Note note) { notes_.push_back(note); });
    EXPECT_TRUE(policy.ok()) << policy.status();
    return *std::move(policy);
  }
  static std::string Refusal(const Options& options) {
    return std::string(Policy::Create(options, [](const Policy::Note&) {}).status().message());
  }

  posix::TemporaryDirectory directory_;
  Authority authority_{directory_.path(), "ca"};
  Authority stranger_{directory_ / "strange", "stranger"};
  std::vector<Policy::Note> notes_;
};

TEST_F(PolicyTest, BothSidesProveThemselves) {
  Options options = Of(authority_.Issue({.name = "alice"}));
  options.client_cert_auth = true;
  const auto policy = Make(options);
  Pair pair(policy.get(), policy.get());
  ASSERT_TRUE(pair.up()) << pair.accepted->error() << pair.dialled->error();
  EXPECT_EQ(pair.accepted->certificate_name(), "alice");
}

TEST_F(PolicyTest, ANameIsNobodysUserWithoutClientCertAuth) {
  const auto policy = Make(Of(authority_.Issue({.name = "alice"})));
  Pair pair(policy.get(), policy.get());
  ASSERT_TRUE(pair.up());
  EXPECT_EQ(pair.accepted->certificate_name(), "");
}

TEST_F(PolicyTest, CarriesBytesBothWays) {
  const auto policy = Make(Of(authority_.Issue({.name = "alice"})));
  Pair pair(policy.get(), policy.get());
  ASSERT_TRUE(pair.up());
  const std::string text(100'000, 'x');
  size_t sent = 0;
  std::string got;
  char buffer[4096];
  while (got.size() < text.size()) {
    const ssize_t taken = pair.dialled->Write(std::string_view(text).substr(sent));
    ASSERT_GE(taken, 0);
    sent += static_cast<size_t>(taken);
    ASSERT_NE(pair.dialled->Flush(), Stream::Flushed::kBroken);
    for (;;) {
      const ssize_t count = pair.accepted->Read(buffer, sizeof buffer);
      if (count < 0) {
        ASSERT_EQ(errno, EAGAIN);
        break;
      }
      ASSERT_GT(count, 0);
      got.append(buffer, static_cast<size_t>(count));
    }
  }
  EXPECT_EQ(got, text);
  EXPECT_FALSE(pair.accepted->HasBuffered());
  pair.accepted->Shutdown();
  EXPECT_EQ(pair.dialled->Read(buffer, sizeof buffer), 0);
}

TEST_F(PolicyTest, TakesOnlyWhatFitsWhileTheSocketIsFull) {
  const auto policy = Make(Of(authority_.Issue({.name = "alice"})));
  Pair pair(policy.get(), policy.get());
  ASSERT_TRUE(pair.up());
  const std::string text(64 * 1024, 'x');
  constexpr int kWritesMax = 100;
  bool full = false;
  for (int i = 0; i < kWritesMax && !full; ++i) {
    full = pair.dialled->Write(text) < static_cast<ssize_t>(text.size());
    ASSERT_NE(pair.dialled->Flush(), Stream::Flushed::kBroken);
  }
  EXPECT_TRUE(full);
  constexpr size_t kRecordOverhead = 64 * 1024;
  EXPECT_LE(pair.dialled->unsent(), kUnsentBytesMax + kRecordOverhead);
}

TEST_F(PolicyTest, RefusesStrangersExpiredAndNobody) {
  const auto server = Make(Of(authority_.Issue({.name = "server"})));
  Options foreign = Of(stranger_.Issue({.name = "mallory"}));
  const auto mallory = Make(foreign);
  Pair strange(server.get(), mallory.get());
  EXPECT_EQ(strange.server, Stream::Step::kFailed);

  const auto late = Make(Of(authority_.Issue({.name = "late", .expired = true})));
  Pair expired(server.get(), late.get());
  EXPECT_EQ(expired.server, Stream::Step::kFailed);
  EXPECT_THAT(expired.accepted->error(), HasSubstr("expired"));

  // Presents itself to somebody who believes nobody it knows.
  Pair distrusted(mallory.get(), server.get());
  EXPECT_EQ(distrusted.client, Stream::Step::kFailed);
  EXPECT_THAT(distrusted.dialled->error(), HasSubstr("tls: failed to verify certificate"));
}

TEST_F(PolicyTest, TheServerMustBeTheHostThatWasDialled) {
  const auto server =
      Make(Of(authority_.Issue({.name = "server", .hosts = {"db.example.com", "10.1.2.3"}})));
  EXPECT_TRUE(Pair(server.get(), server.get(), "db.example.com").up());
  EXPECT_TRUE(Pair(server.get(), server.get(), "10.1.2.3").up());
  EXPECT_TRUE(Pair(server.get(), server.get(), "").up());
  EXPECT_EQ(Pair(server.get(), server.get(), "other.example.com").client, Stream::Step::kFailed);
  EXPECT_EQ(Pair(server.get(), server.get(), "10.1.2.4").client, Stream::Step::kFailed);
}

TEST_F(PolicyTest, RevokedCertificatesAreRefusedAtOnce) {
  const Authority::Files server_files = authority_.Issue({.name = "server"});
  const Authority::Files client_files = authority_.Issue({.name = "client"});
  Options options = Of(server_files);
  options.crl_file = authority_.crl_file();
  const auto server = Make(options);
  const auto client = Make(Of(client_files));
  Pair before(server.get(), client.get());
  ASSERT_TRUE(before.up());
  EXPECT_TRUE(server->StillAccepts(*before.accepted));

  authority_.Revoke(client_files);
  Pair after(server.get(), client.get());
  EXPECT_EQ(after.server, Stream::Step::kFailed);
  EXPECT_THAT(after.accepted->error(), HasSubstr("revoked"));
  EXPECT_GT(server->Refresh(), before.accepted->material_number());
  EXPECT_FALSE(server->StillAccepts(*before.accepted));
}

TEST_F(PolicyTest, AnotherAuthoritysSerialNumbersAreNotRevoked) {
  const Authority::Files server_files = authority_.Issue({.name = "server"});
  stranger_.Revoke(stranger_.Issue({.name = "client"}));
  Options options = Of(server_files);
  options.crl_file = stranger_.crl_file();
  const auto server = Make(options);
  EXPECT_TRUE(Pair(server.get(), server.get()).up());
}

TEST_F(PolicyTest, AllowedNames) {
  Options options = Of(authority_.Issue({.name = "member"}));
  options.allowed_names = {"member", "other"};
  const auto server = Make(options);
  const auto other = Make(Of(authority_.Issue({.name = "other"})));
  const auto intruder = Make(Of(authority_.Issue({.name = "intruder"})));
  EXPECT_TRUE(Pair(server.get(), server.get()).up());
  EXPECT_TRUE(Pair(server.get(), other.get()).up());
  Pair refused(server.get(), intruder.get());
  EXPECT_EQ(refused.server, Stream::Step::kFailed);
  EXPECT_EQ(refused.accepted->error(), "client certificate authentication failed");
}

TEST_F(PolicyTest, AllowedHostnames) {
  Options options = Of(authority_.Issue({.name = "server"}));
  options.allowed_hostnames = {"good.example.com", "10.0.0.7"};
  const auto server = Make(options);
  const auto good = Make(Of(authority_.Issue({.name = "a", .hosts = {"*.example.com"}})));
  const auto address = Make(Of(authority_.Issue({.name = "b", .hosts = {"10.0.0.7"}})));
  // The common name is not a host's name.
  const auto bad =
      Make(Of(authority_.Issue({.name = "good.example.com", .hosts = {"bad.example.org"}})));
  EXPECT_TRUE(Pair(server.get(), good.get()).up());
  EXPECT_TRUE(Pair(server.get(), address.get()).up());
  EXPECT_EQ(Pair(server.get(), bad.get()).server, Stream::Step::kFailed);
}

TEST_F(PolicyTest, TakesUpChangedFiles) {
  const Options options = Of(authority_.Issue({.name = "server", .hosts = {"one.example.com"}}));
  const auto policy = Make(options);
  ASSERT_TRUE(Pair(policy.get(), policy.get(), "one.example.com").up());
  authority_.Issue({.name = "server", .hosts = {"two.example.com"}});
  EXPECT_TRUE(Pair(policy.get(), policy.get(), "two.example.com").up());
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_FALSE(notes_[0].is_warning);
}

TEST_F(PolicyTest, TakesUpANewAuthority) {
  const auto server = Make(Of(authority_.Issue({.name = "server"})));
  Options client_options = Of(stranger_.Issue({.name = "client"}));
  client_options.ca_file = authority_.ca_file();
  // Copied to a file of its own, for it is the one that changes.
  Options server_options = server->options();
  server_options.ca_file = directory_ / "bundle.pem";
  std::filesystem::copy_file(authority_.ca_file(), server_options.ca_file);
  const auto changing = Make(server_options);
  const auto client = Make(client_options);
  EXPECT_EQ(Pair(changing.get(), client.get()).server, Stream::Step::kFailed);
  std::ofstream(server_options.ca_file, std::ios::app)
      << std::ifstream(stranger_.ca_file()).rdbuf();
  Pair pair(changing.get(), client.get());
  EXPECT_TRUE(pair.up()) << pair.accepted->error();
}

TEST_F(PolicyTest, KeepsTheOldFilesWhenTheNewOnesAreBroken) {
  const Options options = Of(authority_.Issue({.name = "server"}));
  const auto policy = Make(options);
  const std::string good = directory_ / "good.key";
  std::filesystem::copy_file(options.key_file, good);
  std::ofstream(options.key_file) << "garbage";
  EXPECT_TRUE(Pair(policy.get(), policy.get()).up());
  EXPECT_TRUE(Pair(policy.get(), policy.get()).up());
  ASSERT_EQ(notes_.size(), 1U) << "one line for one state of the files";
  EXPECT_TRUE(notes_[0].is_warning);
  EXPECT_THAT(notes_[0].fields[0].second, HasSubstr(options.key_file));
  std::filesystem::rename(good, options.key_file);
  const uint64_t before = 1;
  EXPECT_GT(policy->Refresh(), before);
}

TEST_F(PolicyTest, ChoosesTheProtocolByWhatTheClientCanDo) {
  // The dialling side of a Policy offers nothing, so that no protocol is agreed on.
  const auto policy = Make(Of(authority_.Issue({.name = "server"})));
  Pair pair(policy.get(), policy.get(), "localhost", Speaks::kHttp);
  ASSERT_TRUE(pair.up());
  EXPECT_EQ(pair.accepted->protocol(), "");
}

TEST_F(PolicyTest, VersionsAreKept) {
  Options options = Of(authority_.Issue({.name = "server"}));
  options.version_min = Version::kTls13;
  const auto modern = Make(options);
  options.version_min = Version::kTls12;
  options.version_max = Version::kTls12;
  const auto old = Make(options);
  EXPECT_TRUE(Pair(modern.get(), modern.get()).up());
  EXPECT_TRUE(Pair(old.get(), old.get()).up());
  EXPECT_EQ(Pair(modern.get(), old.get()).server, Stream::Step::kFailed);
}

TEST_F(PolicyTest, SuitesAreKept) {
  Options options = Of(authority_.Issue({.name = "server"}));
  options.version_max = Version::kTls12;
  options.cipher_suites = {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"};
  const auto one = Make(options);
  options.cipher_suites = {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"};
  const auto other = Make(options);
  EXPECT_TRUE(Pair(one.get(), one.get()).up());
  Pair pair(one.get(), other.get());
  EXPECT_EQ(pair.server, Stream::Step::kFailed);
  EXPECT_THAT(pair.accepted->error(), HasSubstr("no shared cipher"));
}

TEST_F(PolicyTest, RefusesWhatDoesNotFitTogether) {
  const Options good = Of(authority_.Issue({.name = "server"}));
  Options options = good;
  options.key_file.clear();
  EXPECT_THAT(Refusal(options), HasSubstr("KeyFile and CertFile must both be present"));
  options = good;
  options.client_cert_file = good.cert_file;
  EXPECT_THAT(Refusal(options),
              HasSubstr("ClientKeyFile and ClientCertFile must both be present or both absent"));
  options = good;
  options.allowed_names = {"a"};
  options.allowed_hostnames = {"b"};
  EXPECT_THAT(Refusal(options), HasSubstr("AllowedCN and AllowedHostname are mutually exclusive"));
  options = good;
  options.key_file = authority_.Issue({.name = "another"}).key;
  EXPECT_THAT(Refusal(options), HasSubstr("is not the key of the certificate in"));
  options = good;
  options.ca_file = directory_ / "absent";
  EXPECT_THAT(Refusal(options), HasSubstr("absent: cannot be read"));
  options = good;
  options.crl_file = good.cert_file;
  EXPECT_THAT(Refusal(options), HasSubstr("holds no list of revoked certificates"));
}

TEST_F(PolicyTest, GarbageEndsTheHandshake) {
  const auto policy = Make(Of(authority_.Issue({.name = "server"})));
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
  const auto stream = policy->Accept(fds[0], Speaks::kHttp);
  EXPECT_EQ(stream->Handshake(), Stream::Step::kWantRead);
  constexpr std::string_view kGarbage = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(write(fds[1], kGarbage.data(), kGarbage.size()), static_cast<ssize_t>(kGarbage.size()));
  EXPECT_EQ(stream->Handshake(), Stream::Step::kFailed);
  EXPECT_THAT(stream->error(), HasSubstr("tls: "));
  close(fds[0]);
  close(fds[1]);
}

TEST(SelfSignedTest, IsMadeOnceAndServesBothSides) {
  const posix::TemporaryDirectory directory;
  const auto made = KeepSelfSigned(directory / "fixtures/peer", {"localhost", "127.0.0.1"}, 1);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(made->is_new);
  const auto kept = KeepSelfSigned(directory / "fixtures/peer", {"localhost"}, 1);
  ASSERT_TRUE(kept.ok());
  EXPECT_FALSE(kept->is_new);
  const auto mode = std::filesystem::status(made->key_file).permissions();
  EXPECT_EQ(mode & std::filesystem::perms::all,
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);

  auto policy = Policy::Create(
      {.cert_file = made->cert_file, .key_file = made->key_file, .trust_any_server = true},
      [](const Policy::Note&) {});
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_TRUE(Pair(policy->get(), policy->get()).up());
  EXPECT_FALSE(KeepSelfSigned(directory / "other", {}, 0).ok());
}

}  // namespace
}  // namespace conclave::tls
