// The same command lines, given to this server and to etcd: both take them, or both refuse them.
//
// With --version a server parses all its flags and ends, so nothing has to be started.
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "conclave/tests/app/server_process.h"

namespace conclave::testing {
namespace {

using Arguments = std::vector<std::string>;

// Whether it ends with 0.
bool Takes(ServerKind kind, Arguments arguments) {
  arguments.push_back("--version");
  const auto binary = ServerBinary(kind);
  EXPECT_TRUE(binary.ok()) << binary.status();
  arguments.insert(arguments.begin(), *binary);
  auto process = ChildProcess::Start(arguments, {});
  EXPECT_TRUE(process.ok()) << process.status();
  return (*process)->Wait().value_or(-1) == 0;
}

class FlagsParityTest : public ::testing::TestWithParam<Arguments> {};

TEST_P(FlagsParityTest, BothServersSayTheSame) {
  if (!ServerBinary(ServerKind::kEtcd).ok()) GTEST_SKIP() << "there is no etcd here";
  EXPECT_EQ(Takes(ServerKind::kConclave, GetParam()), Takes(ServerKind::kEtcd, GetParam()))
      << absl::StrJoin(GetParam(), " ");
}

INSTANTIATE_TEST_SUITE_P(
    Taken, FlagsParityTest,
    ::testing::Values(
        Arguments{}, Arguments{"-name", "x"}, Arguments{"-name=x"}, Arguments{"--name", "x"},
        Arguments{"--name=x", "--name=y"}, Arguments{"--name="}, Arguments{"--pre-vote"},
        Arguments{"--pre-vote=T"}, Arguments{"--force-new-cluster=false"},
        Arguments{"--heartbeat-interval=0x64"}, Arguments{"--heartbeat-interval=1_00"},
        Arguments{"--election-timeout", "010000"}, Arguments{"--snapshot-count=100"},
        Arguments{"--max-snapshots=3", "--max-wals=0"}, Arguments{"--quota-backend-bytes=-1"},
        Arguments{"--grpc-keepalive-min-time=1h0m0s"}, Arguments{"--grpc-keepalive-timeout=1.5s"},
        Arguments{"--grpc-keepalive-interval=1m30s"}, Arguments{"--max-concurrent-streams=100"},
        Arguments{"--auto-compaction-retention=5m"}, Arguments{"--auto-compaction-mode=revision"},
        Arguments{"--experimental-watch-progress-notify-interval=1m"},
        Arguments{"--experimental-compaction-batch-limit=10"},
        Arguments{"--experimental-initial-corrupt-check"},
        Arguments{"--experimental-warning-apply-duration=1s"},
        Arguments{"--backend-batch-interval=100ms"}, Arguments{"--backend-batch-limit=10"},
        Arguments{"--enable-pprof"}, Arguments{"--enable-v2=false"}, Arguments{"--logger=zap"},
        Arguments{"--log-outputs=stderr,stdout"}, Arguments{"--log-level=warn"},
        Arguments{"--metrics=extensive"}, Arguments{"--strict-reconfig-check=false"},
        Arguments{"--initial-election-tick-advance=0"},
        Arguments{"--initial-cluster-state=existing"},
        Arguments{"--listen-client-urls=http://127.0.0.1:1,http://127.0.0.1:2"},
        Arguments{"--listen-metrics-urls=http://127.0.0.1:1"}, Arguments{"--listen-client-urls="},
        Arguments{"--listen-metrics-urls="}, Arguments{"--advertise-client-urls="},
        Arguments{"--discovery-fallback=proxy"}, Arguments{"--config-file=/nonexistent"},
        Arguments{"--initial-cluster=a=http://h:1,a=http://h:2"}, Arguments{"--proxy=off"}));

INSTANTIATE_TEST_SUITE_P(
    Refused, FlagsParityTest,
    ::testing::Values(
        Arguments{"--nonsense"}, Arguments{"--nonsense=1"}, Arguments{"---name=x"},
        Arguments{"--=x"}, Arguments{"--pre-vote=2"}, Arguments{"--pre-vote=yes"},
        Arguments{"--heartbeat-interval=fast"}, Arguments{"--heartbeat-interval=-5"},
        Arguments{"--heartbeat-interval=1.5"}, Arguments{"--heartbeat-interval="},
        Arguments{"--heartbeat-interval=08"}, Arguments{"--grpc-keepalive-min-time=5"},
        Arguments{"--grpc-keepalive-min-time=5 s"}, Arguments{"--grpc-keepalive-min-time=1d"},
        Arguments{"--max-wals=many"}, Arguments{"--quota-backend-bytes=9223372036854775808"},
        Arguments{"--listen-client-urls=nonsense"}, Arguments{"--listen-client-urls=ftp://h:1"},
        Arguments{"--listen-client-urls=http://h:1/path"}, Arguments{"--initial-cluster-state=old"},
        Arguments{"--proxy=sideways"}, Arguments{"--enable-pprof=maybe"},
        Arguments{"--experimental-name=x"}));

}  // namespace
}  // namespace conclave::testing
