#include "conclave/server/node/io.h"

namespace conclave::node {

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
}

}  // namespace conclave::node
