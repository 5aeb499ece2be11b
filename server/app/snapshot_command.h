// `conclave snapshot save|status|restore`: files of etcd's: taken off a member, looked at, and made
// into the data directory of a new cluster's member. What etcdctl and etcdutl do, with their flags,
// texts and formats.
#pragma once

#include <span>
#include <string>

namespace conclave::app {

// `arguments` are those behind "snapshot". Writes to stdout and stderr; gives the exit code: 0, 1
// (it could not be done), 2 (wrong arguments).
int RunSnapshotCommand(std::span<const std::string> arguments);

}  // namespace conclave::app
