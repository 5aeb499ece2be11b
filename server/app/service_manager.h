// What a service manager is told of a program's life: systemd's notification protocol, one datagram
// to the socket that $NOTIFY_SOCKET names (sd_notify(3)).
#pragma once

#include <string_view>

namespace conclave::app {

// "READY=1", "STOPPING=1", "STATUS=...". Does nothing where nobody listens; false if somebody
// should, and could not be told.
bool NotifyServiceManager(std::string_view state);

}  // namespace conclave::app
