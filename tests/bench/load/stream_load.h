// Load on streams: keep-alives in ping-pong, and watchers that count what they are told.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conclave/tests/bench/load/connections.h"
#include "conclave/tests/bench/load/report.h"

namespace conclave::bench {

// One lease and one stream per client; the next keep-alive goes out when the last one was answered.
Report RunKeepAlive(int clients, double seconds, Connections* connections);

// `watchers` watchers of one key, spread over `streams` streams, while one client puts that key for
// `seconds`, as fast as all watchers have heard of the last put. Latency: from sending the put to
// the last watcher's event.
Report RunWatch(int watchers, int streams, double seconds, Connections* connections);

}  // namespace conclave::bench
