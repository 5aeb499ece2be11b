// All kinds of locks.
#pragma once

#include "conclave/lock/guard.h"            // IWYU pragma: export
#include "conclave/lock/multi_lock.h"       // IWYU pragma: export
#include "conclave/lock/mutex.h"            // IWYU pragma: export
#include "conclave/lock/reentrant_mutex.h"  // IWYU pragma: export
#include "conclave/lock/rw_mutex.h"         // IWYU pragma: export
#include "conclave/lock/semaphore.h"        // IWYU pragma: export
#include "conclave/lock/wait_queue.h"       // IWYU pragma: export
