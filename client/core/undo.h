// Takes back what a write may have done whose outcome its caller never learnt.
//
// A request that got no answer in time may have been carried out, or may be later: it can still be
// on its way. Whoever has told his caller "not done" removes the traces, now and once more when
// nothing of it can arrive any longer.
#pragma once

#include <memory>

#include "conclave/client/core/session_core.h"
#include "conclave/client/core/types.h"

namespace conclave {

// A server forgets a request after its own timeout (5 s and two elections): what has no answer
// cannot take effect later than this.
inline constexpr Duration kStrayMax = std::chrono::seconds(12);

// `undo` must only take back what is of that write, so that it does no harm at any time. Repeated
// until it was answered; ends with the session, whose lease takes the write along.
// Thread: the engine's.
void UndoStray(std::shared_ptr<SessionCore> session, TxnRequest undo);

}  // namespace conclave
