// `conclave snapshot status|restore`: files of etcd's, looked at and made into the data directory
// of a new cluster's member. What etcd's own etcdutl does, with its flags, texts and formats.
#pragma once

#include <span>
#include <string>

namespace conclave::app {

// `arguments` are those behind "snapshot". Writes to stdout and stderr; gives the exit code: 0, 1
// (it could not be done), 2 (wrong arguments).
int RunSnapshotCommand(std::span<const std::string> arguments);

}  // namespace conclave::app
