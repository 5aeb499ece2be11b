// All recipes of coordination.
#pragma once

#include "conclave/coordination/barrier.h"         // IWYU pragma: export
#include "conclave/coordination/counter.h"         // IWYU pragma: export
#include "conclave/coordination/cron.h"            // IWYU pragma: export
#include "conclave/coordination/double_barrier.h"  // IWYU pragma: export
#include "conclave/coordination/group.h"           // IWYU pragma: export
#include "conclave/coordination/queue.h"           // IWYU pragma: export
