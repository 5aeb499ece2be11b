// Fuzzes the command line and the environment: one of them a line, variables begin with '$'.
// Whatever they say, the answer is a configuration or one clear line.
#include <map>

#include "absl/strings/str_split.h"
#include "conclave/base/check.h"
#include "conclave/server/app/flags.h"
#include "conclave/tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave::app;
  const std::string text(reinterpret_cast<const char*>(data), size);
  // A file of an arbitrary name is not read: it could be one that waits for its writer.
  if (text.find("onfig-file") != std::string::npos) return 0;
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;
  for (const auto& part : absl::StrSplit(text, '\n')) {
    const std::string line(part);
    const size_t equals = line.find('=');
    if (!line.starts_with('$')) {
      arguments.push_back(line);
    } else if (equals != std::string::npos && line.find("CONFIG_FILE") == std::string::npos) {
      environment[line.substr(1, equals - 1)] = line.substr(equals + 1);
    }
  }
  const auto parsed = ParseCommandLine(arguments, environment);
  if (!parsed.ok()) {
    CONCLAVE_CHECK(absl::IsInvalidArgument(parsed.status()), parsed.status().ToString());
    CONCLAVE_CHECK(!parsed.status().message().empty());
    CONCLAVE_CHECK(parsed.status().message().find('\n') == absl::string_view::npos);
    return 0;
  }
  if (parsed->help || parsed->version) return 0;
  const Config& config = parsed->config;
  CONCLAVE_CHECK(!config.name.empty() && !config.data_dir.empty());
  CONCLAVE_CHECK(!config.listen_client_urls.empty() && !config.advertise_client_urls.empty());
  CONCLAVE_CHECK(config.election_timeout >= 5 * config.heartbeat_interval);
  // Whoever lets the members find each other names himself alone.
  CONCLAVE_CHECK(config.discovery.token.empty() || config.initial_cluster.size() == 1);
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {
      "--name=m1\n--data-dir\n/var/lib/m1\n--listen-client-urls=http://127.0.0.1:2379\n"
      "--initial-cluster=m1=http://h:1,m2=http://[::1]:2\n--initial-cluster-state=existing",
      "-heartbeat-interval=0x10\n-election-timeout\n5_000\n--grpc-keepalive-min-time=1m30s",
      "--auto-compaction-mode=revision\n--auto-compaction-retention=1000\n--pre-vote=t",
      "$ETCD_NAME=m2\n$ETCD_LOG_LEVEL=debug\n$ETCD_NONSENSE=1\n--log-outputs=stdout,stderr",
      "--quota-backend-bytes=-1\n--feature-gates=AllAlpha=true,AllBeta=false\n--enable-pprof\n--",
  };
}
