// Waiting in the examples: for a signal from outside, or just for some time.
#pragma once

#include "absl/time/time.h"

namespace conclave::examples {

// Blocks SIGINT and SIGTERM for this thread and those it starts. Call it first in main(), so that
// WaitForSignal is the one place where they arrive.
void BlockSignals();

// Waits for SIGINT or SIGTERM; true if one came within the time. So it is a pause, too.
bool WaitForSignal(absl::Duration timeout = absl::InfiniteDuration());

}  // namespace conclave::examples
