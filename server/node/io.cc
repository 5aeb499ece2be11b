#include "conclave/server/node/io.h"

#include "conclave/server/node/server_itself.h"

namespace conclave::node {

const CredentialsRef& ServerItself() {
  static const auto* const kItself = new CredentialsRef([] {
    auto itself = std::make_shared<Credentials>();
    itself->server_itself = true;
    return itself;
  }());
  return *kItself;
}

void Effects::Clear() {
  replies.clear();
  streams.clear();
  peer_sends.clear();
  append.reset();
  snapshot_pieces.clear();
  truncate.reset();
  peers.reset();
  distrusted.clear();
  password_jobs.clear();
  directory.reset();
  log_lines.clear();
  stats_replies.clear();
  ready = false;
  stopped = false;
  diverged = false;
  reload = false;
  check_files = false;
  defragmented = false;
}

}  // namespace conclave::node
