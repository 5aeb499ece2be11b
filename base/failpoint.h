// Failpoints: named places where a test may stop, delay or end the process (server/failpoint). They
// exist in builds with -DCONCLAVE_FAILPOINTS=ON only; elsewhere the macro is nothing at all.
//
//   CONCLAVE_FAILPOINT(raftBeforeSave);
//
// Every name stands in server/failpoint/names.h too.
#pragma once

#ifdef CONCLAVE_FAILPOINTS

#include <atomic>

namespace conclave {

// Called with the name, on the thread that comes by; null until failpoints are set up.
inline std::atomic<void (*)(const char* name)> failpoint_hook{nullptr};

}  // namespace conclave

#define CONCLAVE_FAILPOINT(name)                                                              \
  do {                                                                                        \
    if (auto* hook = ::conclave::failpoint_hook.load(std::memory_order_acquire)) hook(#name); \
  } while (false)

#else

#define CONCLAVE_FAILPOINT(name) static_cast<void>(0)

#endif
