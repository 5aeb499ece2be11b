// Fuzzes the config file. Whatever the bytes, the answer is a configuration or one clear line.
#include "conclave/base/check.h"
#include "conclave/server/app/flags/config_file.h"
#include "conclave/tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave::app;
  // Longer ones show nothing new, and the parser takes its time for them.
  constexpr size_t kBytesMax = 4096;
  Config config;
  std::vector<std::string> warnings;
  const absl::Status status =
      ApplyConfigText({reinterpret_cast<const char*>(data), std::min(size, kBytesMax)}, "fuzz.yml",
                      &config, &warnings);
  if (!status.ok()) {
    CONCLAVE_CHECK(absl::IsInvalidArgument(status), status.ToString());
    CONCLAVE_CHECK(status.message().find("fuzz.yml") != absl::string_view::npos, status.ToString());
    return 0;
  }
  const absl::Status complete = Complete(&config);
  CONCLAVE_CHECK(complete.ok() || absl::IsInvalidArgument(complete), complete.ToString());
  CONCLAVE_CHECK(!complete.ok() || (!config.name.empty() && !config.listen_client_urls.empty()));
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {
      "name: m1\ndata-dir: /var/lib/m1\nlisten-client-urls: http://127.0.0.1:2379\n"
      "initial-cluster: m1=http://h:1,m2=http://h:2\ninitial-cluster-state: existing\n",
      "heartbeat-interval: 100\nelection-timeout: 1000\ngrpc-keepalive-min-time: 5000000000\n"
      "grpc-keepalive-interval: 2h\nauto-compaction-mode: revision\n"
      "auto-compaction-retention: '1000'\nquota-backend-bytes: -1\n",
      "client-transport-security:\n  cert-file:\n  client-cert-auth: false\n"
      "peer-transport-security: {auto-tls: false, allowed-cn: ~}\n",
      "{\"name\": \"m2\", \"log-outputs\": [\"stdout\", \"stderr\"], \"log-level\": \"debug\"}",
      "a: &x [1, 2]\nb: *x\n? c\n: |\n  text\n<<: {d: e}\nfeature-gates: AllAlpha=true\n---\nz: "
      "1\n",
  };
}
