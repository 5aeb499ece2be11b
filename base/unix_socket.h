// Names of unix sockets, which outlive the process that bound them.
#pragma once

#include <string>

namespace conclave {

// Removes a socket that nobody listens on any more. False if somebody does, or if something else
// than a socket stands there: then the path cannot be bound.
bool RemoveStaleSocket(const std::string& path);

}  // namespace conclave
